"""The routed experts through torch's grouped matrix product: exact, on the CPU and on any GPU.

Shapes: T tokens, K experts a token, R = T*K rows, E experts, D hidden, F expert width, G = 2F.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import grouped_mm, silu

from dots_train.experts import ExpertWeights, Routing, compute_dtype
from dots_train.experts.plan import gather, make_plan


def experts(x_TD: Tensor, routing: Routing, weights: ExpertWeights) -> Tensor:
    """y[t] = sum over k of weight[t, k] * expert[id[t, k]](x[t]), each expert a SwiGLU network.

    Under autocast the products run in its type and the sum over k in float32.
    """
    dtype, top_k = compute_dtype(x_TD), routing.ids_TK.shape[1]
    gate_up_EDG = weights.gate_up_EGD.to(dtype).transpose(-2, -1)
    down_EFD = weights.down_EDF.to(dtype).transpose(-2, -1)

    plan = make_plan(routing.ids_TK, gate_up_EDG.shape[0])
    x_RD = gather(x_TD.to(dtype), plan.slot_R, plan.row_R, top_k)
    gate_RF, up_RF = grouped_mm(x_RD, gate_up_EDG, offs=plan.end_E).chunk(2, dim=-1)
    y_RD = grouped_mm(silu(gate_RF) * up_RF, down_EFD, offs=plan.end_E)
    y_TKD = gather(y_RD, plan.row_R, plan.slot_R).view(*routing.ids_TK.shape, -1)
    return (y_TKD * routing.weights_TK.unsqueeze(-1)).sum(1).to(x_TD.dtype)
