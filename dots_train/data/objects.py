"""Ranged reads of object storage (s3://, gs://, az://, https://), tried again within bounds.

The library is obstore: one small binding of Rust's object_store for all of these, without dependencies. Credentials,
endpoint and region are taken from the environment as AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL and the like. Its own retries
are off: a read that comes back short or damaged is as much a failure as a 503, so one loop here has them all.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

from dots_train.data.errors import DataError

T = TypeVar("T")

ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
SCHEMES = ("s3://", "s3a://", "gs://", "az://", "abfs://", "abfss://", "http://", "https://")


@dataclass(frozen=True)
class StorageConfig:
    """How object storage is read; nothing of it matters for a local folder.

    cache: folder for fetched record batches, `$XDG_CACHE_HOME/dots` (`~/.cache/dots`) where it is empty.
    cache_bytes: what that folder may hold, for all processes that share it.
    connections: how many reads are under way at once.
    tries, seconds: bounds on the attempts at one read; it fails at whichever is reached first. The attempt that is
        under way then may last for another `request_seconds`.
    request_seconds: bound on one request.
    first_wait, longest_wait: seconds; the wait before try n is drawn from 0 to first_wait * 2**n, never longer than
        the other ("full jitter": Brooker, "Exponential Backoff and Jitter", AWS Architecture Blog, 2015).
    """

    cache: str = ""
    cache_bytes: int = 64 << 30
    connections: int = 8
    tries: int = 10
    seconds: float = 120.0
    request_seconds: float = 30.0
    first_wait: float = 0.1
    longest_wait: float = 10.0

    def __post_init__(self) -> None:
        if self.connections < 1 or self.tries < 1 or self.cache_bytes < 0:
            raise ValueError("storage: connections and tries must be at least 1, cache_bytes not negative")
        if min(self.seconds, self.request_seconds, self.first_wait, self.longest_wait) <= 0:
            raise ValueError("storage: seconds and waits must be positive")


class Fleeting(Exception):
    """A failure that may be gone at the next try."""


class Objects:
    """The objects below a URL.

    Raises:
        DataError: obstore is not installed, or the URL names no storage that it knows.
    """

    def __init__(self, url: str, config: StorageConfig) -> None:
        self.url, self.config = url.rstrip("/"), config
        try:
            import obstore
            from obstore import exceptions
            from obstore.store import from_url
        except ImportError as error:
            raise DataError(f"{url}: object storage is read with obstore; pip install 'dots[s3]'") from error
        self._obstore = obstore
        self._final = (
            FileNotFoundError,
            exceptions.NotFoundError,
            exceptions.PermissionDeniedError,
            exceptions.UnauthenticatedError,
            exceptions.NotSupportedError,
        )
        self._failures = (Fleeting, exceptions.BaseError, OSError)
        client: dict[str, Any] = {"timeout": timedelta(seconds=config.request_seconds)}
        # Who names an endpoint without TLS means it.
        if any(one.startswith("http://") for one in (self.url, *(os.environ.get(name, "") for name in ENDPOINTS))):
            client["allow_http"] = True
        try:
            self._store = from_url(self.url, client_options=client, retry_config={"max_retries": 0})  # type: ignore[call-overload]
        except exceptions.BaseError as error:
            raise DataError(f"{url}: {_first_line(error)}") from error

    def size(self, file: str) -> int:
        """Bytes of an object. Raises DataError as `read` does."""
        return self._retried(file, lambda: int(self._obstore.head(self._store, file)["size"]))

    def read(self, file: str) -> bytes:
        """A whole object. Raises DataError if it is not there, may not be read, or cannot be within the bounds."""
        return self._retried(file, lambda: bytes(self._obstore.get(self._store, file).bytes()))

    def span(self, file: str, offset: int, length: int, check: Callable[[bytes], str | None] = lambda _: None) -> bytes:
        """`length` bytes from `offset`. `check` says what is wrong with them, if anything; then they are read again.

        Raises:
            DataError: as `read` does; also if they stay short or wrong.
        """

        def once() -> bytes:
            content = bytes(self._obstore.get_range(self._store, file, start=offset, length=length))
            if len(content) != length:
                raise Fleeting(f"{len(content)} bytes came instead of {length}")
            if problem := check(content):
                raise Fleeting(problem)
            return content

        return self._retried(f"{file}: bytes {offset} to {offset + length}", once)

    def _retried(self, what: str, work: Callable[[], T]) -> T:
        config, begun = self.config, time.monotonic()
        for number in range(1, config.tries + 1):
            try:
                return work()
            except self._final as error:
                raise DataError(f"{self.url}/{what}: {_first_line(error)}") from error
            except self._failures as error:
                last = error
            wait = random.uniform(0, min(config.longest_wait, config.first_wait * 2 ** min(number, 60)))
            if number == config.tries or time.monotonic() - begun + wait > config.seconds:
                break
            time.sleep(wait)
        passed = f"{number} tries in {time.monotonic() - begun:.1f} s"
        raise DataError(f"{self.url}/{what}: cannot be read, after {passed}: {_first_line(last)}") from last


def _first_line(error: BaseException) -> str:
    """The library appends a debug print of many lines."""
    return str(error).partition("\n")[0]
