"""Anatomy: a network's layers with output size, receptive field, parameters and multiplications."""

from sepnet.anatomy.anatomy import Anatomy, Convolution, Layer, Peak
from sepnet.anatomy.render import to_json, to_markdown, to_text
from sepnet.anatomy.trace import trace

__all__ = ["Anatomy", "Convolution", "Layer", "Peak", "to_json", "to_markdown", "to_text", "trace"]
