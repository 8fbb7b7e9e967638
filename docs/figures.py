"""The pictures of the docs that are made from results: ``python -m docs.figures`` draws them anew."""

from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from docs.tables import RESULTS, ROOT
from sepnet.report.theme import MARKERS, THEMES, WIDTH, Palette, save, settle, theme
from sepnet.runs import Run

FOLDER = ROOT / "docs/pictures"
NAME = "accuracy"


@dataclass(frozen=True)
class Anchor:
    """A network of somebody else's, by what its source says of it."""

    label: str
    parameters: int
    macs: float | None
    accuracy: float
    """In per cent, of CIFAR-10's test images."""


ANCHORS = (
    Anchor("cifar10-tiniest, 200 epochs", 97_530, 44e6, 94.4),  # github.com/xvel/cifar10-tiniest
    Anchor("BSConv-U WRN-40-1, 200 epochs", 80_000, 14.6e6, 92.07),  # Haase and Amthor, CVPR 2020
    Anchor("TinyVision, 60 epochs, best on test images", 31_150, None, 88.43),
    Anchor("TinyVision's smaller one", 22_110, None, 87.38),
    Anchor("MLPerf Tiny's resnet8, 500 epochs", 78_666, 12.5e6, 87.19),
)
THEIR_MARKERS = "xX+*p"


def draw(palette: Palette) -> Figure:
    """Draw accuracy against parameters, MACs and seconds, under the theme in force."""
    figure = Figure(figsize=(WIDTH, 5.2), layout="constrained")
    by_parameters, by_macs, by_seconds = figure.subplots(1, 3, sharey=True)
    for number, (name, label) in enumerate(RESULTS.items()):
        run = Run.open(ROOT / "results" / name)
        anatomy, accuracies = run.anatomy, [100 * epoch.val_accuracy for epoch in run.history]
        assert anatomy is not None
        seconds = list(accumulate(epoch.seconds for epoch in run.history))
        colour = palette.series[number]
        point: dict[str, Any] = {"color": colour, "marker": MARKERS[number], "linestyle": ""}
        point["label"] = label.replace("`", "")
        by_parameters.plot([anatomy.parameters], accuracies[-1:], **point)
        by_macs.plot([anatomy.macs / 1e6], accuracies[-1:], **point)
        by_seconds.plot(seconds, accuracies, color=colour, linewidth=1)
        by_seconds.plot(seconds[-1:], accuracies[-1:], **point)
    for marker, anchor in zip(THEIR_MARKERS, ANCHORS, strict=True):
        point = {"color": palette.muted, "marker": marker, "linestyle": "", "label": anchor.label}
        by_parameters.plot([anchor.parameters], [anchor.accuracy], **point)
        if anchor.macs is not None:
            by_macs.plot([anchor.macs / 1e6], [anchor.accuracy], **point)
    by_parameters.set(xscale="log", xlabel="parameters", xlim=(9e3, 2e6))
    by_parameters.set(ylabel="test accuracy, last epoch, %", ylim=(75, 96), yticks=range(75, 96, 5))
    by_macs.set(xlabel="MACs, millions", xlim=(0, 60))
    by_seconds.set(xscale="log", xlabel="seconds, two cores", xlim=(40, 8e3))
    names = {1e6: "1 M", 1e5: "100 k", 1e4: "10 k"}
    for axes in (by_parameters, by_seconds):
        axes.xaxis.set_major_formatter(lambda value, _: names.get(value, f"{value:,.0f}"))
        axes.xaxis.set_minor_formatter(lambda *_: "")
    figure.legend(*by_parameters.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return settle(figure)


def pictures(folder: Path) -> list[Path]:
    """Draw the picture in every theme into a folder, and return the files."""
    folder.mkdir(exist_ok=True)
    files = []
    for name in THEMES:
        with theme(name) as palette:
            files.append(folder / f"{NAME}-{name}.png")
            save(draw(palette), files[-1])
    return files


if __name__ == "__main__":
    for file in pictures(FOLDER):
        print(file.relative_to(ROOT))
