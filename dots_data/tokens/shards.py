"""Token shards: Arrow IPC files that can be memory-mapped, read in ranges, and checked to the bit.

A row is a document, and all documents of a shard are of one source. `tokens` (large_list of uint16 or uint32, each
document ending with EOS) comes first, so that the values buffer of a record batch is its token stream and the offsets
buffer before it the document borders; `doc_id` (16 bytes), `source` (a dictionary of one name) and `bucket` (uint8, 0
where nothing sorts documents by language or quality) follow. Files are uncompressed; the token values of each batch
begin on a 64-byte boundary of the file (the batch's own metadata carries a string `pad` of the length that this takes).
Provenance lies beside, in a Parquet file of the same row order. `dots_data.tokens.manifest` says how the manifest
describes all this.
"""

from __future__ import annotations

import hashlib
import os
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import xxhash

from dots_data.tokens import manifest as manifests
from dots_data.tokens.batches import BatchEntry, Batches
from dots_data.tokens.manifest import (
    FORMAT,
    VERSION,
    Companion,
    Manifest,
    ManifestError,
    Shard,
    Source,
    Span,
    TokenizerInfo,
    commit,
)

ALIGNMENT = 64
MAGIC = 8  # an Arrow IPC file begins with ARROW1 and two bytes of padding
PEEK_IDS, PEEK_CHARACTERS = 32, 500

Values = npt.NDArray[np.uint16] | npt.NDArray[np.uint32]

PROVENANCE = pa.schema(
    [
        pa.field("doc_id", pa.string(), nullable=False),
        pa.field("record_id", pa.string()),
        pa.field("url", pa.string()),
        pa.field("warc_file", pa.string()),
        pa.field("warc_offset", pa.int64()),
        pa.field("date", pa.string()),
        pa.field("language", pa.string()),
        pa.field("language_score", pa.float64()),
        pa.field("tokens", pa.int64(), nullable=False),
    ]
)


class ShardError(ValueError):
    """Documents that cannot stand in a shard, or a folder that holds no shards; the message names which."""


@dataclass(frozen=True)
class Header:
    """What every shard of a source says of itself in its schema metadata."""

    tokenizer: TokenizerInfo
    source: str
    recipe: str | None
    job: str
    seed: int

    @property
    def token_type(self) -> pa.DataType:
        return getattr(pa, self.tokenizer.dtype)()

    def schema(self) -> pa.Schema:
        metadata = {
            "format": f"{FORMAT}/{VERSION}",
            "tokenizer": self.tokenizer.sha256,
            "vocab_size": str(self.tokenizer.vocab_size),
            "eos_id": str(self.tokenizer.eos_id),
            "special": manifests.canonical_json(dict(self.tokenizer.special)),
            "dtype": self.tokenizer.dtype,
            "source": self.source,
            "recipe": self.recipe or "",
            "job": self.job,
            "seed": str(self.seed),
        }
        return pa.schema(
            [
                pa.field("tokens", list_of(self.token_type), nullable=False),
                pa.field("doc_id", pa.binary(16), nullable=False),
                pa.field("source", pa.dictionary(pa.int16(), pa.string()), nullable=False),
                pa.field("bucket", pa.uint8(), nullable=False),
            ],
            metadata=metadata,
        )


@dataclass(frozen=True)
class Documents:
    """Some documents in their order: `values` cut at `borders` (n + 1, from 0), and n of everything else.

    doc_ids: 16 bytes each.
    """

    values: Values
    borders: npt.NDArray[np.int64]
    doc_ids: pa.Array
    buckets: npt.NDArray[np.uint8]


def list_of(token_type: pa.DataType) -> pa.DataType:
    """The type of the column `tokens`."""
    return pa.large_list(pa.field("item", token_type, nullable=False))


