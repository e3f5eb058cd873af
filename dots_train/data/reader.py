"""Samples by their global number g alone.

A plan says which stream sample g is of and which of that stream's samples it is, an order which row of the stream that
is, a layout what the row holds. All three are functions, so that sample g is a pure function of the data, the sequence
length, the seed and g: the same global batches for any number of ranks or workers and through any change of batch size,
and the whole state of the loader is about a hundred bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from dots_train.data import order
from dots_train.data.batch import Batch, batch_of
from dots_train.data.errors import DataError
from dots_train.data.objects import StorageConfig
from dots_train.data.order import Order
from dots_train.data.packing import VERSION as PACKING_VERSION
from dots_train.data.packing import Packing
from dots_train.data.storage import cache_folder
from dots_train.data.stream import I64, Dataset, Place, Tokens
from dots_train.data.windows import Layout, Windows

State = Mapping[str, str | int]


class Plan(Protocol):
    """Which stream each sample is of; what a mixture is."""

    def __call__(self, g: I64) -> tuple[I64, I64]:
        """For samples g their streams by number, and their ordinals in those: each stream's count on from 0."""


def one_stream(g: I64) -> tuple[I64, I64]:
    """The plan of a single stream."""
    return np.zeros_like(g), g


class Reader:
    """Batches of samples from the rows of one or several streams.

    Args:
        name: what to call the data in an error.
        layouts: the rows of each stream, all of one length.
        orders: the order of each.
        plan: which of them a sample is of.
        identity: what else the same g could mean another sample by: it goes into the state and must be found there.
    """

    def __init__(
        self, name: str, layouts: Sequence[Layout], orders: Sequence[Order], plan: Plan, identity: State
    ) -> None:
        self.name, self.layouts, self.orders, self.plan, self.identity = name, layouts, orders, plan, identity
        self.sequence_length = layouts[0].length
        self._remote = any(layout.stream.dataset.remote for layout in layouts)

    def rows_of(self, g: int, n: int = 1) -> tuple[I64, I64]:
        """The streams that samples g .. g+n-1 are of, and their rows there. Raises DataError for a negative g."""
        if g < 0 or n < 0:
            raise DataError(f"samples are counted from 0, not {g}")
        streams, ordinals = self.plan(np.arange(g, g + n, dtype=np.int64))
        rows = np.empty(n, dtype=np.int64)
        for number in np.unique(streams).tolist():
            here = streams == number
            rows[here] = self.orders[number](ordinals[here])
        return streams, rows

    def batch(self, g: int, n: int) -> Batch:
        """Samples g .. g+n-1, one a row. Raises DataError for what cannot be read."""
        if self._remote:
            self.prefetch(g, n)
        tokens_BS = np.empty((n, self.sequence_length), dtype=np.int64)
        targets_BS = np.empty_like(tokens_BS)
        streams, rows = self.rows_of(g, n)
        starts = [
            self.layouts[stream].fill(number, tokens_BS[row], targets_BS[row])
            for row, (stream, number) in enumerate(zip(streams.tolist(), rows.tolist(), strict=True))
        ]
        return batch_of(tokens_BS, targets_BS, starts)

    def prefetch(self, g: int, n: int) -> None:
        """Have what samples g .. g+n-1 need fetched in the background; nothing where it is local."""
        if not self._remote:
            return
        streams, rows = self.rows_of(g, n)
        for number, row in zip(streams.tolist(), rows.tolist(), strict=True):
            stream = self.layouts[number].stream
            for at, length in self.layouts[number].spans(row):
                stream.dataset.storage.prefetch(stream.messages(at, length))

    def where(self, g: int) -> list[Place]:
        """The documents that sample g reads, of a window with its last target, in the order of the row."""
        streams, rows = self.rows_of(g)
        layout = self.layouts[int(streams[0])]
        spans = layout.spans(int(rows[0]))
        return [place for at, length in spans for place in layout.stream.where(at, at + length)]

    def state(self, g: int) -> dict[str, str | int]:
        """All that is needed to go on at sample g."""
        return {**self.identity, "g": g}

    def resume(self, state: State) -> int:
        """The sample at which `state` stood. Raises DataError if it belongs to other data or order."""
        for name, mine in self.state(0).items():
            if name not in state:
                raise DataError(f"{self.name}: the saved state has no {name!r}")
            if name in self.identity and state[name] != mine:
                raise DataError(f"{self.name}: {name} is {mine!r} here, the saved state was made with {state[name]!r}")
        for name in state:
            if name not in self.state(0) and name != "g":
                raise DataError(f"{self.name}: the saved state was made with {name} {state[name]!r}, not so here")
        g = state["g"]
        if not isinstance(g, int) or isinstance(g, bool) or g < 0:
            raise DataError(f"{self.name}: the saved state has g = {g!r}, not a sample number")
        return g


class ShardReader(Reader):
    """Samples of the dataset in `folder`, which may be a URL: all shards as one stream, or those of one source.

    Args:
        verify: check each shard's size and schema against the manifest (`Dataset`).
        source: read this source alone.
        packed: rows of whole documents rather than windows (`Packing`); the index lies in `index_folder`, beside the
            shards where there is none given, or in the cache where they are in object storage.
        storage: how object storage is read.

    Raises:
        DataError: no readable manifest, a shard that is missing, cut or of another dataset, or fewer tokens
            than one window.
    """

    def __init__(
        self,
        folder: str | Path,
        sequence_length: int,
        seed: int,
        *,
        verify: bool = True,
        source: str | None = None,
        packed: bool = False,
        index_folder: str | Path | None = None,
        storage: StorageConfig | None = None,
    ) -> None:
        dataset = Dataset(folder, verify=verify, storage=storage)
        stream = dataset.stream(source)
        self.layout: Layout
        if packed:
            beside = cache_folder(storage) if dataset.remote else Path(dataset.where).parent
            self.layout = Packing(stream, sequence_length, Path(index_folder or beside))
        else:
            self.layout = Windows(stream, sequence_length)
        self.manifest, self.id, self.seed = dataset.manifest, dataset.manifest.id, seed
        self.folder = Path(dataset.where).parent
        self.windows = self.layout.count
        identity: dict[str, str | int] = {
            "manifest": self.id,
            "order": order.VERSION,
            "seed": seed,
            "sequence_length": sequence_length,
        }
        identity |= {"source": source} if source else {}
        identity |= {"packing": PACKING_VERSION} if packed else {}
        super().__init__(dataset.where, [self.layout], [Order(self.windows, seed)], one_stream, identity)

    def window_of(self, g: int, n: int = 1) -> I64:
        """The windows that samples g .. g+n-1 read. Raises DataError for a negative g."""
        return self.rows_of(g, n)[1]

    def window(self, g: int) -> tuple[Tokens, I64]:
        """Sample g: S + 1 tokens, and the places in [0, S) at which a document begins; a packed row without padding.

        The tokens are a view of the file where they lie within one record batch; do not write to them.
        """
        return self.layout.read(int(self.window_of(g)[0]))
