"""Feed-forward networks: one for every token, or a few of many chosen by a router.

Shapes: B windows, S positions, T = B*S tokens, D hidden, E experts, K experts a token, F width, G = 2F, L
layers.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, silu

from dots_train.experts import Experts, ExpertWeights, Routing
from dots_train.experts.plan import count


class SwiGLU(nn.Module):
    """down(silu(gate(x)) * up(x)): the dense layer, and the shared experts fused into one network."""

    def __init__(self, hidden: int, width: int):
        super().__init__()
        self.gate_proj = nn.Linear(hidden, width, bias=False)
        self.up_proj = nn.Linear(hidden, width, bias=False)
        self.down_proj = nn.Linear(width, hidden, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.down_proj(silu(self.gate_proj(x)) * self.up_proj(x))
        return y


class Load(NamedTuple):
    """How one layer's router spread one batch."""

    counts_E: Tensor
    """int64: tokens given to each expert."""
    balance: Tensor
    """float32 scalar: the sequence-wise balance loss before its weight; 1 when the spread is even."""


class Router(nn.Module):
    """Sigmoid scores in float32; the bias steers which experts are chosen and never how much they count.

    Load balance without an auxiliary loss on the weights: Wang et al., arXiv 2408.15664, as in DeepSeek-V3.
    """

    e_score_correction_bias: Tensor

    def __init__(self, hidden: int, experts: int, top_k: int, scaling: float):
        super().__init__()
        self.top_k, self.scaling = top_k, scaling
        self.weight = nn.Parameter(torch.empty(experts, hidden, dtype=torch.float32))
        self.register_buffer("e_score_correction_bias", torch.zeros(experts, dtype=torch.float32))

    def forward(self, x_TD: Tensor) -> tuple[Routing, Tensor]:
        """The routing, whose weights sum to `scaling`, and the float32 scores [T, E]."""
        with torch.autocast(x_TD.device.type, enabled=False):
            scores_TE = linear(x_TD.float(), self.weight.float()).sigmoid()
            ids_TK = (scores_TE.detach() + self.e_score_correction_bias).topk(self.top_k, dim=-1).indices
            chosen_TK = scores_TE.gather(-1, ids_TK)
            weights_TK = chosen_TK / (chosen_TK.sum(-1, keepdim=True) + 1e-20) * self.scaling
        return Routing(ids_TK, weights_TK), scores_TE

    @torch.no_grad()
    def update_bias(self, counts_E: Tensor, rate: float) -> None:
        """Raise the bias of experts that got less than the mean, lower the others; once a global batch.

        In place, since a checkpoint and a resumed run must see the same tensor; centred, since a common shift
        chooses nothing and would only cost precision.
        """
        load_E = counts_E.to(torch.float32)
        delta_E = rate * torch.sign(load_E.mean() - load_E)
        self.e_score_correction_bias.add_(delta_E - delta_E.mean())


class RoutedExperts(nn.Module):
    """The weights of all experts of a layer, and the backend that applies them."""

    def __init__(self, experts: int, hidden: int, width: int, backend: Experts):
        super().__init__()
        self.gate_up_proj = nn.Parameter(torch.empty(experts, 2 * width, hidden))
        self.down_proj = nn.Parameter(torch.empty(experts, hidden, width))
        self.backend = backend

    def forward(self, x_TD: Tensor, routing: Routing) -> Tensor:
        return self.backend(x_TD, routing, ExpertWeights(self.gate_up_proj, self.down_proj))


class MoE(nn.Module):
    """Routed experts, and shared ones that every token passes, added unscaled. No token is dropped."""

    def __init__(
        self, hidden: int, experts: int, top_k: int, shared: int, width: int, scaling: float, backend: Experts
    ):
        super().__init__()
        self.gate = Router(hidden, experts, top_k, scaling)
        self.experts = RoutedExperts(experts, hidden, width, backend)
        self.shared_experts = SwiGLU(hidden, shared * width)

    def forward(self, x_BSD: Tensor) -> tuple[Tensor, Load]:
        x_TD = x_BSD.flatten(0, 1)
        routing, scores_TE = self.gate(x_TD)
        y_TD = self.experts(x_TD, routing) + self.shared_experts(x_TD)
        shape = x_BSD.shape[:2]
        balance = balance_loss(scores_TE.unflatten(0, shape), routing.ids_TK.unflatten(0, shape))
        return y_TD.view_as(x_BSD), Load(count(routing.ids_TK, scores_TE.shape[-1]), balance)


def balance_loss(scores_BSE: Tensor, ids_BSK: Tensor) -> Tensor:
    """DeepSeek-V3's complementary loss: for each window, sum over experts of load fraction times mean score
    share.

    Load is what the router really chose, bias included, as in Megatron-Core; only the scores carry a
    gradient.
    """
    length, experts = scores_BSE.shape[1:]
    slots_BX = ids_BSK.flatten(1)
    counts_BE = scores_BSE.new_zeros(len(scores_BSE), experts).scatter_add_(
        1, slots_BX, torch.ones_like(slots_BX, dtype=scores_BSE.dtype)
    )
    load_BE = counts_BE * (experts / (ids_BSK.shape[2] * length))
    share_BE = (scores_BSE / (scores_BSE.sum(-1, keepdim=True) + 1e-20)).mean(1)
    return (load_BE * share_BE).sum(-1).mean()
