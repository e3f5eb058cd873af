"""A dataset of shards, and the token streams in it: any span of tokens by its place, with the documents' borders.

The shards of one source, in the manifest's order, are a stream; all shards together are one too. A span is found by two
searches, among the shards and in the batch table of one of them, and is a view of the mapped file where it lies within
one record batch.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dots_data.tokens import manifest as manifests
from dots_data.tokens.manifest import Manifest, ManifestError, Shard
from dots_train.data.errors import DataError
from dots_train.data.objects import StorageConfig
from dots_train.data.storage import MOST_HELD, MOST_MAPPED, Message, Storage, is_remote, open_storage

I64 = npt.NDArray[np.int64]
Tokens = npt.NDArray[np.uint16] | npt.NDArray[np.uint32]


class Place(NamedTuple):
    """A part of a window: tokens `first` to `last` (inclusive) of the document in row `row` of a shard."""

    doc_id: str
    shard: str
    row: int
    first: int
    last: int


class Block(NamedTuple):
    """A record batch: its token stream, and its rows + 1 document borders; views, not to be written to."""

    tokens: Tokens
    borders: I64


class Piece(NamedTuple):
    """A span's share of one record batch: tokens [start, stop) of batch `batch` of shard `shard`."""

    shard: int
    batch: int
    start: int
    stop: int


class Dataset:
    """The manifest at `where` (a folder, a manifest file, or a URL of either) and its shards.

    `verify` checks each shard's size, schema and place of batches against the manifest; the checksums of local shards
    are the business of `dots shards verify`, those of fetched record batches are always checked.

    Raises:
        DataError: no readable manifest, or a shard that is missing, cut or of another dataset.
    """

    def __init__(self, where: str | Path, *, verify: bool = True, storage: StorageConfig | None = None) -> None:
        config = storage or StorageConfig()
        self.remote = is_remote(where)
        folder, name = _split(str(where)) if self.remote else _split_path(Path(where))
        self.storage: Storage = open_storage(folder, config)
        self.where = self.storage.path(name)
        self.manifest: Manifest = self._open(name)
        self.dtype = np.dtype(self.manifest.dtype).newbyteorder("<")
        self.block = functools.lru_cache(maxsize=MOST_HELD if self.remote else MOST_MAPPED)(self._block)
        self._doc_ids = functools.lru_cache(maxsize=16)(self._read_doc_ids)
        if verify:
            with ThreadPoolExecutor(config.connections if self.remote else 1) as pool:
                for _ in pool.map(lambda shard: check_shard(self.storage, shard, self.manifest), self.manifest.shards):
                    pass

    def _open(self, name: str) -> Manifest:
        try:
            if not self.remote:
                return manifests.read(self.where)
            return manifests.parse(json.loads(self.storage.read(name)), self.where, self.storage.read)
        except DataError:
            raise
        except ManifestError as error:
            raise DataError(str(error)) from error
        except (ValueError, RecursionError) as error:
            raise DataError(f"{self.where}: not JSON: {error}") from error

    def stream(self, source: str | None = None) -> Stream:
        """The tokens of a source, or of all. Raises DataError for a source that the manifest does not name."""
        return Stream(self, source)

    def table(self, shard: int) -> I64:
        """The batch table of a shard. Raises DataError."""
        try:
            return self.manifest.shards[shard].batches.table
        except ManifestError as error:
            raise DataError(str(error)) from error

    def message(self, shard: int, batch: int) -> Message:
        return Message(self.manifest.shards[shard], batch)

    def _block(self, shard: int, batch: int) -> Block:
        offset, _, rows, tokens, tokens_at, _ = self.table(shard)[batch].tolist()
        content = self.storage.message(self.message(shard, batch))
        at = tokens_at - offset
        values = content[at : at + self.dtype.itemsize * tokens].view(self.dtype)
        return Block(values, content[at - 8 * (rows + 1) : at].view("<i8"))

    def doc_ids(self, shard: int, batch: int) -> list[bytes]:
        """The 16 bytes of each document's id, in order. Raises DataError."""
        return self._doc_ids(shard, batch)

    def _read_doc_ids(self, shard: int, batch: int) -> list[bytes]:
        entry = self.manifest.shards[shard]
        header = self.storage.read(entry.file, entry.header.offset, entry.header.length)
        content = self.storage.message(self.message(shard, batch))
        try:
            with pa.ipc.open_stream(header + content.tobytes()) as reader:
                ids: list[bytes] = reader.read_next_batch().column("doc_id").to_pylist()
        except (OSError, KeyError, pa.ArrowException) as error:
            raise DataError(f"{self.storage.path(entry.file)}: batch {batch} is not Arrow: {error}") from error
        return ids


