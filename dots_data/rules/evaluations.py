"""Evaluation sets, and their n-grams in one file that all workers map into memory.

A set is JSON Lines, a JSON array, Parquet or plain text; its items are rows, or what blank lines part in plain text.
Every string of a row is a text of its own, so that no n-gram spans two of them. `opened` compiles the sets once; a
worker then opens the file in milliseconds, and however many workers there are, its pages are in memory once.

The file holds the n-grams' 64-bit hashes in order and the texts themselves. What is found by its hash is compared
character by character, so no collision can make a document look contaminated.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
import struct
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dots_data import cache, scan
from dots_data.rules import overlap
from dots_data.rules.overlap import WORD, Codes, Hashes, Ints, Table, Units
from dots_data.typed_yaml import ConfigError

# A change of the layout, or of how a text is read, makes another file.
_FORMAT = b"dots.evals/1".ljust(16, b"\0")
_HEADER = struct.Struct("<16s8Q")
_COMPRESSED = (".gz", ".zst", ".bz2", ".lz4")
# About two n-grams a word of the filter: of a thousand others it lets a few pass.
_GRAMS_PER_WORD = 2


class Settings(NamedTuple):
    """What decides the table, but for the content of the files; see decontamination.Decontamination."""

    paths: tuple[str, ...]
    fields: tuple[str, ...] | None
    words: int
    min_words: int
    max_items: int


class Overlap(NamedTuple):
    """What a document shares with the evaluation sets.

    ngrams: places in it where an n-gram of theirs begins. longest: words of the longest stretch that such n-grams
    cover. share: of the document's words, those so covered. item: the item of whose n-grams the document holds the
    largest share, which is `coverage`; -1 if none. Of equal ones the one with more n-grams, then the first.
    """

    ngrams: int
    longest: float
    share: float
    coverage: float
    item: int


NONE = Overlap(0, 0.0, 0.0, 0.0, -1)


class Evaluations:
    """Compiled evaluation sets, mapped into memory.

    Raises:
        ConfigError: the file cannot be read, or is none that `compile_sets` wrote as it wrote it.
    """

    def __init__(self, path: Path) -> None:
        try:
            mapped = np.memmap(path, np.uint8, mode="r").view(np.ndarray)
        except (OSError, ValueError) as error:
            raise ConfigError(f"{path}: cannot be read ({error})") from error
        if len(mapped) < _HEADER.size or mapped[:16].tobytes() != _FORMAT:
            raise ConfigError(f"{path}: holds no compiled evaluation sets")
        _, *sizes = _HEADER.unpack(mapped[: _HEADER.size].tobytes())
        if len(mapped) != _HEADER.size + sum(sizes):
            raise ConfigError(f"{path}: {len(mapped):,} bytes of compiled evaluation sets, not all of them")
        ends = np.cumsum([_HEADER.size, *sizes]).tolist()
        parts = [mapped[start:end] for start, end in itertools.pairwise(ends)]
        lengths, places, self._item_starts, self._item_grams = (part.view("<i8") for part in parts[:4])
        words, keys = (part.view("<u8") for part in parts[4:6])
        self.table = Table(lengths, words, keys, places, parts[6].view("<u4"))
        facts = json.loads(parts[7].tobytes())
        self._files: list[str] = facts["files"]
        self._first_items: list[int] = facts["first_items"]
        self.facts: dict[str, int] = facts["counts"]

    def __len__(self) -> int:
        return len(self.table.keys)

    def item_name(self, item: int) -> str:
        """The file of an item and its row there, counted from 1."""
        file = bisect_right(self._first_items, item) - 1
        return f"{self._files[file]}:{item - self._first_items[file] + 1}"

    def overlap(self, codes: Codes) -> Overlap:
        """What a text (scan.codes) shares with the sets."""
        document = overlap.units(codes)
        found = overlap.find(document, self.table)
        return self._told(document, found) if len(found) else NONE

    def _told(self, document: Units, found: Ints) -> Overlap:
        stretches = document.weights[_stretches(found[:, 0], found[:, 1])]
        covered = stretches[:, 1] - stretches[:, 0]
        # An n-gram of an item counts once, however often the document has it.
        entries = np.unique(found[:, 2])
        items = np.searchsorted(self._item_starts, self.table.places[entries], side="right") - 1
        items, held = np.unique(items, return_counts=True)
        coverage = held / self._item_grams[items]
        best = np.lexsort((items, -held, -coverage))[0]
        return Overlap(
            ngrams=len(np.unique(found[:, 0])),
            longest=float(covered.max() / WORD),
            share=float(covered.sum() / document.weights[-1]),
            coverage=float(coverage[best]),
            item=int(items[best]),
        )


def _stretches(firsts: Ints, ends: Ints) -> Ints:
    """Spans as the stretches that they cover, int64 [stretches, 2]; spans in order of their beginning."""
    reach = np.maximum.accumulate(ends)
    begins = np.flatnonzero(np.concatenate([[True], firsts[1:] > reach[:-1]]))
    return np.stack([firsts[begins], np.append(reach[begins[1:] - 1], reach[-1])], axis=1)


@functools.cache
def opened(settings: Settings) -> Evaluations:
    """The sets, compiled once for all processes of the machine and opened once by each.

    Raises:
        ConfigError: a file that is missing, unreadable or of no known kind, a field that none of its rows has, sets
            that hold no n-gram; a cache that cannot be written.
    """
    files = [one for path in settings.paths for one in files_of(Path(path))]
    digest = hashlib.blake2b(_FORMAT + json.dumps(settings[1:]).encode(), digest_size=16)
    for name, path in files:
        digest.update(f"{name}\0{_content_hash(path)}\0".encode("utf-8", "surrogateescape"))
    make = functools.partial(compile_sets, files=files, settings=settings)
    return cache.opened(f"evaluations-{digest.hexdigest()}.bin", Evaluations, make)


def files_of(path: Path) -> list[tuple[str, Path]]:
    """The files of evaluation sets at a path, sorted: what each is called, and where it lies.

    Raises ConfigError where there are none.
    """
    if path.is_dir():
        found = [(str(file.relative_to(path)), file) for file in sorted(path.rglob("*")) if _kind(file) in _READERS]
        found = [(name, file) for name, file in found if file.is_file() and not f"/{name}".count("/.")]
    else:
        found = [(path.name, path)]
    if not found or not found[0][1].exists() or _kind(found[0][1]) not in _READERS:
        what = "no such file or folder" if not path.exists() else "holds no evaluation set"
        known = ", ".join(sorted(_READERS))
        raise ConfigError(f"evaluation set {path}: {what}; give {known} files, compressed or not, or a folder of them")
    return found


def _content_hash(path: Path) -> str:
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "blake2b").hexdigest()
    except OSError as error:
        raise ConfigError(f"evaluation set {path}: cannot be read ({error.strerror})") from error


def _kind(path: Path) -> str:
    """What a file is by its name, compression aside: `.jsonl` of `a.jsonl.gz`."""
    name = Path(path.stem) if path.suffix.lower() in _COMPRESSED else path
    return name.suffix.lower()


class _Grams(NamedTuple):
    """N-grams of texts that stand one behind the other: their hashes, uint64; the hashes of their beginnings, uint64;
    where each begins, int64; of which item each is, int64."""

    keys: Hashes
    begins: Hashes
    places: Ints
    items: Ints


def compile_sets(target: Path, files: Sequence[tuple[str, Path]], settings: Settings) -> None:
    """Write `target`. Raises ConfigError as `opened`."""
    least, whole = WORD * settings.min_words, WORD * settings.words
    seen: set[bytes] = set()
    texts: list[Codes] = []
    found: list[_Grams] = []
    lengths = {least, whole}
    first_items, item_starts, size, short = [0], [0], 0, 0
    for _, path in files:
        for item in read_items(path, settings.fields):
            for text in _new_texts(item, seen):
                firsts, keys, begins = overlap.grams(text.weights, text.hashes, overlap.powers(whole), least, whole)
                if not len(firsts):
                    short += 1
                    continue
                items = np.full(len(firsts), len(item_starts) - 1)
                found.append(_Grams(keys, begins, size + text.starts[firsts], items))
                texts.append(text.text)
                lengths.add(min(whole, int(text.weights[-1])))
                size += len(text.text)
            item_starts.append(size)
        first_items.append(len(item_starts) - 1)
    if not found:
        paths = ", ".join(settings.paths)
        raise ConfigError(f"evaluation sets {paths}: hold no text of {settings.min_words} words or more")
    table, common = _table(found, settings.max_items)
    words = np.zeros(1 << (len(table.keys) // _GRAMS_PER_WORD).bit_length(), np.uint64)
    overlap.fill(words, table.begins)
    item_grams = np.bincount(table.items, minlength=len(item_starts) - 1)
    facts = {
        "files": [name for name, _ in files],
        "first_items": first_items[:-1],
        "counts": {"texts": len(seen), "short_texts": short, "ngrams": len(table.keys), "common_ngrams": common},
    }
    arrays = (
        *(np.array(sorted(lengths)), table.places, np.array(item_starts), item_grams),
        *(words, table.keys, np.concatenate(texts)),
    )
    parts = [*(array.tobytes() for array in arrays), json.dumps(facts).encode()]
    cache.write(target, [_HEADER.pack(_FORMAT, *map(len, parts)), *parts])


def _new_texts(item: Iterable[str], seen: set[bytes]) -> Iterator[Units]:
    """The texts of an item that no item before it has: many questions share a passage."""
    for text in item:
        units = overlap.units(scan.codes(text))
        digest = hashlib.blake2b(units.text.tobytes(), digest_size=16).digest()
        if len(units.text) and digest not in seen:
            seen.add(digest)
            yield units


def _table(found: Sequence[_Grams], most: int) -> tuple[_Grams, int]:
    """The n-grams in order of their hash, each once an item, without those of more than `most` items; how many these
    were."""
    keys, begins, places, items = (np.concatenate(column) for column in zip(*found, strict=True))
    order = np.lexsort((places, items, keys))
    keys, items = keys[order], items[order]
    first = np.append(True, (keys[1:] != keys[:-1]) | (items[1:] != items[:-1]))
    order, keys, items = order[first], keys[first], items[first]
    _, number, times = np.unique(keys, return_inverse=True, return_counts=True)
    kept = times[number] <= most
    order = order[kept]
    return _Grams(keys[kept], begins[order], places[order], items[kept]), int(np.count_nonzero(times > most))


def read_items(path: Path, fields: Sequence[str] | None) -> Iterator[list[str]]:
    """The texts of each item of an evaluation set, in order; an item without text is an empty list.

    Raises ConfigError, naming the file and the row.
    """
    missing = set(fields or ())
    try:
        for row in _READERS[_kind(path)](path):
            if fields is not None and isinstance(row, dict):
                missing -= row.keys()
                row = {field: row[field] for field in fields if field in row}
            yield list(_strings(row))
    except (OSError, ValueError, RecursionError, pa.ArrowException) as error:
        raise ConfigError(f"evaluation set {path}: {error}") from error
    if missing and _kind(path) != ".txt":
        raise ConfigError(f"evaluation set {path}: none of its rows has the field {sorted(missing)[0]!r}")


def _strings(value: Any) -> Iterator[str]:
    """Every string of a row, however deep, in order."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _strings(inner)


