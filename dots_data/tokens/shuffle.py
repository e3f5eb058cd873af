"""An exact global shuffle in two passes, the same bytes for any number of workers and after any retry.

Scatter: each task encodes a piece of the documents and sorts them into buckets, those of a source by a keyed hash of
their id. Gather: each task takes one bucket from all pieces, orders it by a second keyed hash and writes one shard.
Where a document ends depends on its id and the seed alone; ties (two rows of one id) are broken by what the
rows hold. Tasks write under temporary names and rename, so a killed task leaves nothing that counts, and a
repeated one writes the same.
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from dots_data.tokens import documents, manifest, shards, tokenizer
from dots_data.tokens.documents import DocumentsError, Piece, SourceFrom
from dots_data.tokens.manifest import TokenizerInfo
from dots_data.tokens.order import key, keyed_hashes
from dots_data.tokens.shards import PROVENANCE, Documents, Header, Values

I64 = npt.NDArray[np.int64]

# Provenance columns that come from the documents; the others are made in the gather.
CARRIED = [field for field in PROVENANCE if field.name not in ("doc_id", "tokens")]


@dataclass(frozen=True)
class Plan:
    """What every task of a job knows.

    work: the folder of intermediate files. output: that of the shards. source: where documents say their source.
    headers: what the shards of each source say of themselves, the sources in order of their names.
    buckets: the number of shards of each of these sources.
    """

    work: str
    output: str
    source: SourceFrom
    engine: tokenizer.Engine
    batch_tokens: int
    headers: tuple[Header, ...]
    buckets: tuple[int, ...]

    @property
    def tokenizer(self) -> TokenizerInfo:
        return self.headers[0].tokenizer

    @property
    def firsts(self) -> I64:
        """The number of each source's first shard, and the number of all shards."""
        return np.cumsum([0, *self.buckets], dtype=np.int64)

    def header_of(self, number: int) -> Header:
        return self.headers[int(np.searchsorted(self.firsts, number, side="right")) - 1]


@dataclass(frozen=True)
class Scattered:
    """What a scatter task has done."""

    documents: int
    bytes: int
    tokens: int


@dataclass(frozen=True)
class Gathered:
    """What a gather task has done: the shard's entry in the manifest, as plain JSON.

    repeated: rows that share their id with another row. A bucket without documents has no entry.
    """

    entry: dict[str, Any] | None
    repeated: int


class Ragged:
    """Documents of several arrays of tokens, addressed by one row number."""

    def __init__(self, values: Sequence[Values], borders: Sequence[I64]) -> None:
        self._values = list(values)
        counts = [len(border) - 1 for border in borders]
        self._part = np.repeat(np.arange(len(counts)), counts)
        self._start: I64 = np.concatenate([border[:-1] for border in borders] or [np.zeros(0, np.int64)])
        self._stop: I64 = np.concatenate([border[1:] for border in borders] or [np.zeros(0, np.int64)])

    def lengths(self) -> I64:
        lengths: I64 = self._stop - self._start
        return lengths

    def take(self, rows: I64, dtype: str, end: int | None = None) -> tuple[Values, I64]:
        """The tokens of some rows, one after the other, each with `end` behind it, and their borders.

        The caller has seen to it that `dtype` holds them.
        """
        places = zip(self._part[rows].tolist(), self._start[rows].tolist(), self._stop[rows].tolist(), strict=True)
        parts = [self._values[part][start:stop] for part, start, stop in places]
        lengths = self.lengths()[rows]
        if end is not None:
            closing = np.array([end], np.uint32)
            parts = [one for part in parts for one in (part, closing)]
            lengths = lengths + 1
        borders = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        return np.concatenate(parts or [np.empty(0, dtype)], dtype=dtype, casting="same_kind"), borders


def piece_path(plan: Plan, piece_key: str) -> Path:
    return Path(plan.work) / "pieces" / f"{piece_key}.arrow"


def entry_path(plan: Plan, number: int) -> Path:
    return Path(plan.work) / "shards" / f"{shard_name(number)}.json"


