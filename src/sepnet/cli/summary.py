"""``sepnet summary``."""

import shutil
import sys
from enum import StrEnum
from typing import Annotated

import typer

from sepnet.cli.options import (
    ChannelsOption,
    ClassesOption,
    ImageSizeOption,
    NetworkArgument,
    image_shape,
    only_results,
    without_collector,
)
from sepnet.errors import SepnetError


class SummaryFormat(StrEnum):
    """How the layers are written."""

    text = "text"
    markdown = "markdown"
    json = "json"
    keras = "keras"


def command(
    network: NetworkArgument,
    form: Annotated[SummaryFormat, typer.Option("--format", help="How the layers are written.")] = SummaryFormat.text,
    image_size: ImageSizeOption = "32",
    channels: ChannelsOption = 3,
    classes: ClassesOption = 10,
    effective: Annotated[
        bool,
        typer.Option("--effective", help="Measure the effective receptive field of each layer on random images."),
    ] = False,
) -> None:
    """Show a network's layers: output size, receptive field, parameters and MACs of each.

    As keras: a Keras 3 definition that runs, each layer's receptive field and output size in a comment.

    The receptive field is unclipped, in pixels of the image, with the share of the image it covers beside it.
    MACs are the multiplications of convolutions and dense layers for one image. Parameters are Keras's count:
    trainable, and the moving statistics of batch norm beside them. Kept bytes are what PyTorch keeps of one image
    for the backward pass, in fp32.

    The effective receptive field is the central window that holds 95 % of the energy of a unit's gradient (Luo et
    al. 2016), over 8 random images, seed 0, with the weights that an untrained network starts from.
    """
    with without_collector():
        _print(network, form, image_shape(image_size, channels), classes, effective=effective)


def _print(network: str, form: SummaryFormat, shape: tuple[int, int, int], classes: int, *, effective: bool) -> None:
    from sepnet.anatomy import effective_to_text, to_json, to_markdown, to_text, trace
    from sepnet.networks import build

    if effective:
        if form is not SummaryFormat.text:
            raise SepnetError(f"--effective with --format {form}: expected text, its only format")
        from sepnet import api

        with only_results():
            found = api.effective_receptive_field(network, image_shape=shape, classes=classes)
        print(effective_to_text(network, found))
        return
    if form is SummaryFormat.keras:
        from sepnet.export.keras import keras_definition

        with only_results():
            definition = keras_definition(build(network, classes=classes, image_shape=shape), shape, name=network)
        print(definition, end="")
        return
    with only_results():
        anatomy = trace(build(network, classes=classes, image_shape=shape), shape, name=network)
    if form is SummaryFormat.json:
        print(to_json(anatomy))
    elif form is SummaryFormat.markdown:
        print(to_markdown(anatomy))
    else:
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else 120
        print(to_text(anatomy, width))
