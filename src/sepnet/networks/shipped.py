"""The trained weights that come with sepnet: a run's folder for each network that has some."""

from pathlib import Path

from sepnet.errors import SepnetError

WEIGHTS = Path(__file__).with_name("weights")


def has_weights(name: str) -> bool:
    """Whether trained weights are shipped for the network called ``name``."""
    return (WEIGHTS / name).is_dir()


def shipped_folder(name: str) -> Path:
    """Return the folder of the run whose weights are shipped for the network called ``name``.

    Raises:
        SepnetError: none are.

    """
    if not has_weights(name):
        raise SepnetError(f"sepnet has no trained weights for '{name}': give a run's folder, as `sepnet train` makes")
    return WEIGHTS / name


def is_shipped(folder: Path) -> bool:
    """Whether a run's folder is one that comes with sepnet, where nothing is written."""
    return folder.resolve().parent == WEIGHTS.resolve()
