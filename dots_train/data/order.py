"""Which window a sample is: the windows of a stream, every one once an epoch, in an order that is a function."""

from __future__ import annotations

import functools

import numpy as np
import numpy.typing as npt

from dots_data.tokens.order import Bijection, epoch_order

I64 = npt.NDArray[np.int64]

VERSION = 1  # counts up whenever the same (seed, g) would mean another window
BLOCK = 1024  # samples follow one another: the bijection costs little more for many places than for one


class Order:
    """The order of `count` windows by ordinal: that of epoch e is a keyed bijection of (seed, e, stream).

    `stream` tells the streams of a mixture apart; it is empty where there is one.
    """

    def __init__(self, count: int, seed: int, stream: str = "") -> None:
        self.count, self.seed, self.stream = count, seed, stream
        self._size = min(BLOCK, count)  # so that a block reaches into two epochs at most
        self._epoch = functools.lru_cache(maxsize=4)(lambda epoch: epoch_order(count, seed, epoch, stream))
        self._block = functools.lru_cache(maxsize=64)(self._compute)

    def __call__(self, ordinals: I64) -> I64:
        """The windows at these ordinals, which count on from epoch to epoch."""
        windows = np.empty(len(ordinals), dtype=np.int64)
        blocks, places = np.divmod(ordinals, self._size)
        cuts = np.flatnonzero(np.diff(blocks)) + 1  # ordinals that rise have few
        for first, last in zip([0, *cuts.tolist()], [*cuts.tolist(), len(ordinals)], strict=True):
            if last > first:
                windows[first:last] = self._block(int(blocks[first]))[places[first:last]]
        return windows

    def ordinal(self, window: int, epoch: int = 0) -> int:
        """Where a window stands in an epoch."""
        return epoch * self.count + self._epoch(epoch).inverse(window)

    def _compute(self, block: int) -> I64:
        ordinals = np.arange(block * self._size, (block + 1) * self._size)
        epochs, places = np.divmod(ordinals, self.count)
        windows = np.empty(len(ordinals), dtype=np.int64)
        for epoch in {int(epochs[0]), int(epochs[-1])}:
            here = epochs == epoch
            order: Bijection = self._epoch(epoch)
            windows[here] = order(places[here])
        return windows
