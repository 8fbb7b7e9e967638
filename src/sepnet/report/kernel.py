"""The kernel that executes a report's notebook."""

import asyncio
import atexit
import os
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat
from ipykernel.kernelspec import get_kernel_dict
from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError
from nbformat import NotebookNode

from sepnet.errors import SepnetError, first_line

START_SECONDS = 120
OPEN_FILES = 128
"""Of this process while a notebook is executed, at most; about 60 were counted."""


def execute(notebook: NotebookNode, *, folder: Path) -> NotebookNode:
    """Run all cells in a fresh kernel of this Python, started in ``folder``; return the notebook with its outputs.

    Raises:
        SepnetError: a cell failed, or the kernel could not be started.

    """
    _require_open_files()
    with tempfile.TemporaryDirectory() as place:
        manager = AsyncKernelManager(kernel_name="python3", kernel_spec_manager=_ThisPython())
        if os.name == "posix":  # sockets that only this user can open, in place of ports
            manager.transport = "ipc"
            manager.ip = str(Path(place) / "kernel")
        client = NotebookClient(
            notebook,
            km=manager,
            timeout=None,
            startup_timeout=START_SECONDS,
            record_timing=False,
            coalesce_streams=True,
            resources={"metadata": {"path": str(folder)}},
        )
        try:
            _run(client, manager, {**os.environ, **_PLAIN, **_python_path(), "IPYTHONDIR": place})
        except CellExecutionError as error:
            raise SepnetError(f"the report's notebook failed: {error.ename}: {first_line(error.evalue)}") from error
        except (DeadKernelError, RuntimeError, OSError) as error:
            raise SepnetError(f"the report's notebook could not be run: {first_line(error)}") from error
    notebook.metadata["language_info"] = {"name": "python"}
    nbformat.validate(notebook)
    return notebook


def _require_open_files() -> None:
    """Raise where this process may not open as many files as a kernel and its sockets take: ZeroMQ would abort it."""
    if os.name != "posix":
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 <= soft < OPEN_FILES:
        wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        if wanted < OPEN_FILES:
            raise SepnetError(
                f"a process may open {hard} files here, and a report's notebook takes up to {OPEN_FILES}: "
                f"allow more by `ulimit -n {OPEN_FILES}`"
            )


def _run(client: NotebookClient, manager: AsyncKernelManager, environment: dict[str, str]) -> None:
    """Execute in a thread of its own, where nbclient takes no signals: Ctrl-C ends the kernel, and is passed on."""
    with ThreadPoolExecutor(1) as pool:
        execution = pool.submit(lambda: asyncio.run(client.async_execute(cleanup_kc=True, env=environment)))
        try:
            execution.result()
        except KeyboardInterrupt:
            while not execution.done():
                kernel = getattr(manager.provisioner, "process", None)
                if kernel is not None:
                    kernel.kill()
                time.sleep(0.05)
            raise
        finally:
            atexit.unregister(client._cleanup_kernel)  # done above; of a kernel killed at its start it would fail


def _python_path() -> dict[str, str]:
    """Return PYTHONPATH, if there is one, as another folder needs it."""
    paths = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    return {"PYTHONPATH": os.pathsep.join(map(os.path.abspath, paths))} if paths else {"PYTHONPATH": ""}


_PLAIN = {"PYTHONSAFEPATH": "1", "MPLBACKEND": "module://matplotlib_inline.backend_inline"}
"""What the kernel's environment sets: no module is imported from the folder it starts in, whoever's files lie there."""


class _ThisPython(KernelSpecManager):
    """Knows one kernel: the Python that sepnet runs in, whatever else is installed for the user."""

    def get_kernel_spec(self, kernel_name: str) -> KernelSpec:  # noqa: ARG002
        spec = KernelSpec(resource_dir="", **get_kernel_dict())
        spec.argv.append("--IPKernelApp.ignore_cwd=True")  # else IPython puts it on the path by itself
        return spec
