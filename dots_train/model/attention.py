"""Multi-head attention over packed documents: normalised queries and keys, rotary positions, document masks.

Shapes: B windows, S positions, T = B*S, D hidden, H heads, K head size, N documents.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.attention.varlen import varlen_attn
from torch.nn.functional import scaled_dot_product_attention


class Rotary(NamedTuple):
    """cos and sin of each position's angles, float32 [B, S, 1, K/2]."""

    cos: Tensor
    sin: Tensor


def rotary(position_BS: Tensor, head_dim: int, theta: float) -> Rotary:
    """Angles position * theta^(-2i/K); computed in float32, which holds positions exactly up to 16M."""
    exponent = torch.arange(0, head_dim, 2, device=position_BS.device, dtype=torch.float32) / head_dim
    angle = position_BS[:, :, None, None].float() * theta**-exponent
    return Rotary(angle.cos(), angle.sin())


def rotate(x_BSHK: Tensor, angles: Rotary) -> Tensor:
    """Turn the pairs (i, i + K/2): the layout of transformers, so released weights need no permutation."""
    cos, sin = angles.cos.to(x_BSHK.dtype), angles.sin.to(x_BSHK.dtype)
    first, second = x_BSHK.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


class Documents(NamedTuple):
    """The documents of all windows, one window behind the other, as kernels for sequences of any length want them."""

    start_N: Tensor
    """int32 [N + 1]: where each begins; the last number is T."""
    longest: int


Mask = Tensor | Documents | None


def document_mask(document_BS: Tensor, device: torch.device) -> Mask:
    """Which positions see each other: only those of one document, and none that is ahead.

    None where every window is one document: causality alone is then enough. In half precision on a GPU the documents'
    borders, for FlashAttention, whose work is that of the documents alone; elsewhere a table, bool [B, 1, S, S].

    `document_BS` should lie on the CPU: it is looked at, and nobody should wait for a GPU.
    """
    if bool((document_BS == document_BS[:, :1]).all()):
        return None
    if device.type == "cuda" and torch.is_autocast_enabled("cuda"):
        return documents(document_BS, device)
    length = document_BS.shape[1]
    same = document_BS[:, :, None] == document_BS[:, None, :]
    seen = torch.ones(length, length, dtype=torch.bool, device=document_BS.device).tril().logical_and(same)
    return seen[:, None].to(device)


def documents(document_BS: Tensor, device: torch.device) -> Documents:
    """The borders of documents, those of windows among them."""
    begins = torch.ones_like(document_BS, dtype=torch.bool)
    begins[:, 1:] = document_BS[:, 1:] != document_BS[:, :-1]
    start_N = torch.cat([begins.flatten().nonzero().flatten(), torch.tensor([begins.numel()])]).to(torch.int32)
    return Documents(start_N.to(device, non_blocking=True), int(start_N.diff().max()))


class Attention(nn.Module):
    """Every head has its own keys and values. RMSNorm of queries and keys comes before the rotation."""

    def __init__(self, hidden: int, heads: int, head_dim: int, eps: float):
        super().__init__()
        self.head_dim = head_dim
        self.q_proj = nn.Linear(hidden, heads * head_dim, bias=False)
        self.k_proj = nn.Linear(hidden, heads * head_dim, bias=False)
        self.v_proj = nn.Linear(hidden, heads * head_dim, bias=False)
        self.o_proj = nn.Linear(heads * head_dim, hidden, bias=False)
        self.q_norm = nn.RMSNorm(head_dim, eps)
        self.k_norm = nn.RMSNorm(head_dim, eps)

    def forward(self, x_BSD: Tensor, angles: Rotary, mask: Mask) -> Tensor:
        q_BSHK, k_BSHK, v_BSHK = (
            project(x_BSD).unflatten(-1, (-1, self.head_dim)) for project in (self.q_proj, self.k_proj, self.v_proj)
        )
        q_BSHK = rotate(self.q_norm(q_BSHK), angles).to(v_BSHK.dtype)
        k_BSHK = rotate(self.k_norm(k_BSHK), angles).to(v_BSHK.dtype)
        y_BSHK = attend(q_BSHK, k_BSHK, v_BSHK, mask)
        out_BSD: Tensor = self.o_proj(y_BSHK.flatten(-2))
        return out_BSD


def attend(q_BSHK: Tensor, k_BSHK: Tensor, v_BSHK: Tensor, mask: Mask) -> Tensor:
    """Causal attention, [B, S, H, K]."""
    if isinstance(mask, Documents):
        q_THK, k_THK, v_THK = (x.flatten(0, 1) for x in (q_BSHK, k_BSHK, v_BSHK))
        borders, longest = (mask.start_N, mask.start_N), (mask.longest, mask.longest)
        y_THK = varlen_attn(q_THK, k_THK, v_THK, *borders, *longest, window_size=(-1, 0))
        assert isinstance(y_THK, Tensor)
        return y_THK.view_as(q_BSHK)
    q_BHSK, k_BHSK, v_BHSK = (x.transpose(1, 2) for x in (q_BSHK, k_BSHK, v_BSHK))
    y_BHSK = scaled_dot_product_attention(q_BHSK, k_BHSK, v_BHSK, attn_mask=mask, is_causal=mask is None)
    return y_BHSK.transpose(1, 2)