def record_batch(documents: Documents, header: Header) -> pa.RecordBatch:
    """The documents as a record batch of a shard.

    Raises:
        ShardError: a token id is not one of the tokenizer's, or a document does not end with EOS.
    """
    info = header.tokenizer
    values, borders = documents.values, documents.borders
    highest = int(values.max(initial=0))
    if highest >= info.vocab_size:
        at = int(np.argmax(values))
        row = int(np.searchsorted(borders, at, side="right")) - 1
        name = documents.doc_ids[row].as_py().hex()
        raise ShardError(f"document {name}: token id {highest} is not below the vocabulary of {info.vocab_size}")
    if (np.diff(borders) < 1).any() or (values[borders[1:] - 1] != info.eos_id).any():
        raise ShardError(f"a document does not end with EOS ({info.eos!r}, {info.eos_id})")
    tokens = pa.LargeListArray.from_arrays(
        pa.array(borders), pa.array(values.astype(info.dtype, copy=False)), type=list_of(header.token_type)
    )
    places = pa.array(np.zeros(len(documents.doc_ids), dtype=np.int16))
    sources = pa.DictionaryArray.from_arrays(places, pa.array([header.source], pa.string()))
    columns = [tokens, documents.doc_ids, sources, pa.array(documents.buckets)]
    return pa.record_batch(columns, schema=header.schema())


def write_shard(
    folder: Path, name: str, batches: Iterable[pa.RecordBatch], provenance: pa.Table, header: Header
) -> Shard:
    """Write `name`.arrow and `name`.provenance.parquet under temporary names, sync and rename them.

    The same rows give the same bytes. Raises ShardError if the provenance is not of the same rows.
    """
    file, beside = folder / f"{name}.arrow", folder / f"{name}.provenance.parquet"
    temporary, temporary_beside = (path.with_name(f".{path.name}.{os.getpid()}.tmp") for path in (file, beside))
    pq.write_table(provenance.cast(PROVENANCE), temporary_beside, compression="zstd", row_group_size=1 << 17)
    with pa.OSFile(str(temporary), "wb") as sink, pa.ipc.new_file(sink, header.schema()) as writer:
        for batch in batches:
            pad = _pad(batch, sink.tell())
            writer.write_batch(batch, custom_metadata={"pad": " " * pad})
    span, table = read_layout(temporary)
    entry = Shard(
        file=file.name,
        source=header.source,
        job=header.job,
        rows=int(table.rows.sum()),
        tokens=int(table.tokens.sum()),
        bytes=temporary.stat().st_size,
        xxh3=checksum(temporary),
        header=span,
        batches=table,
        provenance=Companion(beside.name, temporary_beside.stat().st_size, checksum(temporary_beside)),
    )
    if (entry.rows, entry.tokens) != (len(provenance), pc.sum(provenance["tokens"]).as_py() or 0):
        raise ShardError(f"{file}: its provenance is of other rows")
    for path, final in ((temporary_beside, beside), (temporary, file)):
        sync(path)
        commit(path, final)
    return entry


def read_layout(path: Path) -> tuple[Span, Batches]:
    """Where the messages of a shard lie: its schema and dictionaries, and its batch table.

    Raises:
        ShardError: the file is not an Arrow IPC file.
    """
    try:
        with pa.memory_map(str(path)) as file:
            reader = pa.ipc.open_file(file)
            spans = _messages(file, 1 + reader.num_record_batches)
            base = _address(file)
            entries = []
            for number, (offset, length) in enumerate(spans[1:]):
                tokens = reader.get_batch(number).column("tokens")
                at = tokens.values.buffers()[1].address - base
                file.seek(offset)
                crc = zlib.crc32(file.read_buffer(length))
                entries.append(BatchEntry(offset, length, len(tokens), len(tokens.values), at, crc))
    except (OSError, pa.ArrowException, IndexError, KeyError) as error:
        raise ShardError(f"{path}: cannot be read as a shard: {error}") from error
    return Span(*spans[0]), Batches.of(entries)


def checksum(path: Path) -> str:
    """XXH3-128 of a file, in hexadecimal."""
    digest = xxhash.xxh3_128()
    with open(path, "rb") as file:
        while block := file.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()


def read_batch(path: Path, shard: Shard, number: int) -> pa.RecordBatch:
    """One record batch by two ranged reads, as over object storage: the header, then the message."""
    with open(path, "rb") as file:
        parts = []
        for span in (shard.header, shard.batches[number]):
            file.seek(span.offset)
            parts.append(file.read(span.length))
    with pa.ipc.open_stream(b"".join(parts)) as stream:
        return stream.read_next_batch()


