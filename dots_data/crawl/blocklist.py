"""Lists of domains, URLs and expressions in the UT1 layout, in one file that all workers map into memory.

UT1 layout (https://dsi.ut-capitole.fr/blacklists/): one folder a category, with the files `domains`, `urls` and
`expressions`; as folders or in a tar file. `compiled` turns lists into one file, once; a worker then opens it in
milliseconds, and however many workers there are, its pages are in memory once.

The file is a hash table with the entries themselves beside it. A look-up compares the whole entry, so two entries
with one hash are two entries.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import struct
import tarfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import xxhash

from dots_data import cache
from dots_data.typed_yaml import ConfigError

KINDS = ("domains", "urls", "expressions")
# A change of the layout, or of how an entry is normalised, makes another file.
_FORMAT = b"dots.blocklist/2"
_HEADER = struct.Struct("<16sQQQQ")


class Listed(NamedTuple):
    """One file of a list: its category, its kind (of KINDS) and its content."""

    category: str
    kind: str
    content: bytes


class BlockList:
    """A compiled list, mapped into memory. Entries are strings; each has one category.

    Raises:
        ConfigError: the file cannot be read, or is none that `compile_lists` wrote as it wrote it.
    """

    def __init__(self, path: Path) -> None:
        try:
            with open(path, "rb") as file:
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:
            raise ConfigError(f"{path}: cannot be read ({error})") from error
        if len(self._map) < _HEADER.size or self._map[:16] != _FORMAT:
            raise ConfigError(f"{path}: not a compiled blocklist")
        _, self._count, slots, characters, facts = _HEADER.unpack_from(self._map)
        if len(self._map) != (size := _HEADER.size + 4 * slots + 6 * self._count + 4 + characters + facts):
            raise ConfigError(f"{path}: {len(self._map):,} bytes of a compiled blocklist of {size:,}")
        view, at = memoryview(self._map), _HEADER.size
        self._slots, at = view[at : at + 4 * slots].cast("I"), at + 4 * slots
        self._ends, at = view[at : at + 4 * self._count + 4].cast("I"), at + 4 * self._count + 4
        self._categories, at = view[at : at + 2 * self._count].cast("H"), at + 2 * self._count
        self._entries, at = at, at + characters
        self._mask = slots - 1
        stored = json.loads(self._map[at : at + facts])
        self.categories: list[str] = stored["categories"]
        self.expressions: list[tuple[str, str]] = [(one, category) for one, category in stored["expressions"]]

    def __len__(self) -> int:
        return int(self._count)

    @property
    def nbytes(self) -> int:
        """Bytes of the file, shared by all that map it."""
        return len(self._map)

    def find(self, entry: str) -> str | None:
        """The entry's category, or None."""
        wanted = entry.encode("utf-8", "surrogatepass")
        slots, ends, mask = self._slots, self._ends, self._mask
        slot = xxhash.xxh3_64_intdigest(wanted) & mask
        while number := slots[slot]:
            start, end = ends[number - 1], ends[number]
            if end - start == len(wanted) and self._map[self._entries + start : self._entries + end] == wanted:
                category: str = self.categories[self._categories[number - 1]]
                return category
            slot = (slot + 1) & mask
        return None


def compile_lists(
    target: Path, entries: Iterable[tuple[str, str]], expressions: Sequence[tuple[str, str]] = ()
) -> None:
    """Write `target` from (entry, category) pairs; of an entry's categories the first in the alphabet counts. Not for
    two at once with one target.
    """
    by_entry: dict[str, str] = {}
    for entry, category in entries:
        if category < by_entry.get(entry, "\U0010ffff"):
            by_entry[entry] = category
    categories = sorted({*by_entry.values(), *(category for _, category in expressions)})
    numbers = {category: number for number, category in enumerate(categories)}
    encoded = sorted((entry.encode("utf-8", "surrogatepass"), numbers[name]) for entry, name in by_entry.items())
    size = 8
    while size < 2 * len(encoded):
        size *= 2
    slots = [0] * size
    for number, (key, _) in enumerate(encoded, start=1):
        slot = xxhash.xxh3_64_intdigest(key) & (size - 1)
        while slots[slot]:
            slot = (slot + 1) & (size - 1)
        slots[slot] = number
    ends = np.cumsum([0, *(len(entry) for entry, _ in encoded)], dtype=np.uint64)
    if ends[-1] >= 1 << 32:
        raise ConfigError("the blocklists hold more than 4 GiB of entries")
    facts = json.dumps({"categories": categories, "expressions": sorted(set(expressions))}).encode()
    arrays = (np.array(slots, "<u4"), ends.astype("<u4"), np.array([category for _, category in encoded], "<u2"))
    header = _HEADER.pack(_FORMAT, len(encoded), size, int(ends[-1]), len(facts))
    cache.write(
        target, [header, *(array.tobytes() for array in arrays), b"".join(entry for entry, _ in encoded), facts]
    )


