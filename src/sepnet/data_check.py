"""``sepnet data check``: a dataset looked through, by itself and by a trained run."""

import json
import os
import re
from dataclasses import replace
from pathlib import Path

from sepnet import data as datasets
from sepnet.data import Dataset, checking, folder
from sepnet.data.checking import Items
from sepnet.data.findings import DataReport
from sepnet.data.pictures import Pictures
from sepnet.errors import SepnetError
from sepnet.files import write_atomically
from sepnet.folders import replacing, require_replaceable
from sepnet.inference import classifier
from sepnet.runs import Run

FINDINGS = "findings.json"
OURS = re.compile(r"findings\.json|[a-z-]+\.png")
"""The names of what is written."""
SIZE = (64, 64)
"""That pictures of several sizes are checked in, where none is given."""


def check_data(
    data: str | Path | Dataset, pictures: Pictures | None = None, run: Run | None = None, *, trust: bool = False
) -> tuple[DataReport, Items]:
    """Return what was found in a dataset, and its images; see :func:`sepnet.check_data`.

    ``pictures`` says how a folder is read; its path is ``data``.
    """
    items = _items(data, pictures, run)
    report = checking.check(items)
    if run is not None:
        answering = classifier.Classifier(run, trust=trust)
        classifier.require_same_kind(answering, items.data, items.classes, items.images.shape[1:])
        found = checking.suspicious_labels(items, answering.logits(items.images))
        report = replace(report, findings=(*report.findings, *found))
    return report, items


def write_check(report: DataReport, items: Items, out: Path) -> list[Path]:
    """Write what was found as ``findings.json``, and pictures of the classes and of each finding's worst cases.

    Raises:
        SepnetError: the folder holds other files, or cannot be written.

    """
    from sepnet.report import mosaic  # Matplotlib, for pictures alone
    from sepnet.report.theme import save, theme

    written = (out / FINDINGS).is_file()
    require_replaceable(out, holds=OURS, written_by_sepnet=written, what="a check")
    with replacing(out) as place, theme("light"):
        write_atomically(place / FINDINGS, json.dumps(report.to_dict(), indent=2, ensure_ascii=False) + "\n")
        if dataset := items.dataset:
            save(mosaic.dataset_mosaic(dataset), place / "classes.png")
        for name, finding in mosaic.pictures_of(report.findings).items():
            save(mosaic.worst_cases(finding, items.images), place / f"{name}.png")
    return [out / FINDINGS, *sorted(out.glob("*.png"))]


def _items(data: str | Path | Dataset, pictures: Pictures | None, run: Run | None) -> Items:
    if isinstance(data, Dataset):
        return checking.as_items(data)
    path = Path(data)
    if not datasets.is_path(data) or path.is_file():
        return checking.as_items(datasets.open_data(data) if run is None else classifier.load_data(run, data))
    pictures = replace(pictures or Pictures(path=""), path=os.path.normpath(path))
    if run is not None:
        channels, height, width = run.config.image_shape
        pictures = replace(pictures, image_size=(height, width), channels=channels)
    try:
        return _from_folder(folder.read(pictures, otherwise=SIZE), pictures)
    except OSError as error:
        raise SepnetError(f"'{error.filename or path}' cannot be read: {error.strerror or error}") from error


def _from_folder(found: folder.Read, pictures: Pictures) -> Items:
    """Return a folder's images as they are checked, split as for training."""
    layout = found.layout
    good = [(file, one) for file, one in zip(layout.files, found.found, strict=True) if not one.error]
    labels, held, _ = folder.assign(found, pictures)
    return Items(
        data=folder.title(pictures.path),
        classes=layout.classes,
        images=found.images,
        names=[str(one.path) for _, one in good],
        sha256=[one.sha256 for _, one in good],
        labels=labels,
        held=held,
        files=found.found,
        outside=[str(path) for path in layout.outside],
        split_by_seed=not layout.is_split,
    )
