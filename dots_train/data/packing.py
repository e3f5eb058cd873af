"""Rows of whole documents: best-fit packing, as an index beside the shards (Ding et al., "Fewer Truncations Improve
Language Modeling", ICML 2024).

A document of up to S tokens is never cut; of a longer one S tokens at a time make rows of their own, and the rest is
packed like a document. Each row is filled up with padding, which no target asks for. So every token is read exactly
once an epoch, as an input; a document's last token, its EOS, has no target, as what follows it in the row is chance.

The index is a function of (manifest, source, S, VERSION) and is built once, in one file named by these: little-endian
int64 {rows, pieces, CRC-32 of the name and of what follows}, then the arrays of `Index`.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dots_data.tokens.manifest import write_atomically
from dots_train.data.batch import IGNORE
from dots_train.data.errors import DataError
from dots_train.data.stream import I64, Stream, Tokens

VERSION = 1  # counts up whenever the same documents would be packed otherwise

HEAD = 3 * 8


class Index(NamedTuple):
    """Row i holds pieces [borders[i], borders[i + 1]): `length` (int32) tokens from `at` of the stream each."""

    borders: I64
    at: I64
    length: Any


class Packing:
    """The packed rows of a stream, from the index in `folder`, which is built if it is not there.

    Raises:
        DataError: the length is not positive, the stream is empty, or the index is damaged or cannot be written.
    """

    def __init__(self, stream: Stream, length: int, folder: Path) -> None:
        if length < 1:
            raise DataError(f"sequence_length: {length} is not at least 1")
        if not stream.tokens:
            raise DataError(f"{stream.name}: holds no tokens")
        self.stream, self.length = stream, length
        self._eos = stream.dataset.manifest.tokenizer.eos_id
        path = folder / f"packing-{stream.dataset.manifest.id}-{stream.source or 'all'}-{length}-v{VERSION}.index"
        if not path.exists():
            _write(path, pack(stream, length))
        self._index = _read(path, stream.tokens)
        self.count = len(self._index.borders) - 1

    def read(self, number: int) -> tuple[Tokens, I64]:
        """The row's tokens without padding, and the place at which each piece begins."""
        parts: list[Any] = [self.stream.read(at, length)[0] for at, length in self.spans(number)]
        return np.concatenate(parts), np.cumsum([0, *map(len, parts[:-1])])

    def fill(self, number: int, tokens_S: Any, targets_S: Any) -> I64:
        begin, starts = 0, []
        for at, length in self.spans(number):
            stop = begin + length
            # Only what fills a row may be a part of a document that goes on.
            more = int(length == self.length and at + length < self.stream.tokens)
            tokens, borders = self.stream.read(at, length + more)
            tokens_S[begin:stop] = tokens[:length]
            targets_S[begin : stop - 1] = tokens[1:length]
            goes_on = more and (not len(borders) or borders[-1] != length)
            targets_S[stop - 1] = tokens[length] if goes_on else IGNORE
            starts.append(begin)
            begin = stop
        if begin < self.length:
            tokens_S[begin:], targets_S[begin:] = self._eos, IGNORE
            starts.append(begin)
        return np.array(starts, dtype=np.int64)

    def spans(self, number: int) -> Iterator[tuple[int, int]]:
        first, last = self._index.borders[number : number + 2].tolist()
        return zip(self._index.at[first:last].tolist(), self._index.length[first:last].tolist(), strict=True)


def pack(stream: Stream, length: int) -> Index:
    """The pieces of every document, in rows of at most `length` tokens.

    Rows come in the order in which they were opened, pieces within a row as in the stream. Takes 50 bytes of memory a
    document.
    """
    documents = np.concatenate(list(stream.lengths()))
    begins = np.cumsum(documents) - documents
    whole, rest = documents // length, documents % length
    places = np.arange(int(whole.sum())) - np.repeat(np.cumsum(whole) - whole, whole)
    full_at = np.repeat(begins, whole) + places * length
    partial = np.flatnonzero(rest)
    row_of = np.concatenate([np.arange(len(full_at)), len(full_at) + best_fit(rest[partial], length)])
    at = np.concatenate([full_at, (begins + whole * length)[partial]])
    lengths = np.concatenate([np.full(len(full_at), length), rest[partial]]).astype(np.int32)
    order = np.lexsort((at, row_of))
    borders = np.concatenate([[0], np.cumsum(np.bincount(row_of))])
    return Index(borders, at[order], lengths[order])


