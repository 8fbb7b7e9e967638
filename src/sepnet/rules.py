"""A budget in, a list of violations out."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from sepnet import html
from sepnet.anatomy import KINDS, Anatomy, Convolution, Layer
from sepnet.errors import SepnetError
from sepnet.settings import check_type, hint, read_toml, shown, to_settings


@dataclass(frozen=True, kw_only=True)
class Rules:
    """What a network has to keep. A rule that is False or None is not judged."""

    name: str = "custom"
    separable_only: bool = False
    """Every convolution belongs to a depthwise → pointwise pair. A norm, activation or dropout between the two
    is accepted with a note."""
    strict: bool = False
    """``separable_only``, and nothing may stand between the two, as in Keras's ``SeparableConv2D``."""
    batch_norm: bool = False
    """Batch norm is used."""
    dropout: bool = False
    """Dropout is used, each rate above 0 and at most ``max_dropout``."""
    max_dropout: float = 0.5
    """The highest rate that ``dropout`` accepts."""
    parameters_below: int | None = None
    """Keras's count: trainable parameters and moving statistics."""
    macs_below: int | None = None
    """Multiplications of convolutions and dense layers for one image."""
    activation_bytes_below: int | None = None
    """Bytes of the tensors alive at once, at their peak, while one image runs layer by layer; activations, norms and
    dropout work in place."""
    bytes_per_value: int = 4
    """Of an activation: 4 for float32, 1 for int8."""
    flash_below: int | None = None
    """Bytes of constants of the int8 network, as ``sepnet export --format c`` writes them: weights, biases, multipliers
    and tables. The code comes on top, less than 10,000 bytes."""
    ram_below: int | None = None
    """Bytes of its arena: everything that it writes while one image runs, pixels and scores among it."""
    receptive_field_at_least: int | None = None
    """Of the network's output, in pixels, on either axis."""
    receptive_field_at_most: int | None = None
    """The same, from above."""
    allowed_layers: tuple[str, ...] | None = None
    """Every layer is of one of these kinds, as ``sepnet summary`` names them: those of ``sepnet.anatomy.KINDS``."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            check_type(f"rules: {field.name}", value, field.type)
            if type(value) is int and value <= 0:
                raise SepnetError(f"rules: {field.name} is {shown(value)}: expected a whole number above 0")
        for kind in self.allowed_layers or ():
            if kind not in KINDS:
                raise SepnetError(
                    f"rules: allowed_layers has '{kind}', which is not a kind of layer: "
                    f"{hint(kind, KINDS, otherwise='expected one of these')} (kinds: {', '.join(KINDS)})"
                )
        if not 0 < self.max_dropout < 1:
            raise SepnetError(f"rules: max_dropout is {self.max_dropout}: expected a number between 0 and 1")
        if not self.judges():
            raise SepnetError(f"rules '{self.name}' set no rule: expected at least one of {', '.join(_JUDGES)}")

    @property
    def need_footprint(self) -> bool:
        """Whether the network's memory on a device is judged."""
        return self.flash_below is not None or self.ram_below is not None

    def judges(self) -> list["_Judge"]:
        """Return what judges each rule that is set."""
        return [
            judge
            for name, judge in _JUDGES.items()
            if getattr(self, name) not in (None, False) or (name == "separable_only" and self.strict)
        ]


@dataclass(frozen=True, kw_only=True)
class Footprint:
    """What a network's int8 form takes on a device, in bytes."""

    flash: int
    """Of constants; the code comes on top."""
    largest: str
    """The layer that has the most of them."""
    ram: int
    """Of the arena."""
    peak: str
    """The layer at which most of it is in use."""


@dataclass(frozen=True, kw_only=True)
class Violation:
    """A layer that breaks a rule, and why."""

    layer: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class RuleResult:
    """One rule's judgement: the measured value in words, and by how much a number is over its limit."""

    rule: str
    kept: bool
    measured: str
    value: float | None = None
    """The measured number: a count, the highest dropout rate, the receptive field's smaller or larger side; None where
    there is nothing to measure. ``over`` is by how much it is beyond ``limit``."""
    limit: float | None = None
    over: int | None = None
    violations: tuple[Violation, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, repr=False)
