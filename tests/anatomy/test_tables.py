"""The three forms of a summary."""

import json

import pytest
from torch import nn

from sepnet.anatomy import Layer, to_json, to_markdown, to_text, trace
from sepnet.networks import NETWORKS, build
from sepnet.notices import wrapped


@pytest.mark.slow
@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("width", [60, 80, 100, 140])
def test_text_keeps_to_its_width_and_cuts_no_number(network: str, width: int) -> None:
    anatomy = trace(build(network), name=network)
    text = to_text(anatomy, width)
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    assert "\x1b" not in text
    for layer in anatomy.layers:
        assert f"{layer.macs:,}" in text


def test_text_shows_share_and_totals() -> None:
    text = to_text(trace(build("published"), name="published"))
    assert "74×74 100%" in text
    assert "parameters: 96,009 (93,865 trainable, 2,144 non-trainable)" in text


def test_json_is_the_documents_form() -> None:
    anatomy = trace(build("base"), name="base")
    document = json.loads(to_json(anatomy))
    assert document == anatomy.to_dict()
    assert list(document) == ["network", "input", "layers", "totals"]
    assert document["input"] == [3, 32, 32]
    assert document["layers"][0] == {
        "name": "0",
        "kind": "convolution",
        "output": [48, 32, 32],
        "receptive_field": [3, 3],
        "jump": [1, 1],
        "trainable": 1344,
        "non_trainable": 0,
        "macs": 1_327_104,
        "kept_for_backward": 3 * 32 * 32 * 4,
    }
    assert document["totals"] == {
        "trainable": 1_172_410,
        "non_trainable": 0,
        "parameters": 1_172_410,
        "macs": 55_145_472,
        "kept_for_backward": anatomy.kept_for_backward,
    }


def test_markdown_has_one_line_a_layer() -> None:
    anatomy = trace(build("resnet8"), name="resnet8")
    table = [line for line in to_markdown(anatomy).splitlines() if line.startswith("|")]
    assert len(table) == len(anatomy.layers) + 2
    assert len({line.count("|") for line in table}) == 1


def test_share_of_the_image_is_clipped_per_axis() -> None:
    layer: Layer = trace(nn.Sequential(nn.Conv2d(3, 4, (9, 3), padding=(4, 0))), (3, 6, 12)).layers[0]
    assert layer.share_of((3, 6, 12)) == pytest.approx(3 / 12)


@pytest.mark.parametrize("width", [20, 40, 50, 60, 80])
def test_no_word_is_broken_in_a_narrow_terminal(width: int) -> None:
    named = nn.Sequential()
    named.add_module("a_stem_with_a_rather_long_name", nn.Conv2d(3, 8, 3))
    named.add_module("head", nn.Sequential(nn.Flatten(), nn.Linear(8 * 30 * 30, 10)))
    anatomy = trace(named, (3, 32, 32))
    shown = to_text(anatomy, width)
    for layer in anatomy.layers:
        assert layer.name in shown
        assert f"{layer.macs:,}" in shown.split() or f"{layer.macs:,}" in shown
    assert all(len(line) <= width or len(line.split()) == 1 for line in shown.splitlines())


def test_sentences_are_broken_between_words() -> None:
    text = "  champion is better: only champion right on 1,373 images, see results/a-rather-long-path/verdict.json"
    for width in (20, 30, 60, 200):
        shown = wrapped(text, width)
        assert shown.split() == text.split()
        assert all(len(line) <= width or len(line.split()) == 1 for line in shown.splitlines())
