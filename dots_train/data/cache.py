"""A folder of fetched record batches under a bound of bytes, shared by processes.

A file has its final name only when it is whole, and its name says which bytes of which shard it holds, by the shard's
checksum: so it is right for every dataset, or it is not there. Making room and writing happen under one lock, so the
bound holds whatever the number of processes; what was longest not opened goes first, and so does what a killed process
left half-written. A file that is deleted while another process maps it lives on for that process.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from dots_train.data.errors import DataError

U8 = npt.NDArray[np.uint8]

LOCK, LOCK_SECONDS = ".lock", 10.0


class Cache:
    """At most `limit` bytes of files in `folder`, which is made."""

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder, self.limit = folder, limit
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DataError(f"storage.cache: {folder}: {error.strerror}") from error

    def get(self, name: str, length: int) -> U8 | None:
        """The file of this name, mapped; None if it is not there or not of `length` bytes."""
        path = self.folder / name
        try:
            mapped = np.memmap(path, dtype=np.uint8, mode="r").view(np.ndarray)
            os.utime(path)
        except (OSError, ValueError):  # absent, or empty
            return None
        return mapped if len(mapped) == length else None

    def put(self, name: str, content: bytes) -> None:
        """Keep a file, making room for it. Raises DataError if there is none, or the folder cannot be written."""
        if len(content) > self.limit:
            least = f"one record batch has {len(content)}"
            raise DataError(f"storage.cache_bytes: {self.limit} is too little for {self.folder}, {least}")
        temporary = self.folder / f".{name}.tmp"
        try:
            with self._locked():
                self._make_room(len(content))
                temporary.write_bytes(content)
                os.replace(temporary, self.folder / name)
        except OSError as error:
            raise DataError(f"{self.folder}: cannot keep a record batch: {error.strerror or error}") from error

    def _make_room(self, length: int) -> None:
        files = []
        with os.scandir(self.folder) as found:
            for entry in found:
                if entry.name != LOCK:
                    with contextlib.suppress(FileNotFoundError):
                        status = entry.stat()
                        files.append((status.st_mtime_ns, entry.name, status.st_size))
        held = sum(size for _, _, size in files)
        for _, name, size in sorted(files):
            if held + length <= self.limit:
                return
            (self.folder / name).unlink(missing_ok=True)
            held -= size

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        deadline = time.monotonic() + LOCK_SECONDS
        with open(self.folder / LOCK, "wb") as lock:
            while True:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > deadline:
                        raise TimeoutError(f"another process holds its lock for {LOCK_SECONDS:.0f} s") from None
                    time.sleep(0.005)
            yield