def verify(folder: str | Path) -> list[str]:
    """Everything that is wrong with a dataset, one sentence each, naming file and place; empty when nothing is.

    Reads every byte: checksums, batch table, borders, ids below the vocabulary, EOS, source, provenance in row order.
    """
    try:
        manifest = manifests.read(folder)
    except ManifestError as error:
        return [str(error)]
    root = manifests.manifest_path(folder).parent
    problems = _verify_tokenizer(root, manifest.tokenizer)
    for shard in manifest.shards:
        found = [*_verify_bytes(root / shard.file, shard.bytes, shard.xxh3)]
        found += _verify_bytes(root / shard.provenance.file, shard.provenance.bytes, shard.provenance.xxh3)
        # Content of a file whose checksum is wrong is not worth reading, and not safe to.
        problems += found or _verify_content(root, shard, manifest)
    return problems


def peek(folder: str | Path, shard: int = 0, rows: int = 3) -> list[dict[str, Any]]:
    """The first rows of a shard: provenance, source, bucket, and how ids and decoded text begin.

    Raises:
        ManifestError: no manifest. ShardError: no such shard, or it cannot be read.
    """
    manifest = manifests.read(folder)
    root = manifests.manifest_path(folder).parent
    if not 0 <= shard < len(manifest.shards):
        raise ShardError(f"{root}: has shards 0 to {len(manifest.shards) - 1}, not {shard}")
    decode = decoder(root / manifest.tokenizer.file)
    shown = []
    for row, (document, origin) in enumerate(_rows(root, manifest.shards[shard], rows)):
        ids = document.pop("tokens")
        text = decode(ids[:-1])[:PEEK_CHARACTERS] if decode else None
        shown.append({"row": row, **document, **origin, "ids": ids[:PEEK_IDS], "text": text})
    return shown


def provenance(folder: str | Path, shard_file: str, rows: list[int]) -> list[dict[str, Any]]:
    """The provenance of rows of one shard (named as in the manifest), in the order asked.

    Raises:
        ManifestError: no manifest. ShardError: no such shard, or its provenance cannot be read.
    """
    manifest = manifests.read(folder)
    root = manifests.manifest_path(folder).parent
    for shard in manifest.shards:
        if shard.file == shard_file:
            try:
                table = pq.read_table(root / shard.provenance.file)
                return list(table.take(rows).to_pylist())
            except (OSError, pa.ArrowException) as error:
                raise ShardError(f"{root / shard.provenance.file}: cannot be read: {error}") from error
    raise ShardError(f"{root}: the manifest names no shard {shard_file!r}")


def sources_of(entries: Iterable[Shard]) -> tuple[Source, ...]:
    """The manifest's sources: what its shards hold of each."""
    total: dict[str, Source] = {}
    for entry in entries:
        held = total.get(entry.source, Source(entry.source, 0, 0))
        total[entry.source] = Source(entry.source, held.rows + entry.rows, held.tokens + entry.tokens)
    return tuple(total[name] for name in sorted(total))


def _pad(batch: pa.RecordBatch, at: int) -> int:
    """Spaces of metadata that bring the token values of `batch` to a multiple of 64 when it is written at
    byte `at`.

    The messages that stand before them are measured on a copy of one row: metadata has one length for any
        rows. The first batch (at = 0: the writer has written nothing yet) comes after the magic, the schema
        and the dictionary.
    """
    trial = pa.BufferOutputStream()
    with pa.ipc.new_stream(trial, batch.schema) as writer:
        writer.write_batch(batch.slice(0, 1), custom_metadata={"pad": ""})
    reader = pa.BufferReader(trial.getvalue())
    before, kind = MAGIC, ""
    while kind != "record batch":
        begin = reader.tell()
        message = pa.ipc.read_message(reader)
        kind = message.type
        before += reader.tell() - begin
    metadata: int = reader.tell() - begin - message.body.size
    start: int = at + metadata if at else before - message.body.size
    return int(-(start + 8 * (batch.num_rows + 1)) % ALIGNMENT)


def _messages(file: pa.MemoryMappedFile, expected: int) -> list[tuple[int, int]]:
    """(offset, length) of the head (schema and dictionaries together), then of each record batch."""
    file.seek(MAGIC)
    spans: list[tuple[int, int]] = []
    begin = MAGIC
    while len(spans) < expected:
        at = file.tell()
        message = pa.ipc.read_message(file)
        if message.type == "record batch":
            if not spans:
                spans.append((begin, at - begin))
            spans.append((at, file.tell() - at))
    return spans


def _address(file: pa.MemoryMappedFile) -> int:
    """Where the mapped file begins in memory."""
    file.seek(0)
    return int(file.read_buffer(1).address)


