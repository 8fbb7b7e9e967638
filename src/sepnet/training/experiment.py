"""From names to a run: what ``sepnet train`` and ``sepnet compare`` have in common."""

import contextlib
import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sepnet import data as datasets
from sepnet.backend.native import native
from sepnet.data import Dataset
from sepnet.environment import processor_capabilities
from sepnet.errors import SepnetError
from sepnet.networks import NETWORKS, build, call_builder, fingerprint, is_own, split_name
from sepnet.notices import notice
from sepnet.recipes.recipe import PRECISIONS, VALIDATIONS, Recipe, load_recipe, override
from sepnet.runs import Run, RunConfig
from sepnet.runs.config import DEVICES
from sepnet.settings import shown
from sepnet.training.fitting import fitting_recipe, require_smaller
from sepnet.training.initialization import apply_norm_settings, initialize, pixel_statistics
from sepnet.training.loggers import open_loggers, require_loggers
from sepnet.training.loop import Trainer
from sepnet.training.randomness import derive_seed
from sepnet.training.teacher import Teacher, open_teachers, require_suitable
from sepnet.training.trained_network import load_weights, record

Network = str | nn.Module | Callable[..., nn.Module]
"""A name, ``path/to/file.py:name``, a module (trained in place from its weights), or a function that builds one."""

DEFAULT_DATA = "sample"
HIGHEST_SEED = 2**63 - 1
"""The largest integer of TOML."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """A training about to start: the configuration, and the dataset and network it was made from."""

    config: RunConfig
    dataset: Dataset
    network: Network
    auto: frozenset[str] = frozenset()
    """Which of ``device`` and ``precision`` were left to the machine; see :meth:`RunConfig.identity`."""
    keeps_size: bool = False
    """Whether the recipe's first images would be smaller ones, and the network does not take them."""
    teachers: tuple[Run, ...] = ()
    """Whose logits it learns from."""
    trust: bool = False
    """Whether the files may be run that the teachers' networks are in."""
    loggers: tuple[str, ...] = ()
    """Where else the figures of each epoch go; see :mod:`sepnet.training.loggers`."""


def prepare(
    network: Network,
    data: str | Path | Dataset,
    recipe: str | Path | Recipe | None,
    *,
    seed: int = 0,
    device: str | torch.device = "auto",
    precision: str = "auto",
    validation: str = "test",
    teachers: Sequence[str | Run] = (),
    trust: bool = False,
    loggers: Sequence[str] = (),
    **overrides: Any,
) -> Job:
    """Resolve names and ``auto`` values; ``overrides`` replace fields of the recipe where they are not None.

    Raises:
        SepnetError: an unknown name, or a value out of range.

    """
    require_validation(validation)
    require_seed(seed)
    require_loggers(loggers)
    taught_by = open_teachers(teachers)
    native()  # raises where the environment names kernels that there are none of, before anything is made
    auto = frozenset(name for name, value in (("device", device), ("precision", precision)) if value == "auto")
    device = resolve_device(device)
    precision = resolve_precision(precision, device)
    chosen = resolve_recipe(network, recipe, **overrides)
    dataset = datasets.open_data(data) if isinstance(data, str | Path) else data
    if not isinstance(dataset, Dataset):
        raise SepnetError(
            f"data has type {type(dataset).__name__}: expected a dataset's name or path, or sepnet.Dataset(name=…, "
            "classes=…, train=sepnet.Split(images=…, labels=…), test=sepnet.Split(…))"
        )
    if validation == "holdout":
        dataset = dataset.holdout()
    mean, std = pixel_statistics(dataset.train.images, chosen)
    require_smaller(chosen, dataset)
    model = build_network(network, dataset, chosen, seed)
    asked_for = recipe is not None or overrides.get("first_size") is not None
    fitting = fitting_recipe(model, dataset, network_name(network), chosen, asked_for=asked_for)
    config = RunConfig(
        network=network_name(network),
        fingerprint=fingerprint(model),
        data=dataset.name,
        data_sha256=dataset.fingerprint(),
        validation=validation,
        classes=dataset.classes,
        image_shape=dataset.image_shape,
        mean=tuple(mean),
        std=tuple(std),
        seed=seed,
        device=device,
        precision=precision,
        pictures=dataset.pictures,
        teachers=tuple(str(given.path if isinstance(given, Run) else given) for given in teachers),
        teacher_weights=tensors_sha256(*(dict(sorted(run.weights().items())) for run in taught_by))
        if taught_by
        else "",
        initial_weights=tensors_sha256(model.state_dict()) if isinstance(network, nn.Module) else "",
        recipe=fitting,
    )
    require_suitable(taught_by, config)
    return Job(
        config=config,
        dataset=dataset,
        network=network,
        auto=auto,
        keeps_size=fitting != chosen,
        teachers=taught_by,
        trust=trust,
        loggers=tuple(loggers),
    )