def best_fit(lengths: I64, capacity: int) -> I64:
    """The bin of each item, by best-fit decreasing: the longest first, each into the fullest bin that has room for it.

    Items are of 1 to `capacity`; equal ones go in their order, and of equally full bins that which became so first is
    taken. The same as item by item, but all items of one length at a time: of the bins with the least room r that
    suffices, each takes r // length of them before the next is touched.
    """
    bins = np.empty(len(lengths), dtype=np.int64)
    order = np.argsort(-lengths, kind="stable")
    counts = np.bincount(lengths, minlength=capacity + 1)
    room: list[list[I64]] = [[] for _ in range(capacity + 1)]  # bins by what they have room for
    having = np.zeros(capacity + 1, dtype=np.int64)  # how many they are

    def put(items: I64, into: I64, size: int, length: int) -> None:
        """Fill bins with room for `size` each, one after another; the last may not become full."""
        each = size // length
        bins[items] = np.repeat(into, each)[: len(items)]
        full, left = divmod(len(items), each)
        for part, taken in ((into[:full], each), (into[full : full + 1], left)):
            after = size - taken * length
            if len(part) and taken and after:
                room[after].append(part)
                having[after] += len(part)

    opened = first = 0
    for length in np.flatnonzero(counts)[::-1].tolist():
        items = order[first : first + counts[length]]
        first += len(items)
        for size in (length + np.flatnonzero(having[length:])).tolist():
            if not len(items):
                break
            there = np.concatenate(room[size])
            needed = -(-len(items) // (size // length))
            into, kept = there[:needed], there[needed:]
            room[size], having[size] = [kept] if len(kept) else [], len(kept)
            fit = min(len(items), len(into) * (size // length))
            put(items[:fit], into, size, length)
            items = items[fit:]
        if len(items):
            new = -(-len(items) // (capacity // length))
            put(items, np.arange(opened, opened + new), capacity, length)
            opened += new
    return bins


def _write(path: Path, index: Index) -> None:
    """Commit an index. Processes that build it at the same time write the same."""
    arrays = [part.astype(part.dtype.newbyteorder("<"), copy=False).tobytes() for part in index]
    head = np.array([len(index.borders) - 1, len(index.at), _checksum(path, b"".join(arrays))], dtype="<i8")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, b"".join([head.tobytes(), *arrays]))
    except OSError as error:
        raise DataError(f"{path}: cannot be written: {error.strerror or error}; name another folder for it") from error


def _read(path: Path, tokens: int) -> Index:
    try:
        content = np.memmap(path, dtype=np.uint8, mode="r").view(np.ndarray)
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as a packing index: {error}; remove it") from error
    rows, pieces, crc = content[:HEAD].view("<i8").tolist() if len(content) > HEAD else (0, 0, 0)
    sizes = [HEAD, 8 * (rows + 1), 8 * pieces, 4 * pieces]
    if min(rows, pieces) < 1 or sum(sizes) != len(content) or crc != _checksum(path, content[HEAD:].data):
        raise DataError(f"{path}: is not what was written as a packing index; remove it")
    _, borders, at, length = np.split(content, np.cumsum(sizes)[:-1])
    index = Index(borders.view("<i8"), at.view("<i8"), length.view("<i4"))
    if int(index.length.sum(dtype=np.int64)) != tokens:
        raise DataError(f"{path}: is of a stream of other tokens than these {tokens}; remove it")
    return index


def _checksum(path: Path, content: bytes | memoryview) -> int:
    return zlib.crc32(content, zlib.crc32(path.name.encode()))
