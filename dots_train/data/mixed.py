"""Samples of a mixture: the streams of several sources, of one dataset or of several, by the global number g.

Which source a sample is of says dots_train.mixture, in closed form; which of that source's windows, the order of its
epoch. With Untie-the-Knots a window is cut and shuffled as dots_train.untie says, by g as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from dots_data.tokens.manifest import Manifest, content_id
from dots_train.data import order
from dots_train.data.batch import IGNORE, Batch
from dots_train.data.errors import DataError
from dots_train.data.objects import StorageConfig
from dots_train.data.order import Order
from dots_train.data.reader import Reader, ShardReader, State
from dots_train.data.stream import Dataset, open_streams
from dots_train.data.windows import Windows
from dots_train.mixture import Mixture, MixtureConfig, MixtureError
from dots_train.untie import untie


class MixtureReader(Reader):
    """Samples of the sources of `config`, found by name in the datasets at `folders`.

    Args:
        folders: each of them a folder or URL as `ShardReader` takes it; no two may have a source of one name.
        verify: check each shard's size and schema against its manifest.

    Raises:
        DataError: as `ShardReader`; or datasets of different tokenizers, a source that none has, a mixture that the
            data cannot fill, or tags of Untie-the-Knots that are no ids or are ids of the text.
    """

    def __init__(
        self,
        folders: Sequence[str | Path],
        config: MixtureConfig,
        sequence_length: int,
        seed: int,
        *,
        verify: bool = True,
        storage: StorageConfig | None = None,
    ) -> None:
        datasets = [Dataset(folder, verify=verify, storage=storage) for folder in folders]
        streams = open_streams(datasets)
        have = {name: stream.windows(sequence_length) for name, stream in streams.items()}
        try:
            self.mixture = Mixture(config, have, sequence_length, seed)
        except MixtureError as error:
            raise DataError(f"{', '.join(one.where for one in datasets)}: {error}") from error
        layouts = [Windows(streams[name], sequence_length) for name in self.mixture.sources]
        orders = [Order(layout.count, seed, name) for layout, name in zip(layouts, self.mixture.sources, strict=True)]
        self.manifest: Manifest = datasets[0].manifest
        self.manifests = tuple(dataset.manifest for dataset in datasets)
        ids = sorted(manifest.id for manifest in self.manifests)
        self.id = ids[0] if len(ids) == 1 else content_id(ids)
        self.seed, self.untie = seed, config.untie
        self.windows = sum(self.mixture.windows)
        identity: State = {
            "manifest": self.id,
            "order": order.VERSION,
            "seed": seed,
            "sequence_length": sequence_length,
        }
        super().__init__(datasets[0].where, layouts, orders, self.mixture.assign, identity)

    def batch(self, g: int, n: int) -> Batch:
        """Samples g .. g+n-1, one a row. Raises DataError for what cannot be read."""
        return super().batch(g, n) if self.untie is None else self._untied(g, n)

    def _untied(self, g: int, n: int) -> Batch:
        assert self.untie is not None
        self.prefetch(g, n)
        streams, rows = self.rows_of(g, n)
        windows = []
        for sample, stream, row in zip(range(g, g + n), streams.tolist(), rows.tolist(), strict=True):
            tokens, starts = self.layouts[stream].read(row)
            windows.append(untie(tokens, starts, self.untie, self.seed, sample))
        document_BS = np.stack([window.document_S for window in windows])
        begins = np.flatnonzero(np.diff(document_BS, axis=1, prepend=-1))
        borders = np.append(begins, document_BS.size).astype(np.int32)
        targets_BS = np.stack([np.where(one.loss_mask_S, one.targets_S, IGNORE) for one in windows])
        return Batch(
            torch.from_numpy(np.stack([window.tokens_S for window in windows])),
            torch.from_numpy(targets_BS),
            torch.from_numpy(np.stack([window.position_S for window in windows])),
            torch.from_numpy(document_BS),
            torch.from_numpy(borders),
            int(np.diff(borders).max()),
        )

    def state(self, g: int) -> dict[str, str | int]:
        """All that is needed to go on at sample g, the mixture's past in it."""
        return {**self.identity, "mixture": self.mixture.past(g), "g": g}

    def resume(self, state: State) -> int:
        """The sample at which `state` stood. Raises DataError if it belongs to other data, order or another past."""
        g = super().resume(state)
        try:
            self.mixture.check_past(str(state["mixture"]), g)
        except MixtureError as error:
            raise DataError(f"{self.name}: {error}") from error
        return g


def open_reader(
    folders: Sequence[str | Path],
    sequence_length: int,
    seed: int,
    *,
    mixture: MixtureConfig | None = None,
    packed: bool = False,
    verify: bool = True,
    storage: StorageConfig | None = None,
) -> ShardReader | MixtureReader:
    """What a training run reads: one dataset as a stream, or a mixture of sources.

    Raises:
        DataError: several datasets without a mixture, packed rows with one, or as the readers.
    """
    if mixture is not None:
        if packed:
            raise DataError("packed rows cannot be mixed: a mixture counts windows")
        return MixtureReader(folders, mixture, sequence_length, seed, verify=verify, storage=storage)
    if len(folders) != 1:
        raise DataError(f"{len(folders)} datasets and no mixture that says how they are weighted")
    return ShardReader(folders[0], sequence_length, seed, packed=packed, verify=verify, storage=storage)
