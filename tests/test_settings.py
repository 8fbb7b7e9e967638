"""TOML from outside: what is read, and what is refused in a line."""

from pathlib import Path

import pytest

from sepnet.errors import SepnetError
from sepnet.settings import parse_toml, read_toml


def test_a_byte_order_mark_is_no_part_of_the_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_bytes(b"\xef\xbb\xbfepochs = 3\n")
    assert read_toml(file, "recipe file") == {"epochs": 3}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"epochs = {'[' * 1000}{']' * 1000}", "nested too deeply"),
        (f"epochs = {'{a=' * 1000}1{'}' * 1000}", "nested too deeply"),
        (f"epochs = {'9' * 5000}", "is not TOML"),
        ("epochs = ", "is not TOML"),
    ],
    ids=["arrays", "tables", "digits", "no value"],
)
def test_text_that_cannot_be_parsed_is_refused_in_a_line(text: str, message: str) -> None:
    with pytest.raises(SepnetError, match=rf"^mine\.toml .*{message}[^\n]*$"):
        parse_toml(text, "mine.toml")
