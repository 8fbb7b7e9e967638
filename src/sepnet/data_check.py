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
        _require_same_kind(items, run)
        logits = classifier.Classifier(run, trust=trust).logits(items.images)
        found = checking.suspicious_labels(items, logits)
        report = replace(report, findings=(*report.findings, *found))
    return report, items


def write_check(report: DataReport, items: Items, out: Path) -> list[Path]:
    """Write what was found as ``findings.json``, and pictures of the classes and of each finding's worst cases.

    Raises:
        SepnetError: the folder holds other files, or cannot be written.

    """
    from sepnet.report import mosaic  # Matplotlib, for pictures alone
    from sepnet.report.theme import save, theme

    shown = mosaic.pictures_of(report.findings)
    _require_free(out)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SepnetError(f"'{out}' could not be made: {error.strerror or error}; choose another --out") from error
    for file in out.iterdir():
        file.unlink()
    write_atomically(out / FINDINGS, json.dumps(report.to_dict(), indent=2, ensure_ascii=False) + "\n")
    files = [out / FINDINGS]
    with theme("light"):
        if dataset := items.dataset:
            files.append(out / "classes.png")
            save(mosaic.dataset_mosaic(dataset), files[-1])
        for name, finding in shown.items():
            files.append(out / f"{name}.png")
            save(mosaic.worst_cases(finding, items.images), files[-1])
    return files


def _require_free(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise SepnetError(f"'{out}' is a file: expected a folder, choose another --out")
    others = [] if not out.exists() else sorted(file for file in out.iterdir() if not OURS.fullmatch(file.name))
    if others or (out.exists() and any(out.iterdir()) and not (out / FINDINGS).is_file()):
        name = others[0].name if others else next(out.iterdir()).name
        raise SepnetError(f"'{out}' holds '{name}', which is of no check of sepnet's: choose another --out")


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


def _require_same_kind(items: Items, run: Run) -> None:
    if items.classes != run.config.classes or tuple(items.images.shape[1:]) != run.config.image_shape:
        shapes = ("×".join(map(str, shape)) for shape in (items.images.shape[1:], run.config.image_shape))
        raise SepnetError(
            f"'{items.data}' has {len(items.classes)} classes and images {next(shapes)}, run '{run.path}' "
            f"{len(run.config.classes)} and {next(shapes)}: expected the same classes and size"
        )
