"""sepnet's own networks by their published counts, and a user's network by file."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from sepnet.errors import SepnetError
from sepnet.networks import NETWORKS, build, fingerprint, is_own, join_name, split_name


def _trainable(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def _keras_total(model: nn.Module) -> int:
    """Trainable parameters, and the mean and the variance that each batch norm keeps."""
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    return _trainable(model) + sum(2 * norm.num_features for norm in norms)


def _macs(model: nn.Module, image_shape: tuple[int, int, int] = (3, 32, 32)) -> int:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.eval()(torch.zeros(1, *image_shape))
    return int(counter.get_total_flops()) // 2


# Counts: the for base, the assignment's for published, MLPerf Tiny's for resnet8.


@pytest.mark.parametrize(
    ("network", "total", "trainable"),
    [("base", 1_172_410, 1_172_410), ("published", 96_009, 93_865), ("resnet8", 78_666, 78_666 - 2 * 240)],
)
def test_counts(network: str, total: int, trainable: int) -> None:
    model = build(network)
    assert _keras_total(model) == total
    assert _trainable(model) == trainable


def test_the_champion_is_within_its_budget() -> None:
    model = build("champion")
    assert _keras_total(model) < 100_000
    assert 0 < _macs(model) < 20_000_000


def test_the_multiplications_of_resnet8_are_those_of_mlperf_tiny() -> None:
    # By hand: 16 filters at 32², 32 at 16², 64 at 8²; shortcuts of 1×1; 64 · 10 for the dense layer.
    stem = 32 * 32 * 16 * 9 * (3 + 16 + 16)
    second = 16 * 16 * 32 * (9 * (16 + 32) + 16)
    third = 8 * 8 * 64 * (9 * (32 + 64) + 32)
    assert _macs(build("resnet8")) == stem + second + third + 640


@pytest.mark.parametrize("network", ["published", "champion"])
def test_every_convolution_is_one_half_of_a_separable_pair(network: str) -> None:
    convolutions = [module for module in build(network).modules() if isinstance(module, nn.Conv2d)]
    assert len(convolutions) % 2 == 0
    for depthwise, pointwise in zip(convolutions[::2], convolutions[1::2], strict=True):
        assert depthwise.groups == depthwise.in_channels
        assert depthwise.out_channels == pointwise.in_channels
        assert pointwise.kernel_size == (1, 1)
        assert pointwise.groups == 1


def test_the_dropout_rates_are_the_assignments() -> None:
    rates = {
        name: [module.p for module in build(name).modules() if isinstance(module, nn.Dropout)]
        for name in ("base", "published")
    }
    assert rates == {"base": [0.25, 0.25, 0.25, 0.5, 0.5], "published": [0.1, 0.1, 0.1]}


def test_the_batch_norm_of_published_is_kerass() -> None:
    norms = [module for module in build("published").modules() if isinstance(module, nn.BatchNorm2d)]
    assert len(norms) == 11
    # Keras's momentum 0.99 is the weight of the old value, PyTorch's 0.01 that of the new.
    assert {(norm.eps, norm.momentum) for norm in norms} == {(1e-3, 0.01)}


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize(("image_shape", "classes"), [((1, 28, 28), 10), ((3, 48, 40), 3)])
def test_other_images_and_classes(network: str, image_shape: tuple[int, int, int], classes: int) -> None:
    model = build(network, classes=classes, image_shape=image_shape).eval()
    with torch.no_grad():
        logits = model(torch.rand(2, *image_shape))
    assert logits.shape == (2, classes)
    assert logits.isfinite().all()


@pytest.mark.parametrize("network", NETWORKS)
def test_each_network_is_one_screen_and_described(network: str) -> None:
    assert NETWORKS[network].description
    assert NETWORKS[network].build.__doc__


# By name.


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(SepnetError, match="unknown network 'champoin': did you mean 'champion'"):
        build("champoin")


def test_a_name_near_to_none_is_answered_with_all() -> None:
    with pytest.raises(SepnetError, match=r"expected base, published, champion, resnet8, or path/to/file\.py:name"):
        build("xyz")


# With arguments, which are a part of the name.


def test_the_arguments_of_a_name_are_those_of_the_function() -> None:
    name = join_name("champion", {"widths": [16, 32, 48], "activation": "relu"})
    assert name == 'champion(widths=[16, 32, 48], activation="relu")'
    model = build(name, classes=7)
    assert isinstance(model, nn.Sequential)
    assert isinstance(model[-1], nn.Linear)
    assert [norm.num_features for norm in model if isinstance(norm, nn.BatchNorm2d)] == [16]
    assert model[-1].out_features == 7
    assert not any(isinstance(module, nn.Hardswish) for module in model.modules())
    assert join_name(name, {"widths": [8, 8, 8]}) == 'champion(widths=[8, 8, 8], activation="relu")'
    assert split_name(name) == ("", "champion", '(widths=[16, 32, 48], activation="relu")')
    assert is_own(name)
    assert not is_own("mine.py:net(width=3)")


def test_a_family_with_its_own_defaults_is_the_champion() -> None:
    same = build("champion(widths=(48, 96, 112), blocks=(1, 2, 2), stem_filters=8)")
    assert fingerprint(same) == fingerprint(build("champion"))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("champion(width=3)", "unknown argument 'width': did you mean 'widths'?"),
        ("base(width=3)", "unknown argument 'width': it takes none"),
        ("champion(3)", "are not understood: expected names and plain values"),
        ("champion(widths=open('x'))", "are not understood"),
        ("champion(widths=[1)", "are not understood"),
        ("champion(activation='rely')", "activation is 'rely': did you mean 'relu'?"),
        ("champion(widths=[9, 8, 7])", "widths that do not shrink"),
        ("champoin(widths=[1])", "unknown network 'champoin': did you mean 'champion'?"),
    ],
)
def test_arguments_that_a_network_does_not_take(name: str, message: str) -> None:
    with pytest.raises(SepnetError) as caught:
        build(name)
    assert message in str(caught.value)


# By file.

HEADER = "from torch import nn\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "mine.py"


def test_arguments_reach_a_file_s_function(file: Path) -> None:
    file.write_text(f"{HEADER}def net(classes, width=3): return nn.Linear(width, classes)\nfixed = nn.Linear(3, 7)\n")
    made = build(f"{file}:net(width=5)", classes=7)
    assert isinstance(made, nn.Linear)
    assert (made.in_features, made.out_features) == (5, 7)
    with pytest.raises(SepnetError, match=r"fixed\(width=5\)': unknown argument 'width': it takes none"):
        build(f"{file}:fixed(width=5)")


@pytest.mark.parametrize(
    "code",
    [
        "net = nn.Linear(3, 7)",
        "def net(): return nn.Linear(3, 7)",
        "class net(nn.Linear):\n    def __init__(self): super().__init__(3, 7)",
        "net = lambda: nn.Linear(3, 7)",
        "import functools\nnet = functools.partial(nn.Linear, 3, 7)",
    ],
    ids=["module", "function", "class", "lambda", "partial"],
)
def test_what_a_name_in_a_file_may_be(file: Path, code: str) -> None:
    file.write_text(HEADER + code)
    model = build(f"{file}:net")
    assert isinstance(model, nn.Linear)
    assert model.out_features == 7


@pytest.mark.parametrize(
    ("signature", "expected"),
    [
        ("classes, image_shape", "classes=4 image_shape=(1, 5, 6)"),
        ("*, image_shape=None, classes=None", "classes=4 image_shape=(1, 5, 6)"),
        ("classes, width=2", "classes=4"),
        ("image_shape", "image_shape=(1, 5, 6)"),
        ("width=2", ""),
    ],
)
def test_a_builder_is_given_what_it_asks_for(file: Path, signature: str, expected: str) -> None:
    file.write_text(
        f"{HEADER}def net({signature}):\n"
        "    given = locals()\n"
        "    model = nn.Identity()\n"
        "    model.given = ' '.join(f'{k}={given[k]}' for k in ('classes', 'image_shape') if k in given)\n"
        "    return model\n"
    )
    assert build(f"{file}:net", classes=4, image_shape=(1, 5, 6)).given == expected


@pytest.mark.parametrize(
    ("code", "name", "message"),
    [
        ("", "net", "defines no 'net'"),
        ("net = 3", "net", "has type int: expected an nn.Module"),
        ("def net(): return 'x'", "net", "has type str: expected an nn.Module"),
        ("def net(): raise ValueError('too wide')", "net", "mine.py:2: ValueError: too wide"),
        ("def net(width): return nn.Identity()", "net", "image_shape (3, 32, 32): TypeError"),
        ("1 / 0", "net", "mine.py:2: ZeroDivisionError"),
        ("def net(:", "net", "mine.py:2: SyntaxError"),
        ("import no_such_package", "net", "mine.py:2: ModuleNotFoundError"),
    ],
)
def test_a_file_that_gives_no_network(file: Path, code: str, name: str, message: str) -> None:
    file.write_text(HEADER + code)
    with pytest.raises(SepnetError) as caught:
        build(f"{file}:{name}")
    assert message in str(caught.value)
    assert str(file) in str(caught.value)


def test_a_file_that_does_not_exist(file: Path) -> None:
    with pytest.raises(SepnetError, match=r"mine\.py' does not exist"):
        build(f"{file}:net")


def test_a_file_without_a_name(file: Path) -> None:
    with pytest.raises(SepnetError, match=r"names a file but nothing in it: write '.*mine\.py:NAME'"):
        build(str(file))


def test_a_file_may_import_its_neighbour(file: Path) -> None:
    file.with_name("sepnet_test_neighbour.py").write_text("WIDTH = 11\n")
    file.write_text(f"{HEADER}from sepnet_test_neighbour import WIDTH\nnet = nn.Linear(2, WIDTH)\n")
    model = build(f"{file}:net")
    assert isinstance(model, nn.Linear)
    assert model.out_features == 11


def test_two_files_may_have_neighbours_of_one_name(tmp_path: Path) -> None:
    widths = []
    for folder, width in (("first", 5), ("second", 9)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "sepnet_test_parts.py").write_text(f"WIDTH = {width}\n")
        path = tmp_path / folder / "net.py"
        path.write_text(f"{HEADER}from sepnet_test_parts import WIDTH\nnet = nn.Linear(2, WIDTH)\n")
        widths.append(build(f"{path}:net").out_features)
    assert widths == [5, 9]


def test_an_edited_file_is_read_again(file: Path) -> None:
    file.write_text(f"{HEADER}net = nn.Linear(2, 3)\n")
    before = build(f"{file}:net")
    file.write_text(f"{HEADER}net = nn.Linear(2, 4000)\n")
    assert fingerprint(before) != fingerprint(build(f"{file}:net"))


# Fingerprints.


@pytest.mark.parametrize("network", NETWORKS)
def test_the_same_layers_have_the_same_fingerprint_whatever_their_weights(network: str) -> None:
    first, second = build(network), build(network)
    assert any(not torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert fingerprint(first) == fingerprint(second)


def _model(
    *, stride: int = 1, padding: int = 0, dilation: int = 1, rate: float = 0.1, eps: float = 1e-5, bias: bool = True
) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, stride=stride, padding=padding, dilation=dilation, bias=bias),
        nn.BatchNorm2d(4, eps=eps),
        nn.Dropout(rate),
    )


def test_a_fingerprint_does_not_depend_on_whether_pytorch_prints_a_norms_bias(monkeypatch: pytest.MonkeyPatch) -> None:
    norms = nn.Sequential(nn.BatchNorm2d(3), nn.LayerNorm(3), nn.GroupNorm(1, 3, affine=False), nn.InstanceNorm2d(3))
    present = fingerprint(norms)
    kinds: list[Any] = [type(norm) for norm in norms]
    for kind in kinds:
        printed = kind.extra_repr
        monkeypatch.setattr(kind, "extra_repr", lambda norm, p=printed: re.sub(r", bias=\w+", "", p(norm)))
    assert "bias" not in str(norms)
    assert fingerprint(norms) == present


def test_a_change_of_any_setting_changes_the_fingerprint() -> None:
    models = [
        _model(),
        _model(stride=2),
        _model(padding=1),
        _model(dilation=2),
        _model(rate=0.2),
        _model(eps=1e-3),
        _model(bias=False),
        nn.Sequential(*_model().children(), nn.ReLU()),
        nn.Sequential(*_model().children(), nn.GELU()),
    ]
    assert len({fingerprint(model) for model in models}) == len(models)
