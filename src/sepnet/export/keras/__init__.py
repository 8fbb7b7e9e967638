"""A network in Keras 3: its definition as source, and a ``.keras`` file with its weights."""

from collections.abc import Sequence

from torch import nn


def keras_definition(model: nn.Module, image_shape: Sequence[int] = (3, 32, 32), *, name: str | None = None) -> str:
    """Return Python source that builds the network, untrained, as ``model`` in Keras 3.

    ``image_shape`` is ``(C, H, W)`` of one image; Keras takes images ``(N, H, W, C)``. Each layer's line tells its
    receptive field, unclipped and in pixels, and its output size. ``name`` is the network's, by default its class.

    Raises:
        SepnetError: it cannot be read, or an operation has no counterpart in Keras; the layer is named.

    """
    from sepnet.export.keras.listing import to_source
    from sepnet.export.keras.plan import plan

    return to_source(plan(model, image_shape, name=name))
