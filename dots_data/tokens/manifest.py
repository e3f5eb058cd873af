"""The manifest is the dataset: which shards, in which order, and where each record batch lies.

`manifest.json` is written last, in one rename: what it does not name does not exist. Its id is BLAKE2b-128 of
its own canonical JSON without the id, so that equal data under equal settings have equal ids, and a
checkpoint can name exactly what it was trained on. Standard library and NumPy only, so that the trainer reads
it without the data side.

Format `dots-tokens`, version 2 (all counts and offsets are integers, offsets in bytes from the start of the
file):

    {format, version, id,
     tokenizer: {file, sha256, vocab_size, eos, eos_id, bos_id | null, special: {text: id}},
     dtype: "uint16" | "uint32",
     recipe: {data: hash of the recipe that made the documents | null, tokenize: hash of this job,
              derived: {dataset: id, rule: text} | null},     where it is a part of another dataset
     seed, documents, tokens,
     sources: [{name, rows, tokens}],         sorted by name, 1,000 at most
     batches: name of the file of the batch tables, see dots_data.tokens.batches
     shards: [{file, source: name of one of them, job: hash of the job that wrote it, rows, tokens, bytes,
               xxh3: 32 hex digits of XXH3-128 of the file,
               header: {offset, length},       the schema and dictionary messages
               batches: {count, digest},       rows of the batch table, and BLAKE2b-128 of their bytes
               provenance: {file, bytes, xxh3}}]}

A shard holds documents of one source. So the shards that name a source, in their order, are a token stream of its own,
and a mixture can weight it; all shards in their order are the stream of the whole.

A row of the batch table is {offset, length, rows, tokens, tokens_at, crc32}. `offset` and `length` enclose the whole
encapsulated Arrow IPC message of a record batch, metadata and body: one ranged read, checked by `crc32`; after the
bytes of `header` it is an Arrow stream. `tokens_at` is where its token values begin (a multiple of 64), `tokens` of
them; the `rows + 1` int64 document borders stand directly before. So any window of tokens is one ranged read too.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import json
import mmap
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from dots_data.tokens import batches
from dots_data.tokens.batches import LARGEST, Batches
from dots_data.tokens.batches import ManifestError as ManifestError

Fetch = Callable[[str, int, int], bytes | memoryview]  # file, offset, length

FORMAT = "dots-tokens"
VERSION = 2
NAME = "manifest.json"
DTYPES = {"uint16": 2, "uint32": 4}

# Names of sources come from crawled documents, and go to screens, job files and file names.
PLAIN_NAME = re.compile(r"\w[\w.+-]{0,63}")
MOST_SOURCES = 1000


@dataclass(frozen=True)
class TokenizerInfo:
    """Which tokenizer made the ids. `vocab_size` is the largest id plus one; `special` maps text to id."""

    file: str
    sha256: str
    vocab_size: int
    eos: str
    eos_id: int
    bos_id: int | None
    special: Mapping[str, int]

    @property
    def dtype(self) -> str:
        """The smallest unsigned type that holds every id."""
        return "uint16" if self.vocab_size <= 1 << 16 else "uint32"


@dataclass(frozen=True)
class Derived:
    """Of which dataset (its id) another one was made, and by which rule."""

    dataset: str
    rule: str


@dataclass(frozen=True)
class Recipe:
    """Hashes of what made the data: the recipe of the documents (if known), and the tokenize job."""

    data: str | None
    tokenize: str
    derived: Derived | None = None


@dataclass(frozen=True)
class Source:
    """How much of the dataset one source holds."""

    name: str
    rows: int
    tokens: int


@dataclass(frozen=True)
class Span:
    """Bytes of a file."""

    offset: int
    length: int


@dataclass(frozen=True)
class Companion:
    """A file beside a shard, with its checksum."""

    file: str
    bytes: int
    xxh3: str


@dataclass(frozen=True)
class Shard:
    """One Arrow IPC file of documents of one source, and the Parquet file of provenance beside it."""

    file: str
    source: str
    job: str
    rows: int
    tokens: int
    bytes: int
    xxh3: str
    header: Span
    batches: Batches
    provenance: Companion


@dataclass(frozen=True)
class Manifest:
    """A dataset of tokens. The token stream of a source is that of its shards in this order."""

    tokenizer: TokenizerInfo
    dtype: str
    recipe: Recipe
    seed: int
    documents: int
    tokens: int
    sources: tuple[Source, ...]
    shards: tuple[Shard, ...]

    @functools.cached_property
    def id(self) -> str:
        """BLAKE2b-128 of the canonical JSON without the id, in hexadecimal."""
        return content_id(to_mapping(self))


def canonical_json(value: Any) -> str:
    """JSON with one spelling: sorted keys, no spaces, ASCII."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def content_id(value: Any) -> str:
    """BLAKE2b-128 of the canonical JSON of `value`: 32 hexadecimal digits."""
    return hashlib.blake2b(canonical_json(value).encode("ascii"), digest_size=16).hexdigest()


