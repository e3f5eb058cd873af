"""Expert parallelism: every rank of a group holds some of the experts, and tokens travel to theirs and back.

`dispatched` wraps a backend of dots_train.experts in one that does so; the model calls it like any other. Between the
launch of an exchange and its end the baton may pass to another pass of the pipeline (baton.py).

Shapes: T tokens, K experts a token, R = T*K rows that leave a rank, Q rows that arrive, D hidden, E experts of the
group, N ranks of the group.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor

from dots_train.experts import Experts, ExpertWeights, Routing, compute_dtype
from dots_train.experts.plan import count, gather, make_plan
from dots_train.parallel.baton import BATON

# An operator takes no group, only its name.
GROUPS: dict[str, dist.ProcessGroup] = {}


@torch.library.custom_op("dots::all_to_all", mutates_args=())
def all_to_all(xs: list[Tensor], sent: list[int], received: list[int], group: str) -> list[Tensor]:
    """Of each x sent[n] rows go to rank n of `group`, in order; of what comes back received[n] rows are rank n's.

    An operator of torch, so that activation checkpointing can be told to keep its result and never repeat it.
    """
    rows = [x.contiguous() for x in xs]
    results = [x.new_empty(sum(received), *x.shape[1:]) for x in rows]
    works = [
        dist.all_to_all_single(result, x, received, sent, group=GROUPS[group], async_op=True)
        for result, x in zip(results, rows, strict=True)
    ]
    BATON.gap()
    for work in works:
        work.wait()
    return results


@all_to_all.register_fake
def _(xs: list[Tensor], sent: list[int], received: list[int], group: str) -> list[Tensor]:
    return [x.new_empty(sum(received), *x.shape[1:]) for x in xs]


def _keep_splits(ctx: Any, inputs: tuple[list[Tensor], list[int], list[int], str], output: list[Tensor]) -> None:
    _, ctx.sent, ctx.received, ctx.group = inputs


def _send_back(ctx: Any, grads: list[Tensor]) -> tuple[list[Tensor], None, None, None]:
    return all_to_all(grads, ctx.received, ctx.sent, ctx.group), None, None, None


all_to_all.register_autograd(_send_back, setup_context=_keep_splits)


@torch.library.custom_op("dots::exchange_counts", mutates_args=())
def exchange_counts(sent_NE: Tensor, group: str) -> tuple[Tensor, Tensor]:
    """From how many rows each rank gets of this one, by expert, how many this one gets of each; and the sums by rank
    of both, int64 [2, N], on the host, which must know them before it can launch the rows' own exchange.

    On a GPU the copy to the host runs on a stream of its own, and the host waits for that stream alone.
    """
    got_NE = torch.empty_like(sent_NE)
    work = dist.all_to_all_single(got_NE, sent_NE, group=GROUPS[group], async_op=True)
    if not sent_NE.is_cuda:
        BATON.gap()
        work.wait()
        return got_NE, torch.stack([sent_NE.sum(1), got_NE.sum(1)])
    here, beside = torch.cuda.current_stream(), _copy_stream(sent_NE.device)
    beside.wait_stream(here)
    with torch.cuda.stream(beside):
        work.wait()
        splits_2N = torch.stack([sent_NE.sum(1), got_NE.sum(1)])
        on_host_2N = torch.empty(splits_2N.shape, dtype=torch.int64, pin_memory=True)
        on_host_2N.copy_(splits_2N, non_blocking=True)
    BATON.gap()
    beside.synchronize()
    here.wait_stream(beside)
    return got_NE, on_host_2N


@cache
def _copy_stream(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device, priority=-1)  # type: ignore[no-untyped-call]


class _Rest(torch.autograd.Function):
    """The identity; the backward pass lets a forward pass beside it go on here.

    A forward pass hands over three times a layer: for counts, rows, and rows that come back. A backward pass has two
    exchanges; with this third turn each of them stays beside a computation and none beside the mere launch of rows.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        BATON.rest()
        return grads[0]


def dispatched(local: Experts, group: dist.ProcessGroup) -> Experts:
    """A backend whose weights are one rank's experts: rank n of `group` holds experts n*E/N to (n+1)*E/N.

    The weighted outputs of a token's experts are added up at home, so that the sum does not depend on the number of
    ranks.
    """
    name, ranks = group.group_name, group.size()
    GROUPS[name] = group

    def experts(x_TD: Tensor, routing: Routing, weights: ExpertWeights) -> Tensor:
        held = ExpertWeights(*map(held_here, weights))
        experts_here = held.down_EDF.shape[0]
        top_k = routing.ids_TK.shape[1]
        plan = make_plan(routing.ids_TK, ranks * experts_here)
        resting_TD: Tensor = _Rest.apply(x_TD)  # type: ignore[no-untyped-call]
        got_NE, splits_2N = exchange_counts(count(routing.ids_TK, ranks * experts_here).view(ranks, -1), name)
        sent, got = splits_2N.tolist()

        x_RD = gather(resting_TD.to(compute_dtype(x_TD)), plan.slot_R, plan.row_R, top_k)
        weight_R = gather(routing.weights_TK.flatten(), plan.slot_R, plan.row_R)
        x_QD, weight_Q = all_to_all([x_RD, weight_R], sent, got, name)
        numbers = torch.arange(experts_here, device=x_TD.device).repeat(ranks)
        ids_Q1 = numbers.repeat_interleave(got_NE.flatten(), output_size=sum(got))[:, None]
        y_QD = local(x_QD, Routing(ids_Q1, weight_Q[:, None]), held)
        (y_RD,) = all_to_all([y_QD], got, sent, name)
        y_TKD = gather(y_RD, plan.row_R, plan.slot_R).view(*routing.ids_TK.shape, -1)
        return y_TKD.sum(1, dtype=x_TD.dtype)

    return experts


def held_here(tensor: Tensor) -> Tensor:
    """This rank's part of a tensor, which may be sharded."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor
