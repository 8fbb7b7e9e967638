"""What may be wrong with a dataset before anything is trained on it."""

import hashlib
import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sepnet.data.dataset import Dataset, Split
from sepnet.data.decoding import Inspected
from sepnet.data.duplicates import groups_of, near_pairs
from sepnet.data.findings import Case, DataReport, Finding

UNEQUAL = 3.0
"""Times as many images of the largest class as of the smallest, above which weights are advised."""
LONG = 2.0
"""A longer picture loses more than half when it is cropped to a square."""
SPLITS = ("train", "test")


@dataclass(frozen=True, kw_only=True)
class Items:
    """Images as they are checked: ``(N, C, H, W)``, and for each a name, its content's SHA-256, label and split."""

    data: str
    classes: tuple[str, ...]
    images: Tensor
    names: Sequence[str]
    sha256: Sequence[str]
    labels: Tensor
    held: Tensor
    """Which are test images ``(N,)``."""
    files: Sequence[Inspected] = ()
    """Of a folder: its files, those that have no image among them."""
    outside: Sequence[str] = ()
    split_by_seed: bool = False

    @property
    def dataset(self) -> Dataset | None:
        """The images as a dataset, or None where a split has none."""
        train, test = (
            Split(images=self.images[self.held == side], labels=self.labels[self.held == side])
            for side in (False, True)
        )
        return (
            Dataset(name=self.data, classes=self.classes, train=train, test=test) if len(train) and len(test) else None
        )

    def where(self, image: int) -> str:
        """Return an image's split and class."""
        return f"{SPLITS[int(self.held[image])]} {self.classes[int(self.labels[image])]}"

    def case(self, images: Iterable[int], detail: str = "") -> Case:
        """Return a case of images, with the split and class of each."""
        images = tuple(images)
        told = "; ".join(self.where(image) for image in images)
        return Case(
            files=tuple(self.names[i] for i in images), detail=told + (f"; {detail}" if detail else ""), images=images
        )


def check(items: Items) -> DataReport:
    """Return a dataset's counts and what was found in it, problems first."""
    counts = {split: dict(zip(items.classes, _counts(items, side), strict=True)) for side, split in enumerate(SPLITS)}
    findings = [
        *_broken(items),
        *_missing(items),
        *duplicates(items),
        *_imbalance(items),
        *_sizes(items),
        *_outside(items),
    ]
    findings.sort(key=lambda finding: not finding.problem)
    return DataReport(data=items.data, counts=counts, properties=_properties(items), findings=tuple(findings))


def as_items(dataset: Dataset) -> Items:
    """Return a dataset that comes from no folder, its images named after their place."""
    parts = (dataset.train, dataset.test)
    images = torch.cat([part.images for part in parts])
    return Items(
        data=dataset.name,
        classes=dataset.classes,
        images=images,
        names=[f"{split}[{n}]" for split, part in zip(SPLITS, parts, strict=True) for n in range(len(part))],
        sha256=[hashlib.sha256(image.numpy().tobytes()).hexdigest() for image in images],
        labels=torch.cat([part.labels for part in parts]),
        held=torch.arange(len(images)) >= len(dataset.train),
    )


def _counts(items: Items, side: int) -> list[int]:
    return items.labels[items.held == bool(side)].bincount(minlength=len(items.classes)).tolist()


