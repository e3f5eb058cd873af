"""Where the archives lie, and how they are divided into units of work.

Paths, globs, folders, lists of paths (`@warc.paths.gz`, as Common Crawl publishes them) and, through fsspec,
s3:// and https:// URLs.
"""

from __future__ import annotations

import glob
import gzip
import hashlib
import os
import stat
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

ARCHIVE_SUFFIXES = (".warc", ".warc.gz", ".warc.lz4", ".warc.zst", ".arc", ".arc.gz", ".wacz")
SHARE_BYTES = 256 << 20
# Enough of either end to tell two archives of one name and size apart, in two ranged reads.
_END_BYTES = 64 << 10


class InputError(ValueError):
    """Input that cannot be read at all: the message says which, and what to do."""


class Source(NamedTuple):
    """An archive: where it lies, its size, the stable name that is written as `warc_file`, and the dump (one crawl of
    many) that it is of, "" where dumps are not told apart.
    """

    path: str
    bytes: int
    name: str
    dump: str = ""


class Unit(NamedTuple):
    """A piece of work: share `share` of `shares` of one archive (see `read_pages`)."""

    path: str
    name: str
    share: int
    shares: int
    dump: str = ""


def is_remote(path: str) -> bool:
    """Whether the path is a URL that fsspec opens."""
    return "://" in path


def expand(inputs: Sequence[str]) -> list[Source]:
    """All archives that the inputs name, each once, sorted by path.

    An input is a path, a glob, a folder (every archive in it, at any depth), `@file` with one path a line
    (plain or gzip), or an s3:// or https:// URL. A file named by itself is taken whatever its suffix. Pipes,
    devices and the like found in a folder are passed over. A file that is named in several ways (relative, by a
    link) goes by the first of its paths in sorted order.

    Raises:
        InputError: an input names nothing, or nothing at all was named.
    """
    return expand_dumps({"": inputs})


def expand_dumps(dumps: Mapping[str, Sequence[str]]) -> list[Source]:
    """`expand` for the inputs of several dumps, by their names; a path that two of them name is of the first by name.

    Raises:
        InputError: as `expand` does.
    """
    sizes: dict[str, int] = {}
    dump_of: dict[str, str] = {}
    for dump, inputs in sorted(dumps.items()):
        for item in inputs:
            found = _expand_one(item)
            sizes.update(found)
            for path in found:
                dump_of.setdefault(path, dump)
    if not sizes:
        raise InputError("no input: name at least one WARC file, folder or pattern, for example 'crawl/*.warc.gz'")
    paths = _each_file_once(sizes)
    return [Source(path, sizes[path], name, dump_of[path]) for path, name in zip(paths, _names(paths), strict=True)]


