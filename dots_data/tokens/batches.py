"""Where each record batch of a shard lies: one table of integers for all shards of a manifest, read as it is needed.

A dataset of trillions of tokens has millions of record batches. Their places are a file of their own beside the
manifest, little-endian int64, a row of `COLUMNS` a record batch, the rows of each shard together and in the manifest's
order. The manifest holds the number of rows and a digest for each shard, so that opening reads none of it and what is
read of it is checked. The file is named by its content: manifests over the same shards may lie side by side.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

I64 = npt.NDArray[np.int64]

LARGEST = 1 << 56  # sums and products of two counts' bytes stay within int64


class ManifestError(ValueError):
    """A manifest that cannot be read or contradicts itself; the message names the file and the key."""


class BatchEntry(NamedTuple):
    """One record batch: its message at [offset, offset + length) with this CRC-32, its values from byte `tokens_at`."""

    offset: int
    length: int
    rows: int
    tokens: int
    tokens_at: int
    crc32: int


COLUMNS = len(BatchEntry._fields)
ROW = 8 * COLUMNS


class Batches(Sequence[BatchEntry]):
    """The batch table of a shard: `count` rows, read by `load` when first looked at.

    `load` returns (count, COLUMNS) int64 that has been checked. Two tables of one digest are equal.
    """

    def __init__(self, count: int, digest: str, load: Callable[[], I64]) -> None:
        self._count, self.digest, self._load = count, digest, load

    @classmethod
    def of(cls, entries: Iterable[Sequence[int]]) -> Batches:
        table = np.array(list(entries), dtype=np.int64).reshape(-1, COLUMNS)
        return cls(len(table), digest(table.astype("<i8", copy=False).tobytes()), lambda: table)

    @cached_property
    def table(self) -> I64:
        """(count, COLUMNS) int64. Raises ManifestError for a table that is missing, damaged or contradicts itself."""
        return self._load()

    @property
    def rows(self) -> I64:
        return self.table[:, 2]

    @property
    def tokens(self) -> I64:
        return self.table[:, 3]

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [BatchEntry(*row) for row in self.table[index].tolist()]
        return BatchEntry(*self.table[index].tolist())

    def __iter__(self) -> Iterator[BatchEntry]:
        return (BatchEntry(*row) for row in self.table.tolist())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Batches) and (len(self), self.digest) == (len(other), other.digest)

    def __hash__(self) -> int:
        return hash(self.digest)


def encoded(batches: Batches) -> bytes:
    """A table as it lies in the file."""
    return batches.table.astype("<i8", copy=False).tobytes()


def digest(content: bytes | memoryview) -> str:
    """BLAKE2b-128 of a table's bytes, in hexadecimal."""
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def file_name(tables: Iterable[Batches]) -> str:
    """The name of the file that holds these tables, one after another."""
    together = hashlib.blake2b("".join(table.digest for table in tables).encode(), digest_size=16).hexdigest()
    return f"batches-{together}.i64"


def decoded(content: bytes | memoryview, count: int, said: str, where: str) -> I64:
    """A shard's part of the file. Raises ManifestError if it is cut or changed."""
    if len(content) != ROW * count:
        raise ManifestError(f"{where}: {len(content)} bytes of {ROW * count}: it was cut")
    if digest(content) != said:
        raise ManifestError(f"{where}: digest is {digest(content)}, the manifest says {said}: it was changed")
    return np.frombuffer(content, dtype="<i8").reshape(-1, COLUMNS)


def check(table: I64, *, rows: int, tokens: int, size: int, head: int, width: int, where: str) -> None:
    """See that a table fits its shard of `size` bytes whose header ends at byte `head`; a token has `width` bytes.

    Raises:
        ManifestError: numbers that are no counts or offsets, overlap, leave the file, or do not add up.
    """
    if table.size and not 0 <= int(table.min()) <= int(table.max()) < LARGEST:
        raise ManifestError(f"{where}: {table.min()} to {table.max()} are no counts or offsets")
    offset, length, rows_, tokens_, tokens_at, _ = table.T
    ends = np.concatenate([[head], offset + length])
    fits = (
        (ends[:-1] <= offset)
        & (offset <= tokens_at - 8 * (rows_ + 1))
        & (tokens_at + width * tokens_ <= ends[1:])
        & (ends[1:] <= size)
        & (tokens_at % 64 == 0)
    )
    if not fits.all():
        i = int(np.flatnonzero(~fits)[0])
        raise ManifestError(f"{where}: batches[{i}]: its bytes do not fit the file, its neighbours or its tokens")
    for name, found, said in (("rows", rows_, rows), ("tokens", tokens_, tokens)):
        if int(found.sum()) != said:
            raise ManifestError(f"{where}: {name}: {said} is said, the batches add up to {found.sum()}")