def _json_lines(path: Path) -> Iterator[Any]:
    for number, line in enumerate(_lines(path), start=1):
        try:
            yield json.loads(line) if line.strip() else None
        except ValueError as error:
            raise ValueError(f"line {number}: not JSON ({error})") from error


def _json(path: Path) -> Iterable[Any]:
    loaded = json.loads("".join(_lines(path)))
    return loaded if isinstance(loaded, list) else [loaded]


def _parquet(path: Path) -> Iterator[Any]:
    for batch in pq.ParquetFile(path).iter_batches():
        yield from batch.to_pylist()


def _paragraphs(path: Path) -> Iterator[str]:
    paragraph: list[str] = []
    for line in _lines(path):
        if line.strip():
            paragraph.append(line)
        elif paragraph:
            yield "".join(paragraph)
            paragraph = []
    if paragraph:
        yield "".join(paragraph)


def _lines(path: Path) -> Iterator[str]:
    with pa.input_stream(str(path), compression="detect") as stream:
        rest = b""
        while block := stream.read(1 << 20):
            *whole, rest = (rest + block).split(b"\n")
            yield from (line.decode("utf-8-sig") + "\n" for line in whole)
        if rest:
            yield rest.decode("utf-8-sig")


_READERS: dict[str, Callable[[Path], Iterable[Any]]] = {
    ".jsonl": _json_lines,
    ".ndjson": _json_lines,
    ".json": _json,
    ".parquet": _parquet,
    ".txt": _paragraphs,
}
