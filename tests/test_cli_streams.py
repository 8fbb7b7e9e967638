"""The command line on streams that are closed, full, or in an encoding that lacks our characters."""

import io
import json
import os
import subprocess
import sys

import pytest

from sepnet import api
from sepnet.cli import streams
from sepnet.cli.app import run
from tests.cli_support import Captured

SEPNET = f'"{sys.executable}" -m sepnet'
posix = pytest.mark.skipif(os.name == "nt", reason="a shell and /dev/full are POSIX's")


def _shell(command: str, **variables: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        command, shell=True, capture_output=True, timeout=300, check=False, env={**os.environ, **variables}
    )


@posix
@pytest.mark.parametrize(
    ("redirection", "code", "message"),
    [
        (">&-", 74, b"sepnet: error: standard output cannot be written: it is closed"),
        (">/dev/full", 74, b"sepnet: error: standard output could not be written: No space left on device\n"),
        (">&- 2>&-", 74, b""),
        (">/dev/full 2>/dev/full", 74, b""),
        ("2>&-", 0, b""),
        ("2>/dev/full", 0, b""),
        ("<&-", 0, b""),
    ],
)
def test_a_result_that_cannot_be_written_is_no_broken_rule(redirection: str, code: int, message: bytes) -> None:
    done = _shell(f"{SEPNET} --version {redirection}")
    assert done.returncode == code
    assert done.stderr.startswith(message)
    assert done.stderr.count(b"\n") == bool(message)
    assert done.stdout.startswith(b"sepnet " if code == 0 else b"")


@posix
def test_an_error_that_cannot_be_written_keeps_its_exit_code() -> None:
    assert _shell(f"{SEPNET} --nonsense 2>/dev/full").returncode == 2
    assert _shell(f"{SEPNET} --nonsense 2>&-").returncode == 2


@pytest.mark.slow
@posix
def test_a_message_on_an_ascii_stream() -> None:
    done = _shell(f"{SEPNET} summary ±×é", PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr.startswith(rb"sepnet: error: unknown network '+/-x\xe9'")


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "latin-1", "utf-8"])
def test_what_an_encoding_has_is_kept_and_what_it_lacks_is_plain(encoding: str) -> None:
    written = io.BytesIO()
    with io.TextIOWrapper(written, encoding, streams.ERRORS, write_through=True) as stream:
        text = "".join(streams.PLAIN) + "ä中\udcff"
        stream.write(text)
        shown = written.getvalue().decode(encoding)
    for character in text:
        fits = character.encode(encoding, "ignore") != b""
        expected = character if fits else streams.PLAIN.get(character) or ascii(character)[1:-1]
        assert shown.startswith(expected)
        shown = shown.removeprefix(expected)
    assert not shown


def test_an_error_in_sepnet_is_no_broken_rule(capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError("of\ntwo lines")

    monkeypatch.setattr(api, "check", fail)
    assert run(["check", "base"]) == 70
    assert capsys.readouterr().err == (
        "sepnet: internal error: ZeroDivisionError: of two lines; run again with --traceback and report it\n"
    )


@pytest.mark.parametrize("form", ["--format=json", "--format json"])
def test_errors_are_json_where_the_result_would_be(form: str, capsys: Captured) -> None:
    assert run(["check", "bse", *form.split()]) == 2
    captured = capsys.readouterr()
    error = {"error": "unknown network 'bse': did you mean 'base'?", "exit_code": 2}
    assert (captured.out, json.loads(captured.err)) == ("", error)


EMPTY = [
    (["train", "base", "--name", ""], "--name is empty"),
    (["train", "base", "--data="], "--data is empty"),
    (["compare", "base", "champion", "--out", " "], "--out is empty"),
    (["predict", "champion", ""], "an argument is empty"),
    (["data", "fetch", "cifar10", "--source", ""], "--source is empty"),
    (["evaluate", "", "--format=json"], "an argument is empty"),
]


@pytest.mark.parametrize(("arguments", "message"), EMPTY, ids=[" ".join(arguments) for arguments, _ in EMPTY])
def test_an_empty_argument_is_a_mistake(arguments: list[str], message: str, capsys: Captured) -> None:
    assert run(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert message in captured.err
    assert captured.err.count("\n") == 1