def to_mapping(manifest: Manifest) -> dict[str, Any]:
    """The manifest as plain mappings and lists, without its id."""
    tables = batches.file_name(shard.batches for shard in manifest.shards)
    return {"format": FORMAT, "version": VERSION, "batches": tables, **_plain(manifest)}


def write(folder: str | Path, manifest: Manifest) -> Path:
    """Commit the dataset: write its batch tables, then manifest.json, beside its shards, each durably in one step."""
    content = to_mapping(manifest)
    path = Path(folder) / NAME
    write_atomically(path.with_name(content["batches"]), b"".join(batches.encoded(s.batches) for s in manifest.shards))
    write_atomically(path, canonical_json({**content, "id": content_id(content)}).encode("ascii") + b"\n")
    return path


def read(folder: str | Path) -> Manifest:
    """Read the manifest of a folder (or a manifest file named directly).

    Raises:
        ManifestError: it is missing, is not JSON, is of another format or version, lacks a key or has one of
            another type, does not add up, names a file outside its folder, or is not what its id says. What is wrong
            with the batch table of a shard is raised where it is first looked at.
    """
    path = manifest_path(folder)
    try:
        loaded = json.loads(path.read_bytes())
    except OSError as error:
        raise ManifestError(f"{path}: cannot be read ({error.strerror}); is this a folder of token shards?") from error
    except (ValueError, RecursionError) as error:
        raise ManifestError(f"{path}: not JSON: {error}") from error
    return parse(loaded, str(path), mapped(path.parent))


def manifest_path(folder: str | Path) -> Path:
    """manifest.json of a folder; a file is taken as the manifest itself."""
    path = Path(folder)
    return path if path.is_file() else path / NAME


def mapped(folder: Path) -> Fetch:
    """Bytes of files of a folder, mapped so that processes share them."""

    @functools.cache
    def whole(file: str) -> memoryview:
        with open(folder / file, "rb") as opened:
            return memoryview(mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ))

    def fetch(file: str, offset: int, length: int) -> memoryview:
        try:
            return whole(file)[offset : offset + length]
        except (OSError, ValueError) as error:
            raise ManifestError(f"{folder / file}: cannot be read: {error}") from error

    return fetch


def parse(loaded: Any, where: str, fetch: Fetch) -> Manifest:
    """A manifest from decoded JSON. `where` names its origin in errors; `fetch` reads its batch tables when they are
    needed. Raises ManifestError.
    """
    top = _Keys(loaded, where)
    if top.get("format", str) != FORMAT:
        raise ManifestError(f"{where}: format: {loaded['format']!r} is not {FORMAT!r}")
    if top.get("version", int) != VERSION:
        raise ManifestError(f"{where}: version: {loaded['version']} cannot be read here, only {VERSION}")
    given = top.get("id", str)
    dtype = top.get("dtype", str)
    if dtype not in DTYPES:
        raise ManifestError(f"{where}: dtype: {dtype!r} is not one of {', '.join(DTYPES)}")
    file = top.file("batches")
    tables = _Tables(file, DTYPES[dtype], fetch)
    manifest = Manifest(
        tokenizer=_tokenizer(top.keys("tokenizer")),
        dtype=dtype,
        recipe=_recipe(top.keys("recipe")),
        seed=top.get("seed", int),
        documents=top.count("documents"),
        tokens=top.count("tokens"),
        sources=tuple(_source(item) for item in top.items("sources")),
        shards=tuple(_shard(item, tables) for item in top.items("shards")),
    )
    top.no_more()
    _check_sums(manifest, where)
    if file != batches.file_name(shard.batches for shard in manifest.shards):
        raise ManifestError(f"{where}: batches: {file!r} is not named by the digests of the shards: it was changed")
    if given != manifest.id:
        raise ManifestError(f"{where}: id: says {given}, but the content has {manifest.id}: it was changed or cut")
    return manifest


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that it is either not there or whole: temporary name, fsync, rename, folder synced."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with open(temporary, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    commit(temporary, path)


