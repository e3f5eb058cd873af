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


class Blocks(NamedTuple):
    """The rows of a plan laid out in blocks of equal size, each of one expert: what an expert leaves of its last block
    is filled up. There are P rows in B blocks, as many as any routing of so many slots could need."""

    slot_P: Tensor
    """int32: row p holds slot slot_P[p], or none (-1)."""
    row_TK: Tensor
    """int32: choice k of token t lies in row row_TK[t, k]."""
    expert_B: Tensor
    """int32: the expert of each block; for blocks that are not used one more than the last expert."""
    edge_X: Tensor
    """int32 [E + 1]: the blocks of expert e go from edge_X[e] to edge_X[e + 1]."""


def make_plan(ids_TK: Tensor, experts: int) -> Plan:
    """Sort the slots by expert, on the tensor's own device and without waiting for it."""
    ids_R = ids_TK.reshape(-1)
    slot_R = torch.argsort(ids_R, stable=True)
    row_R = torch.empty_like(slot_R).scatter_(0, slot_R, torch.arange(slot_R.numel(), device=slot_R.device))
    return Plan(slot_R, row_R, count(ids_TK, experts).cumsum(0, dtype=torch.int32))


def make_blocks(ids_TK: Tensor, experts: int, block: int) -> Blocks:
    """Sort the slots by expert into blocks of `block` rows, on the tensor's own device and without waiting for it."""
    slots, device = ids_TK.numel(), ids_TK.device
    # At least one, since a launch and a descriptor of nothing are errors.
    most = max(1, (slots + min(slots, experts) * (block - 1)) // block)
    plan = make_plan(ids_TK, experts)
    none = plan.end_E.new_zeros(1)
    begin_E = torch.cat([none, plan.end_E[:-1]])
    blocks_E = (plan.end_E - begin_E + block - 1) // block
    edge_X = torch.cat([none, blocks_E.cumsum(0, dtype=torch.int32)])
    expert_B = torch.searchsorted(edge_X[1:], torch.arange(most, dtype=torch.int32, device=device), right=True)

    shift_E = edge_X[:-1] * block - begin_E
    row_R = plan.row_R + shift_E.index_select(0, ids_TK.reshape(-1))
    slot_R = torch.arange(slots, dtype=torch.int32, device=device)
    slot_P = torch.full((most * block,), -1, dtype=torch.int32, device=device).scatter_(0, row_R, slot_R)
    return Blocks(slot_P, row_R.int().view_as(ids_TK), expert_B.int(), edge_X)


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