class RulesReport:
    """A network judged by rules."""

    network: str
    name: str
    """Of the rules."""
    results: tuple[RuleResult, ...]

    @property
    def kept(self) -> bool:
        """Whether every rule is kept."""
        return not self.broken

    @property
    def broken(self) -> list[str]:
        """The names of the rules that are not kept."""
        return [result.rule for result in self.results if not result.kept]

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain values."""
        results = [asdict(result) for result in self.results]
        return {"network": self.network, "rules": self.name, "kept": self.kept, "results": results}

    def __repr__(self) -> str:
        verdict = "keeps" if self.kept else "breaks"
        lines = [f"{self.network} {verdict} the rules '{self.name}'"]
        for result in self.results:
            lines.append(f"{'pass' if result.kept else 'FAIL'}  {result.rule}: {result.measured}")
            lines += [f"        {violation.layer}: {violation.reason}" for violation in result.violations]
            lines += [f"        note: {note}" for note in result.notes]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        """Return the table that a notebook shows."""
        rows = []
        for result in self.results:
            rows.append(("pass" if result.kept else "FAIL", result.rule, result.measured))
            rows += [("", f"– {violation.layer}", violation.reason) for violation in result.violations]
            rows += [("", "– note", note) for note in result.notes]
        return html.table(("", "rule", "measured"), rows, caption=repr(self).splitlines()[0], words=3)


def check(anatomy: Anatomy, rules: Rules, footprint: Callable[[], Footprint] | None = None) -> RulesReport:
    """Judge a network by every rule that is set; ``footprint`` is called where a rule is of a device's memory.

    Raises:
        SepnetError: a rule is of a device's memory, and the network is not there to be measured, or cannot be.

    """
    found = None
    if rules.need_footprint:
        if footprint is None:
            raise SepnetError(
                f"rules '{rules.name}' have flash_below or ram_below, and an anatomy alone does not tell the memory of "
                "a device: give the network"
            )
        found = footprint()
    results = tuple(judge(anatomy, rules, found) for judge in rules.judges())
    return RulesReport(network=anatomy.network, name=rules.name, results=results)


def load_rules(name: str) -> Rules:
    """Return the preset called ``name``, or the rules in the TOML file at that path.

    Raises:
        SepnetError: no such preset or file, an unknown key, or a value of the wrong kind.

    """
    if name in PRESETS:
        return PRESETS[name]
    if not name.endswith(".toml"):
        otherwise = f"expected {', '.join(PRESETS)}, or a .toml file"
        raise SepnetError(f"unknown rules '{name}': {hint(name, PRESETS, otherwise=otherwise)}")
    values = read_toml(Path(name), "rules file")
    values = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
    return to_settings(Rules, {"name": Path(name).stem, **values}, source=name)


def _judge_separable(anatomy: Anatomy, rules: Rules, _: Footprint | None) -> RuleResult:
    broken = tuple(
        Violation(layer=convolution.name, reason=reason)
        for convolution in anatomy.convolutions
        if (reason := _why_not_separable(convolution, strict=rules.strict))
    )
    count = len(anatomy.convolutions)
    kept = count > 0 and not broken
    measured = f"{count - len(broken)} of {count} convolutions are depthwise → pointwise pairs"
    notes = tuple(
        f"{convolution.name} has {', '.join(convolution.between)} between depthwise and pointwise"
        for convolution in anatomy.convolutions
        if convolution.paired and not convolution.strict and not rules.strict
    )
    name = "separable only (strict)" if rules.strict else "separable only"
    return RuleResult(rule=name, kept=kept, measured=measured, violations=broken, notes=notes)


def _why_not_separable(convolution: Convolution, *, strict: bool) -> str | None:
    if strict and convolution.paired and not convolution.strict:
        return f"{', '.join(convolution.between)} between depthwise and pointwise"
    return convolution.reason


def _judge_batch_norm(anatomy: Anatomy, rules: Rules, _: Footprint | None) -> RuleResult:  # noqa: ARG001
    count = sum(layer.kind == "batch norm" for layer in anatomy.layers)
    measured = _layers(count) + ("" if count else ", expected at least 1")
    return RuleResult(rule="batch norm", kept=count > 0, measured=measured, value=count, limit=1)


def _judge_dropout(anatomy: Anatomy, rules: Rules, _: Footprint | None) -> RuleResult:
    rates = [(layer.name, layer.dropout_rate) for layer in anatomy.layers if layer.dropout_rate is not None]
    broken = tuple(
        Violation(layer=name, reason=f"dropout rate {rate:g}, expected above 0 and at most {rules.max_dropout:g}")
        for name, rate in rates
        if not 0 < rate <= rules.max_dropout
    )
    listed = ", ".join(f"{rate:g}" for rate in sorted({rate for _, rate in rates}))
    measured = f"{_layers(len(rates))}, rates {listed}" if rates else "0 layers, expected at least 1"
    return RuleResult(
        rule="dropout",
        kept=bool(rates) and not broken,
        measured=measured,
        value=max((rate for _, rate in rates), default=None),
        limit=rules.max_dropout,
        violations=broken,
    )


def _judge_parameters(anatomy: Anatomy, rules: Rules, _: Footprint | None) -> RuleResult:
    split = f" ({anatomy.trainable:,} trainable, {anatomy.non_trainable:,} non-trainable)"
    heaviest = max(anatomy.layers, key=lambda layer: layer.trainable + layer.non_trainable)
    blamed = Violation(layer=heaviest.name, reason=f"has the most, {heaviest.trainable + heaviest.non_trainable:,}")
    return _below("parameters", anatomy.parameters, rules.parameters_below, blamed, detail=split)


def _judge_macs(anatomy: Anatomy, rules: Rules, _: Footprint | None) -> RuleResult:
    heaviest = max(anatomy.layers, key=lambda layer: layer.macs)
    blamed = Violation(layer=heaviest.name, reason=f"has the most, {heaviest.macs:,}")
    return _below("MACs", anatomy.macs, rules.macs_below, blamed)


def _judge_activations(anatomy: Anatomy, rules: Rules, _: Footprint | None) -> RuleResult:
    peak = anatomy.peak_activation
    blamed = Violation(layer=peak.layer, reason=f"is where {peak.values:,} values are in memory at once")
    detail = f" bytes at {rules.bytes_per_value} a value, in {peak.layer}"
    measured = peak.values * rules.bytes_per_value
    return _below("peak activation memory", measured, rules.activation_bytes_below, blamed, detail=detail)


def _judge_flash(_: Anatomy, rules: Rules, footprint: Footprint | None) -> RuleResult:
    assert footprint is not None
    blamed = Violation(layer=footprint.largest, reason="has the most constants")
    return _below("flash", footprint.flash, rules.flash_below, blamed, detail=" bytes of constants in int8")


def _judge_ram(_: Anatomy, rules: Rules, footprint: Footprint | None) -> RuleResult:
    assert footprint is not None
    blamed = Violation(layer=footprint.peak, reason="is where the most is in use")
    return _below("RAM", footprint.ram, rules.ram_below, blamed, detail=" bytes of arena in int8")


def _below(rule: str, value: int, limit: int | None, blamed: Violation, *, detail: str = "") -> RuleResult:
    assert limit is not None
    if value < limit:
        return RuleResult(
            rule=rule, kept=True, measured=f"{value:,}{detail}, below {limit:,}", value=value, limit=limit
        )
    measured = f"{value:,}{detail}, {value - limit:,} over: expected below {limit:,}"
    return RuleResult(
        rule=rule,
        kept=False,
        measured=measured,
        value=value,
        limit=limit,
        over=value - limit,
        violations=(blamed,),
    )


def _judge_smallest_field(anatomy: Anatomy, rules: Rules, _: Footprint | None) -> RuleResult:
    output, limit = _output(anatomy), rules.receptive_field_at_least
    assert limit is not None
    value = min(output.receptive_field)
    under = limit - value
    return _field_result(output, f"at least {limit}", f"{under} short", value=value, limit=limit, over=under)


def _judge_largest_field(anatomy: Anatomy, rules: Rules, _: Footprint | None) -> RuleResult:
    output, limit = _output(anatomy), rules.receptive_field_at_most
    assert limit is not None
    value = max(output.receptive_field)
    over = value - limit
    return _field_result(output, f"at most {limit}", f"{over} over", value=value, limit=limit, over=over)


def _field_result(output: Layer, rule: str, by: str, *, value: int, limit: int, over: int) -> RuleResult:
    size = "×".join(map(str, output.receptive_field))
    rule = f"receptive field {rule}"
    if over <= 0:
        return RuleResult(rule=rule, kept=True, measured=size, value=value, limit=limit)
    blamed = (Violation(layer=output.name, reason=f"the output sees {size} pixels"),)
    return RuleResult(
        rule=rule, kept=False, measured=f"{size}, {by}", value=value, limit=limit, over=over, violations=blamed
    )


def _judge_layers(anatomy: Anatomy, rules: Rules, _: Footprint | None) -> RuleResult:
    allowed = rules.allowed_layers or ()
    broken = tuple(
        Violation(layer=layer.name, reason=f"{layer.kind}, allowed are {', '.join(allowed)}")
        for layer in anatomy.layers
        if layer.kind not in (*allowed, "unused")
    )
    measured = f"{len(anatomy.layers) - len(broken)} of {len(anatomy.layers)} layers are of an allowed kind"
    return RuleResult(rule="allowed layers", kept=not broken, measured=measured, violations=broken)


def _layers(count: int) -> str:
    return f"{count} layer" if count == 1 else f"{count} layers"


def _output(anatomy: Anatomy) -> Layer:
    return [layer for layer in anatomy.layers if layer.kind != "unused"][-1]


_Judge = Callable[[Anatomy, Rules, Footprint | None], RuleResult]
_JUDGES: dict[str, _Judge] = {
    "separable_only": _judge_separable,
    "batch_norm": _judge_batch_norm,
    "dropout": _judge_dropout,
    "parameters_below": _judge_parameters,
    "macs_below": _judge_macs,
    "activation_bytes_below": _judge_activations,
    "flash_below": _judge_flash,
    "ram_below": _judge_ram,
    "receptive_field_at_least": _judge_smallest_field,
    "receptive_field_at_most": _judge_largest_field,
    "allowed_layers": _judge_layers,
}


PRESETS = {
    "assignment": Rules(name="assignment", separable_only=True, batch_norm=True, dropout=True, parameters_below=100_000)
}
"""``assignment`` is the founding case: separable only, batch norm, dropout, under 100,000 parameters."""
