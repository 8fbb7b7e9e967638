"""The networks: sepnet's own by name, and a user's own by ``path/to/file.py:name``."""

from sepnet.networks.registry import NETWORKS, NetworkEntry, build, fingerprint

__all__ = ["NETWORKS", "NetworkEntry", "build", "fingerprint"]
