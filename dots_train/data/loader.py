"""One rank's share of the global batches, read ahead in the background.

Nothing here decides what a batch holds: that is the reader's, by g. Threads only have it ready sooner; they suffice, as
copying and fetching both run outside Python's lock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import NamedTuple, Protocol

from dots_train.data.batch import Batch


class Share(NamedTuple):
    """Samples g .. g+n-1."""

    g: int
    n: int


class Source(Protocol):
    """What a loader asks of a reader."""

    def batch(self, g: int, n: int) -> Batch: ...
    def prefetch(self, g: int, n: int) -> None: ...


def shares(g: int, sizes: Iterable[int], rank: int = 0, world: int = 1, micro: int | None = None) -> Iterator[Share]:
    """A rank's part of each global batch, the first of which begins at sample g; `sizes` are theirs in samples.

    Rank r of w has samples [n*r // w, n*(r+1) // w) of a batch of n, in shares of at most `micro`, or as one. A batch
    of fewer samples than ranks leaves some without any.

    Raises:
        ValueError: the rank is not one of the world, or micro is not positive.
    """
    if not 0 <= rank < world or (micro is not None and micro < 1):
        raise ValueError(f"rank {rank} of {world}, micro batches of {micro}: no such share")
    for size in sizes:
        first, stop = g + size * rank // world, g + size * (rank + 1) // world
        for at in range(first, stop, micro or max(1, stop - first)):
            yield Share(at, min(stop - at, micro or stop - first))
        g += size


class Loader:
    """Batches of shares, in their order, each begun up to `ahead` batches early by `workers` threads.

    Without workers a batch is read when it is asked for; what lies in object storage is fetched in advance even so.
    """

    def __init__(self, reader: Source, workers: int = 0, ahead: int = 4) -> None:
        if workers < 0 or ahead < 1:
            raise ValueError(f"{workers} workers, {ahead} batches ahead: expected at least 0 and 1")
        self.reader, self.workers, self.ahead = reader, workers, ahead

    def __call__(self, shares: Iterable[Share]) -> Iterator[Batch]:
        """The batches. Raises DataError where one cannot be read, in its turn."""
        return self._threaded(iter(shares)) if self.workers else self._plain(iter(shares))

    def _plain(self, shares: Iterator[Share]) -> Iterator[Batch]:
        coming: deque[Share] = deque()
        while True:
            for share in islice(shares, self.ahead - len(coming)):
                self.reader.prefetch(*share)
                coming.append(share)
            if not coming:
                return
            yield self.reader.batch(*coming.popleft())

    def _threaded(self, shares: Iterator[Share]) -> Iterator[Batch]:
        coming: deque[Future[Batch]] = deque()
        pool = ThreadPoolExecutor(self.workers, thread_name_prefix="dots-load")
        try:
            while True:
                for share in islice(shares, self.ahead - len(coming)):
                    coming.append(pool.submit(self.reader.batch, *share))
                if not coming:
                    return
                # A batch waits for disk or storage alone, and reading those has bounds of its own.
                yield coming.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
