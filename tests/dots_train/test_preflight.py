"""Schedules without processes: what may run, how long it takes, what it holds; and what is refused.

python -m tests.dots_train.test_preflight     every P to 16, V to 4, M to 64 that divides, not a sample of them
"""

from __future__ import annotations

import itertools
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.distributed.pipelining.schedules import FORWARD, OVERLAP_F_B, RECV_F, SEND_B

from dots_data import cli
from dots_train.config import Layout
from dots_train.cost import in_flight
from dots_train.parallel.preflight import (
    SCHEDULES,
    V_SHAPED,
    Costs,
    ScheduleError,
    alone,
    check,
    computed,
    lowered,
    made,
    passes,
    simulate,
    together,
)
from dots_train.parallel.schedule import rank_actions

SHAPES = [(ranks, parts, count) for ranks in range(2, 17) for parts in range(1, 5) for count in range(ranks, 65, ranks)]


def same_as_plain(ranks: int, parts: int, micro_batches: int) -> None:
    plain = computed(ranks, parts, micro_batches, extra=0, pairs=False)
    ours = computed(ranks, parts, micro_batches)
    first, second = (simulate(orders, ranks * parts, Costs()) for orders in (plain, ours))
    assert second.makespan == pytest.approx(first.makespan, rel=1e-12)
    assert first.peak == second.peak
    assert first.makespan == pytest.approx(3 * (micro_batches * parts + ranks - 1)), "the bubble of interleaved 1F1B"


@settings(deadline=None, max_examples=25)
@given(st.sampled_from(SHAPES))
def test_one_pass_more_and_pairs_cost_neither_time_nor_memory(shape: tuple[int, int, int]) -> None:
    same_as_plain(*shape)


@settings(deadline=None, max_examples=10)
@given(st.sampled_from([shape for shape in SHAPES if shape[1] > 1 and shape[0] * shape[2] <= 256]))
def test_the_schedule_that_runs_is_right(shape: tuple[int, int, int]) -> None:
    """As torch lowers it: independent pairs, nothing that waits for ever, each pass once."""
    ranks, parts, micro_batches = shape
    orders = lowered("overlapped", *shape)
    check(orders, ranks * parts)
    for rank, actions in orders.items():
        done = [one for action in actions for one in passes(action)]
        assert len(done) == len(set(done)) == 2 * parts * micro_batches
        assert {one.stage_index % ranks for one in done} == {rank}
        assert max(simulate(orders, ranks * parts, Costs()).peak.values()) == in_flight(
            Layout(pp=ranks, vpp=parts), 0, micro_batches
        )


@pytest.mark.parametrize("shape", [(2, 2, 8), (4, 3, 12), (3, 2, 4), (4, 1, 8)])
def test_without_the_longer_warm_up_it_is_torchs_own(shape: tuple[int, int, int]) -> None:
    theirs = made("interleaved 1F1B", *shape).pipeline_order
    for rank, actions in theirs.items():
        assert [one for one in actions if one is not None] == rank_actions(rank, *shape, extra=0, pairs=False)


@pytest.mark.parametrize(("ranks", "parts", "micro_batches"), [(2, 2, 4), (4, 2, 8), (8, 4, 16), (1, 1, 4)])
def test_pairs_without_the_longer_warm_up_are_refused(ranks: int, parts: int, micro_batches: int) -> None:
    orders = computed(ranks, parts, micro_batches, extra=0)
    message = "together, and the one waits for the other: the warm-up must be one forward pass longer"
    with pytest.raises(
        ScheduleError, match=f"rank {ranks - 1} would run the forward and the backward pass .*{message}"
    ):
        check(orders, ranks * parts)
    with pytest.raises(ScheduleError, match="the ranks wait for each other for ever"):
        simulate(orders, ranks * parts, Costs())


