"""Commands and calls that make a run again: parsed back, they give the run's own configuration."""

import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import sepnet
from sepnet.cli.app import run as run_cli
from sepnet.errors import SepnetError
from sepnet.recipes.recipe import PRESETS, Recipe, load_recipe
from sepnet.report.reproduction import can_be_made_again, has_preset, train_call, train_command
from sepnet.runs import RunConfig
from sepnet.training import experiment
from tests.report.support import CONFIG

recipes = st.one_of(
    st.builds(
        load_recipe,
        st.sampled_from(PRESETS),
        epochs=st.none() | st.integers(1, 99),
        batch_size=st.none() | st.integers(1, 512),
        lr=st.none() | st.floats(1e-6, 2),
    ),
    st.builds(
        Recipe,
        name=st.sampled_from(["custom", "champion", "my own"]),
        epochs=st.integers(1, 99),
        optimizer=st.sampled_from(["adam", "sgd"]),
        weight_decay=st.floats(0, 0.1),
        norm_eps=st.none() | st.floats(1e-6, 0.1),
        flip=st.sampled_from(["none", "random", "alternating"]),
    ),
)
configs = st.builds(
    RunConfig,
    network=st.sampled_from(["base", "champion", "my nets/net.py:small"]),
    fingerprint=st.just("0"),
    data=st.sampled_from(["sample", "cifar10"]),
    data_sha256=st.just("0"),
    validation=st.sampled_from(["test", "holdout"]),
    classes=st.just(("a", "b")),
    image_shape=st.just((3, 32, 32)),
    mean=st.just((0.0,) * 3),
    std=st.just((1.0,) * 3),
    seed=st.integers(0, 9),
    device=st.just("cpu"),
    precision=st.sampled_from(["fp32", "bf16"]),
    recipe=recipes,
)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Return what ``sepnet.train`` is asked for; nothing is trained."""
    calls: list[dict[str, Any]] = []

    def train(network: str, data: str | None = None, recipe: Any = None, **options: Any) -> sepnet.Run:
        calls.append({"network": network, "data": data, "recipe": recipe, **options})
        raise SepnetError("caught")

    monkeypatch.setattr(sepnet.api, "train", train)
    return calls


def _assert_gives(call: dict[str, Any], config: RunConfig) -> None:
    overrides = {name: call.get(name) for name in ("epochs", "batch_size", "lr")}
    assert experiment.resolve_recipe(call["network"], call["recipe"], **overrides) == config.recipe
    for name in ("network", "data", "seed", "device", "precision", "validation"):
        assert call[name] == getattr(config, name)


@pytest.mark.slow
@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(configs)
def test_the_command_asks_for_the_same_run(asked: list[dict[str, Any]], tmp_path: Path, config: RunConfig) -> None:
    file = tmp_path / "the recipe.toml"
    file.write_text(tomli_w.dumps(config.recipe.to_dict()))
    words = shlex.split(train_command(config, str(file)))
    assert words[0] == "sepnet"
    assert run_cli(words[1:]) == 2
    _assert_gives(asked[-1], config)
    assert has_preset(config.recipe) == (str(file) not in words)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(configs)
def test_the_call_asks_for_the_same_run(asked: list[dict[str, Any]], config: RunConfig) -> None:
    with pytest.raises(SepnetError, match="caught"):
        eval(train_call(config, name="'mine'"), {"sepnet": sepnet})
    _assert_gives(asked[-1], config)
    assert (asked[-1]["out"], asked[-1]["name"]) == (".", "mine")
    assert asked[-1]["reuse"] is True


def test_what_a_python_session_made_cannot_be_made_again_by_name() -> None:
    config = replace(CONFIG, network="champion", data="sample")
    assert can_be_made_again(config)
    assert can_be_made_again(replace(config, network="net.py:mine"))
    assert not can_be_made_again(replace(config, network="Sequential"))
    assert not can_be_made_again(replace(config, data="patterns"))
    assert not can_be_made_again(replace(config, initial_weights="abc"))
    assert not can_be_made_again(replace(config, extended_from=(1,)))
