"""Weights: what exists, where it lies, whether it is what it says, and how to get it.

The functions here return data and report through logging; the command line prints.
"""

from gpenvid.weights.choose import Weights, resolve
from gpenvid.weights.download import fetch, is_offline
from gpenvid.weights.files import (
    State,
    Status,
    cache_dir,
    find,
    search_path,
    sha256_of,
    shipped,
    status,
    verify,
)
from gpenvid.weights.reading import find_state_dict, read_checkpoint
from gpenvid.weights.registry import Entry, Kind, entries, entry

__all__ = [
    "Entry",
    "Kind",
    "State",
    "Status",
    "Weights",
    "cache_dir",
    "entries",
    "entry",
    "fetch",
    "find",
    "find_state_dict",
    "is_offline",
    "read_checkpoint",
    "resolve",
    "search_path",
    "sha256_of",
    "shipped",
    "status",
    "verify",
]
