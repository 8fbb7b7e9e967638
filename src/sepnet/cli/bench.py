"""``sepnet bench``."""

from typing import Annotated

import typer

from sepnet.cli.completion import complete_recipes
from sepnet.cli.options import (
    ChannelsOption,
    ClassesOption,
    FormatOption,
    ImageSizeOption,
    NetworkArgument,
    TextOrJson,
    image_shape,
    only_results,
    print_json,
    print_text,
)
from sepnet.cli.train import RECIPES, DeviceOption, PrecisionOption


def command(
    network: NetworkArgument = "champion",
    recipe: Annotated[
        str | None,
        typer.Option(
            metavar=RECIPES,
            help="How to train; unless given the network's own, which is champion for yours.",
            autocompletion=complete_recipes,
        ),
    ] = None,
    batch_size: Annotated[int | None, typer.Option(help="Images per step; the recipe's (128) unless given.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Epochs; the recipe's unless given.")] = None,
    device: DeviceOption = None,
    precision: PrecisionOption = None,
    image_size: ImageSizeOption = "32",
    channels: ChannelsOption = 3,
    classes: ClassesOption = 10,
    images: Annotated[
        int, typer.Option(min=1, help="Training images in an epoch; as many as CIFAR-10 has by default.")
    ] = 50_000,
    validation_images: Annotated[
        int, typer.Option(min=1, help="Images to validate on after each epoch; as many as CIFAR-10 has by default.")
    ] = 10_000,
    seconds: Annotated[float, typer.Option(help="How long to measure, warm-up included.")] = 20.0,
    form: FormatOption = TextOrJson.text,
) -> None:
    """Measure how fast this machine trains a network, and estimate how long a recipe takes.

    Uses random images, so no dataset is needed. Nothing is written.
    """
    from sepnet import api

    with only_results():
        speed = api.bench(
            network,
            recipe,
            batch_size=batch_size,
            epochs=epochs,
            device=device,
            precision=precision,
            image_shape=image_shape(image_size, channels),
            classes=classes,
            training_images=images,
            validation_images=validation_images,
            seconds=seconds,
        )
    if form is TextOrJson.json:
        print_json(speed.to_dict())
    else:
        print_text(speed)
