"""The overlapped schedule: the same bits as torch's own, the order of its turns, how it ends when something fails."""

from __future__ import annotations

import itertools
import json
import os
import signal
import threading
import time
import traceback
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing
from hypothesis import given, settings
from hypothesis import strategies as st

from dots_data.typed_yaml import ConfigError
from dots_train.config import Layout, check_layout, differences, identity
from dots_train.experts.late import LateGradients
from dots_train.parallel import mesh
from dots_train.parallel.baton import Baton
from dots_train.parallel.pipeline import Share, engine
from tests.dots_train import overlap_cases
from tests.dots_train.conftest import CountingReader
from tests.dots_train.overlap_cases import LENGTH, MICRO, SUITE, Case


def test_the_schedules_are_equal_to_the_bit(tmp_path: Path) -> None:
    """And every group's collectives have one order on all its ranks (overlap_cases.check_order)."""
    said = overlap_cases.run(tmp_path, SUITE)
    assert said.count("Case(") == len(SUITE)


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 6), st.integers(0, 6))
def test_two_passes_take_turns_until_one_ends(first: int, second: int) -> None:
    baton, order = Baton(), []

    def steps(name: str, count: int) -> Callable[[], None]:
        def work() -> None:
            for step in range(count):
                order.append(f"{name}{step}")
                baton.gap()
            order.append(f"{name} ends")

        return work

    baton.together(steps("a", first), steps("b", second), 30)
    lines = [
        [*(f"{name}{step}" for step in range(count)), f"{name} ends"] for name, count in (("a", first), ("b", second))
    ]
    expected = [one for pair in itertools.zip_longest(*lines) for one in pair if one is not None]
    assert order == expected
    assert not any(thread.name == "second pass" for thread in threading.enumerate())


def broken_part() -> None:
    raise ValueError("a part broke")


@pytest.mark.parametrize("side", [0, 1])
@pytest.mark.parametrize("turns", [0, 1, 3])
def test_an_error_on_either_side_ends_both(side: int, turns: int) -> None:
    baton, ended = Baton(), []

    def breaks() -> None:
        for _ in range(turns):
            baton.gap()
        broken_part()

    def goes_on() -> None:
        try:
            for _ in range(100):
                baton.gap()
        except Exception:  # as the code between a pass and its gaps may have
            ended.append("swallowed")
        finally:
            ended.append("ended")

    works = (breaks, goes_on) if side == 0 else (goes_on, breaks)
    with pytest.raises(ValueError, match="a part broke") as raised:
        baton.together(*works, 30)
    assert "broken_part" in [entry.name for entry in raised.traceback]
    assert ended in (["ended"], [])  # it may not have begun
    baton.together(lambda: None, lambda: None, 30)  # and the next pair begins anew


def test_a_pass_that_keeps_its_turn_is_named() -> None:
    baton, free = Baton(), threading.Event()

    def keeps() -> None:
        free.wait(30)

    began = time.monotonic()
    with pytest.raises(TimeoutError, match=r"kept its turn for more than 0\.2 s"):
        baton.together(lambda: baton.gap(), keeps, 0.2)
    free.set()
    assert time.monotonic() - began < 10


def test_what_was_put_off_is_done_while_an_exchange_is_under_way() -> None:
    baton, done = Baton(), []
    weight = torch.zeros(3, requires_grad=True)
    baton.late = LateGradients()

    def put(number: int) -> None:
        assert baton.late is not None

        def compute() -> torch.Tensor:
            done.append(number)
            return torch.ones(3)

        baton.late.waiting.append((weight * 1, compute))

    for number in range(3):
        put(number)
    baton.gap()
    assert done == [0], "alone, each gap takes one"

    def forward() -> None:
        for _ in range(3):
            baton.gap()
            turns.append(("forward", len(done)))

    def backward() -> None:
        baton.gap()
        turns.append(("backward", len(done)))
        baton.rest()
        baton.gap()

    turns: list[tuple[str, int]] = []
    baton.together(forward, backward, 30)
    assert turns == [("forward", 2), ("backward", 2), ("forward", 2), ("forward", 3)], "beside another, backward alone"
    assert done == [0, 1, 2] and not baton.late.waiting
    assert weight.grad is not None and weight.grad.tolist() == [3.0] * 3


# Forward, backward and loss of the third micro-batch, which runs beside the backward pass of the second.
TIMEOUT = timedelta(seconds=3)


ALONE = Case(1, 1, 2, 1, (8,), False, True)


