"""Which documents a training step read: from a loss spike back to pages.

A batch is a function of the sample number, so what a run wrote is enough: its data and order in config.json, the first
sample and the number of sequences of each step in metrics.jsonl, and the provenance beside the shards.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dots_data.tokens import versions
from dots_data.tokens.manifest import ManifestError
from dots_train import metrics
from dots_train.data import DataError, Place, ShardReader


@dataclass(frozen=True)
class Read:
    """A part of a document that a sample read: its tokens `first` to `last`, inclusive; row `row` of a shard."""

    sample: int
    doc_id: str
    first: int
    last: int
    shard: str
    row: int
    url: str | None
    warc_file: str | None
    warc_offset: int | None


@dataclass(frozen=True)
class Step:
    """A step of a run: its loss, the samples that were asked for, and the dataset that they are of."""

    step: int
    loss: float | None
    samples: range
    manifest: Path


def step_of(run: str | Path, step: int, rank: int | None = None, data: str | Path | None = None) -> Step:
    """What a run says of one of its steps.

    rank: only the share of the batch that this reader of the data took, of as many as the run had.
    data: the folder of shards, where it is no longer the one that the run names.

    Raises:
        DataError: no run, step or rank of that number, or the dataset is not to be found.
    """
    path = Path(run) / "config.json"
    try:
        config: dict[str, Any] = json.loads(path.read_bytes())
        dataset = str(config["manifest"])
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); give the output folder of pretrain") from error
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: is not the configuration of a run ({error})") from error
    record = _record(Path(run), step)
    first, count, shares = (int(record[name]) for name in ("first_sample", "sequences", "shares"))
    if rank is not None and not 0 <= rank < shares:
        raise DataError(f"{run}: step {step}: {shares} readers shared its batch, --rank is 0 to {shares - 1}")
    mine = count // shares
    samples = range(first, first + count) if rank is None else range(first + rank * mine, first + (rank + 1) * mine)
    folder = data or config.get("data")
    try:
        if folder is None:
            raise ManifestError(f"{path}: does not say where the shards lie")
        return Step(step, record["loss"], samples, versions.find(folder, dataset))
    except ManifestError as error:
        raise DataError(f"{error}; --data names the folder of the shards") from error


def documents(run: str | Path, step: Step) -> Iterator[Read]:
    """The documents of a step's samples, in the order in which they were read.

    Raises:
        DataError: shards or provenance that cannot be read.
    """
    config = json.loads((Path(run) / "config.json").read_bytes())
    reader = ShardReader(step.manifest, int(config["sequence_length"]), int(config["seed"]), verify=False)
    places = [(sample, place) for sample in step.samples for place in reader.where(sample)]
    origins = _origins(reader, [place for _, place in places])
    for sample, place in places:
        origin = origins[place.shard, place.row]
        if origin["doc_id"] != place.doc_id:
            raise DataError(f"{step.manifest.parent / place.shard}: row {place.row}: its provenance is of another one")
        found = {name: origin[name] for name in ("url", "warc_file", "warc_offset")}
        yield Read(sample, place.doc_id, place.first, place.last, place.shard, place.row, **found)


def _record(run: Path, step: int) -> dict[str, Any]:
    records = metrics.read(run)
    for record in records:
        if record.get("step") == step:
            if "first_sample" not in record:
                raise DataError(f"{run}: step {step}: an earlier version of the trainer did not log its samples")
            return record
    there = f"steps {records[0]['step']} to {records[-1]['step']}" if records else "no step"
    raise DataError(f"{run / 'metrics.jsonl'}: holds {there}, not {step}")


def _origins(reader: ShardReader, places: list[Place]) -> dict[tuple[str, int], dict[str, Any]]:
    """The provenance of places, each file opened once."""
    from dots_data.tokens.reading import origin_rows
    from dots_data.tokens.shards import ShardError

    wanted: dict[str, set[int]] = defaultdict(set)
    for place in places:
        wanted[place.shard].add(place.row)
    root = reader.folder
    found: dict[tuple[str, int], dict[str, Any]] = {}
    try:
        for shard in reader.manifest.shards:
            rows = sorted(wanted.get(shard.file, ()))
            for row, origin in zip(rows, origin_rows(root, shard, rows), strict=True):
                found[shard.file, row] = origin
    except ShardError as error:
        raise DataError(str(error)) from error
    return found
