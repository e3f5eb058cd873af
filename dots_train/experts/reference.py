"""The routed experts through torch's grouped matrix product: exact, on the CPU and on any GPU.

Shapes: T tokens, K experts a token, R = T*K rows, E experts, D hidden, F expert width, G = 2F.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.autograd import Function
from torch.autograd.graph import get_gradient_edge
from torch.nn.functional import grouped_mm, silu

from dots_train.experts import ExpertWeights, Routing, compute_dtype, late
from dots_train.experts.plan import gather, make_plan


def experts(x_TD: Tensor, routing: Routing, weights: ExpertWeights) -> Tensor:
    """y[t] = sum over k of weight[t, k] * expert[id[t, k]](x[t]), each expert a SwiGLU network.

    Under autocast the products run in its type and the sum over k in float32.
    """
    dtype, top_k = compute_dtype(x_TD), routing.ids_TK.shape[1]
    gate_up_EGD, down_EDF = (weight.to(dtype) for weight in weights)
    plan = make_plan(routing.ids_TK, gate_up_EGD.shape[0])
    x_RD = gather(x_TD.to(dtype), plan.slot_R, plan.row_R, top_k)
    gate_RF, up_RF = product(x_RD, gate_up_EGD, plan.end_E).chunk(2, dim=-1)
    y_RD = product(silu(gate_RF) * up_RF, down_EDF, plan.end_E)
    y_TKD = gather(y_RD, plan.row_R, plan.slot_R).view(*routing.ids_TK.shape, down_EDF.shape[1])
    return (y_TKD * routing.weights_TK.unsqueeze(-1)).sum(1).to(x_TD.dtype)


def product(x_RI: Tensor, weight_EOI: Tensor, end_E: Tensor) -> Tensor:
    """Each expert's rows, those before end_E[e], times its weight: [R, O]. Its weight gradient may be put off."""
    y_RO: Tensor = _Product.apply(x_RI, weight_EOI, end_E)  # type: ignore[no-untyped-call]
    return y_RO


class _Product(Function):
    """With the gradients of torch's own grouped product, to the bit."""

    @staticmethod
    def forward(ctx: Any, x_RI: Tensor, weight_EOI: Tensor, end_E: Tensor) -> Tensor:
        ctx.save_for_backward(x_RI, weight_EOI, end_E)
        # Not the tensor itself: a cast copy of the weights must not outlive what checkpointing lets go.
        ctx.place = get_gradient_edge(weight_EOI) if ctx.needs_input_grad[1] else None
        ctx.queue = late.queue()
        return grouped_mm(x_RI, weight_EOI.transpose(-2, -1), offs=end_E)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x_RI, weight_EOI, end_E = ctx.saved_tensors
        grad_RO = grads[0]
        x_grad = grouped_mm(grad_RO, weight_EOI, offs=end_E) if ctx.needs_input_grad[0] else None
        weight_grad = None
        if ctx.place is not None:
            weight_grad = late.gradient(ctx.place, lambda: grouped_mm(grad_RO.t(), x_RI, offs=end_E), ctx.queue)
        return x_grad, weight_grad, None
