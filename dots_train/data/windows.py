"""What a row of a batch is: a window of a stream. Window i of S tokens is stream[i*S : i*S + S + 1]: S inputs and, one
further, S targets. The last tokens of the stream that fill no window are not read.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

from dots_train.data.errors import DataError
from dots_train.data.stream import I64, Stream, Tokens


class Layout(Protocol):
    """How a stream is divided into `count` rows of `length` tokens."""

    stream: Stream
    length: int
    count: int

    def read(self, number: int) -> tuple[Tokens, I64]:
        """A row's tokens without padding, and the places at which documents begin."""

    def fill(self, number: int, tokens_S: Any, targets_S: Any) -> I64:
        """Write a row into int64 arrays; the places in [0, S) at which documents, or the padding, begin."""

    def spans(self, number: int) -> Iterator[tuple[int, int]]:
        """(at, length) of what a row reads of the stream."""


class Windows:
    """The windows of a stream.

    Raises:
        DataError: it has fewer tokens than one window needs, or the length is not positive.
    """

    def __init__(self, stream: Stream, length: int) -> None:
        if length < 1:
            raise DataError(f"sequence_length: {length} is not at least 1")
        self.stream, self.length, self.count = stream, length, stream.windows(length)
        if not self.count:
            need = f"one window of {length} tokens needs {length + 1}"
            raise DataError(f"{stream.name}: holds {stream.tokens} tokens, {need}")

    def read(self, number: int) -> tuple[Tokens, I64]:
        """S + 1 tokens, and the places in [0, S) at which a document begins."""
        tokens, starts = self.stream.read(number * self.length, self.length + 1)
        return tokens, starts[: starts.searchsorted(self.length)]

    def fill(self, number: int, tokens_S: Any, targets_S: Any) -> I64:
        tokens, starts = self.read(number)
        tokens_S[:], targets_S[:] = tokens[:-1], tokens[1:]
        return starts

    def spans(self, number: int) -> Iterator[tuple[int, int]]:
        yield number * self.length, self.length + 1
