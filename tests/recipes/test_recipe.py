from pathlib import Path

import pytest

from sepnet.errors import SepnetError
from sepnet.recipes.recipe import Recipe, load_recipe, parse_settings, recipe_from_dict


def test_the_published_recipe_is_the_assignments() -> None:
    recipe = load_recipe("published")
    assert (recipe.optimizer, recipe.lr, recipe.eps, recipe.schedule) == ("adam", 1e-3, 1e-7, "constant")
    assert (recipe.epochs, recipe.batch_size, recipe.initializer) == (50, 128, "glorot_uniform")
    assert (recipe.normalize, recipe.crop, recipe.flip, recipe.label_smoothing) == ("unit", 0, "none", 0.0)
    assert (recipe.norm_eps, recipe.norm_momentum, recipe.weight_decay, recipe.average) == (1e-3, 0.01, 0.0, 0.0)


def test_overrides_replace_only_what_is_given() -> None:
    recipe = load_recipe("champion", epochs=3, lr=None)
    assert recipe.epochs == 3
    assert recipe.lr == load_recipe("champion").lr


def test_a_file_is_read_and_survives_a_round_trip(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('optimizer = "adam"\nlr = 1\nflip = "random"\n')
    recipe = load_recipe(str(file))
    assert (recipe.name, recipe.optimizer, recipe.lr, recipe.flip) == ("mine", "adam", 1, "random")
    assert recipe_from_dict(recipe.to_dict(), source="test") == recipe


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epoch = 3", "unknown key 'epoch': did you mean 'epochs'?"),
        ("epochs = 2.5", "epochs is 2.5: expected a whole number"),
        ("epochs = true", "epochs is True: expected a whole number"),
        ('lr = "high"', "lr is 'high': expected a number"),
        ("lr = 0.0", "lr is 0.0"),
        ("lr = nan", "lr is nan"),
        ("warmup = 1.5", "warmup is 1.5: expected a number from 0 to 1"),
        ("average = 1.0", "average is 1.0: expected a number from 0 to below 1"),
        ('flip = "sideways"', "flip is 'sideways': expected 'none' or 'random' or 'alternating'"),
        ("lr = ", "is not TOML"),
    ],
)
def test_a_mistake_in_a_file_is_named(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(text)
    with pytest.raises(SepnetError) as raised:
        load_recipe(str(file))
    assert str(file) in str(raised.value)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("lr=0.1", ("lr", 0.1)),
        ("epochs = 3", ("epochs", 3)),
        ("optimizer=adam", ("optimizer", "adam")),
        ('flip="random"', ("flip", "random")),
        ("average=true", ("average", True)),
        ("name=a-b", None),
        ("lr", None),
        ("=0.1", None),
        ("lr=", None),
        ("lr=0.1\nepochs=3", None),
    ],
)
def test_a_setting_is_a_field_and_a_value_of_toml(text: str, expected: tuple[str, object] | None) -> None:
    if expected is None:
        with pytest.raises(SepnetError, match="is not understood: expected") as raised:
            parse_settings([text])
        assert "lr=0.1" in str(raised.value)
    else:
        assert parse_settings([text]) == dict([expected])


def test_an_unknown_override_is_refused() -> None:
    with pytest.raises(SepnetError, match="unknown key 'epoch': did you mean 'epochs'"):
        load_recipe("champion", epoch=3)


def test_unknown_recipes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SepnetError, match="did you mean 'published'"):
        load_recipe("publishd")
    with pytest.raises(SepnetError, match="does not exist"):
        load_recipe(str(tmp_path / "absent.toml"))


def test_every_field_takes_its_default() -> None:
    assert recipe_from_dict({}, source="test") == Recipe()
