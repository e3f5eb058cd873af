"""Token shards to batches, by the global sample number g alone.

The shards of a manifest, in its order, are one stream of tokens. Window i of S tokens is stream[i*S : i*S + S
+ 1]: S inputs and, one further, S targets. Epoch e reads every window once, in the order of a keyed bijection
(seed, e). So sample g is a pure function of (manifest, sequence length, seed, g): the same global batches for
any number of ranks or workers and through any change of batch size, and the whole state of the loader is
about a hundred bytes. The last tokens of the stream that fill no window are not read.

Shards are memory-mapped; opening reads the manifest (and, with `verify`, each shard's header and footer),
nothing a document. Needs torch, numpy and pyarrow; knows nothing of Spark, Ray or tokenizers.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from dots_data.tokens import manifest as manifests
from dots_data.tokens.manifest import Manifest, ManifestError, Shard
from dots_data.tokens.order import epoch_order

I64 = npt.NDArray[np.int64]
Tokens = npt.NDArray[np.uint16] | npt.NDArray[np.uint32]

ORDER_VERSION = 1  # counts up whenever the same (seed, g) would mean another window


class DataError(ValueError):
    """Shards that are missing, cut or not what the manifest says, or a state that belongs elsewhere."""


@dataclass(frozen=True)
class Batch:
    """B windows of S tokens, int64 on the CPU.

    tokens_BS, targets_BS: the inputs, and what follows each of them in the stream.
    position_BS: place inside the document, 0 at each document's first token; a document that began before the
        window counts from the window's start.
    document_BS: number of the document within its window, from 0.
    """

    tokens_BS: torch.Tensor
    targets_BS: torch.Tensor
    position_BS: torch.Tensor
    document_BS: torch.Tensor


class Place(NamedTuple):
    """A part of a window: tokens `first` to `last` (inclusive) of the document in row `row` of a shard."""

    doc_id: str
    shard: str
    row: int
    first: int
    last: int


class _Piece(NamedTuple):
    """A window's share of one record batch: its tokens [start, stop)."""

    batch: int
    start: int
    stop: int


