"""Anatomy: a network's layers with output size, receptive field, parameters and multiplications."""

from sepnet.anatomy.anatomy import Anatomy, Convolution, Layer, Peak
from sepnet.anatomy.effective_field import EffectiveField, effective_receptive_field
from sepnet.anatomy.layers import KINDS
from sepnet.anatomy.tables import effective_to_text, to_json, to_markdown, to_text
from sepnet.anatomy.trace import not_one_tensor, trace

__all__ = [
    "KINDS",
    "Anatomy",
    "Convolution",
    "EffectiveField",
    "Layer",
    "Peak",
    "effective_receptive_field",
    "effective_to_text",
    "not_one_tensor",
    "to_json",
    "to_markdown",
    "to_text",
    "trace",
]
