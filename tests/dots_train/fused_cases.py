"""The fused experts in Triton's interpreter, against a loop in float64. test_fused.py runs this file in a process of
its own, since what interprets must be told so before Triton is imported:

    TRITON_INTERPRET=1 python -m pytest tests/dots_train/fused_cases.py
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from random import SystemRandom

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.functional import silu

from dots_data.typed_yaml import build
from dots_train.config import Job
from dots_train.curriculum import Curriculum
from dots_train.experts import ExpertWeights, Routing, backend, fused, late
from dots_train.experts.interpreter import rounded, widened
from dots_train.experts.plan import make_blocks
from dots_train.experts.tiles import Tile, Tiles
from dots_train.parallel.dispatch import dispatched
from dots_train.trainer import Trainer
from tests.dots_train.conftest import CountingReader

SQUARE = Tile(16, 16, 16, group=2)
SMALL = Tiles(*[SQUARE] * 6)
COARSE = Tiles(*[Tile(16, 32, 64, group=2)] * 4, *[Tile(64, 32, 16, group=1)] * 2)
# Columns of other widths than rows, sums in other steps than rows: whoever mixes them up is found.
UNEVEN = Tiles(
    up=Tile(32, 16, 8, group=1),
    down=Tile(32, 16, 16, group=3),
    down_dgrad=Tile(32, 8, 32),
    up_dgrad=Tile(32, 64, 8),
    up_wgrad=Tile(16, 32, 32),
    down_wgrad=Tile(32, 8, 16, group=1),
)
HIDDEN, WIDTH = 40, 24
ERROR = {torch.float32: 1e-5, torch.bfloat16: 1e-2}


@pytest.fixture(autouse=True)
def poisoned() -> Iterator[None]:
    """Fresh memory is NaN: what is read before it is written, or never written, shows."""
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = True  # type: ignore[attr-defined]
    assert torch.empty(3).isnan().all()
    yield
    torch.use_deterministic_algorithms(False)


def exact(x_TD: Tensor, routing: Routing, weights: ExpertWeights) -> Tensor:
    """Each expert by itself, in float64."""
    y_TD = torch.zeros_like(x_TD)
    for expert in range(len(weights.down_EDF)):
        token, choice = (routing.ids_TK == expert).nonzero(as_tuple=True)
        gate, up = (x_TD[token] @ weights.gate_up_EGD[expert].T).chunk(2, dim=-1)
        y = (silu(gate) * up) @ weights.down_EDF[expert].T
        y_TD = y_TD.index_add(0, token, y * routing.weights_TK[token, choice, None])
    return y_TD


def leaves(tokens: int, experts: int, top_k: int, dtype: torch.dtype, seed: int) -> list[Tensor]:
    """x, routing weights, both weights."""
    make = torch.Generator().manual_seed(seed)
    shapes = (tokens, HIDDEN), (tokens, top_k), (experts, 2 * WIDTH, HIDDEN), (experts, HIDDEN, WIDTH)
    drawn = [torch.randn(shape, generator=make) / (shape[-1] ** 0.5 if len(shape) == 3 else 1) for shape in shapes]
    return [one.to(torch.float32 if place == 1 else dtype).requires_grad_() for place, one in enumerate(drawn)]


def spread(tokens: int, experts: int, top_k: int) -> Tensor:
    return torch.rand(tokens, experts).argsort(1)[:, :top_k]


def sizes(*rows: int) -> Tensor:
    """One choice a token; expert e gets rows[e] of them, mixed."""
    ids = torch.repeat_interleave(torch.arange(len(rows)), torch.tensor(rows))
    return ids[torch.randperm(len(ids))][:, None]


def results(
    apply: Callable[..., Tensor], inputs: list[Tensor], ids_TK: Tensor, grad_TD: Tensor, **options: object
) -> list[Tensor]:
    """The output and the gradient of every input."""
    inputs = [one.detach().requires_grad_() for one in inputs]
    x, factor, gate_up, down = inputs
    y = apply(x, Routing(ids_TK, factor), ExpertWeights(gate_up, down), **options)
    y.backward(grad_TD.to(y.dtype))
    return [y.detach(), *(one.grad for one in inputs)]  # type: ignore[misc]


def error(found: Tensor, wanted: Tensor) -> float:
    distance = (found.double() - wanted.double()).norm() / wanted.double().norm().clamp(min=1e-30)
    return float(distance)  # NaN where one of them is not finite, which is less than nothing


CASES = {
    **{f"top {k} of 8": (lambda k=k: spread(7, 8, k), 8) for k in range(1, 9)},
    "one token": (lambda: spread(1, 4, 2), 4),
    "one token, one expert": (lambda: sizes(1), 1),
    "all tokens to one expert": (lambda: torch.full((35, 1), 2), 5),
    "empty experts, first and last too": (lambda: sizes(0, 7, 0, 0, 20, 0), 6),
    "around a block": (lambda: sizes(15, 16, 17, 31, 32, 33, 1), 7),
    "whole blocks": (lambda: sizes(32, 64, 32), 3),
    "many experts": (lambda: spread(2, 24, 4), 24),
}


@pytest.mark.parametrize(
    ("case", "dtype"),
    # Half of the top k in bfloat16 are enough.
    [(case, dtype) for dtype in ERROR for case in CASES if dtype == torch.float32 or case[4:5] not in "2457"],
    ids=str,
)
def test_output_and_all_gradients(case: str, dtype: torch.dtype) -> None:
    make, experts = CASES[case]
    seed = SystemRandom().randrange(1 << 31)  # fresh inputs each time; one that fails is named
    torch.manual_seed(seed)
    ids_TK = make()
    inputs = leaves(len(ids_TK), experts, ids_TK.shape[1], dtype, seed)
    doubles = [one.double() for one in inputs]
    # Along the output too: else the routing weights' gradient is a sum that may cancel, where errors look large.
    y_TD = exact(doubles[0], Routing(ids_TK, doubles[1]), ExpertWeights(*doubles[2:])).detach()
    grad_TD = (y_TD + y_TD.std() * torch.randn(y_TD.shape)).to(dtype)
    wanted = results(exact, doubles, ids_TK, grad_TD)
    tiles = {"around a block": UNEVEN, "top 3 of 8": UNEVEN, "top 2 of 8": SMALL}.get(case, COARSE)
    found = results(fused.experts, inputs, ids_TK, grad_TD, tiles=tiles)
    for name, mine, true in zip(("y", "x", "routing", "gate and up", "down"), found, wanted, strict=True):
        assert error(mine, true) < ERROR[dtype], (name, f"seed {seed}")
    empty_E = torch.bincount(ids_TK.flatten(), minlength=experts) == 0
    assert not any(one[empty_E].any() for one in found[3:])


def ready(dtype: torch.dtype = torch.float32, ids_TK: Tensor | None = None) -> tuple[list[Tensor], Tensor, Tensor]:
    """Inputs, choices of 5 experts, the gradient of the output."""
    torch.manual_seed(0)
    ids_TK = spread(7, 5, 2) if ids_TK is None else ids_TK
    return leaves(len(ids_TK), 5, ids_TK.shape[1], dtype, 0), ids_TK, torch.randn(len(ids_TK), HIDDEN)


def same(one: list[Tensor], other: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("programs", [1, 1000])
def test_the_same_bits_whoever_does_the_work(programs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    inputs, ids_TK, grad_TD = ready(torch.bfloat16)
    first = results(fused.experts, inputs, ids_TK, grad_TD, tiles=SMALL)
    monkeypatch.setattr(fused, "_multiprocessors", lambda device: programs)
    assert same(first, results(fused.experts, inputs, ids_TK, grad_TD, tiles=SMALL))


def strided(tensor: Tensor) -> Tensor:
    """The same numbers with a gap behind each, and the first dimension innermost."""
    holder = tensor.new_empty(*tensor.shape[1:], len(tensor), 2)
    view = holder[..., 0].movedim(-1, 0)
    return view.copy_(tensor)


def test_strides_change_nothing() -> None:
    inputs, ids_TK, grad_TD = ready()
    plain = results(fused.experts, inputs, ids_TK, grad_TD, tiles=SMALL)
    odd = [strided(one.detach()) for one in inputs]
    assert not any(one.is_contiguous() for one in odd)
    assert same(plain, results(fused.experts, odd, strided(ids_TK), strided(grad_TD), tiles=SMALL))


def test_a_gradient_without_strides() -> None:
    inputs, ids_TK, _ = ready()
    one = torch.ones(1, 1)
    spread_out = results(fused.experts, inputs, ids_TK, one.expand(7, HIDDEN), tiles=SMALL)
    assert same(spread_out, results(fused.experts, inputs, ids_TK, one.repeat(7, HIDDEN), tiles=SMALL))


@pytest.mark.parametrize("dtype", ERROR, ids=str)
def test_the_same_as_the_reference_under_autocast(dtype: torch.dtype) -> None:
    inputs, ids_TK, grad_TD = ready()
    with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
        found = results(fused.experts, inputs, ids_TK, grad_TD)  # by the tiles of the table
        wanted = results(backend("reference"), inputs, ids_TK, grad_TD)
    assert [one.dtype for one in found] == [torch.float32] * 5
    assert all(error(mine, theirs) < ERROR[dtype] for mine, theirs in zip(found, wanted, strict=True))
    if dtype == torch.bfloat16:
        # Sums of float32 weights' gradients are not rounded on the way: few of them are numbers of bfloat16.
        assert (found[4] == found[4].bfloat16()).float().mean() < 0.5


@pytest.mark.parametrize("needed", [{0}, {1}, {2}, {3}, {1, 3}], ids=str)
def test_only_what_is_asked_for(needed: set[int]) -> None:
    inputs, ids_TK, grad_TD = ready()
    whole = results(fused.experts, inputs, ids_TK, grad_TD, tiles=SMALL)[1:]
    inputs = [one.detach().requires_grad_(place in needed) for place, one in enumerate(inputs)]
    x, factor, gate_up, down = inputs
    y = fused.experts(x, Routing(ids_TK, factor), ExpertWeights(gate_up, down), SMALL)
    y.backward(grad_TD)
    for place, one in enumerate(inputs):
        assert one.grad is None if place not in needed else torch.equal(one.grad, whole[place])  # type: ignore[arg-type]


def test_late_gradients_are_those_at_once() -> None:
    """Two micro-batches of one weight, which are added up in the order of their backward passes."""
    inputs, ids_TK, grad_TD = ready(torch.bfloat16)

    def both(queue: late.LateGradients | None) -> list[Tensor]:
        x, factor, gate_up, down = (one.detach().requires_grad_() for one in inputs)
        ys = []
        with late.put_off(queue) if queue else nullcontext():
            for scale in (1, -2):
                # Something lies between a weight and its parameter: a cast, a view.
                weights = ExpertWeights(gate_up.float(), down.view_as(down))
                ys.append(fused.experts(scale * x, Routing(ids_TK, factor), weights, SMALL))
        for y in ys:
            y.backward(grad_TD.to(y.dtype))
        if queue:
            assert gate_up.grad is None
            assert down.grad is None
            assert len(queue.waiting) == 4
            queue.run()
        return [x.grad, factor.grad, gate_up.grad, down.grad]  # type: ignore[list-item]

    assert same(both(None), both(late.LateGradients()))


@pytest.mark.parametrize("top_k", [1, 3])
def test_no_tokens_at_all(top_k: int) -> None:
    ids_TK = torch.empty(0, top_k, dtype=torch.int64)
    inputs, _, grad_TD = ready(ids_TK=ids_TK)
    found = results(fused.experts, inputs, ids_TK, grad_TD, tiles=SMALL)
    assert [one.shape for one in found] == [(0, HIDDEN), *(one.shape for one in inputs)]
    assert not any(one.any() for one in found[3:])


def test_under_expert_parallelism() -> None:
    """One choice a row and rows in the order of their arrival; a group of one rank, which needs no other process."""
    inputs, ids_TK, grad_TD = ready()
    alone = partial(fused.experts, tiles=SMALL)
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        group = dist.group.WORLD
        assert group is not None
        found = results(dispatched(alone, group), inputs, ids_TK, grad_TD)
    finally:
        dist.destroy_process_group()
    wanted = results(alone, inputs, ids_TK, grad_TD)
    assert all(error(mine, theirs) < 1e-5 for mine, theirs in zip(found, wanted, strict=True))


def test_a_weight_gradient_added_to_another() -> None:
    _, ids_TK, _ = ready()
    plan = make_blocks(ids_TK, 5, 16)
    left, right = (torch.randn(len(plan.slot_P), width).bfloat16() for width in (WIDTH, HIDDEN))
    like = torch.empty(5, WIDTH, HIDDEN)
    alone = fused.weight_gradient(left, right, plan, 16, SQUARE, like)
    held = torch.randn_like(like)
    wanted = held + alone
    assert fused.weight_gradient(left, right, plan, 16, SQUARE, like, into=held) is held
    assert torch.equal(held, wanted)


def test_the_interpreter_rounds_as_torch_does() -> None:
    every = torch.arange(1 << 16, dtype=torch.int32).to(torch.uint16)
    floats = torch.from_numpy(widened(every.numpy()))
    assert torch.equal(floats.nan_to_num(), every.view(torch.bfloat16).float().nan_to_num())
    beside = torch.cat([floats * factor for factor in (1, 1.001, 1.002, 1.00390625, 1.01171875)])
    mine = torch.from_numpy(rounded(beside.numpy())).view(torch.bfloat16)
    assert torch.equal(mine.float().nan_to_num(), beside.bfloat16().float().nan_to_num())


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_run_learns_the_same(
    job: Job, reader: CountingReader, tmp_path: Path, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    monkeypatch.setattr(fused, "tiles_for", lambda experts, rows: asked.append(rows) or COARSE)
    first = [{"until": 192, "learning_rate": 0.01, "batch": 32}]
    curriculum = build(Curriculum, {"warmup_steps": 0, "phases": first}, "test")
    losses = {}
    for name in ("reference", "fused"):
        one = dataclasses.replace(job, experts=name, output=str(tmp_path / name), curriculum=curriculum)
        trainer = Trainer(dataclasses.replace(one, precision=precision), reader, log=pytest.fail)  # type: ignore[arg-type]
        seen: list[float] = []
        trainer.run(lambda record, seen=seen: seen.append(record.loss))  # type: ignore[misc]
        losses[name] = torch.tensor(seen)
    assert len(losses["fused"]) == 6
    assert losses["fused"][-1] < losses["fused"][0] - 0.1
    apart = (losses["fused"] - losses["reference"]).abs().max()
    assert asked  # one run was of the fused experts
    assert apart < (1e-4 if precision == "float32" else 2e-2)
