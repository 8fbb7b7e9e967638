"""Datasets held in memory: those of the catalogue, from a verified cache or the package, and pictures of one's own."""

from sepnet.data.cache import FileCheck
from sepnet.data.catalog import DATASETS, Fetched, fetch, is_path, load, open_data, reload, title, verify
from sepnet.data.dataset import Dataset, Split
from sepnet.data.pictures import Pictures

__all__ = [
    "DATASETS",
    "Dataset",
    "Fetched",
    "FileCheck",
    "Pictures",
    "Split",
    "fetch",
    "is_path",
    "load",
    "open_data",
    "reload",
    "title",
    "verify",
]
