"""Runs: the folder that a training fills and everything later reads."""

from sepnet.runs.config import RunConfig
from sepnet.runs.run import Run

__all__ = ["Run", "RunConfig"]
