"""What every part of the loader raises."""

from __future__ import annotations


class DataError(ValueError):
    """Shards that are missing, cut or not what the manifest says, or a state that belongs elsewhere."""
