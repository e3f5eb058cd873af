"""Which row of the grouped products belongs to which expert: the routed tokens, sorted by expert.

Shapes: T tokens, K experts a token, R = T*K rows, E experts.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor


class Plan(NamedTuple):
    slot_R: Tensor
    """Row r holds slot slot_R[r]; slot t*K + k is choice k of token t. Sorted by expert, then by token."""
    row_R: Tensor
    """The inverse: slot s lies in row row_R[s]."""
    end_E: Tensor
    """int32; the rows of expert e end here and begin where those of expert e-1 end."""


def make_plan(ids_TK: Tensor, experts: int) -> Plan:
    """Sort the slots by expert, on the tensor's own device and without waiting for it."""
    ids_R = ids_TK.reshape(-1)
    slot_R = torch.argsort(ids_R, stable=True)
    row_R = torch.empty_like(slot_R).scatter_(0, slot_R, torch.arange(slot_R.numel(), device=slot_R.device))
    return Plan(slot_R, row_R, count(ids_TK, experts).cumsum(0, dtype=torch.int32))


def count(ids_TK: Tensor, experts: int) -> Tensor:
    """int64 [E]: how many slots each expert got. Not bincount, which waits for the device."""
    ids_R = ids_TK.reshape(-1)
    return torch.zeros(experts, dtype=torch.int64, device=ids_R.device).scatter_add_(0, ids_R, torch.ones_like(ids_R))


def gather(x: Tensor, order: Tensor, inverse: Tensor, copies: int = 1) -> Tensor:
    """Row r of the result is row order[r] // copies of the input; `inverse` is the inverse permutation of `order`."""
    gathered: Tensor = _Gather.apply(x, order, inverse, copies)  # type: ignore[no-untyped-call]
    return gathered


class _Gather(torch.autograd.Function):
    """Knowing the inverse turns the backward pass into a gather and a sum over copies as well, where torch's own
    would scatter with atomic additions: slower, and on a GPU not the same twice.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, order: Tensor, inverse: Tensor, copies: int) -> Tensor:
        ctx.save_for_backward(inverse)
        ctx.copies = copies
        return x.index_select(0, order // copies if copies > 1 else order)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        (inverse,) = ctx.saved_tensors
        grad = grads[0].index_select(0, inverse)
        if ctx.copies > 1:
            grad = grad.view(-1, ctx.copies, grad.shape[-1]).sum(1)
        return grad, None, None, None
