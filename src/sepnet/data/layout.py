"""Which pictures a folder holds, and the class and split of each: a folder a class, or a table as Hugging Face's."""

import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from sepnet.data.metadata import find_table, read_table
from sepnet.data.pictures import suffixes, walk
from sepnet.errors import SepnetError
from sepnet.notices import notice, printable

SPLITS = {"train": ("train", "training"), "test": ("test", "val", "valid", "validation")}
"""The folders of a split, the first of these names that is there."""

EXPECTED = (
    "expected a folder a class, in it or in its folders train and test (or val, valid, validation), or a metadata.csv "
    "or metadata.jsonl with the columns file_name and label"
)


@dataclass(frozen=True, kw_only=True)
class PictureFile:
    """One picture's file; ``split`` is ``train``, ``test``, or empty in a folder that is not split."""

    path: Path
    name: str
    """Below its class's or split's folder: what pictures are sorted by, and what groups are found in."""
    label: str
    split: str


@dataclass(frozen=True, kw_only=True)
class Layout:
    """A folder's classes and its pictures, sorted by name, then by class: so the order tells nothing of the class."""

    root: Path
    classes: tuple[str, ...]
    files: tuple[PictureFile, ...]
    outside: tuple[Path, ...] = ()
    """Pictures that are of no class."""

    @property
    def is_split(self) -> bool:
        """Whether the folder itself says which pictures are test images."""
        return any(file.split for file in self.files)


def find_layout(root: Path) -> Layout:
    """Return what a folder holds.

    Raises:
        SepnetError: it is no folder, holds no classes, or its table cannot be read.

    """
    if not root.is_dir():
        raise SepnetError(f"'{root}' is not a folder: {EXPECTED}")
    splits = {split: found for split, names in SPLITS.items() if (found := _folder_of(root, names))}
    table = find_table(root)
    files: list[PictureFile] = []
    outside: list[Path] = []
    if table is not None:
        files = _from_table(root, table, "")
    elif "train" in splits and "test" in splits:
        _note_unused(root, splits["test"])
        for split, folder in splits.items():
            listed, strays = _from_folder(folder, split)
            files += listed
            outside += strays
    elif "train" in splits:
        notice(f"'{root}' has a training folder and none of {', '.join(SPLITS['test'])}: the former is split")
        files, outside = _from_folder(splits["train"], "")
    else:
        files, outside = _from_folder(root, "")
    classes = in_order({file.label for file in files})
    if len(classes) < 2:
        what = f"only the class '{classes[0]}'" if classes else "no classes"
        raise SepnetError(f"'{root}' holds {what}: {EXPECTED}")
    files.sort(key=lambda file: (file.name, file.label))
    return Layout(root=root, classes=classes, files=tuple(files), outside=tuple(sorted(outside)))


def in_order(names: Iterable[str]) -> tuple[str, ...]:
    """Return class names in their order: numbers by their value, other names by their characters."""
    names = list(names)
    if all(name.isascii() and name.isdecimal() for name in names):
        return tuple(sorted(names, key=lambda name: (int(name), name)))
    return tuple(sorted(names))


def require_classes(name: str, classes: Sequence[str], splits: dict[str, Iterable[str]], advice: str) -> None:
    """Raise where a class has no picture in a split; ``splits`` has the classes' names, one for each picture."""
    for split, labels in splits.items():
        counts = Counter(labels)
        if missing := [one for one in classes if not counts[one]]:
            more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
            raise SepnetError(
                f"'{name}': class '{missing[0]}'{more} has no picture among the {split} images: expected at least one "
                f"of each class; {advice}"
            )


def _folder_of(root: Path, names: Sequence[str]) -> Path | None:
    """Return the folder of the first of these names, in small letters or capitals."""
    there = {child.name.lower(): child for child in sorted(root.iterdir()) if child.is_dir()}
    return next((there[name] for name in names if name in there), None)


def _note_unused(root: Path, test: Path) -> None:
    others = [child.name for child in sorted(root.iterdir()) if child.is_dir() and child.name.lower() in SPLITS["test"]]
    others.remove(test.name)
    if others:
        notice(f"'{root}' is scored on its folder '{test.name}'; not used: {', '.join(others)}")


def _from_folder(folder: Path, split: str) -> tuple[list[PictureFile], list[Path]]:
    """Return the pictures of a folder of class folders, or of a table, and those that lie outside."""
    table = find_table(folder)
    if table is not None:
        return _from_table(folder, table, split), []
    endings = suffixes()
    files, outside = [], []
    for child in _children(folder):
        if child.is_dir():
            label = _class_name(child)
            found = [path for path in walk(child) if path.suffix.lower() in endings]
            if not found:
                raise SepnetError(f"the class folder '{child}' holds no picture: put some into it, or take it away")
            files += [
                PictureFile(path=path, name=path.relative_to(child).as_posix(), label=label, split=split)
                for path in found
            ]
        elif child.suffix.lower() in endings:
            outside.append(child)
    return files, outside


def _children(folder: Path) -> Iterator[Path]:
    for child in sorted(folder.iterdir()):
        if child.name.startswith("."):
            continue
        if child.is_symlink() and child.is_dir():
            raise SepnetError(f"'{child}' is a symbolic link, and links are not followed: put the folder there itself")
        yield child


def _class_name(folder: Path) -> str:
    if printable(folder.name) != folder.name:
        raise SepnetError(
            f"the class folder '{printable(str(folder))}' holds a character that cannot be printed: rename it"
        )
    return unicodedata.normalize("NFC", folder.name)  # an é of two characters, as macOS writes it, is an é


def _from_table(folder: Path, table: Path, split: str) -> list[PictureFile]:
    """Return the pictures that a table lists; without a split given, their first folder may name it."""
    rows = read_table(table)
    found = [split or _split_of(name) for name, _ in rows]
    if len(set(found)) > 1 and "" in found:
        name = rows[found.index("")][0]
        raise SepnetError(f"'{table}': '{name}' lies in no folder of a split, and others do: expected all or none")
    if set(found) == {"train"} and not split:
        found = [""] * len(found)
    return [
        PictureFile(path=folder / name, name=name, label=unicodedata.normalize("NFC", label), split=one)
        for (name, label), one in zip(rows, found, strict=True)
    ]


def _split_of(name: str) -> str:
    first, separator, _ = name.partition("/")
    return next((split for split, names in SPLITS.items() if separator and first.lower() in names), "")