def compiled(
    paths: Sequence[Path], categories: Sequence[str] | None, normal: dict[str, Callable[[str], str]]
) -> BlockList:
    """The lists at `paths`, only these `categories` (None: all); made once, then found in the cache. Of several
    processes one makes them and the others wait; what is in the cache but not whole is made again.

    `normal[kind]` brings an entry of that kind into the form in which it is looked up; "" leaves it out.

    Raises:
        ConfigError: a list that is missing, unreadable, or has none of the categories; a cache that cannot be written.
    """
    digest = hashlib.blake2b(_FORMAT + json.dumps(categories and sorted(categories)).encode(), digest_size=16)
    for path in paths:
        for content in _contents(path):
            digest.update(hashlib.blake2b(content).digest())

    def make(target: Path) -> None:
        listed = [one for path in paths for one in _checked(path, categories)]
        kinds = {kind: list(_entries(listed, kind, normal[kind])) for kind in KINDS}
        compile_lists(target, kinds["domains"] + kinds["urls"], kinds["expressions"])

    return cache.opened(f"blocklist-{digest.hexdigest()}.bin", BlockList, make)


def _contents(path: Path) -> Iterator[bytes]:
    """Everything that the lists in `path` depend on: the archive, or the names and contents of a folder's files."""
    try:
        for file in _files(path) if path.is_dir() else ():
            yield os.fsencode(Path(*file.parts[-2:]))
            yield file.read_bytes()
        if not path.is_dir():
            yield path.read_bytes()
    except OSError as error:
        raise ConfigError(f"blocklist {path}: cannot be read ({error.strerror})") from error


def _files(folder: Path) -> list[Path]:
    return [file for file in sorted(folder.resolve().rglob("*")) if file.name in KINDS and file.is_file()]


def _checked(path: Path, categories: Sequence[str] | None) -> list[Listed]:
    found = list(_read(path, categories))
    if not found:
        wanted = ", ".join(categories) if categories is not None else "domains, urls or expressions"
        raise ConfigError(f"blocklist {path}: holds none of the categories {wanted}")
    return found


def _entries(listed: Sequence[Listed], kind: str, normal: Callable[[str], str]) -> Iterator[tuple[str, str]]:
    for one in listed:
        if one.kind == kind:
            for line in one.content.decode("utf-8", "replace").splitlines():
                if (stripped := line.strip()) and not stripped.startswith("#") and (entry := normal(stripped)):
                    yield entry, one.category


def _read(path: Path, categories: Sequence[str] | None) -> Iterator[Listed]:
    """The files of the lists in a folder or a tar file."""
    try:
        if path.is_dir():
            for file in _files(path):
                if _is_wanted(file.parts, categories):
                    yield Listed(file.parent.name, file.name, file.read_bytes())
            return
        with tarfile.open(path) as archive:
            for member in archive:
                parts = Path(member.name).parts
                if _is_wanted(parts, categories) and (content := archive.extractfile(member)):
                    yield Listed(parts[-2], parts[-1], content.read())
    except (OSError, tarfile.TarError, EOFError) as error:
        raise ConfigError(f"blocklist {path}: cannot be read ({error})") from error


def _is_wanted(parts: Sequence[str], categories: Sequence[str] | None) -> bool:
    return len(parts) > 1 and parts[-1] in KINDS and (categories is None or parts[-2] in categories)
