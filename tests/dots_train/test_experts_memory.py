"""What the experts' backends keep and need at most: docs/experts.md has the figures.

Without Triton's interpreter: the fused backend's kernels are left out, its tensors are those of a real pass.
"""

from __future__ import annotations

from itertools import accumulate
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from dots_train.experts import ExpertWeights, Routing, backend
from dots_train.experts.plan import make_blocks

fused = pytest.importorskip("dots_train.experts.fused", reason="triton is not installed")

TOKENS, TOP_K, EXPERTS = 1024, 6, 16
HIDDEN, WIDTH = 512, 176  # 32 to 11, as in dots.llm1
ROWS = TOKENS * TOP_K
HALF = 2  # bytes of bfloat16


@pytest.fixture(autouse=True)
def no_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    class Nothing:
        def __getitem__(self, grid: Any) -> Any:
            assert all(size > 0 for size in grid)
            return lambda *arguments, **options: None

    for name in [name for name in vars(fused.kernels) if name.endswith("_kernel")]:
        monkeypatch.setattr(fused.kernels, name, Nothing())
    monkeypatch.setattr(fused, "INTERPRETED", True)


def inputs() -> tuple[list[Tensor], Tensor]:
    """x, routing weights, both weights; choices."""
    torch.manual_seed(0)
    shapes = (TOKENS, HIDDEN), (TOKENS, TOP_K), (EXPERTS, 2 * WIDTH, HIDDEN), (EXPERTS, HIDDEN, WIDTH)
    types = (torch.bfloat16, torch.float32, torch.bfloat16, torch.bfloat16)
    made = [torch.randn(shape).to(dtype).requires_grad_() for shape, dtype in zip(shapes, types, strict=True)]
    return made, torch.rand(TOKENS, EXPERTS).argsort(1)[:, :TOP_K].contiguous()


def output(name: str, made: list[Tensor], ids_TK: Tensor) -> Tensor:
    x, factor, gate_up, down = made
    return backend(name)(x, Routing(ids_TK, factor), ExpertWeights(gate_up, down))


def saved(name: str, made: list[Tensor], ids_TK: Tensor) -> int:
    """Bytes that a forward pass keeps for the backward pass beside its inputs, each storage once."""
    storages = {}

    def note(tensor: Tensor) -> Tensor:
        storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        y = output(name, made, ids_TK)
    assert y.grad_fn is not None
    given = {one.untyped_storage().data_ptr() for one in (*made, ids_TK)}
    return sum(size for where, size in storages.items() if where not in given)


def peak(name: str, made: list[Tensor], ids_TK: Tensor) -> int:
    """Bytes that both passes need at most beside their inputs, by what the profiler sees of the allocator."""
    grad = torch.randn_like(made[0])
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        y = output(name, made, ids_TK)
        results = torch.autograd.grad(y, made, grad)
    assert len(results) == 4
    assert seen.profiler is not None
    assert seen.profiler.kineto_results is not None
    events = [one for one in seen.profiler.kineto_results.events() if one.name() == "[memory]"]
    changes = sorted((one.start_ns(), one.nbytes()) for one in events)
    return max(accumulate(size for _, size in changes))


def padded() -> tuple[int, int]:
    """Rows with those that fill up blocks, and blocks."""
    plan = make_blocks(inputs()[1], EXPERTS, 128)
    return len(plan.slot_P), len(plan.expert_B)


def test_what_is_kept() -> None:
    rows, blocks = padded()
    made, ids_TK = inputs()
    ours = rows * 2 * WIDTH * HALF + 4 * (rows + ROWS + blocks + EXPERTS + 1)
    assert saved("fused", made, ids_TK) == ours
    # Of each row x, gate and up, silu(gate), the activation and y; and its plan.
    theirs = ROWS * (2 * HIDDEN + 4 * WIDTH) * HALF + 16 * ROWS + 4 * EXPERTS
    assert saved("reference", made, ids_TK) == theirs


def test_what_is_kept_under_autocast() -> None:
    """Copies of the weights are not."""
    made, ids_TK = inputs()
    plain = saved("fused", made, ids_TK)
    made = [one.detach().float().requires_grad_() for one in made]
    copies = HALF * sum(one.numel() for one in made[2:])
    theirs = ROWS * (2 * HIDDEN + 4 * WIDTH) * HALF
    with torch.autocast("cpu", torch.bfloat16):
        assert saved("fused", made, ids_TK) == plain
        assert saved("reference", made, ids_TK) >= theirs + copies


def test_what_is_needed_at_most() -> None:
    rows, _ = padded()
    made, ids_TK = inputs()
    ours, theirs = (peak(name, made, ids_TK) for name in ("fused", "reference"))
    # The most is at the end: pre-activation, its gradient and x of each row; y, and the gradients of x and the weights.
    elements = rows * (2 * WIDTH + 2 * WIDTH + HIDDEN) + 2 * TOKENS * HIDDEN + 3 * EXPERTS * HIDDEN * WIDTH
    print(f"bytes a row: {ours / ROWS:,.0f} fused, {theirs / ROWS:,.0f} reference")
    assert elements * HALF <= ours < 1.05 * elements * HALF
    assert ours < 0.6 * theirs
