"""What a step reads: rows of tokens, and where the documents in them begin."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

I64 = npt.NDArray[np.int64]

IGNORE = -100  # the target of a place that has none; torch's cross entropy leaves it out


@dataclass(frozen=True)
class Batch:
    """B rows of S tokens on the CPU, int64 unless said otherwise.

    tokens_BS, targets_BS: the inputs, and what each of them is to predict: the token that follows it, or IGNORE.
    position_BS: place inside the document, 0 at each document's first token; a document that began before the
        row counts from the row's start.
    document_BS: number of the document within its row, from 0. Padding counts as one.
    cu_seqlens: int32, where documents begin in the B*S tokens of all rows on end, and B*S: what attention over
        sequences of varying length asks for. A row begins a document.
    max_length: of the longest document of `cu_seqlens`.
    """

    tokens_BS: torch.Tensor
    targets_BS: torch.Tensor
    position_BS: torch.Tensor
    document_BS: torch.Tensor
    cu_seqlens: torch.Tensor
    max_length: int


def batch_of(memory_4BS: I64, starts: Sequence[I64]) -> Batch:
    """A batch whose tokens and targets are memory_4BS[:2], and whose other two tensors are made in the rest of it.

    starts: the places in [0, S) of each row at which a document begins.
    """
    # One piece of memory: the C library keeps one that is freed for the next batch, and gives four back to the system,
    # after which every page costs a fault.
    _, _, position_BS, document_BS = memory_4BS
    rows, length = position_BS.shape
    places = np.arange(length)
    borders = [np.zeros(0, dtype=np.int64)]
    most = 0
    # A row at a time: what a row takes in between stays in the processor's cache.
    for row, inside in enumerate(starts):
        # A row begins a document, whether or not one begins there in the stream.
        begins = inside if len(inside) and inside[0] == 0 else np.concatenate([places[:1], inside])
        lengths = np.diff(begins, append=length)
        np.subtract(places[:length], np.repeat(begins, lengths), out=position_BS[row])
        document_BS[row] = np.repeat(places[: len(begins)], lengths)
        borders.append(begins + row * length)
        most = max(most, int(lengths.max()))
    tokens, targets, position, document = torch.from_numpy(memory_4BS)
    return Batch(
        tokens,
        targets,
        position,
        document,
        torch.from_numpy(np.concatenate([*borders, [rows * length]]).astype(np.int32)),
        most,
    )
