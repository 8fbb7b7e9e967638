"""Datasets held in memory: CIFAR-10 from a verified cache, and a sample of it inside the package."""

from sepnet.data.cache import FileCheck
from sepnet.data.catalog import DATASETS, Fetched, fetch, load, verify
from sepnet.data.dataset import Dataset, Split

__all__ = ["DATASETS", "Dataset", "Fetched", "FileCheck", "Split", "fetch", "load", "verify"]