class Stream:
    """The tokens of some shards of a dataset, one shard after another.

    Raises:
        DataError: the manifest names no such source.
    """

    def __init__(self, dataset: Dataset, source: str | None = None) -> None:
        self.dataset, self.source = dataset, source
        shards = dataset.manifest.shards
        self.shards = [number for number, shard in enumerate(shards) if source in (None, shard.source)]
        if source is not None and not self.shards:
            named = ", ".join(one.name for one in dataset.manifest.sources)
            raise DataError(f"{dataset.where}: holds no source {source!r}, only {named}")
        self._ends = np.cumsum([shards[number].tokens for number in self.shards], dtype=np.int64)
        self.tokens = int(self._ends[-1]) if self.shards else 0
        self._batch_ends = functools.lru_cache(maxsize=MOST_MAPPED)(self._sum_batches)

    @property
    def name(self) -> str:
        """What to call it in an error."""
        return f"{self.dataset.where}: source {self.source}" if self.source else self.dataset.where

    def windows(self, length: int) -> int:
        """How many windows of `length` tokens, each with the token after its last, there are."""
        return max(0, (self.tokens - 1) // length)

    def pieces(self, at: int, stop: int) -> Iterator[Piece]:
        """The record batches that tokens [at, stop) lie in: nearly always one."""
        place = int(self._ends.searchsorted(at, "right"))
        while at < stop:
            shard = self.shards[place]
            end = int(self._ends[place])
            begin = end - self.dataset.manifest.shards[shard].tokens
            ends = self._batch_ends(shard)
            batch = int(ends.searchsorted(at - begin, "right"))
            upto = min(stop, end)
            while at < upto:
                first = begin + (int(ends[batch - 1]) if batch else 0)
                last = min(upto, begin + int(ends[batch]))
                if last > at:
                    yield Piece(shard, batch, at - first, last - first)
                at, batch = last, batch + 1
            place += 1

    def read(self, at: int, length: int) -> tuple[Tokens, I64]:
        """Tokens [at, at + length), and the places among them, from 0, at which a document begins.

        The tokens are a view of the file where they lie within one record batch; do not write to them.
        """
        tokens: list[Any] = []
        starts: list[I64] = []
        done = 0
        for shard, batch, start, stop in self.pieces(at, at + length):
            block = self.dataset.block(shard, batch)
            tokens.append(block.tokens[start:stop])
            borders = block.borders[:-1]
            inside = borders[borders.searchsorted(start) : borders.searchsorted(stop)]
            starts.append(inside + (done - start))
            done += stop - start
        if len(tokens) == 1:
            return tokens[0], starts[0]
        return np.concatenate(tokens), np.concatenate(starts)

    def messages(self, at: int, length: int) -> Iterator[Message]:
        """What must be in reach to read a span."""
        return (self.dataset.message(piece.shard, piece.batch) for piece in self.pieces(at, at + length))

    def lengths(self) -> Iterator[I64]:
        """Tokens of each document, a record batch at a time, in the order of the stream."""
        for shard in self.shards:
            for batch in range(len(self.dataset.manifest.shards[shard].batches)):
                yield np.diff(self.dataset.block(shard, batch).borders)

    def where(self, at: int, stop: int) -> Iterator[Place]:
        """The documents of tokens [at, stop), in their order."""
        for piece in self.pieces(at, stop):
            shard = self.dataset.manifest.shards[piece.shard]
            before = int(self.dataset.table(piece.shard)[: piece.batch, 2].sum())
            borders = self.dataset.block(piece.shard, piece.batch).borders
            ids = self.dataset.doc_ids(piece.shard, piece.batch)
            row = int(borders.searchsorted(piece.start, "right")) - 1
            while row < len(ids) and borders[row] < piece.stop:
                begin = int(borders[row])
                first, last = max(piece.start, begin), min(piece.stop, int(borders[row + 1]))
                yield Place(ids[row].hex(), shard.file, before + row, first - begin, last - begin - 1)
                row += 1

    def _sum_batches(self, shard: int) -> I64:
        return np.cumsum(self.dataset.table(shard)[:, 3])


def open_streams(datasets: Sequence[Dataset]) -> dict[str, Stream]:
    """The sources of several datasets as streams, by name: what a mixture is made of.

    Raises:
        DataError: two datasets were made with different tokenizers, or have a source of one name.
    """
    streams: dict[str, Stream] = {}
    for dataset in datasets:
        first, here = datasets[0].manifest.tokenizer, dataset.manifest.tokenizer
        if here.sha256 != first.sha256:
            raise DataError(
                f"{dataset.where}: made with tokenizer {here.sha256}, {datasets[0].where} with {first.sha256}; "
                "their ids mean different texts: tokenize one of them again"
            )
        for source in dataset.manifest.sources:
            if source.name in streams:
                raise DataError(f"{dataset.where}: source {source.name!r} is also in {streams[source.name].name}")
            streams[source.name] = dataset.stream(source.name)
    return streams


def check_shard(storage: Storage, shard: Shard, manifest: Manifest) -> None:
    """Compare a shard's size, schema and batch table with the manifest; reads no token.

    Raises:
        DataError: the shard is missing, cut, not an Arrow file, or was made by another job or tokenizer.
    """
    path = storage.path(shard.file)
    size = storage.size(shard.file)
    if size != shard.bytes:
        raise DataError(f"{path}: {size} bytes, the manifest says {shard.bytes}: it was cut or replaced")
    try:
        with pa.ipc.open_stream(storage.read(shard.file, shard.header.offset, shard.header.length)) as reader:
            schema = reader.schema
        _ = shard.batches.table  # read and checked here
    except pa.ArrowException as error:
        raise DataError(f"{path}: cannot be read as an Arrow file: {error}") from error
    except ManifestError as error:
        raise DataError(str(error)) from error
    kind = pa.large_list(pa.field("item", getattr(pa, manifest.dtype)(), nullable=False))
    if "tokens" not in schema.names or not schema.field("tokens").type.equals(kind):
        raise DataError(f"{path}: tokens are not {kind}")
    said = {
        "format": f"{manifests.FORMAT}/{manifests.VERSION}",
        "tokenizer": manifest.tokenizer.sha256,
        "job": shard.job,
        "source": shard.source,
    }
    metadata = {k.decode("utf-8", "replace"): v.decode("utf-8", "replace") for k, v in (schema.metadata or {}).items()}
    for name, value in said.items():
        if metadata.get(name) != value:
            raise DataError(f"{path}: {name} is {metadata.get(name)!r}, the manifest says {value!r}")


def _split(url: str) -> tuple[str, str]:
    folder, _, name = url.rstrip("/").rpartition("/")
    return (folder, name) if name.endswith(".json") else (url.rstrip("/"), manifests.NAME)


def _split_path(path: Path) -> tuple[Path, str]:
    whole = manifests.manifest_path(path)
    return whole.parent, whole.name
