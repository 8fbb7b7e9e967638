"""Rules, on networks small enough to work every figure out by hand."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch import nn

import sepnet
from sepnet.errors import SepnetError
from sepnet.networks.layers import SeparableConv2d
from sepnet.rules import RuleResult, Rules, RulesReport, load_rules

IMAGE = (3, 8, 8)


def _judge(model: nn.Module, *, image: tuple[int, int, int] = IMAGE, **rules: Any) -> RulesReport:
    return sepnet.check(model, Rules(**rules), image_shape=image)


def _one(model: nn.Module, *, image: tuple[int, int, int] = IMAGE, **rules: Any) -> RuleResult:
    (result,) = _judge(model, image=image, **rules).results
    return result


def _layers(result: RuleResult) -> list[str]:
    return [violation.layer for violation in result.violations]


def _by_rule(report: RulesReport) -> dict[str, RuleResult]:
    return {result.rule: result for result in report.results}


# The assignment's rules on sepnet's own networks.


def test_base_breaks_the_assignment_at_each_of_its_six_convolutions() -> None:
    report = sepnet.check("base")
    model = sepnet.networks.build("base")
    convolutions = [name for name, module in model.named_modules() if isinstance(module, nn.Conv2d)]
    results = _by_rule(report)
    assert not report.kept
    assert len(convolutions) == 6
    assert _layers(results["separable only"]) == convolutions
    assert all("3×3" in violation.reason for violation in results["separable only"].violations)
    assert not results["batch norm"].kept
    assert results["dropout"].kept
    assert results["parameters"].over == 1_172_410 - 100_000
    assert "1,172,410" in results["parameters"].measured
    assert "1,072,410 over" in results["parameters"].measured


def test_the_heaviest_layer_of_base_is_named() -> None:
    (violation,) = _by_rule(sepnet.check("base"))["parameters"].violations
    model = sepnet.networks.build("base")
    heaviest = model.get_submodule(violation.layer)
    # Flatten gives 2 × 2 × 192 values; the first dense layer takes them to 512.
    assert isinstance(heaviest, nn.Linear)
    assert (heaviest.in_features, heaviest.out_features) == (768, 512)
    assert f"{768 * 512 + 512:,}" in violation.reason


@pytest.mark.slow
@pytest.mark.parametrize("network", ["published", "champion"])
def test_the_separable_networks_keep_the_assignment(network: str) -> None:
    report = sepnet.check(network)
    assert report.kept
    assert [result.rule for result in report.results] == ["separable only", "batch norm", "dropout", "parameters"]
    assert not any(result.violations or result.notes for result in report.results)


@pytest.mark.parametrize("network", ["published", "champion"])
def test_the_separable_networks_keep_the_strict_rule(network: str) -> None:
    assert sepnet.check(network, Rules(strict=True)).kept


def test_champion_keeps_its_own_tighter_budget() -> None:
    assert sepnet.check("champion", Rules(macs_below=20_000_000, parameters_below=100_000)).kept


def test_resnet8_is_small_enough_but_not_separable() -> None:
    results = _by_rule(sepnet.check("resnet8"))
    assert results["parameters"].kept
    assert len(results["separable only"].violations) == 9


# Separable only.


def _mobilenet_block(*between: nn.Module) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 3, 3, padding=1, groups=3, bias=False), *between, nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8), nn.ReLU()
    )


@pytest.mark.parametrize("options", [{}, {"kernel_size": 5}, {"stride": 2}, {"dilation": 2}, {"bias": True}])
def test_a_separable_layer_is_a_strict_pair(options: dict[str, Any]) -> None:
    result = _one(SeparableConv2d(3, 8, **options), strict=True)
    assert result.kept
    assert not result.notes


def test_a_norm_and_an_activation_between_pass_with_a_note() -> None:
    result = _one(_mobilenet_block(nn.BatchNorm2d(3), nn.ReLU6()), separable_only=True)
    assert result.kept
    (note,) = result.notes
    assert "1" in note
    assert "2" in note
    assert "between depthwise and pointwise" in note


def test_a_norm_and_an_activation_between_break_the_strict_rule() -> None:
    result = _one(_mobilenet_block(nn.BatchNorm2d(3), nn.ReLU6()), strict=True)
    (violation,) = result.violations
    assert not result.kept
    assert "between depthwise and pointwise" in violation.reason
    assert not result.notes


def test_strict_needs_no_second_switch_and_wins_over_the_looser_rule() -> None:
    block = _mobilenet_block(nn.ReLU())
    assert not _judge(block, strict=True).kept
    assert not _judge(block, strict=True, separable_only=True).kept
    assert _judge(block, separable_only=True).kept


def test_a_pool_between_is_no_pair() -> None:
    result = _one(_mobilenet_block(nn.MaxPool2d(2)), separable_only=True)
    assert _layers(result) == ["0", "2"]


def test_a_depthwise_result_that_something_else_uses_is_no_pair() -> None:
    class Branching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.depthwise = nn.Conv2d(3, 3, 3, padding=1, groups=3)
            self.pointwise = nn.Conv2d(3, 3, 1)

        def forward(self, x: Any) -> Any:
            spread = self.depthwise(x)
            return self.pointwise(spread) + spread

    assert _layers(_one(Branching(), separable_only=True)) == ["depthwise", "pointwise"]


NOT_SEPARABLE: dict[str, tuple[Callable[[], nn.Module], list[str], str]] = {
    "pointwise before depthwise (BSConv)": (
        lambda: nn.Sequential(nn.Conv2d(3, 8, 1, bias=False), nn.Conv2d(8, 8, 3, groups=8)),
        ["0", "1"],
        "pointwise before depthwise",
    ),
    "lone 1×1": (lambda: nn.Sequential(nn.Conv2d(3, 8, 1)), ["0"], "pointwise without a depthwise"),
    "lone depthwise": (lambda: nn.Sequential(nn.Conv2d(3, 3, 3, groups=3)), ["0"], "depthwise without a pointwise"),
    "grouped": (
        lambda: nn.Sequential(SeparableConv2d(3, 8), nn.Conv2d(8, 8, 3, groups=4)),
        ["1"],
        "4 groups",
    ),
    "grouped, then pointwise": (
        lambda: nn.Sequential(SeparableConv2d(3, 8), nn.Conv2d(8, 8, 3, groups=2), nn.Conv2d(8, 8, 1)),
        ["1", "2"],
        "2 groups",
    ),
    "a second pointwise after a pair": (
        lambda: nn.Sequential(SeparableConv2d(3, 8), nn.Conv2d(8, 4, 1)),
        ["1"],
        "pointwise without a depthwise",
    ),
    "plain": (lambda: nn.Sequential(nn.Conv2d(3, 8, 3)), ["0"], "plain 3×3"),
    "plain, with a rectangular kernel": (lambda: nn.Sequential(nn.Conv2d(3, 8, (1, 5))), ["0"], "plain 1×5"),
    "3×3 in place of the pointwise half": (
        lambda: nn.Sequential(nn.Conv2d(3, 3, 3, groups=3), nn.Conv2d(3, 8, 3)),
        ["0", "1"],
        "plain 3×3",
    ),
}


@pytest.mark.parametrize("case", NOT_SEPARABLE)
def test_every_other_convolution_fails_by_name(case: str) -> None:
    make, layers, reason = NOT_SEPARABLE[case]
    result = _one(make(), separable_only=True)
    assert not result.kept
    assert _layers(result) == layers
    assert any(reason in violation.reason for violation in result.violations)


def test_the_separable_rule_counts_pairs() -> None:
    model = nn.Sequential(SeparableConv2d(3, 8), SeparableConv2d(8, 8), nn.Conv2d(8, 8, 3))
    assert _one(model, separable_only=True).measured.startswith("2 of 3 convolutions")


def test_a_network_without_any_convolution_is_not_separable() -> None:
    result = _one(nn.Sequential(nn.Flatten(), nn.Linear(192, 4)), separable_only=True)
    assert not result.kept
    assert result.measured.startswith("0 of 0 convolutions")


# Batch norm and dropout.


def test_batch_norm_is_counted() -> None:
    assert _one(nn.Sequential(nn.BatchNorm2d(3), nn.BatchNorm2d(3)), batch_norm=True).measured == "2 layers"
    assert not _one(nn.Sequential(nn.GroupNorm(1, 3)), batch_norm=True).kept


def test_each_dropout_layer_with_a_bad_rate_is_named() -> None:
    rates = [0.0, 0.25, 0.6, 0.5, 1.0]
    result = _one(nn.Sequential(*(nn.Dropout(rate) for rate in rates)), dropout=True)
    assert not result.kept
    assert _layers(result) == ["0", "2", "4"]
    assert ["0," in v.reason or "0.6," in v.reason or "1," in v.reason for v in result.violations] == [True] * 3
    assert result.measured == "5 layers, rates 0, 0.25, 0.5, 0.6, 1"


@pytest.mark.parametrize("rate", [0.001, 0.1, 0.5])
def test_rates_up_to_a_half_are_proper(rate: float) -> None:
    assert _one(nn.Sequential(nn.Dropout(rate)), dropout=True).kept


def test_the_highest_dropout_rate_can_be_set() -> None:
    model = nn.Sequential(nn.Dropout(0.3))
    assert _judge(model, dropout=True, max_dropout=0.3).kept
    assert not _judge(model, dropout=True, max_dropout=0.29).kept


def test_no_dropout_at_all_breaks_the_rule() -> None:
    result = _one(nn.Sequential(nn.ReLU()), dropout=True)
    assert not result.kept
    assert result.measured.startswith("0 layers")


# Budgets: the limit itself is already too much.


def _dense(inputs: int, outputs: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(inputs, outputs, bias=False))


def test_one_parameter_below_the_limit_is_kept() -> None:
    result = _one(_dense(271, 369), image=(1, 1, 271), parameters_below=100_000)  # 271 · 369 = 99,999
    assert result.kept
    assert result.over is None
    assert result.measured.startswith("99,999 ")


def test_as_many_parameters_as_the_limit_break_it() -> None:
    result = _one(_dense(100, 1000), image=(1, 10, 10), parameters_below=100_000)
    assert not result.kept
    assert result.measured.startswith("100,000 ")
    assert _layers(result) == ["1"]


def test_one_parameter_more_than_the_limit_is_one_over() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(100, 990))  # 990 · 101 = 99,990
    assert _one(model, image=(1, 10, 10), parameters_below=99_989).over == 1


def test_moving_statistics_count_against_the_limit() -> None:
    # 25 channels: 50 trained and 50 moving values of batch norm, and 25 · 3,996 = 99,900 weights.
    model = nn.Sequential(nn.BatchNorm2d(25), nn.Flatten(), nn.Linear(25, 3996, bias=False))
    result = _one(model, image=(25, 1, 1), parameters_below=100_000)
    assert not result.kept
    assert "99,950 trainable, 50 non-trainable" in result.measured


def test_frozen_parameters_count_against_the_limit() -> None:
    model = _dense(100, 1000)
    model.requires_grad_(False)
    assert not _judge(model, image=(1, 10, 10), parameters_below=100_000).kept


def test_macs_are_judged_to_the_unit() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.Flatten(), nn.Linear(8 * 64, 5))
    macs = 8 * 64 * 27 + 8 * 64 * 5
    assert _judge(model, macs_below=macs + 1).kept
    assert not _judge(model, macs_below=macs).kept
    result = _one(model, macs_below=macs - 10)
    assert result.over == 10
    assert f"{macs:,}" in result.measured
    assert _layers(result) == ["0"]
    assert f"{8 * 64 * 27:,}" in result.violations[0].reason


@pytest.mark.parametrize(("bytes_per_value", "peak"), [(4, 4 * 704), (1, 704)])
def test_peak_activation_memory_in_float32_and_int8(bytes_per_value: int, peak: int) -> None:
    # While the convolution runs its input, 3 · 8 · 8, and its result, 8 · 8 · 8, are alive: 704 values.
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 8, 3, padding=1))
    limits: dict[str, Any] = {"bytes_per_value": bytes_per_value}
    assert _judge(model, activation_bytes_below=peak + 1, **limits).kept
    result = _one(model, activation_bytes_below=peak, **limits)
    assert not result.kept
    assert f"{peak:,} bytes" in result.measured
    assert _layers(result) == ["0"]
    assert "704 values" in result.violations[0].reason
    assert _one(model, activation_bytes_below=peak - 3, **limits).over == 3


def test_a_shortcut_keeps_its_tensor_alive() -> None:
    class Shortcut(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.main = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1))

        def forward(self, x: Any) -> Any:
            return x + self.main(x)

    # Three tensors of 192 values: the shortcut's, the first convolution's and the second's.
    assert _judge(Shortcut(), activation_bytes_below=3 * 192 + 1, bytes_per_value=1).kept
    assert not _judge(Shortcut(), activation_bytes_below=3 * 192, bytes_per_value=1).kept


# Receptive field: 3×3, then 5 rows by 3 columns, gives 7 rows by 5 columns.

TALL = [nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, (5, 3))]


def test_the_smaller_axis_has_to_reach_the_least_receptive_field() -> None:
    assert _judge(nn.Sequential(*TALL), receptive_field_at_least=5).kept
    result = _one(nn.Sequential(*TALL), receptive_field_at_least=8)
    assert not result.kept
    assert result.over == 3
    assert result.measured == "7×5, 3 short"
    assert _layers(result) == ["1"]


def test_the_larger_axis_has_to_keep_the_greatest_receptive_field() -> None:
    assert _judge(nn.Sequential(*TALL), receptive_field_at_most=7).kept
    result = _one(nn.Sequential(*TALL), receptive_field_at_most=5)
    assert not result.kept
    assert result.over == 2
    assert result.measured == "7×5, 2 over"
    assert _layers(result) == ["1"]


# Allowed layers.


def test_layers_of_other_kinds_are_named() -> None:
    model = nn.Sequential(SeparableConv2d(3, 4), nn.GELU(), nn.Conv2d(4, 4, 3), nn.Flatten(), nn.Linear(144, 2))
    result = _one(model, allowed_layers=("separable", "dense", "flatten"))
    assert not result.kept
    assert _layers(result) == ["1", "2"]
    assert "gelu" in result.violations[0].reason
    assert result.measured == "3 of 5 layers are of an allowed kind"


@pytest.mark.slow
def test_all_layers_allowed() -> None:
    kinds = {layer.kind for layer in sepnet.summary("published").layers}
    assert sepnet.check("published", Rules(allowed_layers=tuple(kinds))).kept
    assert not sepnet.check("published", Rules(allowed_layers=tuple(kinds - {"max pool"}))).kept


# The report.


def test_the_report_says_each_rule_measure_and_layer() -> None:
    report = sepnet.check("base")
    text = str(report)
    for result in report.results:
        assert f"{result.rule}: {result.measured}" in text
        for violation in result.violations:
            assert f"{violation.layer}: {violation.reason}" in text
    assert text.splitlines()[0] == "base breaks the rules 'assignment'"
    assert text.count("FAIL") == 3


def test_notes_are_in_the_text() -> None:
    assert "note: " in str(_judge(_mobilenet_block(nn.ReLU()), separable_only=True))


def test_the_report_is_plain_values() -> None:
    values = json.loads(json.dumps(sepnet.check("published").to_dict()))
    assert set(values) == {"network", "rules", "kept", "results"}
    assert (values["network"], values["rules"], values["kept"]) == ("published", "assignment", True)
    keys = {"rule", "kept", "measured", "value", "limit", "over", "violations", "notes"}
    assert keys == set(values["results"][0])
    parameters = next(result for result in values["results"] if result["rule"] == "parameters")
    assert (parameters["value"], parameters["limit"], parameters["over"]) == (96_009, 100_000, None)


def test_every_measured_number_is_a_value() -> None:
    anatomy = sepnet.summary("published")
    side = anatomy.layers[-1].receptive_field[0]
    rules = Rules(batch_norm=True, dropout=True, receptive_field_at_least=side + 10, receptive_field_at_most=side - 10)
    results = sepnet.check(anatomy, rules).to_dict()["results"]
    norms = sum(layer.kind == "batch norm" for layer in anatomy.layers)
    assert [(result["value"], result["limit"], result["over"]) for result in results] == [
        (norms, 1, None),
        (max(layer.dropout_rate or 0 for layer in anatomy.layers), 0.5, None),
        (side, side + 10, 10),
        (side, side - 10, 10),
    ]


# Rules from files.


def _file(tmp_path: Path, text: str) -> str:
    path = tmp_path / "mine.toml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_rules_of_a_file_go_by_its_name(tmp_path: Path) -> None:
    file = _file(tmp_path, 'parameters_below = 50_000\nstrict = true\nallowed_layers = ["separable"]\n')
    assert load_rules(file) == Rules(name="mine", parameters_below=50_000, strict=True, allowed_layers=("separable",))
    report = sepnet.check("published", file)
    assert report.name == "mine"
    assert [result.kept for result in report.results] == [True, False, False]


def test_a_file_may_name_its_rules(tmp_path: Path) -> None:
    assert load_rules(_file(tmp_path, 'name = "contest"\ndropout = true\n')).name == "contest"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("paramters_below = 5", "unknown key 'paramters_below': did you mean 'parameters_below'"),
        ("zzz = 5", "unknown key 'zzz': expected one of"),
        ("parameters_below = '5'", "parameters_below is '5': expected a whole number"),
        ("parameters_below = 5.0", "parameters_below is 5.0: expected a whole number"),
        ("parameters_below = true", "parameters_below is True: expected a whole number"),
        ("parameters_below = 0", "parameters_below is 0: expected a whole number above 0"),
        ("macs_below = -1", "macs_below is -1: expected a whole number above 0"),
        ("bytes_per_value = 0\ndropout = true", "bytes_per_value is 0"),
        ("dropout = 1", "dropout is 1: expected true or false"),
        ("strict = 'yes'", "strict is 'yes': expected true or false"),
        ("dropout = true\nmax_dropout = 'half'", "max_dropout is 'half': expected a number"),
        ("dropout = true\nmax_dropout = 1", "max_dropout is 1: expected a number between 0 and 1"),
        ("dropout = true\nmax_dropout = nan", "max_dropout is nan"),
        ("allowed_layers = 'relu'", "allowed_layers is 'relu': expected a list of texts"),
        ("allowed_layers = [1]", "expected a list of texts"),
        ("name = 3\ndropout = true", "name is 3: expected a text"),
        ("", "set no rule"),
        ("dropout = false\nmax_dropout = 0.3", "set no rule"),
        ("dropout = ", "is not TOML"),
        ("[dropout]\nrate = 3", "expected true or false"),
    ],
)
def test_mistakes_in_a_file_are_named_with_the_file(tmp_path: Path, text: str, message: str) -> None:
    file = _file(tmp_path, text)
    with pytest.raises(SepnetError) as caught:
        load_rules(file)
    assert message in str(caught.value)
    assert file in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SepnetError, match=r"none\.toml' does not exist"):
        load_rules(str(tmp_path / "none.toml"))


def test_a_file_that_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "rules.toml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SepnetError, match="is not text in UTF-8"):
        load_rules(str(path))


def test_unknown_rules_are_answered_with_the_known() -> None:
    with pytest.raises(SepnetError, match=r"unknown rules 'contest': expected assignment, or a \.toml file"):
        load_rules("contest")


def test_rules_that_judge_nothing_are_refused_from_python() -> None:
    with pytest.raises(SepnetError, match="set no rule"):
        Rules()


def test_a_device_s_memory_is_judged_before_training() -> None:
    convolution = nn.Conv2d(3, 5, 1)
    model = nn.Sequential(convolution, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    # Weights, then 9 bytes a filter (bias, multiplier, shift), then 8 bytes a channel of the pixels.
    constants = 3 * 5 + 9 * 5 + 8 * 3
    report = sepnet.check(model, Rules(flash_below=constants, ram_below=10_000), image_shape=(3, 8, 8))
    flash, ram = report.results
    assert (flash.kept, flash.value, flash.over) == (False, constants, 0)
    assert [violation.layer for violation in flash.violations] == ["0"]
    assert ram.kept
    assert ram.value == 8 * 8 * 3 + 8 * 8 * 5  # pixels and the convolution's output; its mean takes the pixels' place
    tighter = sepnet.check(model, Rules(ram_below=512), image_shape=(3, 8, 8))
    assert tighter.results[0].violations[0].layer == "0"


def test_a_device_s_memory_needs_a_network_that_int8_can_express() -> None:
    rules = Rules(name="device", ram_below=10_000)
    with pytest.raises(SepnetError, match="an anatomy alone does not tell the memory of a device: give the network"):
        sepnet.check(sepnet.summary("published"), rules)
    with pytest.raises(SepnetError, match="int8"):
        sepnet.check(nn.Sequential(nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4), nn.Flatten()), rules)
