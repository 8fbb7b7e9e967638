"""Compiles sepnet's kernels while it is installed, or made into a wheel."""

import importlib.util
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

BUILD = "src/sepnet/backend/build.py"


class KernelsHook(BuildHookInterface):
    """Puts the compiled kernels beside their Python, where there is a compiler."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile; a wheel that carries compiled kernels is of this platform, for any Python."""
        spec = importlib.util.spec_from_file_location("sepnet_backend_build", Path(self.root, BUILD))
        assert spec is not None
        assert spec.loader is not None
        build = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(build)
        libraries = build.build(self.app.display_info)
        if libraries and version != "editable":
            platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
            build_data["pure_python"] = False
            build_data["tag"] = f"py3-none-{platform}"
            for library in libraries:
                build_data["force_include"][str(library)] = f"sepnet/backend/compiled/{library.name}"