def commit(temporary: Path, path: Path) -> None:
    """Give a finished file its name, durably."""
    os.replace(temporary, path)
    with contextlib.suppress(OSError):  # some file systems cannot sync a folder
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def shard_mapping(shard: Shard) -> dict[str, Any]:
    """A shard's entry and its batch table as plain mappings and lists."""
    return {**_plain(shard), "table": shard.batches.table.tolist()}


def shard_from(mapping: Any, where: str) -> Shard:
    """The inverse of `shard_mapping`. Raises ManifestError."""
    keys = _Keys(mapping, where)
    table = keys.get("table", list)
    try:
        return dataclasses.replace(_shard(keys), batches=Batches.of(table))
    except (TypeError, ValueError, OverflowError) as error:
        raise ManifestError(f"{where}: table: {error}") from error


def _plain(value: Any) -> Any:
    if isinstance(value, Batches):
        return {"count": len(value), "digest": value.digest}
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if hasattr(value, "__dataclass_fields__"):
        return {name: _plain(getattr(value, name)) for name in value.__dataclass_fields__}
    return value


class _Keys:
    """The keys of one JSON object, taken one by one with their types checked."""

    def __init__(self, mapping: Any, where: str) -> None:
        if not isinstance(mapping, dict):
            raise ManifestError(f"{where}: expected an object, found {type(mapping).__name__}")
        self._left, self.where = dict(mapping), where

    def get(self, name: str, *kinds: type | None) -> Any:
        if name not in self._left:
            raise ManifestError(f"{self.where}: {name}: missing")
        value = self._left.pop(name)
        if value is None and None in kinds:
            return None
        if not isinstance(value, tuple(kind for kind in kinds if kind)) or isinstance(value, bool):
            names = " or ".join(kind.__name__ if kind else "null" for kind in kinds)
            raise ManifestError(f"{self.where}: {name}: expected {names}, found {value!r}")
        return value

    def count(self, name: str) -> int:
        value: int = self.get(name, int)
        if not 0 <= value < LARGEST:
            raise ManifestError(f"{self.where}: {name}: {value} is no count or offset")
        return value

    def file(self, name: str) -> str:
        value: str = self.get(name, str)
        path = PurePosixPath(value)
        if not value or path.is_absolute() or ".." in path.parts or "\\" in value or "\0" in value:
            raise ManifestError(f"{self.where}: {name}: {value!r} is not a file inside the folder")
        return value

    def keys(self, name: str) -> _Keys:
        return _Keys(self.get(name, dict), f"{self.where}: {name}")

    def optional(self, name: str) -> _Keys | None:
        value = self.get(name, dict, None)
        return None if value is None else _Keys(value, f"{self.where}: {name}")

    def items(self, name: str) -> list[_Keys]:
        return [_Keys(item, f"{self.where}: {name}[{i}]") for i, item in enumerate(self.get(name, list))]

    def no_more(self) -> None:
        if self._left:
            raise ManifestError(f"{self.where}: {sorted(self._left)[0]}: unknown key")


def _tokenizer(keys: _Keys) -> TokenizerInfo:
    info = TokenizerInfo(
        file=keys.file("file"),
        sha256=keys.get("sha256", str),
        vocab_size=keys.count("vocab_size"),
        eos=keys.get("eos", str),
        eos_id=keys.count("eos_id"),
        bos_id=keys.get("bos_id", int, None),
        special=keys.get("special", dict),
    )
    keys.no_more()
    named = [
        ("eos_id", info.eos_id),
        ("bos_id", info.bos_id),
        *((f"special: {k}", v) for k, v in info.special.items()),
    ]
    for name, number in named:
        if number is not None and (not isinstance(number, int) or not 0 <= number < info.vocab_size):
            raise ManifestError(f"{keys.where}: {name}: {number!r} is not an id of {info.vocab_size}")
    return info