def shard_name(number: int) -> str:
    return f"shard-{number:05d}"


def scatter(piece: Piece, piece_key: str, plan: Plan) -> Scattered:
    """Encode a piece and write it, one record batch a bucket, under the name of its content.

    Raises:
        DocumentsError: it cannot be read, or is not what it was when it was surveyed.
    """
    path = piece_path(plan, piece_key)
    if path.exists():
        with pa.memory_map(str(path)) as file:
            done = json.loads(pa.ipc.open_file(file).schema.metadata[b"counts"])
        return Scattered(**done)
    info = plan.tokenizer
    encoder = tokenizer.encoder(str(Path(plan.output) / info.file), info.sha256, plan.engine)
    values: list[Values] = []
    borders: list[I64] = []
    rest: list[pa.RecordBatch] = []
    size = digest = rows = 0
    for batch in documents.read(piece, plan.source):
        ids, edges = encoder.encode(batch.column("text"))
        _check_ids(ids, edges, batch, info, piece.file)
        values.append(ids)
        borders.append(edges)
        rest.append(batch.drop_columns(["text"]))
        digest = (digest + documents.digest_of(batch)) % (1 << 128)
        size += pc.sum(pc.binary_length(batch.column("text"))).as_py() or 0
        rows += len(batch)
    found = documents.Survey(rows, size, 0, digest, {}, np.zeros(0, np.int64))
    if found.key != piece_key:
        raise DocumentsError(f"{piece.file}: has changed since the job began")
    counts = Scattered(rows, size, rows + sum(len(part) for part in values))
    _write_piece(path, Ragged(values, borders), pa.Table.from_batches(rest).combine_chunks(), plan, counts)
    return counts


def _check_ids(
    ids: npt.NDArray[np.uint32], borders: I64, batch: pa.RecordBatch, info: TokenizerInfo, file: str
) -> None:
    """Raises TokenizerError for an id that the vocabulary does not have: the shards' type may not hold it."""
    if int(ids.max(initial=0)) >= info.vocab_size:
        at = int(np.argmax(ids))
        doc_id = batch.column("id")[int(np.searchsorted(borders, at, side="right")) - 1].as_py().hex()
        raise tokenizer.TokenizerError(
            f"{file}: document {doc_id}: token id {ids[at]} is not below the vocabulary of {info.vocab_size}"
        )