def train_run(
    job: Job,
    run: Run,
    *,
    epochs: int | None = None,
    pause: Callable[[int], bool] | None = None,
    patience: float = 0.0,
) -> nn.Module:
    """Train the job's network from wherever its run stands to the end; return the trained network.

    Args:
        job: what to train.
        run: where.
        epochs: if given, lets the run go on to so many.
        pause: whether to save and stop, by :class:`~sepnet.training.interrupts.Paused`, after so many epochs.
        patience: seconds to wait for another process that trains the run.

    """
    run.network = job.network
    with run.lock(patience):
        if Run.open(run.path).config != run.config:
            raise SepnetError(f"run '{run.path}' was changed by another process: start again")
        if epochs is not None:
            run.extend(epochs)
        if run.finished:
            notice(f"run {run.path} is finished already; give --epochs to train it for more")
            with open_loggers(job.loggers, run):
                return _trained(job, run)
        model = build_network(job.network, job.dataset, run.config.recipe, run.config.seed)
        with contextlib.suppress(SepnetError):  # a network that cannot be read can be trained
            record(run, model)
        if job.keeps_size:
            notice(f"{run.config.network} does not accept smaller inputs; progressive resizing is off")
        with open_loggers(job.loggers, run) as log:
            teacher = Teacher(job.teachers, run.config, trust=job.trust) if job.teachers else None
            trainer = Trainer(model, job.dataset, run, log=log, pause=pause, teacher=teacher)
            trainer.fit()
    if trainer.average:
        model.load_state_dict(trainer.average.model.state_dict())
    return model.eval()


def _trained(job: Job, run: Run) -> nn.Module:
    """Return the job's network with a finished run's weights; a module that was given takes them, too."""
    model = build_network(job.network, job.dataset, run.config.recipe, run.config.seed)
    return load_weights(model, run)


def tensors_sha256(*states: Mapping[str, Tensor]) -> str:
    """Return a SHA-256 of tensors, in their order."""
    digest = hashlib.sha256()
    for tensor in (tensor for state in states for tensor in state.values()):
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def build_network(network: Network, dataset: Dataset, recipe: Recipe, seed: int) -> nn.Module:
    """Return the network with its first weights drawn under the seed; a module that was given keeps its own."""
    options: dict[str, Any] = {"classes": len(dataset.classes), "image_shape": dataset.image_shape}
    with torch.random.fork_rng():
        torch.manual_seed(derive_seed(seed, "weights"))
        if isinstance(network, nn.Module):
            model = network
        elif isinstance(network, str):
            model = initialize(build(network, **options), recipe)
        else:
            model = initialize(call_builder(network, network_name(network), **options), recipe)
    return apply_norm_settings(model, recipe)


def network_name(network: Network) -> str:
    """Return the name a network goes by in a run's configuration."""
    if isinstance(network, str):
        file, attribute, arguments = split_name(network)
        return f"{os.path.normpath(file)}:{attribute}{arguments}" if file else network
    return str(getattr(network, "__name__", type(network).__name__))


def resolve_recipe(network: Network, recipe: str | Path | Recipe | None, **overrides: Any) -> Recipe:
    """Return the recipe by name, the given one, or the network's own; then the overrides that are not None."""
    if isinstance(recipe, Recipe):
        return override(recipe, overrides)
    if recipe is None:
        own = split_name(network).attribute if isinstance(network, str) and is_own(network) else None
        recipe = NETWORKS[own].recipe if own else "champion"
    return load_recipe(str(recipe), **overrides)


def require_validation(validation: str) -> None:
    """Raise unless ``validation`` says which images to score on."""
    if validation not in VALIDATIONS:
        raise SepnetError(f"validation is '{validation}': expected {' or '.join(VALIDATIONS)}")


def require_seed(seed: object) -> None:
    """Raise unless ``seed`` is a number that a run's configuration can hold."""
    if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed <= HIGHEST_SEED:
        raise SepnetError(f"seed is {shown(seed)}: expected a whole number from 0 to {HIGHEST_SEED}")


def resolve_device(device: str | torch.device) -> str:
    """Return ``cuda`` for ``auto`` where there is one, else ``cpu``; raise for a device that is not there."""
    device = str(device)
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device.split(":")[0] not in DEVICES:
        raise SepnetError(f"device is '{device}': expected auto, {' or '.join(DEVICES)}")
    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise SepnetError(f"device '{device}' cannot be used ({reason}): expected auto or cpu") from error
    return device


