"""Write a report's folder: pictures in both themes, README, notebook; all of it or nothing."""

import re
from collections.abc import Callable
from pathlib import Path

from matplotlib.figure import Figure

from sepnet.errors import SepnetError
from sepnet.files import read_text, write_atomically
from sepnet.folders import replacing, require_replaceable
from sepnet.report import kernel, notebook, readme
from sepnet.report.contents import Contents
from sepnet.report.plots import (
    accuracy_curves,
    confusion_matrix,
    dataset_mosaic,
    per_class_accuracy,
    receptive_field_growth,
    worst_mistakes,
)
from sepnet.report.theme import THEMES, save, theme

README = "README.md"


def write(contents: Contents, folder: Path) -> Path:
    """Write the report into ``folder``, in place of one that is there, and return the folder.

    Raises:
        SepnetError: the folder holds something else, cannot be written, or the notebook failed.

    """
    require_replaceable(folder, holds=OURS, written_by_sepnet=_is_report(folder), what="a report")
    with replacing(folder) as place:
        pictures = _pictures(contents)
        for name, (draw, _) in pictures.items():
            for mode in THEMES:
                with theme(mode):
                    save(draw(), place / f"{name}-{mode}.png")
        shown = {name: description for name, (_, description) in pictures.items()}
        write_atomically(place / README, readme.to_readme(contents, shown, folder=folder))
        for name, text in readme.recipe_files(contents).items():
            write_atomically(place / name, text)
        cells = notebook.build(contents, folder=folder, headline=readme.headline(contents))
        write_atomically(place / notebook.NOTEBOOK, notebook.to_text(cells))
        cells = kernel.execute(cells, folder=place)
        write_atomically(place / notebook.NOTEBOOK, notebook.to_text(cells))
    return folder


def _pictures(contents: Contents) -> dict[str, tuple[Callable[[], Figure], str]]:
    """Return, by file name, how each picture is drawn and what it shows."""
    contenders, dataset = contents.contenders, contents.dataset
    names = " and ".join(one.label for one in contenders)
    pictures: dict[str, tuple[Callable[[], Figure], str]] = {
        "curves": (
            lambda: accuracy_curves(
                {one.label: [run.history for run in one.runs] for one in contenders}, images=contents.images
            ),
            f"Accuracy and loss of {names} after each epoch",
        ),
        "classes": (
            lambda: per_class_accuracy({one.label + one.of_seed: one.evaluation for one in contenders}),
            f"Accuracy of {names} on each class",
        ),
    }
    for number, one in enumerate(contenders, 1):
        pictures[f"confusion-{number}"] = (
            lambda one=one: confusion_matrix(one.label + one.of_seed, one.evaluation),  # type: ignore[misc]
            f"Which classes {one.label} takes for which",
        )
    if dataset is not None:
        pictures["data"] = (
            lambda: dataset_mosaic(dataset, scored_on=contents.images),
            f"Training images of each class of {dataset.name}, and how many there are",
        )
        anatomies = {one.label: one.anatomy for one in contenders}
        pictures["fields"] = (
            lambda: receptive_field_growth(dataset.test.images[0], anatomies),
            f"How the receptive field of {names} grows from layer to layer, drawn over an image",
        )
        for number, one in enumerate(contenders, 1):
            pictures[f"mistakes-{number}"] = (
                lambda one=one: worst_mistakes(  # type: ignore[misc]
                    dataset.test.images,
                    dataset.test.labels,
                    one.runs[0].logits()[0],
                    one.config.classes,
                    one.label + one.of_seed,
                ),
                f"The images that {one.label} was most sure and wrong about",
            )
    return pictures


def _is_report(folder: Path) -> bool:
    """Whether sepnet wrote a report into the folder: its notebook says so."""
    try:
        return notebook.MARK in read_text(folder / notebook.NOTEBOOK, follow_links=False)
    except SepnetError:
        return False


OURS = re.compile(rf"{README}|{notebook.NOTEBOOK}|recipe-\d+\.toml|[a-z]+(-\d+)?-({'|'.join(THEMES)})\.png")
"""The names of a report's files."""