def units(sources: Iterable[Source], share_bytes: int = SHARE_BYTES) -> list[Unit]:
    """Divide archives into shares of about `share_bytes`: a matter of file sizes alone, never of the
    workers.
    """
    divided = []
    for source in sources:
        shares = max(1, -(-source.bytes // share_bytes))
        divided += [Unit(source.path, source.name, share, shares, source.dump) for share in range(shares)]
    return divided


def open_source(path: str) -> BinaryIO:
    """Open an archive for reading and seeking. Raises OSError; InputError when a URL's driver is not
    installed.
    """
    if is_remote(path):
        return cast(BinaryIO, _filesystem(path).open(path, "rb"))
    return open(path, "rb")


def fingerprint(sources: Iterable[Source]) -> str:
    """16 hexadecimal digits for this input, in any order: names, sizes and both ends of every archive.

    An archive that cannot be read counts by its error: reading it reports the damage.
    """
    digest = hashlib.blake2b(digest_size=8)
    for source in sorted(sources, key=lambda source: source.name):
        dump = f"{source.dump}\0" if source.dump else ""
        digest.update(f"{dump}{source.name}\0{source.bytes}\0".encode("utf-8", "surrogateescape"))
        digest.update(_ends(source))
    return digest.hexdigest()


def _ends(source: Source) -> bytes:
    try:
        with open_source(source.path) as file:
            head = file.read(_END_BYTES)
            file.seek(max(0, source.bytes - _END_BYTES))
            return head + file.read(_END_BYTES)
    except OSError as error:
        return type(error).__name__.encode()


def _each_file_once(paths: Iterable[str]) -> list[str]:
    first: dict[str, str] = {}
    for path in sorted(paths):
        first.setdefault(path if is_remote(path) else os.path.realpath(path), path)
    return list(first.values())


def _expand_one(item: str) -> dict[str, int]:
    if item.startswith("@"):
        listed: dict[str, int] = {}
        for line in _lines(item[1:]):
            listed.update(_expand_one(line))
        return listed
    return _expand_remote(item) if is_remote(item) else _expand_local(item)


def _expand_local(item: str) -> dict[str, int]:
    path = os.path.normpath(Path(item).expanduser())
    if Path(path).is_dir():
        found = {file: size for file, size in _regular(_files_below(path)).items() if _is_archive(file)}
        if not found:
            raise InputError(f"{item}: no archive in this folder (looked for {', '.join(ARCHIVE_SUFFIXES)})")
    elif Path(path).exists():
        found = _regular([path])
        if not found:
            raise InputError(f"{item}: not a regular file; archives are read from files, folders and URLs")
    else:
        # An absolute pattern is nothing that Path.glob takes.
        found = _regular(glob.glob(path, recursive=True)) if glob.has_magic(path) else {}  # noqa: PTH207
        if not found:
            what = "no file matches this pattern" if glob.has_magic(path) else "no such file or folder"
            raise InputError(f"{item}: {what}; check the path, it is taken from {Path.cwd()}")
    return found


def _regular(paths: Iterable[str]) -> dict[str, int]:
    """Sizes of the regular files among `paths`: to open a pipe waits for ever. A link that leads nowhere stays,
    for the reader to report.
    """
    sizes = {}
    for path in paths:
        try:
            status = Path(path).stat()
        except OSError:
            sizes[path] = 0
        else:
            if stat.S_ISREG(status.st_mode):
                sizes[path] = status.st_size
    return sizes


def _files_below(folder: str) -> Iterator[str]:
    for parent, _, files in os.walk(folder, followlinks=False):
        yield from (str(Path(parent, file)) for file in files)


def _is_archive(path: str) -> bool:
    return path.lower().endswith(ARCHIVE_SUFFIXES) or _magic_is_archive(path)


def _magic_is_archive(path: str) -> bool:
    # An archive under a strange name (`.warc.gz.bad`, no suffix at all) is one all the same.
    try:
        with open(path, "rb") as file:
            head = file.read(4096)
    except OSError:
        return False
    if head.startswith(b"\x1f\x8b"):
        try:
            with gzip.open(path) as inner:
                head = inner.read(16)
        except (OSError, EOFError):
            return False
    return head.startswith((b"WARC/", b"filedesc:"))


def _expand_remote(item: str) -> dict[str, int]:
    filesystem = _filesystem(item)
    try:
        paths = [filesystem.unstrip_protocol(path) for path in filesystem.glob(item)] if "*" in item else [item]
        sizes = {path: int(filesystem.size(path) or 0) for path in paths}
    except (OSError, ValueError) as error:
        raise InputError(f"{item}: cannot be listed ({error}); check the address and your access to it") from error
    if not sizes:
        raise InputError(f"{item}: no file matches this pattern")
    return sizes


def _filesystem(url: str) -> Any:
    protocol = url.partition("://")[0]
    try:
        import fsspec

        return fsspec.core.url_to_fs(url)[0]
    except ImportError as error:
        driver = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "https": "aiohttp", "http": "aiohttp"}.get(protocol)
        raise InputError(f"{url}: reading {protocol}:// needs a driver: pip install {driver or error.name}") from error
    except ValueError as error:
        raise InputError(f"{url}: {error}") from error


def _lines(path: str) -> list[str]:
    try:
        with open_source(path) as file:
            data = file.read()
        text = (gzip.decompress(data) if data.startswith(b"\x1f\x8b") else data).decode("utf-8")
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as a list of paths ({error})") from error
    lines = [line.strip() for line in text.splitlines()]
    return [line for line in lines if line and not line.startswith("#")]


def _names(paths: list[str]) -> list[str]:
    """Base names, or where two files share one, as many trailing folders as tell them apart."""
    parts = [Path(path.replace("://", "/")).parts for path in paths]
    depth = [1] * len(paths)
    while True:
        names = ["/".join(part[-count:]) for part, count in zip(parts, depth, strict=True)]
        seen = Counter(names)
        longer = [
            count + 1 if seen[name] > 1 and count < len(part) else count
            for name, part, count in zip(names, parts, depth, strict=True)
        ]
        if longer == depth:
            return names
        depth = longer
