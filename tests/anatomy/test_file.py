"""An anatomy in a run's folder."""

from pathlib import Path

import pytest

from sepnet.anatomy import trace
from sepnet.anatomy.file import dump, load
from sepnet.errors import SepnetError
from sepnet.networks import NETWORKS, build
from sepnet.rules import PRESETS, Rules, check


@pytest.mark.parametrize("network", NETWORKS)
def test_what_is_read_is_what_was_written(network: str) -> None:
    anatomy = trace(build(network), name=network)
    again = load(dump(anatomy), source="a run")
    assert again == anatomy
    for rules in (PRESETS["assignment"], Rules(strict=True, receptive_field_at_least=9, activation_bytes_below=10**9)):
        assert check(again, rules) == check(anatomy, rules)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"network": "n", "input": 3}', '{"layers": [{"name": 1}]}'])
def test_another_file_is_named(text: str, tmp_path: Path) -> None:
    with pytest.raises(SepnetError, match=r"'runs/x/anatomy.json' is not the anatomy of a run .*delete it"):
        load(text, source="runs/x/anatomy.json")
