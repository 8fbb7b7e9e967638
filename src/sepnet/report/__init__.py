"""Reports: README, pictures and notebook, made from finished runs."""

import os
import sys

try:
    import matplotlib  # noqa: F401
except ValueError:  # MPLBACKEND names no backend; reports are drawn without any
    os.environ.pop("MPLBACKEND", None)
    for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        del sys.modules[name]  # half imported
