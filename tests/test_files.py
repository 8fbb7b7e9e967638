"""Reading regular files only, and writing a file whole or not at all."""

import os
import socket
from pathlib import Path

import pytest

from sepnet.errors import SepnetError
from sepnet.files import open_regular, read_file, read_text, remove_partial_files, write_atomically

pytestmark = pytest.mark.skipif(os.name == "nt", reason="pipes and links are POSIX's")


def test_only_regular_files_are_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
    (tmp_path / "link").symlink_to(tmp_path / "pipe")
    for name, kind in {"pipe": "a named pipe", "link": "a named pipe", "socket": "a socket", ".": "a folder"}.items():
        with pytest.raises(SepnetError, match=f"is {kind}: expected a regular file"):
            read_file(tmp_path / name)
    with pytest.raises(SepnetError, match="is a device"):
        open_regular("/dev/zero")
    for missing in (tmp_path / "absent", tmp_path / "a\0b", tmp_path / ("n" * 300), tmp_path / "pipe" / "below"):
        with pytest.raises(SepnetError, match=r"does not exist|could not be read"):
            read_file(missing)


def test_a_link_is_followed_only_where_it_may_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"\xef\xbb\xbftext")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    assert read_text(tmp_path / "link") == "text"
    with pytest.raises(SepnetError, match="is a symbolic link: expected a regular file"):
        read_file(tmp_path / "link", follow_links=False)
    (tmp_path / "file").write_bytes(b"\xff")
    with pytest.raises(SepnetError, match="is not text in UTF-8"):
        read_text(tmp_path / "file")


def test_writing_replaces_a_link_and_leaves_what_it_leads_to(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text("theirs")
    (tmp_path / "file").symlink_to(tmp_path / "elsewhere")
    write_atomically(tmp_path / "file", "ours")
    assert (tmp_path / "elsewhere").read_text() == "theirs"
    assert (tmp_path / "file").read_text() == "ours"
    assert not (tmp_path / "file").is_symlink()


def test_what_cannot_be_replaced_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").mkdir()
    with pytest.raises(SepnetError, match="could not be written"):
        write_atomically(tmp_path / "file", "ours")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_only_partial_files_of_our_own_are_removed(tmp_path: Path) -> None:
    kept = ["notes.partial", ".notes-12.partial", "history.csv"]
    for name in [".history.csv-0123456789abcdef.partial", *kept]:
        (tmp_path / name).write_text("")
    (tmp_path / ".config.toml-0123456789abcdef.partial").mkdir()
    remove_partial_files(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {*kept, ".config.toml-0123456789abcdef.partial"}
