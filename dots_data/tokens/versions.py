"""The datasets that a folder of shards holds or held: the one of manifest.json, earlier ones, and what was taken down.

`append` keeps the manifest that was there as `manifest-<id>.json`, so that a run that was trained on it can go on.
`takedown` removes every manifest that names a removed document, and writes into `takedowns.json` which these were:

    [{documents: [doc ids], datasets: [ids of datasets that held one of them], becomes: id of the dataset without them}]

An entry is written before the dataset without the documents is committed, so it holds only once that has happened: it
is void while manifest.json is one of its `datasets`. Standard library only, so that the trainer can ask.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from dots_data.tokens import manifest as manifests
from dots_data.tokens.manifest import ManifestError

TAKEDOWNS = "takedowns.json"


@dataclass(frozen=True)
class Takedown:
    """Documents that were removed, the datasets that held one of them, and the one that came after."""

    documents: tuple[str, ...]
    datasets: tuple[str, ...]
    becomes: str


def kept_name(dataset: str) -> str:
    """The file name of a manifest that is no longer the current one."""
    return f"manifest-{dataset}.json"


def find(folder: str | Path, dataset: str) -> Path:
    """The manifest file of the dataset with this id, in a folder of shards (or beside a manifest file).

    Raises:
        ManifestError: no dataset is there, or another one; the message says if documents of it were taken down.
    """
    current = manifests.manifest_path(folder)
    kept = current.with_name(kept_name(dataset))
    if kept.exists():
        return kept
    there = manifests.read(current).id
    if there == dataset:
        return current
    if any(dataset in one.datasets for one in takedowns(current.parent)):
        raise ManifestError(
            f"{current}: documents of the dataset {dataset} were taken down (dots shards takedown), and it is gone; "
            f"what is there now is {there}, without them"
        )
    raise ManifestError(f"{current}: is the dataset {there}, and {dataset} is not kept beside it; give its folder")


def fate(folder: str | Path, dataset: str) -> str:
    """What became of a dataset, for someone who was trained on it."""
    try:
        path = find(folder, dataset)
    except ManifestError as error:
        return str(error)
    return f"the dataset {dataset} is {path}: give that file as the data"


def takedowns(folder: Path) -> list[Takedown]:
    """What was taken down from the datasets of a folder. Raises ManifestError for a damaged list."""
    path = folder / TAKEDOWNS
    if not path.exists():
        return []
    try:
        loaded = json.loads(path.read_bytes())
        return [
            Takedown(tuple(map(str, one["documents"])), tuple(map(str, one["datasets"])), str(one["becomes"]))
            for one in loaded
        ]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ManifestError(f"{path}: damaged ({error}); restore it, it keeps documents out of the dataset") from error


def write_takedowns(folder: Path, entries: Sequence[Takedown]) -> None:
    """Commit the list."""
    content = json.dumps([asdict(one) for one in entries], indent=1)
    manifests.write_atomically(folder / TAKEDOWNS, content.encode("ascii") + b"\n")
