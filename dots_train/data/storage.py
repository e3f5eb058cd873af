"""Where the files of a dataset lie: a local folder, memory-mapped, or object storage behind a cache.

What is asked of either is the same: small files whole, and the messages of record batches, which are all that a window
is cut from. Of object storage a message is one ranged read; it is checked by its checksum before it is kept, and asked
for in advance in the background.
"""

from __future__ import annotations

import functools
import os
import threading
import zlib
from collections import OrderedDict
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from dots_data.tokens.manifest import Shard
from dots_train.data.cache import Cache
from dots_train.data.errors import DataError
from dots_train.data.objects import SCHEMES, Objects, StorageConfig

U8 = npt.NDArray[np.uint8]

MOST_MAPPED = 4096  # files a process has mapped at a time
MOST_HELD = 256  # fetched messages that a process holds, mapped


class Message(NamedTuple):
    """Which record batch of which shard."""

    shard: Shard
    number: int


class Storage(Protocol):
    """The files of one dataset."""

    def path(self, file: str) -> str:
        """What to call a file in an error."""

    def read(self, file: str, offset: int = 0, length: int | None = None) -> bytes:
        """A file or some bytes of it. Raises DataError."""

    def size(self, file: str) -> int:
        """Bytes of a file. Raises DataError."""

    def message(self, message: Message) -> U8:
        """The bytes of a record batch, from its metadata to the end of its body. Raises DataError."""

    def prefetch(self, messages: Iterable[Message]) -> None:
        """These will be asked for soon."""


def is_remote(where: str | Path) -> bool:
    """Whether this names object storage rather than a local path."""
    return str(where).startswith(SCHEMES)


class LocalStorage:
    """A folder. Files are mapped when first read; there is nothing to fetch in advance."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._mapped = functools.lru_cache(maxsize=MOST_MAPPED)(self._map)

    def path(self, file: str) -> str:
        return str(self.folder / file)

    def read(self, file: str, offset: int = 0, length: int | None = None) -> bytes:
        try:
            with open(self.folder / file, "rb") as opened:
                opened.seek(offset)
                content = opened.read(-1 if length is None else length)
        except OSError as error:
            raise DataError(f"{self.path(file)}: cannot be read: {error.strerror or error}") from error
        if length is not None and len(content) != length:
            raise DataError(f"{self.path(file)}: ends before byte {offset + length}: it was cut")
        return content

    def size(self, file: str) -> int:
        try:
            return (self.folder / file).stat().st_size
        except OSError as error:
            raise DataError(f"{self.path(file)}: named by the manifest, but {error.strerror or error}") from error

    def message(self, message: Message) -> U8:
        shard, entry = message.shard, message.shard.batches[message.number]
        return self._mapped(shard.file, shard.bytes)[entry.offset : entry.offset + entry.length]

    def prefetch(self, messages: Iterable[Message]) -> None:
        pass

    def _map(self, file: str, size: int) -> U8:
        try:
            mapped = np.memmap(self.folder / file, dtype=np.uint8, mode="r").view(np.ndarray)
        except (OSError, ValueError) as error:
            raise DataError(f"{self.path(file)}: cannot be mapped: {error}") from error
        if len(mapped) != size:
            raise DataError(f"{self.path(file)}: {len(mapped)} bytes, the manifest says {size}: it was cut or replaced")
        return mapped


class RemoteStorage:
    """Object storage below a URL.

    Messages come through `config.connections` threads; one that is under way is not asked for twice. A reading thread
    waits for no longer than the bounds of a read allow.
    """

    def __init__(self, url: str, config: StorageConfig) -> None:
        self.objects, self.config = Objects(url, config), config
        # A folder of its own: what lies there is the cache's to delete.
        self.cache = Cache(cache_folder(config) / "record-batches", config.cache_bytes)
        self._pool = ThreadPoolExecutor(config.connections, thread_name_prefix="dots-fetch")
        self._lock = threading.Lock()
        self._coming: dict[str, Future[U8]] = {}
        self._held: OrderedDict[str, U8] = OrderedDict()

    def path(self, file: str) -> str:
        return f"{self.objects.url}/{file}"

    def read(self, file: str, offset: int = 0, length: int | None = None) -> bytes:
        return self.objects.read(file) if length is None else self.objects.span(file, offset, length)

    def size(self, file: str) -> int:
        return self.objects.size(file)

    def message(self, message: Message) -> U8:
        coming = self._ask(message)
        if not isinstance(coming, Future):
            return coming
        try:
            # Those before it in the queue may each take as long as it.
            return coming.result(timeout=4 * (self.config.seconds + self.config.request_seconds))
        except TimeoutError as error:
            raise DataError(f"{self.path(message.shard.file)}: batch {message.number} does not come") from error

    def prefetch(self, messages: Iterable[Message]) -> None:
        for message in messages:
            # What is fetched long before it is used may be let go of by then.
            if len(self._coming) >= MOST_HELD // 2:
                return
            self._ask(message)

    def _ask(self, message: Message) -> U8 | Future[U8]:
        name = f"{message.shard.xxh3}-{message.number}"
        with self._lock:
            if name in self._held:
                self._held.move_to_end(name)
                return self._held[name]
            if name not in self._coming:
                self._coming[name] = self._pool.submit(self._fetch, message, name)
            return self._coming[name]

    def _fetch(self, message: Message, name: str) -> U8:
        if not threading.main_thread().is_alive():
            raise DataError("the process ends")  # which would wait for all that was asked for in advance
        entry = message.shard.batches[message.number]

        def wrong(content: bytes | memoryview) -> str | None:
            found = zlib.crc32(content)
            return None if found == entry.crc32 else f"their CRC-32 is {found:08x}, the manifest says {entry.crc32:08x}"

        try:
            bytes_ = self.cache.get(name, entry.length)
            if bytes_ is None or wrong(bytes_.data):
                content = self.objects.span(message.shard.file, entry.offset, entry.length, wrong)
                self.cache.put(name, content)
                kept = self.cache.get(name, entry.length)
                bytes_ = np.frombuffer(content, dtype=np.uint8) if kept is None else kept
            with self._lock:
                self._held[name] = bytes_
                while len(self._held) > MOST_HELD:
                    self._held.popitem(last=False)
            return bytes_
        finally:
            with self._lock:
                self._coming.pop(name, None)


def cache_folder(config: StorageConfig | None) -> Path:
    """Where fetched record batches are kept."""
    if config and config.cache:
        return Path(config.cache)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dots"


def open_storage(where: str | Path, config: StorageConfig) -> Storage:
    """The storage that a path or URL names. Raises DataError."""
    return RemoteStorage(str(where), config) if is_remote(where) else LocalStorage(Path(where))
