"""The dots.llm1 model: section 2 of the technical report (arXiv 2506.05767) and the released config.json.

Parameters are named as in transformers' `Dots1ForCausalLM` less the prefix `model.`, but for the routed
experts, which are stacked: `experts.gate_up_proj` [E, 2F, D] holds each expert's gate_proj over its up_proj,
`experts.down_proj` [E, D, F] its down_proj.

Shapes: B windows, S positions, D hidden, V vocabulary, L mixture layers, E experts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint

from dots_train.config import LOGITS_AT_ONCE, ModelConfig
from dots_train.experts import Experts, backend
from dots_train.model.attention import Attention, Mask, Rotary, document_mask, rotary
from dots_train.model.moe import Load, MoE, RoutedExperts, SwiGLU


class Layer(nn.Module):
    """Attention, then a feed-forward network; both read a normalised stream and add to it."""

    def __init__(self, config: ModelConfig, dense: bool, experts: Experts):
        super().__init__()
        c = config
        self.input_layernorm = nn.RMSNorm(c.hidden_size, c.norm_eps)
        self.self_attn = Attention(c.hidden_size, c.heads, c.head_dim, c.norm_eps)
        self.post_attention_layernorm = nn.RMSNorm(c.hidden_size, c.norm_eps)
        self.mlp: SwiGLU | MoE = (
            SwiGLU(c.hidden_size, c.dense_ffn_size)
            if dense
            else MoE(
                hidden=c.hidden_size,
                experts=c.experts,
                top_k=c.experts_per_token,
                shared=c.shared_experts,
                width=c.expert_ffn_size,
                scaling=c.routed_scaling,
                backend=experts,
            )
        )

    def forward(self, x_BSD: Tensor, angles: Rotary, mask: Mask) -> tuple[Tensor, Load | None]:
        x_BSD = x_BSD + self.self_attn(self.input_layernorm(x_BSD), angles, mask)
        h_BSD = self.post_attention_layernorm(x_BSD)
        if isinstance(self.mlp, SwiGLU):
            return x_BSD + self.mlp(h_BSD), None
        y_BSD, load = self.mlp(h_BSD)
        return x_BSD + y_BSD, load


class Head(nn.Linear):
    """The output matrix: from the normalised stream to logits, or straight to the loss."""

    def forward(self, x_BSD: Tensor, targets_BS: Tensor | None = None) -> Tensor:
        """Logits [B, S, V]; with targets the summed cross-entropy in nats, a float32 scalar, in slices of rows that
        the backward pass computes again."""
        if targets_BS is None:
            return super().forward(x_BSD)
        rows = max(1, LOGITS_AT_ONCE // self.out_features)
        parts = (torch.split(x_BSD.flatten(0, 1), rows), torch.split(targets_BS.flatten(), rows))
        slices = list(zip(*parts, strict=True))
        if len(slices) == 1:
            return self._loss(*slices[0])
        losses = [checkpoint(self._loss, *one, use_reentrant=False, preserve_rng_state=False) for one in slices]
        return torch.stack(losses).sum()

    def _loss(self, x_RD: Tensor, targets_R: Tensor) -> Tensor:
        return cross_entropy(super().forward(x_RD).float(), targets_R, reduction="sum")


class Tally:
    """What the mixture layers of a model did since the tally was begun; a step begins it anew.

    Forward passes add to it outside of what activation checkpointing computes again, so nothing is counted twice.
    """

    def __init__(self) -> None:
        self.counts_E: dict[int, Tensor] = {}
        """int64 by the number of the layer: tokens given to each expert."""
        self.balance: Tensor | float = 0.0
        """The weighted balance losses of all passes, detached."""

    def add(self, loads: Mapping[int, Load], balance: Tensor) -> None:
        for number, load in loads.items():
            self.counts_E[number] = self.counts_E.get(number, 0) + load.counts_E
        self.balance = self.balance + balance.detach()


class Dots1(nn.Module):
    """The layers `numbers` (all by default): with the first goes the embedding, with the last the output matrix.

    A part of a model is what one rank of a pipeline holds; its parameters have the names of the whole model's.

    balance_weight: what a window's balance loss, averaged over all mixture layers of the whole model, is worth in the
        loss. Its gradient enters in the forward pass (`with_gradient_of`), so that every part of a model can add its
        own and the caller sees the cross-entropy alone.
    rope_theta: of the passes to come; a stage of long contexts may have its own.
    """

    def __init__(self, config: ModelConfig, experts: str = "reference", numbers: Iterable[int] | None = None):
        super().__init__()
        self.config = config
        self.balance_weight = 0.0
        self.rope_theta = config.rope_theta
        self.tally = Tally()
        held = list(range(config.layers) if numbers is None else numbers)
        apply = backend(experts)
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size) if 0 in held else None
        self.layers = nn.ModuleDict({str(n): Layer(config, n < config.dense_layers, apply) for n in held})
        last = config.layers - 1 in held
        self.norm = nn.RMSNorm(config.hidden_size, config.norm_eps) if last else None
        self.lm_head = Head(config.hidden_size, config.vocab_size, bias=False) if last else None

    def forward(self, x: Tensor, position_BS: Tensor, document_BS: Tensor, targets_BS: Tensor | None = None) -> Tensor:
        """Logits of the next token [B, S, V] from tokens [B, S], or their summed loss where targets are given; a part
        of a model takes and gives hidden states [B, S, D] where it is not the first or the last.

        position_BS counts from 0 in each document; document_BS numbers the documents of a window, and no
        position sees another document; it may stay on the CPU.
        """
        mask = document_mask(document_BS, x.device)
        angles = rotary(position_BS, self.config.head_dim, self.rope_theta)
        x_BSD = x if self.embed_tokens is None else self.embed_tokens(x)
        loads: dict[int, Load] = {}
        for number, layer in self.layers.items():
            x_BSD, load = layer(x_BSD, angles, mask)
            if load is not None:
                loads[int(number)] = load
        if loads:
            mixtures = self.config.layers - self.config.dense_layers
            weight = self.balance_weight * len(position_BS) / mixtures
            balance = torch.stack([load.balance for load in loads.values()]).sum() * weight
            self.tally.add(loads, balance)
            x_BSD = with_gradient_of(x_BSD, balance)
        if self.norm is None or self.lm_head is None:
            return x_BSD
        logits_or_loss: Tensor = self.lm_head(self.norm(x_BSD), targets_BS)
        return logits_or_loss

    @torch.no_grad()
    def initialize(self, seed: int) -> None:
        """Give every parameter and buffer its first value, see `initial`; for a model that is not sharded."""
        for name, tensor in (*self.named_parameters(), *self.named_buffers()):
            tensor.copy_(initial(name, tensor.shape, self.config, seed))


class _WithGradientOf(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, loss: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
        return grads[0], torch.ones((), dtype=torch.float32, device=grads[0].device)


def with_gradient_of(x: Tensor, loss: Tensor) -> Tensor:
    """`x` as it is; the backward pass through it also passes through the float32 scalar `loss`, as if that were
    added to whatever is differentiated."""
    joined: Tensor = _WithGradientOf.apply(x, loss)  # type: ignore[no-untyped-call]
    return joined


def initial(name: str, shape: torch.Size, config: ModelConfig, seed: int) -> Tensor:
    """The first value of a parameter, float32 on the CPU: matrices from N(0, init_std), norms 1, router biases 0.

    Each matrix, and each expert's, has numbers of its own by (seed, name, expert): whoever holds a part of a model
    makes that part alone, and gets what the whole model has.
    """
    if name.endswith("e_score_correction_bias"):
        return torch.zeros(shape)
    if len(shape) < 2:
        return torch.ones(shape)
    value = torch.empty(shape)
    for index, matrix in enumerate(value if len(shape) == 3 else value[None]):
        digest = hashlib.blake2b(f"{seed} {name} {index}".encode(), digest_size=8).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1)
        matrix.normal_(0.0, config.init_std, generator=generator)
    return value


class Size(NamedTuple):
    total: int
    active: int
    """Parameters that one token passes, embeddings included."""


def parameters(config: ModelConfig) -> Size:
    """How large the whole model is."""
    with torch.device("meta"):
        model = Dots1(config)
    total = sum(parameter.numel() for parameter in model.parameters())
    routed = sum(
        parameter.numel()
        for module in model.modules()
        if isinstance(module, RoutedExperts)
        for parameter in module.parameters()
    )
    return Size(total, total - routed + routed * config.experts_per_token // config.experts)
