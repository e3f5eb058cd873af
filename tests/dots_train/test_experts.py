"""The grouped products against a loop over experts, values and gradients."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import silu

from dots_train.experts import ExpertWeights, Routing, backend
from dots_train.experts.late import LateGradients, put_off
from dots_train.experts.plan import count, make_blocks, make_plan

ROOT = Path(__file__).resolve().parents[2]
HIDDEN, WIDTH = 16, 24


def loop(x_TD: torch.Tensor, routing: Routing, weights: ExpertWeights) -> torch.Tensor:
    y_TD = torch.zeros_like(x_TD)
    for token in range(len(x_TD)):
        for choice, expert in enumerate(routing.ids_TK[token].tolist()):
            gate, up = (weights.gate_up_EGD[expert] @ x_TD[token]).chunk(2)
            y = weights.down_EDF[expert] @ (silu(gate) * up)
            y_TD[token] = y_TD[token] + routing.weights_TK[token, choice] * y
    return y_TD


def leaves(tokens: int, experts: int, top_k: int, seed: int) -> list[torch.Tensor]:
    torch.manual_seed(seed)
    shapes = (tokens, HIDDEN), (experts, 2 * WIDTH, HIDDEN), (experts, HIDDEN, WIDTH), (tokens, top_k)
    return [torch.randn(shape).requires_grad_() for shape in shapes]


def choices(tokens: int, experts: int, top_k: int, which: str) -> torch.Tensor:
    if which == "spread":
        return torch.stack([torch.randperm(experts)[:top_k] for _ in range(tokens)])
    first = torch.arange(top_k) + (experts - top_k if which == "last experts" else 0)
    return first.repeat(tokens, 1)  # every other expert is empty


@pytest.mark.parametrize("which", ["spread", "first experts", "last experts"])
@pytest.mark.parametrize(
    ("tokens", "experts", "top_k"), [(1, 4, 1), (1, 8, 8), (7, 4, 2), (33, 8, 3), (64, 16, 6), (5, 128, 6)]
)
def test_reference_equals_a_loop_with_gradients(tokens: int, experts: int, top_k: int, which: str) -> None:
    ours, theirs = leaves(tokens, experts, top_k, 1), leaves(tokens, experts, top_k, 1)
    ids_TK = choices(tokens, experts, top_k, which)
    torch.manual_seed(2)
    weight_TD = torch.randn(tokens, HIDDEN)
    results = []
    for apply, (x, up, down, factor) in ((backend("reference"), ours), (loop, theirs)):
        y = apply(x, Routing(ids_TK, factor), ExpertWeights(up, down))
        (y * weight_TD).sum().backward()
        results.append(y.detach())
    pairs = [tuple(results), *((mine.grad, plain.grad) for mine, plain in zip(ours, theirs, strict=True))]
    for mine, plain in pairs:
        scale = plain.abs().max()
        torch.testing.assert_close(mine / scale, plain / scale, rtol=1e-5, atol=1e-5)


def test_an_expert_without_tokens_gets_a_zero_gradient() -> None:
    x, up, down, factor = leaves(9, 6, 2, 0)
    y = backend("reference")(x, Routing(choices(9, 6, 2, "first experts"), factor), ExpertWeights(up, down))
    (y * torch.randn_like(y)).sum().backward()
    assert up.grad[:2].abs().sum() > 0
    assert up.grad[2:].abs().sum() == 0
    assert down.grad[2:].abs().sum() == 0


BFLOAT16 = """
import torch
from dots_train.experts import ExpertWeights, Routing, backend

torch.manual_seed(0)
x, up, down = torch.randn(40, 16), torch.randn(8, 48, 16), torch.randn(8, 16, 24)
routing = Routing(torch.stack([torch.randperm(8)[:3] for _ in range(40)]), torch.rand(40, 3))
exact = backend("reference")(x, routing, ExpertWeights(up, down))
with torch.autocast("cpu", torch.bfloat16):
    rounded = backend("reference")(x, routing, ExpertWeights(up, down))
