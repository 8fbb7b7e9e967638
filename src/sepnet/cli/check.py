"""``sepnet check``."""

from sepnet.cli.options import (
    ChannelsOption,
    ClassesOption,
    FormatOption,
    ImageSizeOption,
    NetworkArgument,
    RulesOption,
    TextOrJson,
    image_shape,
    only_results,
    print_json,
    print_text,
)


def command(
    network: NetworkArgument,
    rules: RulesOption = "assignment",
    form: FormatOption = TextOrJson.text,
    image_size: ImageSizeOption = "32",
    channels: ChannelsOption = 3,
    classes: ClassesOption = 10,
) -> int:
    """Check a network against rules; exit 0 if it passes, 1 if it breaks one, 2 if it could not be checked.

    The assignment's rules: depthwise separable convolutions only, batch norm, dropout with rates in (0, 0.5],
    fewer than 100,000 parameters.
    """
    from sepnet import api

    with only_results():
        report = api.check(network, rules, image_shape=image_shape(image_size, channels), classes=classes)
    if form is TextOrJson.json:
        print_json(report.to_dict())
    else:
        print_text(report)
    return 0 if report.kept else 1