def _recipe(keys: _Keys) -> Recipe:
    origin = keys.optional("derived")
    derived = Derived(origin.get("dataset", str), origin.get("rule", str)) if origin else None
    recipe = Recipe(keys.get("data", str, None), keys.get("tokenize", str), derived)
    for part in filter(None, (keys, origin)):
        part.no_more()
    return recipe


def _source(keys: _Keys) -> Source:
    source = Source(keys.get("name", str), keys.count("rows"), keys.count("tokens"))
    keys.no_more()
    return source


class _Tables:
    """Where the batch tables of a manifest's shards lie: each begins where the one before it ends."""

    def __init__(self, file: str, width: int, fetch: Fetch) -> None:
        self._file, self._width, self._fetch, self._rows = file, width, fetch, 0

    def next(self, count: int, digest: str, where: str, shard: Mapping[str, int]) -> Batches:
        """The next `count` rows, to be read and checked against their shard when they are looked at."""
        first, where = self._rows, f"{where}: batches: {self._file}"
        self._rows += count

        def load() -> batches.I64:
            content = self._fetch(self._file, batches.ROW * first, batches.ROW * count)
            table = batches.decoded(content, count, digest, where)
            batches.check(table, width=self._width, where=where, **shard)
            return table

        return Batches(count, digest, load)


def _shard(keys: _Keys, tables: _Tables | None = None) -> Shard:
    header, table, beside = keys.keys("header"), keys.keys("batches"), keys.keys("provenance")
    span = Span(header.count("offset"), header.count("length"))
    rows, tokens, size = keys.count("rows"), keys.count("tokens"), keys.count("bytes")
    count, digest = table.count("count"), table.get("digest", str)
    known = {"rows": rows, "tokens": tokens, "size": size, "head": span.offset + span.length}
    shard = Shard(
        file=keys.file("file"),
        source=keys.get("source", str),
        job=keys.get("job", str),
        rows=rows,
        tokens=tokens,
        bytes=size,
        xxh3=keys.get("xxh3", str),
        header=span,
        batches=tables.next(count, digest, keys.where, known) if tables else Batches.of(()),
        provenance=Companion(beside.file("file"), beside.count("bytes"), beside.get("xxh3", str)),
    )
    for part in (keys, header, table, beside):
        part.no_more()
    return shard


def _check_sums(manifest: Manifest, where: str) -> None:
    if manifest.tokenizer.vocab_size > 1 << 8 * DTYPES[manifest.dtype]:
        raise ManifestError(f"{where}: dtype: {manifest.dtype} cannot hold {manifest.tokenizer.vocab_size} ids")
    _expect_sum(sum(shard.rows for shard in manifest.shards), manifest.documents, f"{where}: documents of shards")
    _expect_sum(sum(shard.tokens for shard in manifest.shards), manifest.tokens, f"{where}: tokens of shards")
    _check_sources(manifest, where)


def _check_sources(manifest: Manifest, where: str) -> None:
    names = [source.name for source in manifest.sources]
    if len(names) > MOST_SOURCES:
        raise ManifestError(f"{where}: sources: {len(names)} of them, {MOST_SOURCES} at most can be read")
    if names != sorted(set(names)):
        raise ManifestError(f"{where}: sources: not sorted by name, or one is named twice")
    for name in names:
        if not PLAIN_NAME.fullmatch(name):
            raise ManifestError(f"{where}: sources: {name[:100]!r} is no plain name ({PLAIN_NAME.pattern})")
    rows, tokens = dict.fromkeys(names, 0), dict.fromkeys(names, 0)
    for i, shard in enumerate(manifest.shards):
        if shard.source not in rows:
            raise ManifestError(
                f"{where}: shards[{i}] ({shard.file}): source: {shard.source[:100]!r} is not in sources"
            )
        rows[shard.source] += shard.rows
        tokens[shard.source] += shard.tokens
    for source in manifest.sources:
        _expect_sum(rows[source.name], source.rows, f"{where}: sources: {source.name}: rows")
        _expect_sum(tokens[source.name], source.tokens, f"{where}: sources: {source.name}: tokens")


def _expect_sum(found: int, said: int, where: str) -> None:
    if found != said:
        raise ManifestError(f"{where}: {said} is said, the parts add up to {found}")
