"""Design, check, train and compare small image classifiers under a hard budget.

>>> import sepnet
>>> sepnet.summary("published")  # or any nn.Module: every layer's size, receptive field, parameters, MACs
>>> sepnet.check("published")  # does it keep the assignment's rules?
>>> run = sepnet.train("published", "sample", epochs=2)
>>> model = sepnet.load(run)
"""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
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

if TYPE_CHECKING:
    from sepnet.api import (
        Dataset,
        Recipe,
        Rules,
        Run,
        SepnetError,
        Split,
        bench,
        check,
        check_data,
        compare,
        compile,
        effective_receptive_field,
        evaluate,
        export_run,
        judge,
        keras_definition,
        list_runs,
        load,
        load_data,
        open_sweep,
        predict,
        score_exports,
        summary,
        train,
        write_report,
    )


def __getattr__(name: str) -> Any:
    """Import the rest when first used, so that ``sepnet --help`` need not wait for PyTorch (PEP 562)."""
    if name in __all__:
        from sepnet import api

        return getattr(api, name)
    raise AttributeError(f"module 'sepnet' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
