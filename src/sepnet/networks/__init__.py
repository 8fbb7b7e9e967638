"""The networks: sepnet's own by name, and a user's own by ``path/to/file.py:name``."""

from sepnet.networks.registry import (
    NETWORKS,
    NetworkEntry,
    build,
    call_builder,
    fingerprint,
    is_own,
    join_name,
    split_name,
)

__all__ = ["NETWORKS", "NetworkEntry", "build", "call_builder", "fingerprint", "is_own", "join_name", "split_name"]