class ShardReader:
    """Windows and batches of the dataset in `folder`.

    `verify` checks each shard's size, schema metadata and Arrow footer against the manifest (checksums of the
    content are the business of `dots shards verify`).

    Raises:
        DataError: no readable manifest, a shard that is missing, cut or of another dataset, or fewer tokens
            than one window.
    """

    def __init__(self, folder: str | Path, sequence_length: int, seed: int, *, verify: bool = True) -> None:
        if sequence_length < 1:
            raise DataError(f"sequence_length: {sequence_length} is not at least 1")
        self._path = manifests.manifest_path(folder)
        try:
            self.manifest: Manifest = manifests.read(folder)
        except ManifestError as error:
            raise DataError(str(error)) from error
        self.sequence_length, self.seed = sequence_length, seed
        self.id = self.manifest.id
        self.windows = max(0, (self.manifest.tokens - 1) // sequence_length)
        if not self.windows:
            need = f"one window of {sequence_length} tokens needs {sequence_length + 1}"
            raise DataError(f"{self._path}: holds {self.manifest.tokens} tokens, {need}")
        if verify:
            for shard in self.manifest.shards:
                check_shard(self._path.parent / shard.file, shard, self.manifest)
        self._index()

    def _index(self) -> None:
        """The batch tables of all shards as one: prefix sums of tokens, and where each batch's bytes lie."""
        tables = [shard.batches for shard in self.manifest.shards]

        def column(name: str) -> I64:
            return np.concatenate([np.frombuffer(getattr(table, name), dtype=np.int64) for table in tables])

        self._rows, self._tokens, self._tokens_at = column("rows"), column("tokens"), column("tokens_at")
        self._ends = np.cumsum(self._tokens)
        self._shard_of = np.repeat(np.arange(len(tables)), [len(table) for table in tables])
        self._first_batch = np.cumsum([0, *(len(table) for table in tables)])
        self._dtype = np.dtype(self.manifest.dtype).newbyteorder("<")
        self._bytes = functools.lru_cache(maxsize=4096)(self._map)

    def _map(self, number: int) -> npt.NDArray[np.uint8]:
        shard = self.manifest.shards[number]
        path = self._path.parent / shard.file
        try:
            mapped = np.memmap(path, dtype=np.uint8, mode="r").view(np.ndarray)
        except (OSError, ValueError) as error:
            raise DataError(f"{path}: cannot be mapped: {error}") from error
        if len(mapped) != shard.bytes:
            raise DataError(f"{path}: {len(mapped)} bytes, the manifest says {shard.bytes}")
        return mapped

    def _values(self, batch: int) -> Tokens:
        """The token stream of a record batch, a view of the mapped file."""
        start = int(self._tokens_at[batch])
        width = self._dtype.itemsize * int(self._tokens[batch])
        return self._bytes(int(self._shard_of[batch]))[start : start + width].view(self._dtype)

    def _borders(self, batch: int) -> I64:
        """The document borders of a record batch (rows + 1 of them), a view of the mapped file."""
        stop = int(self._tokens_at[batch])
        start = stop - 8 * (int(self._rows[batch]) + 1)
        return self._bytes(int(self._shard_of[batch]))[start:stop].view("<i8")

    def _pieces(self, window: int) -> Iterator[_Piece]:
        """The record batches that a window's S + 1 tokens lie in: nearly always one."""
        at = window * self.sequence_length
        stop = at + self.sequence_length + 1
        batch = int(np.searchsorted(self._ends, at, side="right"))
        while at < stop:
            end = int(self._ends[batch])
            begin = end - int(self._tokens[batch])
            upto = min(stop, end)
            if upto > at:
                yield _Piece(batch, at - begin, upto - begin)
            at, batch = upto, batch + 1

    def window_of(self, g: int, n: int = 1) -> I64:
        """The windows that samples g .. g+n-1 read. Raises DataError for a negative g."""
        if g < 0 or n < 0:
            raise DataError(f"samples are counted from 0, not {g}")
        samples = np.arange(g, g + n, dtype=np.int64)
        epochs, places = samples // self.windows, samples % self.windows
        windows = np.empty(n, dtype=np.int64)
        for epoch in np.unique(epochs):
            here = epochs == epoch
            windows[here] = epoch_order(self.windows, self.seed, int(epoch))(places[here])
        return windows

    def window(self, g: int) -> tuple[Tokens, I64]:
        """Sample g: S + 1 tokens, and the places in [0, S) at which a document begins.

        The tokens are a view of the file where they lie within one record batch; do not write to them.
        """
        return self._read(int(self.window_of(g)[0]))

    def _read(self, window: int) -> tuple[Tokens, I64]:
        tokens: list[Any] = []
        starts: list[I64] = []
        at = 0
        for piece in self._pieces(window):
            borders = self._borders(piece.batch)[:-1]
            first, last = np.searchsorted(borders, (piece.start, piece.stop))
            tokens.append(self._values(piece.batch)[piece.start : piece.stop])
            starts.append(borders[first:last] - piece.start + at)
            at += piece.stop - piece.start
        inside = starts[0] if len(starts) == 1 else np.concatenate(starts)
        inside = inside[: np.searchsorted(inside, self.sequence_length)]
        return (tokens[0] if len(tokens) == 1 else np.concatenate(tokens)), inside

    def batch(self, g: int, n: int) -> Batch:
        """Samples g .. g+n-1, one a row."""
        length = self.sequence_length
        stream_BT = np.empty((n, length + 1), dtype=np.int64)
        position_BS = np.empty((n, length), dtype=np.int64)
        document_BS = np.empty((n, length), dtype=np.int64)
        for row, window in enumerate(self.window_of(g, n)):
            stream_BT[row], starts = self._read(int(window))
            borders = np.concatenate([[0], starts[np.searchsorted(starts, 1) :], [length]])
            lengths = np.diff(borders)
            document_BS[row] = np.repeat(np.arange(len(lengths)), lengths)
            position_BS[row] = np.arange(length) - np.repeat(borders[:-1], lengths)
        stream = torch.from_numpy(stream_BT)
        return Batch(
            stream[:, :-1].contiguous(),
            stream[:, 1:].contiguous(),
            torch.from_numpy(position_BS),
            torch.from_numpy(document_BS),
        )

    def state(self, g: int) -> dict[str, str | int]:
        """All that is needed to go on at sample g."""
        return {
            "manifest": self.id,
            "order": ORDER_VERSION,
            "seed": self.seed,
            "sequence_length": self.sequence_length,
            "g": g,
        }

    def resume(self, state: Mapping[str, str | int]) -> int:
        """The sample at which `state` stood. Raises DataError if it belongs to other data or order."""
        for name, mine in self.state(0).items():
            if name not in state:
                raise DataError(f"{self._path}: the saved state has no {name!r}")
            if name != "g" and state[name] != mine:
                raise DataError(f"{self._path}: {name} is {mine!r} here, the saved state was made with {state[name]!r}")
        g = state["g"]
        if not isinstance(g, int) or isinstance(g, bool) or g < 0:
            raise DataError(f"{self._path}: the saved state has g = {g!r}, not a sample number")
        return g

    def where(self, g: int) -> list[Place]:
        """The documents that sample g reads, inputs and last target, in the order of the window."""
        places = []
        for piece in self._pieces(int(self.window_of(g)[0])):
            number = int(self._shard_of[piece.batch])
            within = piece.batch - int(self._first_batch[number])
            table = self.manifest.shards[number].batches
            row_of_first = sum(table.rows[:within])
            ids, borders = self._doc_ids(number, within), self._borders(piece.batch)
            row = int(np.searchsorted(borders, piece.start, side="right")) - 1
            while row < len(ids) and borders[row] < piece.stop:
                begin = int(borders[row])
                first, stop = max(piece.start, begin), min(piece.stop, int(borders[row + 1]))
                if stop > first:
                    shard = self.manifest.shards[number].file
                    places.append(Place(ids[row].hex(), shard, row_of_first + row, first - begin, stop - begin - 1))
                row += 1
        return places

    def _doc_ids(self, number: int, batch: int) -> list[bytes]:
        path = self._path.parent / self.manifest.shards[number].file
        try:
            with pa.memory_map(str(path)) as file:
                ids: list[bytes] = pa.ipc.open_file(file).get_batch(batch).column("doc_id").to_pylist()
        except (OSError, pa.ArrowException) as error:
            raise DataError(f"{path}: cannot be read as an Arrow file: {error}") from error
        return ids


def check_shard(path: Path, shard: Shard, manifest: Manifest) -> None:
    """Compare a shard's size, footer and schema metadata with the manifest; reads no token.

    Raises:
        DataError: the shard is missing, cut, not an Arrow file, or was made by another job or tokenizer.
    """
    try:
        size = path.stat().st_size
        if size != shard.bytes:
            raise DataError(f"{path}: {size} bytes, the manifest says {shard.bytes}: it was cut or replaced")
        with pa.memory_map(str(path)) as file:
            reader = pa.ipc.open_file(file)
            schema, batches = reader.schema, reader.num_record_batches
    except OSError as error:
        raise DataError(f"{path}: named by the manifest, but {error.strerror or error}") from error
    except pa.ArrowException as error:
        raise DataError(f"{path}: cannot be read as an Arrow file: {error}") from error
    if batches != len(shard.batches):
        raise DataError(f"{path}: {batches} record batches, the manifest says {len(shard.batches)}")
    kind = pa.large_list(pa.field("item", getattr(pa, manifest.dtype)(), nullable=False))
    if "tokens" not in schema.names or not schema.field("tokens").type.equals(kind):
        raise DataError(f"{path}: tokens are not {kind}")
    said = {
        "format": f"{manifests.FORMAT}/{manifests.VERSION}",
        "tokenizer": manifest.tokenizer.sha256,
        "job": shard.job,
        "source": shard.source,
    }
    metadata = {k.decode(): v.decode() for k, v in (schema.metadata or {}).items()}
    for name, value in said.items():
        if metadata.get(name) != value:
            raise DataError(f"{path}: {name} is {metadata.get(name)!r}, the manifest says {value!r}")