def test_alone_it_is_forward_pairs_backward() -> None:
    kinds = [len(action.sub_actions or (action,)) for action in rank_actions(0, 1, 1, 4)]
    assert kinds == [1, 2, 2, 2, 1]
    with_pairs = rank_actions(0, 1, 1, 2)[1]
    assert with_pairs.computation_type == OVERLAP_F_B and repr(with_pairs) == "(0F1;0B0)OVERLAP_F_B"


def test_messages_that_pass_each_other_in_another_order_are_refused() -> None:
    orders = {rank: list(actions) for rank, actions in lowered("overlapped", 2, 2, 4).items()}
    places = [at for at, action in enumerate(orders[1]) if action.computation_type == RECV_F][:2]
    first, second = places
    orders[1][first], orders[1][second] = orders[1][second], orders[1][first]
    with pytest.raises(ScheduleError, match="the messages wait for each other for ever: rank 0 before"):
        check(orders, 4)
    missing = {0: orders[0], 1: [action for action in orders[1] if action.computation_type != SEND_B]}
    with pytest.raises(ScheduleError, match="the messages wait"):
        check(missing, 4)


def test_a_pair_hides_what_fits_beside_its_computation() -> None:
    forward, backward = rank_actions(0, 1, 1, 4)[1].sub_actions or ()
    for attention, experts, exchange in itertools.product((1.0, 2.0), (1.0, 3.0), (0.0, 0.5, 1.0)):
        costs = Costs(attention, experts, exchange, layers=(4,))
        length, exposed = together(costs, (forward, backward))
        assert length - exposed == pytest.approx(12 * (attention + experts)), "nothing is computed twice or left out"
        assert exposed <= 3 * exchange, "what stands at the ends of a pair, where the partner has ended or not begun"
        plain = sum(alone(costs, one, late=False)[0] for one in (forward, backward))
        assert plain == pytest.approx(12 * (attention + experts) + 16 * exchange)
    slow = together(Costs(1.0, 1.0, 100.0, layers=(4,)), (forward, backward))[0]
    assert slow >= 1600, "a wire carries one exchange at a time"


@pytest.mark.parametrize("name", SCHEDULES)
def test_every_schedule_is_played_to_its_end(name: str) -> None:
    parts = 2
    orders = lowered(name, 4, parts, 32)
    result = simulate(orders, 8, Costs(1.0, 1.0, 0.1))
    ideal = 32 * parts * (2 * 3 + 4 * 0.1)
    assert all(result.busy[rank] == pytest.approx(32 * parts * 6) for rank in range(4))
    assert result.makespan < 1.4 * ideal and 0 < result.bubble < 0.4
    assert (max(result.peak.values()) <= 9) == (name in V_SHAPED or "zero" in name)
    if name in ("overlapped", "DualPipeV"):
        assert result.waiting < 0.4 * 32 * parts * 0.4 / result.makespan
    first = orders[0][[a.computation_type for a in orders[0]].index(FORWARD)]
    assert result.bars[0][0].passes == (first,)


def test_the_command_compares_and_draws(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    layout = "pp=4,vpp=2,dp_shard=512,ep=16,schedule=overlapped"
    options = ["plan", "dots1", "--layout", layout, "--set", "curriculum.batch_multiple=8192"]
    assert cli.main([*options, "--schedule", str(tmp_path / "pipeline.svg")]) == 0
    said = capsys.readouterr().out
    assert "a step of 16 micro-batches a rank" in said and "overlapped: checked" in said
    assert all(name in said for name in SCHEDULES)
    picture = ET.parse(tmp_path / "pipeline.svg").getroot()
    assert sum(1 for text in picture.iter("{http://www.w3.org/2000/svg}text") if text.text == "rank 3") == len(
        SCHEDULES
    )
    assert cli.main(["plan", "dots1", "--schedule"]) == 2
    assert "pp is 1: give --layout" in capsys.readouterr().err


if __name__ == "__main__":
    for shape in SHAPES:
        same_as_plain(*shape)
    print(f"{len(SHAPES)} shapes: equal makespan and peak")
