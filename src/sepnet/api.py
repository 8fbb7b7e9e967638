"""The verbs of the command line, for Python."""

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from sepnet import data as datasets
from sepnet.anatomy import Anatomy, EffectiveField, trace
from sepnet.anatomy import effective_receptive_field as measure_effective
from sepnet.backend import compile
from sepnet.comparison.contestants import Comparison, Contestant
from sepnet.comparison.contestants import compare as compare_contestants
from sepnet.comparison.significance import judge
from sepnet.data import Dataset, Pictures, Split
from sepnet.errors import SepnetError
from sepnet.export import exported, keras
from sepnet.export.int8.footprint import footprint
from sepnet.inference import classifier, prediction
from sepnet.networks import NETWORKS, build
from sepnet.recipes.recipe import Recipe, require_fields
from sepnet.rules import Rules, RulesReport, load_rules
from sepnet.rules import check as check_anatomy
from sepnet.runs import Run
from sepnet.runs.listing import list_runs
from sepnet.speed import throughput
from sepnet.sweep.shares import worker_count
from sepnet.sweep.side_by_side import train as train_side_by_side
from sepnet.sweep.sweep import Sweep
from sepnet.training import experiment, trained_network

if TYPE_CHECKING:
    from sepnet.data.findings import DataReport
    from sepnet.runs.scores import Score

__all__ = [
    "Dataset",
    "Recipe",
    "Rules",
    "Run",
    "SepnetError",
    "Split",
    "bench",
    "check",
    "check_data",
    "compare",
    "compile",
    "effective_receptive_field",
    "evaluate",
    "export_run",
    "judge",
    "keras_definition",
    "list_runs",
    "load",
    "load_data",
    "open_sweep",
    "predict",
    "score_exports",
    "summary",
    "train",
    "write_report",
]
RUNS = Path("runs")


def summary(network: str | nn.Module, *, image_shape: tuple[int, int, int] = (3, 32, 32), classes: int = 10) -> Anatomy:
    """Return a network's layers: output size, receptive field, total stride, parameters and MACs of each.

    Args:
        network: a name, ``path/to/file.py:name``, or a module.
        image_shape: ``(C, H, W)`` of one image.
        classes: how many classes a network given by name is built for.

    Raises:
        SepnetError: no such network, or it cannot be read; the layer is named.

    """
    if isinstance(network, nn.Module):
        return trace(network, image_shape)
    return trace(build(network, classes=classes, image_shape=image_shape), image_shape, name=network)


def effective_receptive_field(
    network: str | nn.Module, *, image_shape: tuple[int, int, int] = (3, 32, 32), classes: int = 10
) -> list[EffectiveField]:
    """Measure where in its receptive field each layer's gradient lies, over 8 random images.

    A network given by name is measured with the weights it starts from, drawn by seed 0; a module with its own.

    Raises:
        SepnetError: as for :func:`summary`.

    """
    if isinstance(network, nn.Module):
        return measure_effective(network, image_shape)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = build(network, classes=classes, image_shape=image_shape)
    return measure_effective(model, image_shape, name=network)


def keras_definition(
    network: str | nn.Module, *, image_shape: tuple[int, int, int] = (3, 32, 32), classes: int = 10
) -> str:
    """Return Python source that builds the network, untrained, as ``model`` in Keras 3.

    Each layer's line tells its receptive field and its output size.

    Args:
        network: as for :func:`summary`.
        image_shape: ``(C, H, W)`` of one image; Keras's images are ``(H, W, C)``.
        classes: how many classes a network given by name is built for.

    Raises:
        SepnetError: as for :func:`summary`, or a layer has no counterpart in Keras; it is named.

    """
    if isinstance(network, nn.Module):
        return keras.keras_definition(network, image_shape)
    model = build(network, classes=classes, image_shape=image_shape)
    return keras.keras_definition(model, image_shape, name=network)