def _write_piece(path: Path, tokens: Ragged, rest: pa.Table, plan: Plan, counts: Scattered) -> None:
    seed, dtype = plan.headers[0].seed, plan.tokenizer.dtype
    bucket_key, order_key = key("shard", seed), key("row", seed)
    ids = documents.numbers_of(rest["id"].chunk(0))
    source = pc.index_in(rest["source"], pa.array([header.source for header in plan.headers])).to_numpy()
    places = keyed_hashes(ids, bucket_key) % np.array(plan.buckets, np.uint64)[source]
    bucket = plan.firsts[source] + places.astype(np.int64)
    order = pa.array(keyed_hashes(ids, order_key))
    rows = np.argsort(bucket, kind="stable")
    present, firsts = np.unique(bucket[rows], return_index=True)
    columns = {"order": order, **{name: rest[name] for name in rest.column_names}}
    schema = pa.schema(
        [pa.field("tokens", shards.list_of(plan.headers[0].token_type)), *pa.table(columns).schema],
        metadata={"buckets": json.dumps(present.tolist()), "counts": json.dumps(counts.__dict__)},
    )
    table = pa.table(columns).take(pa.array(rows)).combine_chunks().to_batches()[0]
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with pa.OSFile(str(temporary), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        for start, stop in itertools.pairwise([*firsts.tolist(), len(rows)]):
            values, borders = tokens.take(rows[start:stop], dtype, plan.tokenizer.eos_id)
            lists = pa.LargeListArray.from_arrays(pa.array(borders), pa.array(values), type=schema.field(0).type)
            writer.write_batch(pa.record_batch([lists, *table.slice(start, stop - start).columns], schema=schema))
    shards.sync(temporary)
    os.replace(temporary, path)


def gather(number: int, piece_keys: Sequence[str], plan: Plan) -> Gathered:
    """Write the shard of one bucket, and then, under its own name, the entry that says it is whole."""
    committed = entry_path(plan, number)
    if committed.exists():
        return Gathered(**json.loads(committed.read_bytes()))
    batches = [batch for piece_key in piece_keys for batch in _of_bucket(piece_path(plan, piece_key), number)]
    done = _write_shard(number, batches, plan) if batches else Gathered(None, 0)
    committed.parent.mkdir(parents=True, exist_ok=True)
    manifest.write_atomically(committed, manifest.canonical_json(done.__dict__).encode("ascii"))
    return done


def _of_bucket(path: Path, number: int) -> list[pa.RecordBatch]:
    with pa.memory_map(str(path)) as file:
        reader = pa.ipc.open_file(file)
        present = json.loads(reader.schema.metadata[b"buckets"])
        return [reader.get_batch(present.index(number))] if number in present else []


def _write_shard(number: int, batches: list[pa.RecordBatch], plan: Plan) -> Gathered:
    header = plan.header_of(number)
    tokens = Ragged(
        [batch.column("tokens").values.to_numpy() for batch in batches],
        [batch.column("tokens").offsets.to_numpy() for batch in batches],
    )
    rest = pa.Table.from_batches([batch.drop_columns(["tokens"]) for batch in batches]).combine_chunks()
    order, repeated = _order(tokens, rest, header.tokenizer.dtype)
    rest = rest.take(pa.array(order)).combine_chunks()
    buckets = rest["bucket"].to_numpy()
    ids = rest["id"].chunk(0)

    def in_order() -> Iterator[pa.RecordBatch]:
        for start, stop in batch_ranges(tokens.lengths()[order], plan.batch_tokens):
            values, borders = tokens.take(order[start:stop], header.tokenizer.dtype)
            yield shards.record_batch(Documents(values, borders, ids[start:stop], buckets[start:stop]), header)

    origin = {field.name: rest[field.name] for field in CARRIED}
    lengths = tokens.lengths()[order]
    provenance = pa.table({"doc_id": documents.hexadecimal(ids), **origin, "tokens": lengths}, schema=PROVENANCE)
    entry = shards.write_shard(Path(plan.output), shard_name(number), in_order(), provenance, header)
    return Gathered(manifest.shard_mapping(entry), repeated)


def batch_ranges(lengths: I64, batch_tokens: int) -> Iterator[tuple[int, int]]:
    """Rows of each record batch: a batch closes with the document that brings it to `batch_tokens`."""
    ends = np.cumsum(lengths)
    start = 0
    while start < len(lengths):
        before = int(ends[start - 1]) if start else 0
        stop = min(int(np.searchsorted(ends, before + batch_tokens)) + 1, len(lengths))
        yield start, stop
        start = stop


def _order(tokens: Ragged, rest: pa.Table, dtype: str) -> tuple[I64, int]:
    """The rows by keyed hash, then id, then content; and how many share their id with another."""
    order = rest["order"].to_numpy()
    high, low = documents.numbers_of(rest["id"].chunk(0)).T
    rows = np.lexsort((low, high, order)).astype(np.int64)
    same = (high[rows][1:] == high[rows][:-1]) & (low[rows][1:] == low[rows][:-1])
    edges = np.flatnonzero(np.concatenate([[True], ~same, [True]]))
    repeated = 0
    for start, stop in itertools.pairwise(edges.tolist()):
        if stop - start > 1:
            repeated += stop - start
            run = rows[start:stop]
            held = rest.take(pa.array(run)).to_pylist()
            content = [
                (tokens.take(run[i : i + 1], dtype)[0].tobytes(), repr(sorted(held[i].items())))
                for i in range(len(run))
            ]
            rows[start:stop] = run[sorted(range(len(run)), key=content.__getitem__)]
    return rows, repeated
