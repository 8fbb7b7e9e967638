"""One network through everything that is checked, in a process of its own with a limit of time."""

import contextlib
import multiprocessing
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from typing import Any

import torch

from sepnet.errors import SepnetError, first_line

from . import acceleration, fields, keras_listing
from .networks import Network, networks

Row = dict[str, Any]
CHECKS = ("acceleration", "anatomy", "keras")
CONTEXT = multiprocessing.get_context("forkserver")


def check_all(names: Sequence[str], *, workers: int, limit: float, checks: Sequence[str] = CHECKS) -> Iterator[Row]:
    """Yield the row of each network, in order; none takes longer than ``limit`` seconds."""
    CONTEXT.set_forkserver_preload([__name__, "keras", "torch._dynamo", "sepnet.export"])
    with ThreadPoolExecutor(workers) as pool:
        yield from pool.map(lambda name: check_apart(name, limit, checks), names)


def check_apart(name: str, limit: float, checks: Sequence[str]) -> Row:
    """Return the row of a network, with what was found until the limit of time."""
    receiver, sender = CONTEXT.Pipe(duplex=False)
    process = CONTEXT.Process(target=_work, args=(name, checks, sender))
    row: Row = {"network": name}
    end = time.monotonic() + limit
    process.start()
    sender.close()
    with contextlib.suppress(EOFError):
        while receiver.poll(max(0.0, end - time.monotonic())):
            row.update(receiver.recv())
    process.kill()
    process.join()
    for check in checks:
        row.setdefault(check, {"verdict": "out of time" if time.monotonic() >= end else "crashed", "reason": ""})
    return row


def _work(name: str, checks: Sequence[str], sender: Connection) -> None:
    os.environ.setdefault("KERAS_BACKEND", "torch")
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    network = networks()[name]
    sender.send({"input": list(network.image)})
    for check in checks:
        begun = time.perf_counter()
        with _captured_lines() as lines:
            found = _guarded(globals()[f"_{check}"], network)
        found.setdefault("reason", "")
        found["reason"] = found["reason"] or "; ".join(line for line in lines if "sepnet" in line)
        found["seconds"] = round(time.perf_counter() - begun, 1)
        sender.send({check: _rounded(found)})


def _rounded(value: Any) -> Any:
    """Return numbers in two significant digits, as far as they are not whole."""
    if isinstance(value, float):
        return float(f"{value:.1e}")
    if isinstance(value, dict):
        return {key: _rounded(one) for key, one in value.items()}
    return [_rounded(one) for one in value] if isinstance(value, list) else value


def _guarded(check: Callable[[Network], Row], network: Network) -> Row:
    torch.manual_seed(0)
    try:
        return check(network)
    except SepnetError as error:
        return {"verdict": "refused", "reason": first_line(error)}
    except Exception as error:
        return {"verdict": "wrong", "reason": f"{type(error).__name__}: {first_line(error)}"}


def _acceleration(network: Network) -> Row:
    found = acceleration.check(network.build(), network.image, network.batch)
    return {"reason": found.pop("wrong"), **found}


def _anatomy(network: Network) -> Row:
    found = fields.check(network.build(), network.image)
    wrong = found.pop("wrong")
    return {"verdict": "wrong" if wrong else "read", "reason": wrong, **found}


def _keras(network: Network) -> Row:
    found = keras_listing.check(network.build(), network.image)
    wrong = found.pop("wrong")
    return {"verdict": "wrong" if wrong else "equal", "reason": wrong, **found}


@contextlib.contextmanager
def _captured_lines() -> Iterator[list[str]]:
    """Collect what is written to standard error, by whoever it is."""
    lines: list[str] = []
    sys.stderr.flush()
    before = os.dup(2)
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as file:
        os.dup2(file.fileno(), 2)
        try:
            yield lines
        finally:
            sys.stderr.flush()
            os.dup2(before, 2)
            os.close(before)
            file.seek(0)
            lines += [line.strip() for line in file]