assert rounded.dtype == torch.float32
error = (rounded - exact).norm() / exact.norm()
assert 0 < error < 1e-2, error
"""


def test_bfloat16_under_autocast_stays_near_float32() -> None:
    """In a process of its own: some virtual machines announce AMX and die of it."""
    environment = {**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX512_CORE", "ATEN_CPU_CAPABILITY": "avx2"}
    done = subprocess.run(
        [sys.executable, "-c", BFLOAT16],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 40), st.integers(1, 12), st.integers(1, 6), st.integers(0, 2**31))
def test_plan_sorts_stably_and_inverts(tokens: int, experts: int, top_k: int, seed: int) -> None:
    ids_TK = torch.randint(experts, (tokens, top_k), generator=torch.Generator().manual_seed(seed))
    plan = make_plan(ids_TK, experts)
    flat = ids_TK.flatten()
    keys = flat[plan.slot_R] * flat.numel() + plan.slot_R
    assert (keys.diff() > 0).all()
    assert torch.equal(plan.slot_R[plan.row_R], torch.arange(flat.numel()))
    assert plan.end_E.dtype == torch.int32
    assert torch.equal(plan.end_E, torch.bincount(flat, minlength=experts).cumsum(0).int())
    assert torch.equal(count(ids_TK, experts), torch.bincount(flat, minlength=experts))


@settings(deadline=None, max_examples=60)
@given(
    st.integers(0, 40), st.integers(1, 12), st.integers(1, 6), st.sampled_from([1, 2, 16, 128]), st.integers(0, 2**31)
)
def test_blocks_hold_one_expert_each(tokens: int, experts: int, top_k: int, block: int, seed: int) -> None:
    ids_TK = torch.randint(experts, (tokens, top_k), generator=torch.Generator().manual_seed(seed))
    plan = make_blocks(ids_TK, experts, block)
    flat, used = ids_TK.flatten(), int(plan.edge_X[-1])
    assert len(plan.slot_P) == len(plan.expert_B) * block
    assert len(plan.expert_B) <= max(1, flat.numel() // block + experts)
    assert torch.equal(plan.slot_P[plan.row_TK.flatten()], torch.arange(flat.numel(), dtype=torch.int32))
    assert (plan.slot_P >= 0).sum() == flat.numel()
    assert torch.equal(plan.expert_B[plan.row_TK.flatten() // block].long(), flat)
    assert (plan.expert_B[used:] == experts).all()
    counts = torch.bincount(flat, minlength=experts)
    assert torch.equal(plan.edge_X.diff().long(), (counts + block - 1) // block)
    # Within an expert by token, and what is filled up comes last.
    assert torch.equal(plan.slot_P[plan.slot_P >= 0].long(), make_plan(ids_TK, experts).slot_R)
    filled_BM = plan.slot_P.view(-1, block) < 0
    assert (filled_BM.int().diff(dim=1) >= 0).all()


def test_an_unknown_backend_is_named() -> None:
    with pytest.raises(ValueError, match="unknown expert backend 'fusd'; there are fused, reference"):
        backend("fusd")


@pytest.mark.parametrize("which", ["spread", "first experts"])
def test_weight_gradients_that_were_put_off_have_the_same_bits(which: str) -> None:
    """Of two passes, so that they are added up in order; the input's gradient does not wait."""
    now, later = leaves(33, 8, 3, 1), leaves(33, 8, 3, 1)
    ids_TK, queue = choices(33, 8, 3, which), LateGradients()
    for x, up, down, factor in (now, later):
        with put_off(queue) if x is later[0] else nullcontext():
            outputs = [backend("reference")(x * k, Routing(ids_TK, factor), ExpertWeights(up, down)) for k in (1, 2)]
        for y in outputs:
            y.square().sum().backward()
    assert torch.equal(later[0].grad, now[0].grad) and later[1].grad is None and later[2].grad is None
    assert len(queue.waiting) == 4
    queue.run(at_most=1)
    assert later[1].grad is None and later[2].grad is not None, "the last product's comes first"
    queue.run()
    assert all(torch.equal(mine.grad, theirs.grad) for mine, theirs in zip(later, now, strict=True))


def test_no_rows_at_all() -> None:
    """What a rank computes to whose experts nobody sent a token."""
    x, up, down, factor = leaves(0, 8, 3, 1)
    y = backend("reference")(x, Routing(torch.zeros(0, 3, dtype=torch.int64), factor), ExpertWeights(up, down))
    y.sum().backward()
    assert y.shape == x.shape and up.grad.abs().sum() == 0 and down.grad.abs().sum() == 0
