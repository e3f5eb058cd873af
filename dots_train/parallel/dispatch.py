"""Expert parallelism: every rank of a group holds some of the experts, and tokens travel to theirs and back.

`dispatched` wraps a backend of dots_train.experts in one that does so; the model calls it like any other.

Shapes: T tokens, K experts a token, R = T*K rows that leave a rank, Q rows that arrive, D hidden, E experts of the
group, N ranks of the group.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor

from dots_train.experts import Experts, ExpertWeights, Routing, compute_dtype
from dots_train.experts.plan import count, gather, make_plan

# An operator takes no group, only its name.
GROUPS: dict[str, dist.ProcessGroup] = {}


@torch.library.custom_op("dots::all_to_all", mutates_args=())
def all_to_all(x: Tensor, sent: list[int], received: list[int], group: str) -> Tensor:
    """Rows of `x`, sent[n] of them to rank n of `group`, in order; what comes back has received[n] rows from rank n.

    An operator of torch, so that activation checkpointing can be told to keep its result and never repeat it.
    """
    result = x.new_empty(sum(received), *x.shape[1:])
    dist.all_to_all_single(result, x.contiguous(), received, sent, group=GROUPS[group])
    return result


@all_to_all.register_fake
def _(x: Tensor, sent: list[int], received: list[int], group: str) -> Tensor:
    return x.new_empty(sum(received), *x.shape[1:])


def _keep_splits(ctx: Any, inputs: tuple[Tensor, list[int], list[int], str], output: Tensor) -> None:
    _, ctx.sent, ctx.received, ctx.group = inputs


def _send_back(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
    return all_to_all(grad, ctx.received, ctx.sent, ctx.group), None, None, None


all_to_all.register_autograd(_send_back, setup_context=_keep_splits)


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
        sent_NE = count(routing.ids_TK, ranks * experts_here).view(ranks, -1)
        got_NE = all_to_all(sent_NE, [1] * ranks, [1] * ranks, name)
        sent, got = sent_NE.sum(1).tolist(), got_NE.sum(1).tolist()

        x_RD = gather(x_TD.to(compute_dtype(x_TD)), plan.slot_R, plan.row_R, top_k)
        x_QD = all_to_all(x_RD, sent, got, name)
        weight_R = gather(routing.weights_TK.flatten(), plan.slot_R, plan.row_R)
        weight_Q1 = all_to_all(weight_R, sent, got, name)[:, None]
        numbers = torch.arange(experts_here, device=x_TD.device).repeat(ranks)
        ids_Q1 = numbers.repeat_interleave(got_NE.flatten(), output_size=sum(got))[:, None]
        y_QD = local(x_QD, Routing(ids_Q1, weight_Q1), held)
        y_RD = all_to_all(y_QD, got, sent, name)
        y_TKD = gather(y_RD, plan.row_R, plan.slot_R).view(*routing.ids_TK.shape, -1)
        return y_TKD.sum(1, dtype=x_TD.dtype)

    return experts


def held_here(tensor: Tensor) -> Tensor:
    """This rank's part of a tensor, which may be sharded."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor
