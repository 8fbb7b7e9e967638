"""The network of a run: built again, compared with what was trained, and described."""

import copy
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

from sepnet import networks
from sepnet.anatomy import Anatomy, trace
from sepnet.errors import SepnetError
from sepnet.export.int8.footprint import footprint
from sepnet.export.keras import keras_definition
from sepnet.networks import NETWORKS, build, call_builder, fingerprint, split_name
from sepnet.networks.shipped import has_weights, shipped_folder
from sepnet.rules import Footprint
from sepnet.runs import Run
from sepnet.settings import hint
from sepnet.tensors import require_alike
from sepnet.training.initialization import apply_norm_settings


def find_run(run: str | Path | Run) -> Run:
    """Return a run given by itself, by its folder, or by the name of a network whose weights are shipped.

    Raises:
        SepnetError: there is no such run.

    """
    if isinstance(run, Run):
        return run
    if isinstance(run, str) and run in NETWORKS:
        return Run.open(shipped_folder(run))
    if not Path(run).exists():
        with_weights = ", ".join(name for name in NETWORKS if has_weights(name)) or "none so far"
        otherwise = f"expected a folder that `sepnet train` made, or a network with trained weights: {with_weights}"
        raise SepnetError(
            f"'{run}' is neither a run's folder nor a network: {hint(str(run), NETWORKS, otherwise=otherwise)}"
        )
    return Run.open(Path(run))


def load_weights(model: nn.Module, run: Run) -> nn.Module:
    """Return the model with a finished run's weights, in evaluation mode.

    Raises:
        SepnetError: the weights are missing, or are of another network.

    """
    weights = run.weights()
    require_alike(weights, model.state_dict(), source=f"the weights of run {run.path}")
    model.load_state_dict(weights)
    return model.eval()


class Description(NamedTuple):
    """What a run's network is: its layers, and its definition in Keras."""

    anatomy: Anatomy
    definition: str


def describe(run: Run, *, trust: bool = False) -> Description:
    """Return what a run's network is, as its folder says; where that says nothing, as the network built again shows.

    Nothing is written. ``trust`` is of :func:`rebuild`.

    Raises:
        SepnetError: it cannot be built, or cannot be read.

    """
    anatomy, definition = run.anatomy, run.definition
    if anatomy is None or definition is None:
        return _read(rebuild(run, trust=trust), run)
    return Description(anatomy, definition)


def memory_on_device(run: Run, *, trust: bool = False) -> Footprint:
    """Return what a run's network, built again, takes on a device in int8.

    Raises:
        SepnetError: as for :func:`rebuild`, or int8 arithmetic is not known for an operator.

    """
    return footprint(rebuild(run, trust=trust), run.config.image_shape, name=run.config.network)


def record(run: Run, model: nn.Module) -> None:
    """Let the run's folder say what its network is.

    Raises:
        SepnetError: the network cannot be read.

    """
    run.write_network(*_read(model, run))


def _read(model: nn.Module, run: Run) -> Description:
    name, image_shape = run.config.network, run.config.image_shape
    anatomy = trace(model, image_shape, name=name)
    try:
        definition = keras_definition(model, image_shape, name=name)
    except SepnetError as error:
        modules = "".join(f"# {line}\n" for line in str(model).splitlines())
        definition = f"# {error}\n# As PyTorch shows it:\n{modules}"
    return Description(anatomy, definition)


def rebuild(run: Run, *, trust: bool = False) -> nn.Module:
    """Return the network of a run, untrained.

    It is built from what was trained in this session, else by its name. A name that is a file's imports that file,
    so it is followed only if ``trust`` says so: a stranger's run may name any code.

    Raises:
        SepnetError: it cannot be built, or is no longer the one that was trained.

    """
    config, network = run.config, run.network
    if network is None:
        _require_trust(run, trust)
        network = config.network
    options: dict[str, Any] = {"classes": len(config.classes), "image_shape": config.image_shape}
    try:
        if isinstance(network, nn.Module):
            model = copy.deepcopy(network).cpu()
        elif isinstance(network, str):
            model = build(network, **options)
        else:
            model = call_builder(network, config.network, **options)
    except SepnetError as error:
        raise SepnetError(f"the network of run '{run.path}' cannot be built: {error}") from error
    return require_unchanged(apply_norm_settings(model, config.recipe), run)


def _require_trust(run: Run, trust: bool) -> None:
    """Raise unless a run's network is sepnet's own, or in a file and ``trust`` is given."""
    name = run.config.network
    file = split_name(name).file
    if not file and not networks.is_own(name):
        raise SepnetError(
            f"the network of run '{run.path}', '{name}', was created in a Python session: pass it as network=…"
        )
    if file and not trust:
        raise SepnetError(
            f"the network of run '{run.path}' is in the Python file '{file}', which is not run by default: "
            "if you trust that code, give --trust (in Python trust=True, or the network itself as network=…)"
        )


def is_own(run: Run) -> bool:
    """Whether a run's network is one of sepnet's, or was trained in this session: no file need be trusted."""
    return run.network is not None or networks.is_own(run.config.network)


def require_unchanged(model: nn.Module, run: Run) -> nn.Module:
    """Return the model if it has the layers that the run was trained with; raise otherwise."""
    if fingerprint(model) != run.config.fingerprint:
        raise SepnetError(
            f"network '{run.config.network}' has changed since run '{run.path}' was trained: "
            "restore its code, or train it again"
        )
    return model
