"""Images of a dataset as Matplotlib takes them."""

import numpy as np
from torch import Tensor


def to_pixels(image: Tensor) -> np.ndarray:
    """Return an image ``(C, H, W)`` as ``(H, W, 3)``: the first three channels, or the first as grey."""
    channels = image[:3] if len(image) >= 3 else image[:1].expand(3, -1, -1)
    return channels.permute(1, 2, 0).cpu().numpy()