def _properties(items: Items) -> dict[str, str]:
    channels, height, width = items.images.shape[1:]
    found = {"images": f"{len(items.images):,}, as the network sees them {channels}×{height}×{width}"}
    headers = [one.header for one in items.files if one.header is not None]
    if headers:
        areas = sorted((header.size for header in headers), key=lambda size: size[0] * size[1])
        names = [f"{height}×{width}" for height, width in (areas[0], areas[len(areas) // 2], areas[-1])]
        found["sizes"] = f"{len(set(areas)):,}: smallest {names[0]}, median {names[1]}, largest {names[2]}"
        for name in ("format", "mode"):
            kinds = Counter(getattr(header, name) for header in headers)
            found[f"{name}s"] = ", ".join(f"{kind} {count:,}" for kind, count in kinds.most_common())
        found["bytes"] = f"{sum(one.bytes for one in items.files):,}"
    if items.split_by_seed:
        found["split"] = "drawn by the seed, as for training"
    return found


def _broken(items: Items) -> list[Finding]:
    cases = [Case(files=(str(one.path),), detail=one.error) for one in items.files if one.error]
    summary = (
        f"{len(cases):,} of {len(items.files):,} files cannot be read; training stops unless --skip-broken is given"
    )
    return [Finding(kind="broken", problem=True, summary=summary, cases=tuple(cases))] if cases else []


def _missing(items: Items) -> list[Finding]:
    cases = [
        Case(files=(), detail=f"class '{name}' has no {split} image")
        for side, split in enumerate(SPLITS)
        for name, count in zip(items.classes, _counts(items, side), strict=True)
        if not count
    ]
    summary = f"{len(cases):,} classes lack in a split, and cannot be trained or scored"
    return [Finding(kind="missing", problem=True, summary=summary, cases=tuple(cases))] if cases else []


def duplicates(items: Items) -> list[Finding]:
    """Return exact and near duplicates, those across splits and of two labels first."""
    same: dict[str, list[int]] = {}
    for image, digest in enumerate(items.sha256):
        same.setdefault(digest, []).append(image)
    exact = [group for group in same.values() if len(group) > 1]
    first = torch.tensor([group[0] for group in same.values()], dtype=torch.int64)
    pairs, distances = near_pairs(items.images[first])
    pairs = first[pairs]
    # Of copies, each stands for all: a near duplicate of one is one of the others.
    copies = {group[0]: group for group in exact}
    order = distances.argsort(stable=True)
    apart = {(int(a), int(b)): float(d) for (a, b), d in zip(pairs[order], distances[order], strict=True)}
    near = [
        sorted({i for one in group for i in copies.get(one, [one])}) for group in groups_of(pairs, len(items.images))
    ]
    closest: dict[int, float] = {}
    for (a, b), distance in apart.items():
        for image in (a, b):
            closest.setdefault(image, distance)
    near.sort(key=lambda group: min(closest.get(image, 255.0) for image in group))
    return [
        *_by_splits(items, exact, "duplicates", "have the same content"),
        *_by_splits(items, near, "near-duplicates", "look nearly the same"),
    ]


def _by_splits(items: Items, groups: list[list[int]], kind: str, are: str) -> list[Finding]:
    across = [group for group in groups if len(set(items.held[group].tolist())) == 2]
    torn = [group for group in groups if len(set(items.labels[group].tolist())) > 1]
    told = {id(group) for group in (*across, *torn)}
    within = [group for group in groups if id(group) not in told]
    found = []
    if across:
        tests = sum(int(items.held[group].sum()) for group in across)
        summary = f"{tests:,} test images {are} as training images: accuracy on them is no evidence"
        if items.split_by_seed:
            summary += "; keep them together with --group-by, or remove them"
        found.append(_finding(items, f"{kind}-across-splits", across, summary, problem=True))
    if torn:
        images = sum(map(len, torn))
        summary = f"{images:,} images in {len(torn):,} groups {are} and are of different classes"
        found.append(_finding(items, f"{kind}-of-two-classes", torn, summary, problem=True))
    if within:
        summary = f"{sum(map(len, within)):,} images in {len(within):,} groups {are} within a split"
        found.append(_finding(items, kind, within, summary, problem=False))
    return found


def _finding(items: Items, kind: str, groups: list[list[int]], summary: str, *, problem: bool) -> Finding:
    cases = tuple(items.case(group) for group in groups)
    return Finding(kind=kind, problem=problem, summary=summary, cases=cases)


def _imbalance(items: Items) -> list[Finding]:
    counts = {name: count for name, count in zip(items.classes, _counts(items, 0), strict=True) if count}
    if not counts:
        return []
    least, most = min(counts, key=lambda name: counts[name]), max(counts, key=lambda name: counts[name])
    if counts[most] < UNEQUAL * counts[least]:
        return []
    summary = (
        f"class '{most}' has {counts[most]:,} training images and class '{least}' {counts[least]:,}: consider "
        "--set class_weights=balanced"
    )
    return [Finding(kind="imbalance", problem=False, summary=summary)]


def _sizes(items: Items) -> list[Finding]:
    """Find pictures of which much is cropped, and those that are enlarged."""
    height, width = items.images.shape[2:]
    sizes = [one.header.size for one in items.files if one.header is not None and not one.error]
    if not sizes:
        return []
    kept = [min(h * width, w * height) / max(h * width, w * height) for h, w in sizes]
    scale = [max(height / h, width / w) for h, w in sizes]
    found = []
    cropped = sorted((i for i, share in enumerate(kept) if share < 1 / LONG), key=lambda i: kept[i])
    if cropped:
        summary = f"of {len(cropped):,} pictures more than half is cropped away"
        cases = tuple(items.case([i], f"{sizes[i][0]}×{sizes[i][1]}, {100 * kept[i]:.0f} % kept") for i in cropped)
        found.append(Finding(kind="cropped", problem=False, summary=summary, cases=cases))
    enlarged = sorted((i for i, factor in enumerate(scale) if factor > 1), key=lambda i: -scale[i])
    if enlarged:
        summary = f"{len(enlarged):,} pictures are smaller than {height}×{width} and are enlarged (median size "
        summary += f"{statistics.median_low(h for h, _ in sizes)}×{statistics.median_low(w for _, w in sizes)})"
        cases = tuple(items.case([i], f"{sizes[i][0]}×{sizes[i][1]}") for i in enlarged)
        found.append(Finding(kind="enlarged", problem=False, summary=summary, cases=cases))
    return found


def _outside(items: Items) -> list[Finding]:
    cases = tuple(Case(files=(name,)) for name in items.outside)
    summary = f"{len(cases):,} pictures lie outside the class folders and are left out"
    return [Finding(kind="outside", problem=False, summary=summary, cases=cases)] if cases else []


def suspicious_labels(items: Items, logits: Tensor) -> list[Finding]:
    """Return images whose label a network's logits ``(N, classes)`` confidently disagree with.

    That is where another class is the likeliest, at least as likely as it is, on average, for the images labelled so,
    and likelier than one half. (Northcutt et al. 2021, "Confident learning", section 3.) The surest come first.
    """
    shares = logits.double().softmax(1)
    counts = items.labels.bincount(minlength=len(items.classes)).clamp(min=1)
    own = shares.gather(1, items.labels[:, None])[:, 0]
    usual = torch.zeros(len(items.classes), dtype=torch.float64).index_add_(0, items.labels, own) / counts
    sure, answer = shares.max(1)
    doubted = (answer != items.labels) & (sure >= usual[answer].clamp(min=0.5))
    order = torch.nonzero(doubted).flatten()
    order = order[(sure - own)[order].argsort(descending=True, stable=True)]
    cases = tuple(
        items.case([i], f"the network says {items.classes[int(answer[i])]}, {100 * float(sure[i]):.0f} %")
        for i in order.tolist()
    )
    summary = f"{len(cases):,} labels are doubtful: the network is sure of another class"
    return [Finding(kind="doubtful-labels", problem=False, summary=summary, cases=cases)] if cases else []