def sync(path: Path) -> None:
    """Have a finished file on the disk before it takes its name."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())


def _verify_tokenizer(root: Path, info: TokenizerInfo) -> list[str]:

    path = root / info.file
    try:
        found = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        return [f"{path}: named by the manifest, but {error.strerror}"]
    return [] if found == info.sha256 else [f"{path}: sha256 is {found}, the manifest says {info.sha256}"]


def _verify_bytes(path: Path, size: int, xxh3: str) -> list[str]:
    try:
        found = path.stat().st_size
        if found != size:
            return [f"{path}: {found} bytes, the manifest says {size}"]
        digest = checksum(path)
    except OSError as error:
        return [f"{path}: named by the manifest, but {error.strerror}"]
    return [] if digest == xxh3 else [f"{path}: checksum is {digest}, the manifest says {xxh3}: a byte has changed"]


def _verify_content(root: Path, shard: Shard, manifest: Manifest) -> list[str]:
    path = root / shard.file
    problems = []
    try:
        head, table = read_layout(path)
        if head != shard.header or not np.array_equal(table.table, shard.batches.table):
            return [f"{path}: its batches lie elsewhere than the manifest says"]
        origin = pq.read_table(root / shard.provenance.file, columns=["doc_id", "tokens"])
        with pa.memory_map(str(path)) as file:
            reader = pa.ipc.open_file(file)
            row = 0
            for number in range(reader.num_record_batches):
                batch = reader.get_batch(number)
                problems += _verify_batch(batch, shard.source, manifest.tokenizer, f"{path}: batch {number}")
                problems += _verify_origin(batch, origin.slice(row, len(batch)), f"{path}: batch {number}")
                row += len(batch)
    except (ShardError, ManifestError, OSError, pa.ArrowException, KeyError) as error:
        return [*problems, f"{path}: {error}"]
    return problems


def _verify_batch(batch: pa.RecordBatch, source: str, info: TokenizerInfo, where: str) -> list[str]:
    borders = batch.column("tokens").offsets.to_numpy()
    values = batch.column("tokens").values.to_numpy()
    if borders[0] != 0 or borders[-1] != len(values) or (np.diff(borders) < 1).any():
        return [f"{where}: its document borders do not rise from 0 to {len(values)}"]
    problems = []
    if int(values.max(initial=0)) >= info.vocab_size:
        problems.append(f"{where}: token id {int(values.max())} is not below the vocabulary of {info.vocab_size}")
    without = np.flatnonzero(values[borders[1:] - 1] != info.eos_id)
    if without.size:
        problems.append(f"{where}: row {int(without[0])} does not end with EOS ({info.eos_id})")
    others = set(pc.unique(batch.column("source")).to_pylist()) - {source}
    if others:
        problems.append(f"{where}: holds documents of {sorted(map(str, others))[0]!r}, its shard is of {source!r}")
    return problems


def _verify_origin(batch: pa.RecordBatch, origin: pa.Table, where: str) -> list[str]:
    ids = [doc_id.hex() for doc_id in batch.column("doc_id").to_pylist()]
    lengths = np.diff(batch.column("tokens").offsets.to_numpy())
    if ids != origin["doc_id"].to_pylist() or lengths.tolist() != origin["tokens"].to_pylist():
        return [f"{where}: the provenance has other documents, or in another order"]
    return []


def _rows(root: Path, shard: Shard, rows: int) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    path = root / shard.file
    try:
        origins = pq.read_table(root / shard.provenance.file).slice(0, rows).to_pylist()
        documents: list[dict[str, Any]] = []
        with pa.memory_map(str(path)) as file:
            reader = pa.ipc.open_file(file)
            for number in range(reader.num_record_batches):
                if len(documents) >= rows:
                    break
                documents += reader.get_batch(number).slice(0, rows - len(documents)).to_pylist()
    except (OSError, pa.ArrowException) as error:
        raise ShardError(f"{path}: cannot be read as a shard: {error}") from error
    return list(zip(documents, origins, strict=False))


def decoder(path: Path) -> Any:
    """A function from ids to text, or None where the tokenizer cannot be loaded."""
    try:
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_file(str(path))
    except Exception:  # the library raises bare Exception; without it ids are still shown
        return None
    return lambda ids: tokenizer.decode(ids, skip_special_tokens=False)
