"""The result of tracing a network: one row a layer, the totals, the convolutions and the peak of memory."""

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One row.

    ``output`` is ``(C, H, W)`` or ``(C,)``. ``receptive_field`` and ``jump`` are ``(height, width)`` in
    pixels, unclipped; unit ``i`` along an axis sees the pixels from ``start + jump * i`` on, which may lie
    outside the image. ``trainable`` and ``non_trainable`` count parameters, each at the first layer that
    uses it. ``dropout_rate`` is given for dropout alone. ``kept_for_backward`` counts the bytes that PyTorch keeps
    of one image for the backward pass, ``None`` in the files of older versions.
    """

    name: str
    kind: str
    output: tuple[int, ...]
    receptive_field: tuple[int, int]
    jump: tuple[int, int]
    start: tuple[int, int]
    trainable: int
    non_trainable: int
    macs: int
    dropout_rate: float | None = None
    kept_for_backward: int | None = None

    def share_of(self, image: tuple[int, int, int]) -> float:
        """Return the largest share of an image ``(C, H, W)`` that one unit can see, between 0 and 1."""
        _, height, width = image
        seen_height, seen_width = self.receptive_field
        return min(seen_height, height) * min(seen_width, width) / (height * width)


@dataclass(frozen=True, kw_only=True)
class Convolution:
    """A depthwise separable pair, or a convolution that belongs to none.

    ``name`` is the row of the pair or of the lone convolution; ``parts`` names the convolutions themselves,
    depthwise first; ``between`` the layers between the two halves, none in a strict pair; ``reason`` says why
    a lone convolution is in no pair, and is ``None`` for a pair.
    """

    name: str
    parts: tuple[str, ...]
    between: tuple[str, ...] = ()
    reason: str | None = None

    @property
    def paired(self) -> bool:
        """Whether this is a depthwise→pointwise pair."""
        return self.reason is None

    @property
    def strict(self) -> bool:
        """Whether this is a pair with nothing between its halves."""
        return self.paired and not self.between


@dataclass(frozen=True, kw_only=True)
class Peak:
    """The largest number of values alive at once for one image, and the layer at which they are."""

    values: int
    layer: str


@dataclass(frozen=True, kw_only=True, repr=False)
class Anatomy:
    """What a network is made of, for one image ``(C, H, W)``."""

    network: str
    input: tuple[int, int, int]
    layers: tuple[Layer, ...]
    convolutions: tuple[Convolution, ...]
    peak_activation: Peak

    def __repr__(self) -> str:
        from sepnet.anatomy.tables import to_text  # the renderer knows the anatomy, so not at the top

        return to_text(self)

    def _repr_html_(self) -> str:
        """Return the table that a notebook shows."""
        from sepnet.anatomy.tables import to_html

        return to_html(self)

    @property
    def trainable(self) -> int:
        """Parameters that training changes."""
        return sum(layer.trainable for layer in self.layers)

    @property
    def non_trainable(self) -> int:
        """Moving statistics, other floating-point buffers, and frozen parameters."""
        return sum(layer.non_trainable for layer in self.layers)

    @property
    def parameters(self) -> int:
        """Trainable and other parameters: Keras's total."""
        return self.trainable + self.non_trainable

    @property
    def macs(self) -> int:
        """Multiplications of convolutions and dense layers for one image."""
        return sum(layer.macs for layer in self.layers)

    @property
    def kept_for_backward(self) -> int | None:
        """Bytes that PyTorch keeps of one image for the backward pass, in the network's own precision."""
        kept = [layer.kept_for_backward for layer in self.layers]
        return None if None in kept else sum(filter(None, kept))

    def to_dict(self) -> dict[str, Any]:
        """Return the anatomy as JSON's own types, without what :mod:`sepnet.anatomy.file` alone keeps."""
        rows = [{k: list(v) if isinstance(v, tuple) else v for k, v in asdict(layer).items()} for layer in self.layers]
        for row in rows:
            del row["start"], row["dropout_rate"]
        names = ("trainable", "non_trainable", "parameters", "macs", "kept_for_backward")
        totals = {name: getattr(self, name) for name in names}
        return {"network": self.network, "input": list(self.input), "layers": rows, "totals": totals}
