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


def batch_of(tokens_BS: I64, targets_BS: I64, starts: Sequence[I64]) -> Batch:
    """A batch from its rows; `starts` are the places in [0, S) of each row at which a document begins."""
    rows, length = tokens_BS.shape
    # A row begins a document, whether or not one begins there in the stream.
    inside = [one[1:] if len(one) and one[0] == 0 else one for one in starts]
    counts = np.array([1 + len(one) for one in inside], dtype=np.int64)
    firsts = np.cumsum(counts) - counts
    begins = np.empty(int(counts.sum()), dtype=np.int64)
    for row, one in enumerate(inside):
        first, at = firsts[row], row * length
        begins[first] = at
        np.add(one, at, out=begins[first + 1 : first + 1 + len(one)])
    lengths = np.diff(begins, append=rows * length)
    position = np.arange(rows * length) - np.repeat(begins, lengths)
    document = np.repeat(np.arange(len(begins)) - np.repeat(firsts, counts), lengths)
    return Batch(
        torch.from_numpy(tokens_BS),
        torch.from_numpy(targets_BS),
        torch.from_numpy(position.reshape(rows, length)),
        torch.from_numpy(document.reshape(rows, length)),
        torch.from_numpy(np.append(begins, rows * length).astype(np.int32)),
        int(lengths.max(initial=0)),
    )