def fail_in(where: str, parts: list[Any], count: int = 3) -> None:
    """Have a part of the model raise, or wait for ever, in a pass."""
    seen = itertools.count(1)

    def in_forward() -> None:
        raise ValueError("broken in forward")

    def in_backward(gradient: torch.Tensor) -> None:
        raise ValueError("broken in backward")

    def hook(module: Any, inputs: Any, output: Any) -> None:
        if next(seen) != count:
            return
        if where == "forward":
            in_forward()
        elif where == "backward":
            output[0].register_hook(in_backward)
        elif where == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        elif where == "hung":
            time.sleep(2 * TIMEOUT.total_seconds())

    parts[0].layers["2"].register_forward_hook(hook)


def failing(rank: int, root: Path, cases: list[tuple[str, Case]]) -> None:
    torch.set_num_threads(1)
    mesh.TIMEOUT = TIMEOUT
    for where, case in cases:
        os.environ["WORLD_SIZE"] = "2"
        dist.init_process_group("gloo", f"file://{root}/meet-{where}", TIMEOUT, 2, rank)
        what = overlap_cases.job(case, "overlapped")
        ranks = mesh.connect(what.layout, torch.device("cpu"))
        parts = mesh.make_parts(what, ranks, torch.device("cpu"))
        runner = engine(parts, what, ranks, torch.device("cpu"))
        share = Share.of(CountingReader(LENGTH).batch(0, 8 * MICRO), torch.device("cpu"))
        if rank == 1 and where != "loss":
            fail_in(where, parts)
        elif rank == 1:
            share = share._replace(targets=share.targets + (torch.arange(8 * MICRO) == 2 * MICRO)[:, None] * 10_000)
        began = time.monotonic()
        try:
            runner.run(share, 1.0)
            told: dict[str, Any] = {"error": None}
        except Exception as error:
            told = {"error": type(error).__name__, "first": ranks.first_failure(error)}
            told["traceback"] = traceback.format_exc()
        told["seconds"] = time.monotonic() - began
        (root / f"{where}-{rank}.json").write_text(json.dumps(told))
        del runner, parts
        dist.destroy_process_group()


FAILURES = {
    "forward": ALONE,
    "backward": ALONE,
    "loss": ALONE,
    "hung": Case(2, 2, 1, 1, (8,), False, False),
    "killed": ALONE,
}


def test_every_rank_ends_and_names_what_failed_first(tmp_path: Path) -> None:
    context = multiprocessing.spawn(failing, (tmp_path, [*FAILURES.items()]), nprocs=2, join=False)
    try:
        context.processes[0].join(120)
    finally:
        for process in context.processes:
            process.kill()
    for where in FAILURES:
        told = json.loads((tmp_path / f"{where}-0.json").read_text())
        assert told["error"], f"{where}: rank 0 did not notice"
        assert told["seconds"] < 4 * TIMEOUT.total_seconds(), (where, told)
        if where in ("killed", "hung"):
            continue
        other = json.loads((tmp_path / f"{where}-1.json").read_text())
        cause = {"loss": "out of bounds"}.get(where, f"broken in {where}")
        assert cause in told["first"] and told["first"].startswith("rank 1: "), (where, told)
        assert cause in other["traceback"] and other["first"] is None, (where, other)
        if where != "loss":
            assert f"in_{where}" in other["traceback"], "the original traceback"


@pytest.mark.parametrize(
    ("layout", "changes", "message"),
    [
        ({"dp_shard": 2}, {}, "there is none: ep is 1; leave schedule out"),
        (
            {"dp_shard": 2, "ep": 2},
            {"micro_batch": 16},
            "gives each rank 1 micro-batch, and schedule overlapped needs two",
        ),
        (
            {"dp_shard": 2, "ep": 2},
            {"micro_batch": 5},
            "among 2 data-parallel ranks in micro-batches of 5",
        ),
    ],
)
def test_what_cannot_be_overlapped_is_one_sentence(
    layout: dict[str, int], changes: dict[str, Any], message: str
) -> None:
    what = overlap_cases.job(ALONE, "overlapped", **{**changes, "layout": {**layout, "schedule": "overlapped"}})
    with pytest.raises(ConfigError, match=message):
        check_layout(what, what.layout, what.layout.world)


def test_a_pipeline_needs_several_parts_a_rank() -> None:
    with pytest.raises(ValueError, match="needs several parts on each of the pp 2 ranks of the pipeline: set vpp"):
        Layout(pp=2, dp_shard=2, ep=2, schedule="overlapped")


def test_a_run_may_change_its_schedule_on_the_way() -> None:
    jobs = [overlap_cases.job(ALONE, schedule) for schedule in ("1f1b", "overlapped")]
    assert not differences(identity(jobs[0]), identity(jobs[1]))
