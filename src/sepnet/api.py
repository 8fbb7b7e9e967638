"""The verbs of the command line, for Python: summary, check, train, compare, load."""

from pathlib import Path
from typing import Any

from torch import nn

from sepnet import jobs
from sepnet.anatomy import Anatomy, trace
from sepnet.comparison import Comparison, Contestant
from sepnet.comparison import compare as compare_contestants
from sepnet.data import Dataset, Split
from sepnet.networks import NETWORKS, build
from sepnet.rules import Report, Rules, load_rules
from sepnet.rules import check as check_anatomy
from sepnet.runs import Run
from sepnet.training.prepare import apply_norm_settings
from sepnet.training.recipe import Recipe

__all__ = ["Dataset", "Recipe", "Rules", "Run", "Split", "check", "compare", "load", "summary", "train"]
RUNS = Path("runs")


def summary(network: str | nn.Module, *, image_shape: tuple[int, int, int] = (3, 32, 32), classes: int = 10) -> Anatomy:
    """Return a network's layers: output size, receptive field, jump, parameters and MACs of each.

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


def check(
    network: str | nn.Module,
    rules: str | Path | Rules = "assignment",
    *,
    image_shape: tuple[int, int, int] = (3, 32, 32),
    classes: int = 10,
) -> Report:
    """Judge a network by rules: a preset's name, a TOML file, or :class:`sepnet.rules.Rules`.

    Raises:
        SepnetError: unknown rules or network, or the network cannot be read.

    """
    chosen = rules if isinstance(rules, Rules) else load_rules(str(rules))
    return check_anatomy(summary(network, image_shape=image_shape, classes=classes), chosen)


def train(
    network: jobs.Network,
    data: str | Dataset | None = None,
    recipe: str | Path | Recipe | None = None,
    *,
    epochs: int | None = None,
    batch_size: int | None = None,
    lr: float | None = None,
    seed: int | None = None,
    device: str | None = None,
    precision: str | None = None,
    validation: str | None = None,
    name: str | None = None,
    out: str | Path = RUNS,
    resume: bool = False,
) -> Run:
    """Train a network into the folder ``out/name`` and return the finished run.

    A module is trained in place, from the weights it has (the recipe's initializer is left out), and ends in
    evaluation mode with the trained ones. A name, or a function that builds a module, starts from weights drawn
    under ``seed``.

    Args:
        network: a name, ``path/to/file.py:name``, a module, or a function that returns one.
        data: a dataset's name, or a :class:`sepnet.data.Dataset`; ``sample`` when absent.
        recipe: a preset's name, a TOML file, or a :class:`~sepnet.training.recipe.Recipe`; the network's own
            when absent.
        epochs: as ``batch_size`` and ``lr``, replaces the recipe's.
        batch_size: images per step.
        lr: the (highest) learning rate.
        seed: of everything random; 0 when absent.
        device: ``auto``, ``cpu``, ``cuda`` …; ``auto`` when absent.
        precision: ``auto``, ``bf16`` or ``fp32``; ``auto`` when absent.
        validation: ``test``, the assignment's protocol, when absent; or ``holdout``, a tenth of the training images.
        name: of the run's folder; a taken one gets a number.
        out: the folder of runs.
        resume: go on with the run in ``out/name``; what is not given is as that run has it, and ``epochs`` may
            be more than it had.

    Raises:
        SepnetError: a value or name is wrong, the loss is not finite, or a file cannot be written.

    """
    options = {
        "seed": seed,
        "device": device,
        "precision": precision,
        "validation": validation,
        "epochs": epochs,
        "batch_size": batch_size,
        "lr": lr,
    }
    given: dict[str, Any] = {key: value for key, value in options.items() if value is not None}
    if resume:
        more = given.pop("epochs", None)
        job, run = jobs.reopen(network, data, recipe, out=Path(out), name=name, **given)
        jobs.train_run(job, run, epochs=more)
    else:
        job = jobs.prepare(network, data or jobs.DEFAULT_DATA, recipe, **given)
        run = Run.create(Path(out), name or jobs.default_name(job.config), job.config)
        jobs.train_run(job, run)
    return run


def compare(
    base: jobs.Network | Run = "base",
    challenger: jobs.Network | Run = "champion",
    data: str | Dataset = "sample",
    *,
    epochs: int | None = 50,
    seeds: int = 1,
    base_recipe: str | Path | Recipe | None = None,
    recipe: str | Path | Recipe | None = None,
    device: str = "auto",
    precision: str = "auto",
    validation: str = "test",
    rules: str | Path | Rules = "assignment",
    out: str | Path = RUNS,
) -> Comparison:
    """Check the challenger, train both networks on the same data, and judge.

    Runs of the same configuration that lie under ``out`` are taken up, finished or not. A :class:`Run`, or a run's
    folder, in the place of a network is judged as it is.

    Args:
        base: the network to beat.
        challenger: the network that is to beat it.
        data: a dataset's name, or a dataset.
        epochs: of both networks, in place of their recipes' own; None leaves these.
        seeds: how many runs of each, with seeds 0, 1, …
        base_recipe: of the base; its own when absent.
        recipe: of the challenger; its own when absent.
        device: as for :func:`train`.
        precision: as for :func:`train`.
        validation: as for :func:`train`.
        rules: what the challenger has to keep.
        out: the folder of runs.

    Raises:
        SepnetError: as for :func:`train`.

    """
    return compare_contestants(
        Contestant(_run_or_network(base), base_recipe),
        Contestant(_run_or_network(challenger), recipe),
        data,
        rules=rules if isinstance(rules, Rules) else load_rules(str(rules)),
        seeds=seeds,
        out=Path(out),
        epochs=epochs,
        device=device,
        precision=precision,
        validation=validation,
    )


def _run_or_network(contestant: jobs.Network | Run) -> jobs.Network | Run:
    """Return the run in a folder of that name, where there is one and no network of sepnet's has the name."""
    if isinstance(contestant, str) and contestant not in NETWORKS and Path(contestant).is_dir():
        return Run.open(Path(contestant))
    return contestant


def load(run: str | Path | Run, network: nn.Module | None = None) -> nn.Module:
    """Return the trained network of a finished run, in evaluation mode on the CPU.

    Pixels are expected as the run saw them: ``(x / 255 − mean) / std`` with the run's ``config.mean`` and ``std``.

    Args:
        run: the run, or its folder.
        network: the module to load the weights into, where the run was not made from a name.

    Raises:
        SepnetError: no such run, it is unfinished, or the network is no longer the one that was trained.

    """
    run = run if isinstance(run, Run) else Run.open(Path(run))
    run.require_finished()
    if network is None:
        network = jobs.rebuild(run)
    else:
        jobs.require_unchanged(apply_norm_settings(network, run.config.recipe), run)
    network.load_state_dict(run.weights())
    return network.eval()