def resolve_precision(precision: str, device: str) -> str:
    """Return ``bf16`` for ``auto`` where the processor computes in it, else ``fp32``."""
    if precision not in PRECISIONS:
        raise SepnetError(f"precision is '{precision}': expected {', '.join(PRECISIONS)}")
    if precision != "auto":
        return precision
    if device.startswith("cuda"):
        return "bf16" if torch.cuda.is_bf16_supported() else "fp32"
    capabilities = processor_capabilities()
    native = capabilities.get("avx512_bf16") or capabilities.get("amx_bf16") or capabilities.get("bf16")
    return "bf16" if native else "fp32"


def default_name(config: RunConfig) -> str:
    """Return the run's name where none is given."""
    return _join_name(config.network, config.data, validation=config.validation, seed=config.seed)


def _join_name(network: str, data: str, *, validation: str = "test", seed: int = 0, **_: Any) -> str:
    """Return NETWORK-DATA, and what is out of the ordinary about validation and seed."""
    name = f"{split_name(network).attribute}-{data}"
    return name + ("-holdout" if validation == "holdout" else "") + (f"-seed{seed}" if seed else "")


def take_up(job: Job, out: Path, name: str | None = None) -> Run:
    """Return a finished run of the job's configuration under ``out``, having trained what is missing of it.

    ``name`` is of a new run's folder.
    """
    run = find_or_create(job, out, name)
    if run.finished:
        notice(f"reusing the finished run {run.path}")
        run.network = job.network
        with open_loggers(job.loggers, run):
            if isinstance(job.network, nn.Module):
                _trained(job, run)
        return run
    if run.history:
        notice(f"resuming the unfinished run {run.path} after epoch {len(run.history)}")
    else:
        notice(f"training {job.config.network} into {run.path}")
    train_run(job, run)
    return run


def find_or_create(job: Job, out: Path, name: str | None = None) -> Run:
    """Return the run of the job's configuration under ``out``, or a new one that nothing has been trained in."""
    found = Run.find(out, job.config, auto=job.auto)
    return found or Run.create(out, name or default_name(job.config), job.config)


def reopen(
    network: Network,
    data: str | Path | Dataset | None,
    recipe: str | Path | Recipe | None,
    *,
    out: Path,
    name: str | None,
    **options: Any,
) -> tuple[Job, Run]:
    """Return the run to resume and its job; what is not given is as the run has it.

    Raises:
        SepnetError: no such run, or what is given differs from it.

    """
    data_name = data.name if isinstance(data, Dataset) else datasets.title(data or DEFAULT_DATA)
    run = Run.open(out / (name or _join_name(network_name(network), data_name, **options)))
    had = run.config
    if network_name(network) != had.network:  # first of all, as another network's recipe and weights differ, too
        raise SepnetError(
            f"run '{run.path}' differs: it has network '{had.network}', this would have '{network_name(network)}'; "
            "start a new run under another name"
        )
    options = {name: value for name, value in options.items() if value != "auto"}
    settings = {
        "seed": had.seed,
        "device": had.device,
        "precision": had.precision,
        "validation": had.validation,
        "teachers": had.teachers,
    }
    dataset = data or datasets.reload(had.data, had.pictures)
    job = prepare(network, dataset, recipe or had.recipe, **{**settings, **options})
    recipe = replace(job.config.recipe, name=had.recipe.name, epochs=had.recipe.epochs)
    wanted = replace(job.config, recipe=recipe, initial_weights=had.initial_weights, extended_from=had.extended_from)
    if wanted.identity() != had.identity():
        raise SepnetError(f"run '{run.path}' differs: {_difference(had, wanted)}; start a new run under another name")
    return replace(job, config=had), run


def _difference(had: RunConfig, wanted: RunConfig) -> str:
    """Return the first difference of two configurations in words."""
    before, after = ({**dict(config.identity()), **config.recipe.to_dict()} for config in (had, wanted))
    keys = [key for key in {**before, **after} if key != "recipe" and before.get(key) != after.get(key)]
    if keys[0] in _HASHES:
        return _HASHES[keys[0]]
    return f"it has {keys[0]} {before.get(keys[0])!r}, this would have {after.get(keys[0])!r}"


_HASHES = {
    "fingerprint": "the network's code has changed since",
    "data_sha256": "the dataset's images or labels have changed since",
    "teacher_weights": "it had other teachers",
}
"""What a difference of hashes says to a person."""
