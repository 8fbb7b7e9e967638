"""Workers of a Dask cluster: one that runs at an address, or one that a file says how to start."""

import importlib
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sepnet import __version__
from sepnet.errors import SepnetError, first_line
from sepnet.files import read_text
from sepnet.networks import split_name
from sepnet.notices import notice
from sepnet.settings import read_toml, to_settings
from sepnet.sweep.plan import Plan

MISSING = "a cluster needs the packages dask and distributed: pip install 'sepnet[cluster]'"


@dataclass(frozen=True, kw_only=True)
class ClusterFile:
    """How a cluster is started, by a class of Dask's, its options, and the number of workers."""

    kind: str
    """As ``dask_jobqueue.SLURMCluster``."""
    workers: int
    options: dict = field(default_factory=dict)


class DaskWorkers:
    """The workers of a cluster, each with a trial at a time."""

    travels = True

    def __init__(self, where: str) -> None:
        try:
            from distributed import Client
            from distributed.client import FutureCancelledError
            from distributed.scheduler import KilledWorker
        except ImportError:
            raise SepnetError(MISSING) from None
        self.lost: tuple[type[BaseException], ...] = (KilledWorker, FutureCancelledError)
        self._cluster = _start(Path(where)) if where.endswith(".toml") else None
        try:
            self._client = Client(where if self._cluster is None else self._cluster, timeout="30s")
        except (OSError, ValueError) as error:
            raise SepnetError(
                f"no Dask scheduler answers at '{where}' ({first_line(error)}): expected an address as "
                "tcp://HOST:8786, or a .toml file"
            ) from error
        self._executor = self._client.get_executor(pure=False)
        _require_version(self._client.run(_version))
        notice(f"workers of the cluster: {self.capacity()}; its dashboard: {self._client.dashboard_link}")

    def capacity(self) -> int:
        """Return the number of workers that there are now."""
        return len(self._client.nthreads())

    def submit(self, function: Callable[..., Any], *arguments: Any) -> "Future[Any]":
        """Start a call on a worker."""
        made: Future[Any] = self._executor.submit(function, *arguments)
        return made

    def close(self) -> None:
        """Leave the cluster, and end one that was started here."""
        self._client.close()
        if self._cluster is not None:
            self._cluster.close()


def _start(file: Path) -> Any:
    """Return the cluster that a file describes, with its workers asked for."""
    found = to_settings(ClusterFile, read_toml(file, "cluster file"), source=str(file))
    module, _, name = found.kind.rpartition(".")
    try:
        cluster = getattr(importlib.import_module(module), name)(**found.options)
        cluster.scale(found.workers)
    except ImportError as error:
        raise SepnetError(
            f"{file}: kind '{found.kind}' cannot be imported ({first_line(error)}): install it"
        ) from error
    except (AttributeError, TypeError, ValueError, OSError, RuntimeError) as error:
        raise SepnetError(f"{file}: '{found.kind}' cannot be started: {first_line(error)}") from error
    return cluster


def _version() -> str:
    import sepnet

    return sepnet.__version__


def _require_version(versions: Mapping[str, str]) -> None:
    """Raise unless all workers have this version; each is named by its address."""
    others = [f"{address} has sepnet {version}" for address, version in versions.items() if version != __version__]
    if others:
        raise SepnetError(f"worker {', worker '.join(others)}, this is {__version__}: install the same version there")


def sources_of(plan: Plan) -> dict[str, str]:
    """Return the files that a sweep's trials are made from, by their paths as seen from here.

    They are those of networks, with the Python files beside them, and of recipes. A worker without shared storage gets
    them at the same place below a folder of its own: files above the current folder are left out.
    """
    found = {}
    named = [(row.network or "", row.recipe or "") for row in plan.rows]
    for name, recipe in [(plan.network, plan.recipe or ""), *named]:
        for file, pattern in ((Path(split_name(name).file), "*.py"), (Path(recipe), Path(recipe).name)):
            if file.suffix and not file.is_absolute() and ".." not in file.parts:
                found.update({str(one): read_text(one) for one in sorted(file.parent.glob(pattern))})
    return found
