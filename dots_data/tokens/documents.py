"""Documents as they come: Parquet or JSON Lines in, uniform Arrow batches out, and what a job must know
beforehand.

A survey reads every document once and says how many there are, how much text, and a fingerprint that is the
same however the documents are split into files. From it follow the number of shards, the sample for the
tokenizer, and
whether a result is already there: all by content, nothing by position.
"""

from __future__ import annotations

import glob
import gzip
import hashlib
import itertools
import json
import re
import zlib
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import xxhash

from dots_data.tokens.manifest import MOST_SOURCES, PLAIN_NAME, content_id
from dots_data.tokens.order import U64, key, keyed_hashes

PARQUET, JSONL = (".parquet",), (".jsonl", ".jsonl.gz")
PIECE_BYTES = 32 * 2**20  # of uncompressed Parquet columns a task reads
ROWS_AT_ONCE = 512
SAMPLE_BITS = 14

# The uniform row. `id` is what the shard holds, 16 bytes; `doc_id` says it in hexadecimal in the provenance.
ROW = pa.schema(
    [
        pa.field("id", pa.binary(16), nullable=False),
        pa.field("text", pa.large_string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("bucket", pa.uint8(), nullable=False),
        pa.field("record_id", pa.string()),
        pa.field("url", pa.string()),
        pa.field("warc_file", pa.string()),
        pa.field("warc_offset", pa.int64()),
        pa.field("date", pa.string()),
        pa.field("language", pa.string()),
        pa.field("language_score", pa.float64()),
    ]
)
ALSO_KNOWN_AS = {"doc_id": "id", "language": "lang"}
READ = tuple({"doc_id", "id", "lang", *ROW.names})
_HEX = re.compile(r"[0-9a-f]{32}")
DIGITS = np.full(256, 255, np.uint8)  # the value of a byte that is a hexadecimal digit
DIGITS[np.frombuffer(b"0123456789abcdef", np.uint8)] = np.arange(16)


class DocumentsError(ValueError):
    """Documents that cannot be read; the message names the file, and the line or column."""


class InputError(DocumentsError):
    """An input that names no documents; the message says which."""


@dataclass(frozen=True)
class Input:
    """The files of a job, and the hash of the recipe that made them where they say so."""

    files: tuple[str, ...]
    recipe: str | None


@dataclass(frozen=True)
class SourceFrom:
    """Where documents say which source they are of: a column, and the name for those that say nothing there."""

    default: str
    column: str = "source"


@dataclass(frozen=True)
class Piece:
    """What one task reads: some row groups of a Parquet file, or a whole JSON Lines file (no groups)."""

    file: str
    groups: tuple[int, ...] = ()


@dataclass(frozen=True)
class Survey:
    """What a piece, or all of them, holds.

    digest: sum of the rows' hashes modulo 2**128: the same for any order and division.
    sources: bytes of text by name of the source.
    histogram: bytes of text by the leading bits of the keyed hash that orders the sample.
    empty: documents without text, which are left out everywhere.
    """

    rows: int
    bytes: int
    empty: int
    digest: int
    sources: Mapping[str, int]
    histogram: npt.NDArray[np.int64]

    @property
    def key(self) -> str:
        """Equal for equal documents, whatever files they lie in."""
        return content_id([self.rows, self.bytes, f"{self.digest:032x}"])

    @classmethod
    def total(cls, parts: Iterable[Survey]) -> Survey:
        rows = size = empty = digest = 0
        sources: Counter[str] = Counter()
        histogram = np.zeros(1 << SAMPLE_BITS, dtype=np.int64)
        for part in parts:
            rows, size, empty = rows + part.rows, size + part.bytes, empty + part.empty
            digest = (digest + part.digest) % (1 << 128)
            sources.update(part.sources)
            histogram = histogram + part.histogram
        return cls(rows, size, empty, digest, sources, histogram)


def find(inputs: Sequence[str]) -> Input:
    """The document files that the inputs name: a file, a glob, a folder, or the output of crawl-clean.

    Raises:
        InputError: an input names nothing, or is the output of a crawl-clean that has not finished.
    """
    files: set[str] = set()
    recipes: set[str] = set()
    for given in inputs:
        matched = sorted(glob.glob(given, recursive=True)) if glob.has_magic(given) else [given]  # noqa: PTH207
        for path in map(Path, matched):
            if not path.exists():
                raise InputError(f"{path}: there is no such file or folder")
            found, recipe = _of_folder(path) if path.is_dir() else ([path], None)
            files.update(str(file) for file in found)
            recipes.update([recipe] if recipe else [])
        if not matched:
            raise InputError(f"{given}: matches no file")
    if not files:
        raise InputError(f"{' '.join(inputs)}: holds no documents ({', '.join(PARQUET + JSONL)})")
    recipe = None if not recipes else min(recipes) if len(recipes) == 1 else content_id(sorted(recipes))
    return Input(tuple(sorted(files)), recipe)


def _of_folder(folder: Path) -> tuple[list[Path], str | None]:
    inner = folder / "documents"
    if inner.is_dir():
        summary = _summary(folder)
        if summary is None:
            raise InputError(f"{folder}: has documents/ but no summary.json: crawl-clean has not finished there")
        named = summary.get("documents")
        # What the summary does not name does not exist.
        files = [inner / name for name in named] if isinstance(named, dict) else _files(inner)
        return files, summary.get("recipe_hash")
    return _files(folder), (_summary(folder.parent) or {}).get("recipe_hash") if folder.name == "documents" else None


def _files(folder: Path) -> list[Path]:
    return [
        path
        for path in sorted(folder.iterdir())
        if path.is_file() and path.name.endswith(PARQUET + JSONL) and not path.name.startswith((".", "_"))
    ]


def _summary(folder: Path) -> dict[str, Any] | None:
    try:
        loaded = json.loads((folder / "summary.json").read_bytes())
    except (OSError, ValueError):
        return None
    return loaded if isinstance(loaded, dict) else None


def pieces(files: Iterable[str], piece_bytes: int = PIECE_BYTES) -> list[Piece]:
    """The files cut into pieces of about `piece_bytes`. Raises DocumentsError if one is not Parquet."""
    cut: list[Piece] = []
    for file in files:
        if file.endswith(JSONL):
            cut.append(Piece(file))
            continue
        groups: list[int] = []
        size = 0
        described = _open(file).metadata
        for number in range(described.num_row_groups):
            groups.append(number)
            size += described.row_group(number).total_byte_size
            if size >= piece_bytes:
                cut.append(Piece(file, tuple(groups)))
                groups, size = [], 0
        if groups:
            cut.append(Piece(file, tuple(groups)))
    return cut


def read(piece: Piece, source: SourceFrom) -> Iterator[pa.RecordBatch]:
    """The documents of a piece that have text, in batches of schema ROW.

    Raises:
        DocumentsError: the file cannot be read, a line is not JSON, there is no `text` or no column of sources, a
            column has another type, or a source has no plain name.
    """
    for batch in _read_all(piece, source):
        yield batch.filter(pc.greater(pc.binary_length(batch.column("text")), 0))


def survey(piece: Piece, source: SourceFrom, seed: int) -> Survey:
    """Read a piece and count it. Raises DocumentsError, also for more sources than a manifest can name."""
    rows = size = empty = digest = 0
    sources: Counter[str] = Counter()
    histogram = np.zeros(1 << SAMPLE_BITS, dtype=np.int64)
    sample_key = key("sample", seed)
    for batch in _read_all(piece, source):
        lengths = pc.binary_length(batch.column("text")).to_numpy()
        empty += int((lengths == 0).sum())
        batch = batch.filter(pa.array(lengths > 0))
        lengths = lengths[lengths > 0]
        rows, size = rows + len(lengths), size + int(lengths.sum())
        digest = (digest + digest_of(batch)) % (1 << 128)
        named = batch.column("source").dictionary_encode()
        held = np.zeros(len(named.dictionary), np.int64)
        np.add.at(held, named.indices.to_numpy(), lengths)
        sources.update(dict(zip(named.dictionary.to_pylist(), held.tolist(), strict=True)))
        check_number(sources, source, piece.file)
        np.add.at(histogram, _bins(keyed_hashes(numbers_of(batch.column("id")), sample_key)), lengths)
    return Survey(rows, size, empty, digest, sources, histogram)


def check_number(sources: Collection[str], source: SourceFrom, where: str) -> None:
    """Raises DocumentsError for more sources than a manifest can name."""
    if len(sources) > MOST_SOURCES:
        raise DocumentsError(
            f"{where}: column {source.column}: over {MOST_SOURCES} sources; take them from a column with fewer values"
        )


def digest_of(batch: pa.RecordBatch) -> int:
    """Sum of the hashes of the rows, modulo 2**128. A row is the lengths of its values (-1 for none), then these."""
    if not len(batch):
        return 0
    columns = [_as_bytes(column) for column in batch.columns]
    lengths = np.stack([pc.binary_length(column).fill_null(-1).to_numpy() for column in columns], axis=1)
    head = pa.Array.from_buffers(
        pa.binary(8 * len(columns)), len(batch), [None, pa.py_buffer(lengths.astype("<i8").tobytes())]
    )
    rows = pc.binary_join_element_wise(
        _as_bytes(head), *columns, pa.scalar(b"", pa.large_binary()), null_handling="replace", null_replacement=b""
    )
    data = memoryview(rows.buffers()[2])
    borders = np.frombuffer(rows.buffers()[1], np.int64)[rows.offset : rows.offset + len(rows) + 1].tolist()
    hashes = (xxhash.xxh3_128_intdigest(data[start:stop]) for start, stop in itertools.pairwise(borders))
    return sum(hashes) % (1 << 128)


def _as_bytes(column: pa.Array) -> pa.Array:
    """The values as bytes; numbers as they are written."""
    number = pa.types.is_integer(column.type) or pa.types.is_floating(column.type)
    return (column.cast(pa.string()) if number else column).cast(pa.large_binary())


def numbers_of(ids: pa.Array) -> U64:
    """Ids of 16 bytes as two numbers each (n, 2), in the order of the bytes."""
    found = np.frombuffer(ids.buffers()[1], ">u8")[2 * ids.offset : 2 * (ids.offset + len(ids))]
    return found.astype(np.uint64).reshape(-1, 2)


def hexadecimal(ids: pa.Array) -> pa.Array:
    """Ids of 16 bytes spelt in 32 digits, as strings."""
    data = np.frombuffer(ids.buffers()[1], np.uint8)[16 * ids.offset : 16 * (ids.offset + len(ids))]
    digits = np.frombuffer(b"0123456789abcdef", np.uint8)[np.stack([data >> 4, data & 15], axis=1)]
    borders = np.arange(0, 32 * len(ids) + 1, 32, dtype=np.int32)
    return pa.Array.from_buffers(pa.string(), len(ids), [None, pa.py_buffer(borders), pa.py_buffer(digits.tobytes())])


def _bins(hashes: U64) -> npt.NDArray[np.int64]:
    return (hashes >> np.uint64(64 - SAMPLE_BITS)).astype(np.int64)


def sample_bound(total: Survey, size: int) -> int:
    """The hash bins [0, bound) whose documents hold at least `size` bytes of text (or all there are)."""
    return int(np.searchsorted(np.cumsum(total.histogram), size)) + 1


def sample(piece: Piece, source: SourceFrom, seed: int, bound: int) -> list[tuple[int, bytes, str]]:
    """(hash, id, text) of a piece's documents in the bins [0, bound): candidates for `choose`."""
    found = []
    sample_key = key("sample", seed)
    for batch in read(piece, source):
        texts, ids = batch.column("text"), batch.column("id")
        hashes = keyed_hashes(numbers_of(ids), sample_key)
        for row in np.flatnonzero(_bins(hashes) < bound).tolist():
            found.append((int(hashes[row]), ids[row].as_py(), texts[row].as_py()))
    return found


def choose(candidates: Iterable[tuple[int, bytes, str]], size: int) -> list[str]:
    """The texts with the smallest hashes that fit into `size` bytes together, and at least one."""
    texts = [text for _, _, text in sorted(candidates)]
    chosen: list[str] = []
    left = size
    for text in texts:
        if (length := len(text.encode("utf-8"))) <= left:
            chosen.append(text)
            left -= length
    return chosen or texts[:1]


def _read_all(piece: Piece, source: SourceFrom) -> Iterator[pa.RecordBatch]:
    names = {*READ, source.column}
    tables = _read_jsonl(piece.file, names) if piece.file.endswith(JSONL) else _read_parquet(piece, names)
    named = set()
    for batch in tables:
        named.add(_name_in(batch, source.column) is not None)
        yield _uniform(batch, source, piece.file)
    if named == {False} and source.column != SourceFrom.column:
        raise DocumentsError(f"{piece.file}: has no column `{source.column}` to take sources from")


def _open(file: str) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(file, memory_map=True)
    except (OSError, pa.ArrowException) as error:
        raise DocumentsError(f"{file}: cannot be read as Parquet: {error}") from error


def _read_parquet(piece: Piece, names: Collection[str]) -> Iterator[pa.RecordBatch]:
    with _open(piece.file) as file:
        columns = [name for name in file.schema_arrow.names if name in names]
        try:
            yield from file.iter_batches(ROWS_AT_ONCE, row_groups=list(piece.groups), columns=columns)
        except (OSError, pa.ArrowException) as error:
            raise DocumentsError(f"{piece.file}: row groups {list(piece.groups)}: {error}") from error


def _read_jsonl(file: str, names: Collection[str]) -> Iterator[pa.RecordBatch]:
    rows: list[dict[str, Any]] = []
    number = 0
    try:
        with gzip.open(file) if file.endswith(".gz") else open(file, "rb") as lines:
            for number, line in enumerate(lines, 1):
                rows.append(_parse(line, names, f"{file}: line {number}"))
                if len(rows) == ROWS_AT_ONCE:
                    yield _from_rows(rows, file, number)
                    rows = []
    except (OSError, EOFError, zlib.error) as error:
        raise DocumentsError(f"{file}: after line {number}: {error}") from error
    if rows:
        yield _from_rows(rows, file, number)


def _parse(line: bytes, names: Collection[str], where: str) -> dict[str, Any]:
    try:
        loaded = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DocumentsError(f"{where}: not JSON: {error}") from error
    if not isinstance(loaded, dict) or not isinstance(loaded.get("text"), str):
        raise DocumentsError(f"{where}: not an object with a string `text`")
    return {name: _clean(loaded[name]) for name in names if name in loaded}


def _from_rows(rows: list[dict[str, Any]], file: str, last: int) -> pa.RecordBatch:
    names = sorted({name for row in rows for name in row})
    try:
        return pa.record_batch({name: pa.array([row.get(name) for row in rows]) for name in names})
    except pa.ArrowException as error:
        raise DocumentsError(f"{file}: lines {last - len(rows) + 1} to {last}: {error}") from error


def _clean(value: Any) -> Any:
    """JSON can spell half a surrogate pair, which is no text."""
    return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace") if isinstance(value, str) else value


def _uniform(batch: pa.RecordBatch, source: SourceFrom, file: str) -> pa.RecordBatch:
    def column(name: str, kind: pa.DataType) -> pa.Array | None:
        found = _name_in(batch, name)
        try:
            if found is None:
                return None
            cast = batch.column(found).cast(kind)
            cast.validate(full=True)  # a file may claim that any bytes are text
            return cast
        except pa.ArrowException as error:
            raise DocumentsError(f"{file}: column {found}: {error}") from error

    text = column("text", pa.large_string())
    if text is None:
        raise DocumentsError(f"{file}: has no column `text` (its columns: {', '.join(batch.schema.names) or 'none'})")
    text = text.fill_null("")
    given = column("doc_id", pa.string())
    columns: dict[str, pa.Array] = {"id": _ids(given, text), "text": text}
    columns["source"] = _sources(column(source.column, pa.string()), source, len(batch), file)
    columns["bucket"] = _or(column("bucket", pa.uint8()), 0, len(batch), pa.uint8())
    for field in list(ROW)[4:]:
        columns[field.name] = column(field.name, field.type)
        if columns[field.name] is None:
            # An id that is not of our kind is kept where a record's own name stands.
            own = given if field.name == "record_id" else None
            columns[field.name] = own if own is not None else pa.nulls(len(batch), field.type)
    return pa.record_batch([columns[name] for name in ROW.names], schema=ROW)


def _name_in(batch: pa.RecordBatch, name: str) -> str | None:
    """The column that holds what is asked for, under this or its other name."""
    return next((one for one in (name, ALSO_KNOWN_AS.get(name)) if one in batch.schema.names), None)


def _ids(given: pa.Array | None, text: pa.Array) -> pa.Array:
    """16 bytes an id: 32 hexadecimal digits as they are, any other name hashed, no name: the text hashed."""
    if given is not None and (spelt := _spelt(given)) is not None:
        return spelt
    names = given.to_pylist() if given is not None else [None] * len(text)
    ids = []
    for row, name in enumerate(names):
        if name is None:
            ids.append(hashlib.blake2b(text[row].as_py().encode(), digest_size=16).digest())
        elif _HEX.fullmatch(name):
            ids.append(bytes.fromhex(name))
        else:
            ids.append(hashlib.blake2b(name.encode(), digest_size=16).digest())
    return pa.array(ids, pa.binary(16))


def _spelt(names: pa.Array) -> pa.Array | None:
    """The ids that 32 hexadecimal digits each spell, None if any name is something else."""
    if names.null_count or not (pc.binary_length(names).to_numpy() == 32).all():
        return None
    first = np.frombuffer(names.buffers()[1], np.int32)[names.offset]
    digits = DIGITS[np.frombuffer(names.buffers()[2], np.uint8)[first : first + 32 * len(names)]].reshape(-1, 2)
    if (digits > 15).any():
        return None
    return pa.Array.from_buffers(
        pa.binary(16), len(names), [None, pa.py_buffer((digits[:, 0] << 4 | digits[:, 1]).tobytes())]
    )


def _sources(given: pa.Array | None, source: SourceFrom, rows: int, file: str) -> pa.Array:
    names = _or(given, source.default, rows, pa.string())
    for name in pc.unique(names).to_pylist():
        if not PLAIN_NAME.fullmatch(name):
            raise DocumentsError(
                f"{file}: column {source.column}: {name[:100]!r} is no plain name for a source ({PLAIN_NAME.pattern}); "
                "rename it or take sources from another column"
            )
    return names


def _or(column: pa.Array | None, value: str | int, rows: int, kind: pa.DataType) -> pa.Array:
    if column is None:
        return pa.repeat(pa.scalar(value, kind), rows)
    return column.fill_null(pa.scalar(value, kind))
