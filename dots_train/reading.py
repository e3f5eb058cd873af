"""What training and validation ask of the data, and the next batch read while the device computes."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Protocol

from torch import Tensor


class Tokens(Protocol):
    """A batch of B windows of S tokens, int64 on the CPU; see dots_train.data.Batch."""

    @property
    def tokens_BS(self) -> Tensor: ...
    @property
    def targets_BS(self) -> Tensor: ...
    @property
    def position_BS(self) -> Tensor: ...
    @property
    def document_BS(self) -> Tensor: ...


class Windows(Protocol):
    """Windows by number: those of a source to validate on."""

    @property
    def windows(self) -> int: ...
    def batch(self, g: int, n: int) -> Tokens: ...


class Reader(Windows, Protocol):
    """What the trainer asks of dots_train.data.ShardReader."""

    @property
    def id(self) -> str: ...
    @property
    def manifest(self) -> Any: ...
    def state(self, g: int) -> dict[str, str | int]: ...
    def resume(self, state: Any) -> int: ...


class ReadAhead:
    """The next batch, read by a thread while the device computes. What a batch holds does not depend on it."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "read-ahead")
        self._coming: tuple[tuple[Reader, int, int], Future[Tokens]] | None = None

    def begin(self, reader: Reader, g: int, n: int) -> None:
        self._coming = (reader, g, n), self._thread.submit(reader.batch, g, n)

    def take(self, reader: Reader, g: int, n: int) -> Tokens:
        """Samples g .. g+n-1. Raises what the reader raises; reading has bounds of its own."""
        coming, self._coming = self._coming, None
        if coming is not None and coming[0] == (reader, g, n):
            return coming[1].result()
        return reader.batch(g, n)

    def close(self) -> None:
        self._thread.shutdown(wait=True, cancel_futures=True)