def check(
    network: str | nn.Module | Anatomy | Run,
    rules: str | Path | Rules = "assignment",
    *,
    image_shape: tuple[int, int, int] = (3, 32, 32),
    classes: int = 10,
    trust: bool = False,
) -> RulesReport:
    """Judge a network by rules: a preset's name, a TOML file, or :class:`sepnet.rules.Rules`.

    Args:
        network: as for :func:`summary`, or an anatomy, or a run, whose network it is.
        rules: what it is judged by. Those of a device's memory need the network itself: an anatomy does not do.
        image_shape: ``(C, H, W)`` of one image; a run's is its own.
        classes: how many classes a network given by name is built for.
        trust: as for :func:`load`, where a run's network has to be built again.

    Raises:
        SepnetError: unknown rules or network, or the network cannot be read, or returns something else than one tensor,
            which cannot be trained.

    """
    chosen = _rules(rules)
    if isinstance(network, Anatomy):
        return check_anatomy(network, chosen)
    if isinstance(network, Run):
        anatomy = trained_network.describe(network, trust=trust).anatomy
        return check_anatomy(anatomy, chosen, partial(trained_network.memory_on_device, network, trust=trust))
    built = network if isinstance(network, nn.Module) else build(network, classes=classes, image_shape=image_shape)
    name = None if isinstance(network, nn.Module) else network
    anatomy = trace(built, image_shape, name=name, one_output=True)
    return check_anatomy(anatomy, chosen, lambda: footprint(built, image_shape, name=anatomy.network))


def train(
    network: experiment.Network,
    data: str | Path | Dataset | None = None,
    recipe: str | Path | Recipe | None = None,
    *,
    epochs: int | None = None,
    batch_size: int | None = None,
    lr: float | None = None,
    settings: Mapping[str, Any] | None = None,
    seed: int | None = None,
    device: str | torch.device | None = None,
    precision: str | None = None,
    validation: str | None = None,
    teacher: str | Path | Run | Sequence[str | Path | Run] = (),
    trust: bool = False,
    name: str | None = None,
    out: str | Path = RUNS,
    resume: bool = False,
    reuse: bool = False,
    tensorboard: bool = False,
    mlflow: bool = False,
) -> Run:
    """Train a network into the folder ``out/name`` and return the finished run.

    A module is trained in place, from the weights it has (the recipe's initializer is left out), and ends in
    evaluation mode with the trained ones. A name, or a function that builds a module, starts from weights drawn
    under ``seed``.

    Args:
        network: a name, ``path/to/file.py:name``, a module, or a function that returns one.
        data: a dataset's name, a folder or ``.npz`` file of pictures, or a :class:`sepnet.data.Dataset`; ``sample``
            when absent. How pictures become images is said to :func:`sepnet.load_data`, which returns a dataset.
        recipe: a preset's name, a TOML file, or a :class:`~sepnet.recipes.recipe.Recipe`; the network's own
            when absent.
        epochs: as ``batch_size`` and ``lr``, replaces the recipe's.
        batch_size: images per step.
        lr: the (highest) learning rate.
        settings: more fields of the :class:`~sepnet.recipes.recipe.Recipe` and the values that replace its own.
        seed: of everything random, from 0 to 2⁶³ − 1; 0 when absent.
        device: ``auto``, ``cpu``, ``cuda`` …, or a ``torch.device``; ``auto`` when absent.
        precision: ``auto``, ``bf16`` or ``fp32``; ``auto`` when absent.
        validation: ``test``, the assignment's protocol, when absent; or ``holdout``, a tenth of the training images.
        teacher: finished runs, or networks whose weights are shipped, from whose mean logits on the same images it
            learns beside the labels: see ``distillation`` of the :class:`~sepnet.recipes.recipe.Recipe`.
        trust: run the Python files that teachers' networks are in.
        name: of the run's folder; a taken one gets a number.
        out: the folder of runs.
        resume: go on with the run in ``out/name``; what is not given is as that run has it, and ``epochs`` may
            be more than it had.
        reuse: where ``out`` holds a run of this very configuration, reuse it, finished or not.
        tensorboard: also write the figures of each epoch as TensorBoard's files, into the run's folder.
        mlflow: also write them to MLflow, where its own settings say.

    Raises:
        SepnetError: a value or name is wrong, the loss is not finite, or a file cannot be written.

    """
    options: dict[str, Any] = {
        "seed": seed,
        "device": device,
        "precision": precision,
        "validation": validation,
        "epochs": epochs,
        "batch_size": batch_size,
        "lr": lr,
    }
    teachers = [teacher] if isinstance(teacher, str | Path | Run) else teacher
    if teachers:
        options["teachers"] = [one if isinstance(one, Run) else str(one) for one in teachers]
    given = {**_merge(options, settings), "trust": trust, "loggers": _loggers(tensorboard=tensorboard, mlflow=mlflow)}
    if resume and reuse:
        raise SepnetError("resume and reuse exclude each other: the one names a run, the other looks for it")
    if resume:
        more = given.pop("epochs", None)
        job, run = experiment.reopen(network, data, recipe, out=Path(out), name=name, **given)
        experiment.train_run(job, run, epochs=more)
    else:
        job = experiment.prepare(network, data or experiment.DEFAULT_DATA, recipe, **given)
        if reuse:
            return experiment.take_up(job, Path(out), name)
        run = Run.create(Path(out), name or experiment.default_name(job.config), job.config)
        experiment.train_run(job, run)
    return run


