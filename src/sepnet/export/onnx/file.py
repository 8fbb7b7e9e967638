"""ONNX files: the float network by ``torch.onnx``, and how ONNX Runtime answers with any of them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sepnet.anatomy.capture import quiet
from sepnet.errors import SepnetError
from sepnet.export.seal import NOTE, seal
from sepnet.export.shared import import_package, metadata

PRODUCER = "sepnet"
OPSET = 20
INPUT, OUTPUT = "pixels", "scores"
CLOSE = 1e-4
"""How near the scores in ONNX Runtime must be to PyTorch's, relative to the largest, and in any case."""


class FromPixels(nn.Module):
    """A network that takes pixels ``(N, C, H, W)``, uint8, and normalizes them itself."""

    scale: Tensor
    shift: Tensor

    def __init__(self, network: nn.Module, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.network = network
        scale = [1 / (255 * deviation) for deviation in std]
        shift = [-m / deviation for m, deviation in zip(mean, std, strict=True)]
        self.register_buffer("scale", torch.tensor(scale).view(-1, 1, 1))
        self.register_buffer("shift", torch.tensor(shift).view(-1, 1, 1))

    def forward(self, pixels: Tensor) -> Any:
        """Return the network's result."""
        return self.network(pixels.float() * self.scale + self.shift)


def onnx_bytes(
    model: nn.Module,
    image_shape: Sequence[int],
    *,
    name: str,
    classes: Sequence[str],
    mean: Sequence[float],
    std: Sequence[float],
) -> bytes:
    """Return an ONNX file of a network in evaluation mode: ``pixels`` ``(N, C, H, W)``, uint8, to ``scores``.

    Labels and preprocessing are in its metadata, and the preprocessing in its graph.

    Raises:
        SepnetError: ONNX or ONNX Runtime is not installed, ``torch.onnx`` refuses the network, or ONNX Runtime's
            scores are not PyTorch's.

    """
    onnx = import_onnx()
    wrapped = FromPixels(model, mean, std).eval()
    images = torch.randint(256, (2, *image_shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    try:
        with quiet():
            program = torch.onnx.export(
                wrapped,
                (images,),
                dynamo=True,
                opset_version=OPSET,
                dynamic_shapes=({0: torch.export.Dim("N")},),
                input_names=[INPUT],
                output_names=[OUTPUT],
                verbose=False,
            )
    except Exception as error:
        raise SepnetError(
            f"network '{name}' cannot be exported: torch.onnx refuses it ({type(error).__name__}); "
            "choose another --format"
        ) from error
    assert program is not None
    file = program.model_proto
    describe(file, name=name, classes=classes, mean=mean, std=std)
    content = seal(file.SerializeToString())
    onnx.checker.check_model(file)
    with torch.no_grad():
        expected = wrapped(images)
    _require_close(scores(open_session(content), images), expected, name)
    return content


def describe(file: Any, *, name: str, classes: Sequence[str], mean: Sequence[float], std: Sequence[float]) -> None:
    """Write what the file is, its labels and its preprocessing, into an ONNX model's metadata."""
    onnx = import_onnx()
    file.producer_name, file.graph.name = PRODUCER, name
    file.doc_string = "pixels (N, C, H, W), uint8, 0 to 255, to a score for each class; the largest is the answer"
    onnx.helper.set_model_props(file, metadata(classes, mean, std) | NOTE)


def scores(session: Any, images: Tensor) -> Tensor:
    """Return ONNX Runtime's scores ``(N, classes)``, float32, of images ``(N, C, H, W)``, uint8."""
    parts = [session.run([OUTPUT], {INPUT: batch.numpy()})[0] for batch in images.split(100)]
    return torch.from_numpy(np.concatenate(parts))


def open_session(content: bytes, *, threads: int = 0) -> Any:
    """Return an ONNX Runtime session on the processor; ``threads`` limits how many compute, 0 takes all."""
    runtime = import_package("onnxruntime", "onnx")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    return runtime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def is_ours(content: bytes) -> bool:
    """Say whether sepnet wrote an ONNX file."""
    onnx = import_onnx()
    try:
        return bool(onnx.load_from_string(content).producer_name == PRODUCER)
    except Exception:  # whatever protobuf raises for a stranger's bytes
        return False


def import_onnx() -> Any:
    """Return the package ``onnx``.

    Raises:
        SepnetError: what the export to ONNX needs is not installed.

    """
    import_package("onnxscript", "onnx")
    return import_package("onnx", "onnx")


def _require_close(found: Tensor, expected: Tensor, name: str) -> None:
    apart = float((found - expected).abs().max())
    if not apart <= CLOSE * max(1.0, float(expected.abs().max())):
        raise SepnetError(f"network '{name}' in ONNX Runtime is {apart:.2g} from PyTorch's scores: no file was written")
