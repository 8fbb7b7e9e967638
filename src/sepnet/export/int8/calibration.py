"""Ranges of a network's values on training images, and the scales that they lead to."""

from dataclasses import dataclass

import torch
from torch import Tensor

from sepnet.export.int8.layers import Network
from sepnet.export.int8.plan import HIGHEST, LOWEST, Scale

BINS = 2048
STEPS = HIGHEST - LOWEST
MODES = ("minmax", "percentile", "mse")
PERCENTILE = 99.99
"""Of a value's numbers, those that ``percentile`` keeps: half of the rest is cut off at either end."""


@dataclass(frozen=True, eq=False)
class Observed:
    """A value's numbers on the calibration images: extremes, and a histogram between them."""

    low: float
    high: float
    histogram: Tensor

    @classmethod
    def of(cls, x: Tensor) -> "Observed":
        """Observe numbers ``(N, C, H, W)``."""
        low, high = float(x.min()), float(x.max())
        histogram = torch.histc(x.float(), BINS, low, high if high > low else low + 1e-6)
        return cls(low, high, histogram)


def observe(network: Network, images: Tensor) -> dict[int, Observed]:
    """Return what each value is on normalized images ``(N, C, H, W)``, taken as one batch."""
    seen: dict[int, Observed] = {}
    with torch.no_grad():
        network.run(images, lambda value, x: seen.update({value: Observed.of(x)}))
    return seen


def choose_scale(seen: Observed, mode: str, live: tuple[float, float] = (-torch.inf, torch.inf)) -> Scale:
    """Return the scale for a value by ``mode``; outside ``live`` its numbers need not be told apart."""
    low, high = max(seen.low, live[0]), min(seen.high, live[1])
    if mode == "percentile":
        low, high = _percentile(seen, low, high)
    if mode == "mse":
        return _least_error(seen, low, high)
    return scale_between(low, high)


def scale_between(low: float, high: float) -> Scale:
    """Return the scale for numbers from ``low`` to ``high`` and 0, which it represents exactly."""
    low, high = min(low, 0.0), max(high, 0.0)
    scale = max((high - low) / STEPS, 1e-8)
    zero_point = round(LOWEST - low / scale)
    return Scale(scale, max(LOWEST, min(HIGHEST, zero_point)))


def _centres(seen: Observed) -> Tensor:
    width = (seen.high - seen.low) / BINS
    return seen.low + width * (torch.arange(BINS, dtype=torch.float64) + 0.5)


def _percentile(seen: Observed, low: float, high: float) -> tuple[float, float]:
    share = seen.histogram.double().cumsum(0) / seen.histogram.double().sum()
    outside = (1 - PERCENTILE / 100) / 2
    kept = _centres(seen)[(share >= outside) & (share <= 1 - outside)]
    return (max(low, float(kept.min())), min(high, float(kept.max()))) if len(kept) else (low, high)


def _least_error(seen: Observed, low: float, high: float) -> Scale:
    """Return the scale whose rounding and clamping cost least in squares, of ranges cut at either end."""
    centres, weight = _centres(seen).clamp(low, high), seen.histogram.double()
    best, least = scale_between(low, high), torch.inf
    for cut_low in torch.linspace(0, 0.6, 13).tolist():
        for cut_high in torch.linspace(0, 0.8, 33).tolist():
            scale = scale_between(low * (1 - cut_low), high * (1 - cut_high))
            steps = (centres / scale.scale).round().add(scale.zero_point).clamp(LOWEST, HIGHEST)
            error = float((((steps - scale.zero_point) * scale.scale - centres) ** 2 * weight).sum())
            if error < least:
                best, least = scale, error
        if low >= 0:
            break
    return best
