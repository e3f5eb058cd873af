"""Shards read from front to end, a record batch at a time: what exports, statistics and takedowns walk over."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from dots_data.tokens.manifest import Shard
from dots_data.tokens.shards import ShardError, Values


class Stretch(NamedTuple):
    """The documents of one record batch: `values` cut at `borders` (rows + 1, from 0), and their ids (16 bytes each).

    `values` and `borders` are views of the mapped file.
    """

    values: Values
    borders: npt.NDArray[np.int64]
    doc_ids: pa.Array
    buckets: npt.NDArray[np.uint8]

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """Tokens of each document, EOS counted; int64 [rows]."""
        return np.diff(self.borders)

    @property
    def names(self) -> list[str]:
        """The ids in hexadecimal, as the provenance has them."""
        return [doc_id.hex() for doc_id in self.doc_ids.to_pylist()]


def stretches(root: Path, shard: Shard) -> Iterator[Stretch]:
    """The record batches of a shard in order.

    Raises:
        ShardError: the file is missing, is no Arrow file, or holds other rows than the manifest says.
    """
    path = root / shard.file
    rows = tokens = 0
    try:
        with pa.memory_map(str(path)) as file:
            reader = pa.ipc.open_file(file)
            for number in range(reader.num_record_batches):
                batch = reader.get_batch(number)
                column = batch.column("tokens")
                one = Stretch(
                    column.values.to_numpy(),
                    column.offsets.to_numpy(),
                    batch.column("doc_id"),
                    batch.column("bucket").to_numpy(),
                )
                rows, tokens = rows + len(batch), tokens + len(one.values)
                if one.borders[0] != 0 or one.borders[-1] != len(one.values):
                    raise ShardError(f"{path}: batch {number}: its borders are not those of its tokens")
                yield one
    except (OSError, pa.ArrowException, KeyError) as error:
        raise ShardError(f"{path}: cannot be read as a shard: {error}; run dots shards verify") from error
    if (rows, tokens) != (shard.rows, shard.tokens):
        raise ShardError(
            f"{path}: holds {rows} rows and {tokens} tokens, the manifest says {shard.rows}, {shard.tokens}"
        )


def origins(root: Path, shard: Shard, columns: list[str]) -> Iterator[pa.RecordBatch]:
    """The provenance of a shard in the order of its rows, some thousands at a time. Raises ShardError."""
    path = root / shard.provenance.file
    rows = 0
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(columns=columns):
                rows += len(batch)
                yield batch
    except (OSError, pa.ArrowException, KeyError, ValueError) as error:
        raise ShardError(f"{path}: cannot be read as provenance: {error}; run dots shards verify") from error
    if rows != shard.rows:
        raise ShardError(f"{path}: {rows} rows, its shard has {shard.rows}")


def origin_rows(root: Path, shard: Shard, rows: Sequence[int]) -> list[dict[str, Any]]:
    """The provenance of some rows of a shard, given in rising order; reads only the row groups that hold one.

    Raises:
        ShardError: the file cannot be read, or has no such row.
    """
    path = root / shard.provenance.file
    found: list[dict[str, Any]] = []
    if not rows:
        return found
    try:
        with pq.ParquetFile(path) as file:
            first = 0
            for group in range(file.num_row_groups):
                stop = first + file.metadata.row_group(group).num_rows
                here = [row - first for row in rows if first <= row < stop]
                if here:
                    found += file.read_row_group(group).take(here).to_pylist()
                first = stop
    except (OSError, pa.ArrowException) as error:
        raise ShardError(f"{path}: cannot be read as provenance: {error}; run dots shards verify") from error
    if len(found) != len(rows):
        raise ShardError(f"{path}: has no row {rows[-1]}")
    return found