def _loggers(**wanted: bool) -> tuple[str, ...]:
    return tuple(name for name, on in wanted.items() if on)


def _merge(options: Mapping[str, Any], settings: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the options that are not None, and the fields of a recipe among the settings; none may be in both."""
    given = {key: value for key, value in options.items() if value is not None}
    more = require_fields(settings or {})
    for key in given.keys() & more.keys():
        raise SepnetError(f"{key} is given twice, by itself and among the settings: give it once")
    return {**given, **more}


def load_data(
    data: str | Path,
    *,
    image_size: int | tuple[int, int] | None = None,
    channels: int | None = None,
    group_by: str | None = None,
    test_share: float | None = None,
    split_seed: int | None = None,
    skip_broken: bool | None = None,
) -> Dataset:
    """Return a dataset: one of sepnet's by its name, or pictures of one's own by their path.

    A folder has ``train`` and ``test`` (or ``val``, ``valid``, ``validation``) with a folder a class, or one level of
    class folders, which is split; or the pictures are listed in ``metadata.csv`` or ``metadata.jsonl`` with the columns
    ``file_name`` and ``label``, as Hugging Face's ``imagefolder`` has them; or ``data`` is an ``.npz`` file. How a
    picture becomes an image is said in :mod:`sepnet.data.pictures`. The other arguments are of pictures alone.

    Args:
        data: a name or a path.
        image_size: height and width that a network sees, or one number for both; the pictures' own when absent, which
            must all have one.
        channels: 3 for RGB, 1 for grey; 3 when absent.
        group_by: a regular expression on file names: pictures of one match stay in one split.
        test_share: of each class, the share that becomes test images where nobody has split; 0.2 when absent.
        split_seed: by which that is drawn; 0 when absent.
        skip_broken: leave out files that cannot be read, with a notice for each, instead of raising.

    Raises:
        SepnetError: nothing is there, a file cannot be read, a class is missing in a split, or memory does not suffice.

    """
    size = (image_size, image_size) if isinstance(image_size, int) else image_size
    return datasets.open_data(
        data,
        image_size=size,
        channels=channels,
        group_by=group_by,
        test_share=test_share,
        split_seed=split_seed,
        skip_broken=skip_broken,
    )


def check_data(
    data: str | Path | Dataset,
    *,
    by: str | Path | Run | None = None,
    out: str | Path | None = None,
    trust: bool = False,
    **options: Any,
) -> "DataReport":
    """Look through a dataset before training on it, and return what was found.

    Args:
        data: as for :func:`load_data`, or a dataset.
        by: a trained run of the same classes: labels that its network confidently disagrees with are named.
        out: a folder for ``findings.json`` and pictures of each finding's worst cases.
        trust: as for :func:`load`.
        options: of pictures, as for :func:`load_data`; broken files are named, not raised.

    Raises:
        SepnetError: nothing is there, or the run's classes are others.

    """
    from sepnet import data_check  # SciPy and Matplotlib, for this alone

    size = options.get("image_size")
    pictures = Pictures(path="", **{**options, "image_size": (size, size) if isinstance(size, int) else size})
    run = None if by is None else trained_network.find_run(by)
    report, items = data_check.check_data(data, pictures, run, trust=trust)
    if out is not None:
        data_check.write_check(report, items, Path(out))
    return report


def compare(
    base: experiment.Network | Run = "base",
    challenger: experiment.Network | Run = "champion",
    data: str | Path | Dataset = "sample",
    *,
    epochs: int | None = 50,
    batch_size: int | None = None,
    lr: float | None = None,
    settings: Mapping[str, Any] | None = None,
    seeds: int = 1,
    workers: int | str | None = 1,
    base_recipe: str | Path | Recipe | None = None,
    recipe: str | Path | Recipe | None = None,
    device: str | torch.device = "auto",
    precision: str = "auto",
    validation: str = "test",
    rules: str | Path | Rules = "assignment",
    out: str | Path = RUNS,
    trust: bool = False,
    tensorboard: bool = False,
    mlflow: bool = False,
) -> Comparison:
    """Check the challenger, train both networks on the same data, and judge.

    Runs of the same configuration that lie under ``out`` are reused, finished or not. A :class:`Run`, or a run's
    folder, in the place of a network is judged as it is.

    Args:
        base: the network to beat.
        challenger: the network that is to beat it.
        data: a dataset's name or path, or a dataset.
        epochs: of both networks, in place of their recipes' own; None leaves these.
        batch_size: as ``lr`` and ``settings``, of both networks, in place of their recipes' own.
        lr: the (highest) learning rate.
        settings: more fields of both recipes, as for :func:`train`.
        seeds: how many runs of each, with seeds 0, 1, …
        workers: processes that train them side by side, each with its share of the cores: a number, ``auto`` for as
            many as are measured to be fastest, or None for a process a core where there are seeds. Networks and data
            have to be named; a script needs ``if __name__ == "__main__":``, as for :mod:`multiprocessing`.
        base_recipe: of the base; its own when absent.
        recipe: of the challenger; its own when absent.
        device: as for :func:`train`.
        precision: as for :func:`train`.
        validation: as for :func:`train`.
        rules: what the challenger has to keep.
        out: the folder of runs.
        trust: as for :func:`load`; of a run in a folder. A network's file that is named here is run anyway.
        tensorboard: as for :func:`train`.
        mlflow: as for :func:`train`.

    Raises:
        SepnetError: as for :func:`train`.

    """
    given = {"epochs": epochs, "batch_size": batch_size, "lr": lr}
    contestants = _run_or_network(base), _run_or_network(challenger)
    count = worker_count(workers)
    side_by_side = count != 1 and (seeds > 1 or count is not None)
    in_memory = not isinstance(data, str | Path) and getattr(data, "pictures", None) is None
    if side_by_side and (in_memory or any(map(callable, contestants))):
        if count is not None:
            raise SepnetError(f"workers is {workers}: other processes need networks and data by name or path")
        side_by_side = False
    return compare_contestants(
        Contestant(contestants[0], base_recipe),
        Contestant(contestants[1], recipe),
        data,
        rules=_rules(rules),
        seeds=seeds,
        out=Path(out),
        trust=trust,
        train=partial(train_side_by_side, count=count) if side_by_side else None,
        **_merge(given, settings),
        device=device,
        precision=precision,
        validation=validation,
        loggers=_loggers(tensorboard=tensorboard, mlflow=mlflow),
    )


def open_sweep(file: str | Path, out: str | Path | None = None) -> Sweep:
    """Return the sweep of a TOML file: ``run`` trains what is missing, ``ledger`` has what there is.

    Args:
        file: its rows and grid, as docs/sweeps.md has them.
        out: the folder of its runs; the file's name without ``.toml`` when absent.

    Raises:
        SepnetError: the file is missing, or says something unknown.

    """
    return Sweep.open(file, out)


def _run_or_network(contestant: experiment.Network | Run) -> experiment.Network | Run:
    """Return the run in a folder of that name, where there is one and no network of sepnet's has the name."""
    if isinstance(contestant, str) and contestant not in NETWORKS and Path(contestant).is_dir():
        return Run.open(Path(contestant))
    return contestant


def write_report(
    *runs: str | Path | Run | Comparison,
    rules: str | Path | Rules = "assignment",
    data: Dataset | None = None,
    out: str | Path | None = None,
    trust: bool = False,
) -> Path:
    """Write README, pictures and executed notebook of finished runs, and return their folder.

    Args:
        runs: runs or their folders, of one network or of several, one or more seeds each; or one comparison. The
            first one's network is what the others are measured by.
        rules: what every network is judged by; see :func:`check`.
        data: the runs' dataset, where it has no name that :func:`sepnet.data.load` knows.
        out: the report's folder; when absent, ``report`` in the folder of the only run or of the comparison, or in
            ``RUN-against-RUN`` beside the last run.
        trust: as for :func:`load`.

    Raises:
        SepnetError: no such run, it is unfinished, the runs were not scored on the same images, or a file cannot
            be written.

    """
    from sepnet.report.build import REPORT, make  # Matplotlib and Jupyter, for reports alone

    given: list[Run] = []
    for run in runs:
        if isinstance(run, Comparison):
            given += [*run.base.runs, *run.challenger.runs]
            out = run.path / REPORT if out is None else out
        else:
            given.append(run if isinstance(run, Run) else Run.open(Path(run)))
    return make(given, _rules(rules), dataset=data, out=None if out is None else Path(out), trust=trust)


def _rules(rules: str | Path | Rules) -> Rules:
    return rules if isinstance(rules, Rules) else load_rules(str(rules))


def load(run: str | Path | Run, network: nn.Module | None = None, *, trust: bool = False) -> nn.Module:
    """Return the trained network of a finished run, in evaluation mode on the CPU.

    Pixels are expected as the run saw them: ``(x / 255 − mean) / std`` with the run's ``config.mean`` and ``std``.

    Args:
        run: the run, its folder, or the name of a network whose trained weights come with sepnet.
        network: the module to load the weights into; needed for a run's folder whose network is not one of sepnet's.
            A run that :func:`train` just returned knows its own; a copy of it is loaded.
        trust: in place of ``network``, run the Python file that the run names. A run from elsewhere may name any code.

    Raises:
        SepnetError: no such run, it is unfinished, or the network is no longer the one that was trained.

    """
    return classifier.load(trained_network.find_run(run), network, trust=trust)


def export_run(
    run: str | Path | Run,
    format: str = "keras",
    out: str | Path | None = None,
    *,
    network: nn.Module | None = None,
    trust: bool = False,
) -> Path:
    """Write a trained network as a file of another framework, or C source, and return the file.

    Each takes raw pixels, 0 … 255, and holds the labels:

    - ``keras``: a ``.keras`` file for ``(N, H, W, C)``, compiled, so that
      ``keras.models.load_model(file).evaluate(pixels, labels)`` gives its accuracy;
    - ``onnx``: the float network for ``(N, C, H, W)``, checked in ONNX Runtime;
    - ``onnx-int8``: the same in int8 (QDQ), calibrated on training images of the run's data;
    - ``tflite``: that int8 network for ``(N, H, W, C)``, for TensorFlow Lite, also on microcontrollers;
    - ``c``: C99 source, and a header beside it, of the same int8 network for microcontrollers;
    - ``html``: a page that runs the same int8 network in a browser, on pictures that it is given there.

    Args:
        run: as for :func:`load`.
        format: ``keras``, ``onnx``, ``onnx-int8``, ``tflite``, ``c`` or ``html``.
        out: the file; when absent, it is named after the network, in the run's folder, or here where the weights come
            with sepnet.
        network: as for :func:`load`.
        trust: as for :func:`load`.

    Raises:
        SepnetError: as for :func:`load`, a layer has no counterpart there, a package is not installed, the run's
            data cannot be loaded, or the file cannot be written.

    """
    from sepnet.export.from_run import Exports

    return Exports.of(run, network, trust=trust).write(format, None if out is None else Path(out))


def score_exports(
    run: str | Path | Run,
    formats: Sequence[str],
    *,
    network: nn.Module | None = None,
    trust: bool = False,
) -> "list[Score]":
    """Judge what :func:`export_run` writes on all images that the run was scored on; the run itself comes first.

    A score has the accuracy, the share of images to which the run itself answers alike, the file's bytes, an int8
    network's peak RAM, and the time for one image on one core. Keras is timed where PyTorch is its backend. C is
    compiled for this machine, where it has a compiler; otherwise its definition answers in its place, the same to the
    bit, and is not timed. A page is run in headless Chromium, or its network in Node.js.

    The scores are kept in the run's folder, of each format the last one, and are shown in its report. Those of weights
    that come with sepnet are only returned.

    Args:
        run: as for :func:`load`.
        formats: as for :func:`export_run`, one or more.
        network: as for :func:`load`.
        trust: as for :func:`load`.

    Raises:
        SepnetError: as for :func:`export_run`.

    """
    from sepnet.export.from_run import Exports

    return Exports.of(run, network, trust=trust).score(formats)


def evaluate(
    run: str | Path | Run,
    data: str | Path | Dataset | None = None,
    *,
    validation: str | None = None,
    mirrored: bool = False,
    skip_broken: bool = False,
    network: nn.Module | None = None,
    trust: bool = False,
    device: str | torch.device | None = None,
    precision: str | None = None,
) -> classifier.RunEvaluation | exported.FileEvaluation:
    """Judge a trained network by labelled images: accuracy, loss, calibration, each class, and their confusion.

    On the images that the run was scored on, with the same processor and versions, the accuracy is exactly the
    run's last. A ``.keras``, ``.onnx`` or ``.tflite`` file of :func:`export_run` answers by its own runtime, and takes
    labels and image shape from within.

    Args:
        run: as for :func:`load`, or an exported file.
        data: a dataset, or its name, of the run's classes and image shape; the run's own when absent. A file has none.
        validation: ``test``, the dataset's test images, or ``holdout``, a tenth of its training images; those that
            the run was scored on when absent.
        mirrored: answer by the mean of the logits on an image and on its mirror image, in twice the time.
        skip_broken: of a folder given as ``data``, leave out files that cannot be read, with a notice for each.
        network: as for :func:`load`.
        trust: as for :func:`load`.
        device: ``auto``, ``cpu``, ``cuda`` …; the run's when absent. A file takes none.
        precision: ``auto``, ``bf16`` or ``fp32``; the run's when absent. A file has its own.

    Raises:
        SepnetError: as for :func:`load`, the data are unknown or of other classes or another shape, or a file is not
            as :func:`export_run` wrote it.

    """
    if exported.names_file(run):
        file = _exported_file(run, network=network, device=device, precision=precision)
        return exported.evaluate(file, data, validation=validation, mirrored=mirrored, skip_broken=skip_broken)
    return classifier.evaluate(
        trained_network.find_run(run),
        data,
        validation=validation,
        mirrored=mirrored,
        skip_broken=skip_broken,
        network=network,
        trust=trust,
        device=device,
        precision=precision,
    )


def predict(
    run: str | Path | Run,
    images: prediction.Source | Iterable[prediction.Source],
    top: int = 5,
    *,
    skip_broken: bool = False,
    network: nn.Module | None = None,
    trust: bool = False,
    device: str | torch.device | None = None,
    precision: str | None = None,
) -> list[prediction.Prediction]:
    """Return the likeliest classes of images, the probabilities that a trained network gives them beside them.

    An image is turned upright by its EXIF orientation, laid on white where it is transparent, and made grey or RGB
    as the run's images are. One of another size is cropped about the centre to their shape and resized by Pillow's
    Lanczos filter, which does not alias. Of an animation the first frame counts.

    Args:
        run: as for :func:`load`, or an exported file, as for :func:`evaluate`.
        images: a file in any format that Pillow reads, a folder (the images in and below it, sorted, hidden ones
            left out), a ``PIL.Image.Image``, an array of uint8 ``(H, W)`` or ``(H, W, 3)``, or several of these.
        top: how many classes to name for each image, the likeliest first.
        skip_broken: leave out files that cannot be read, with a notice for each, instead of raising.
        network: as for :func:`load`.
        trust: as for :func:`load`.
        device: as for :func:`evaluate`.
        precision: as for :func:`evaluate`.

    Raises:
        SepnetError: as for :func:`load`, or a file is missing or cannot be read; it is named.

    """

    def opened() -> classifier.TakesImages:
        if exported.names_file(run):
            return _exported_file(run, network=network, device=device, precision=precision)
        found = trained_network.find_run(run)
        return classifier.Classifier(found, network, trust=trust, device=device, precision=precision)

    return prediction.predict(opened, images, top, skip_broken=skip_broken)


def _exported_file(run: str | Path | Run, **settings: Any) -> exported.ExportedFile:
    """Return the network in a file, which takes no settings of a run's."""
    for name, value in settings.items():
        if value is not None:
            raise SepnetError(f"{name} is given, and '{run}' computes as its runtime does: leave it out")
    return exported.open_file(Path(str(run)))


def bench(
    network: experiment.Network = "champion",
    recipe: str | Path | Recipe | None = None,
    *,
    batch_size: int | None = None,
    epochs: int | None = None,
    device: str | torch.device | None = None,
    precision: str | None = None,
    image_shape: tuple[int, int, int] = (3, 32, 32),
    classes: int = 10,
    training_images: int = 50_000,
    validation_images: int = 10_000,
    seconds: float = throughput.SECONDS,
) -> throughput.Speed:
    """Measure how fast this machine trains a network on random images, and how long a recipe will take.

    Args:
        network: as for :func:`train`; a module that is given stays as it is.
        recipe: as for :func:`train`.
        batch_size: images per step, in place of the recipe's.
        epochs: in place of the recipe's.
        device: as for :func:`train`.
        precision: as for :func:`train`.
        image_shape: ``(C, H, W)`` of one image.
        classes: how many classes a network given by name is built for.
        training_images: of an epoch; CIFAR-10's when absent.
        validation_images: to validate on after each epoch; CIFAR-10's when absent.
        seconds: time to measure for, warm-up included; a few steps are timed however little it is.

    Raises:
        SepnetError: an unknown name, a value out of range, or the network does not take such images.

    """
    return throughput.measure(
        network,
        recipe,
        batch_size=batch_size,
        epochs=epochs,
        device=device or "auto",
        precision=precision or "auto",
        image_shape=image_shape,
        classes=classes,
        training_images=training_images,
        validation_images=validation_images,
        seconds=seconds,
    )
