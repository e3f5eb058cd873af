"""A pipeline's schedule before it runs, without processes: is it right, can it hang, how long does a step take?

`lowered` gives the actions of every rank as the schedule's own class makes them, with sends and receives; `check`
refuses a schedule that cannot run; `simulate` plays it with given times. A rank computes one thing at a time and sends
one all-to-all at a time; a message between stages takes its time and hinders nobody.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, NamedTuple

from torch.distributed.pipelining import schedules as torch_schedules
from torch.distributed.pipelining.schedules import (
    BACKWARD_INPUT,
    BACKWARD_WEIGHT,
    FORWARD,
    FULL_BACKWARD,
    RECV_B,
    RECV_F,
    SEND_B,
    SEND_F,
    _Action,
)

from dots_train.parallel.schedule import Overlapped1F1B, rank_actions

Orders = Mapping[int, Sequence[_Action]]

SCHEDULES: dict[str, Callable[..., Any]] = {
    "interleaved 1F1B": torch_schedules.ScheduleInterleaved1F1B,
    "overlapped": Overlapped1F1B,
    "interleaved zero bubble": torch_schedules.ScheduleInterleavedZeroBubble,
    "ZB-V": torch_schedules.ScheduleZBVZeroBubble,
    "DualPipeV": torch_schedules.ScheduleDualPipeV,
}
V_SHAPED = ("ZB-V", "DualPipeV")
"""Two parts a rank, the second of which goes back through the ranks: the last rank hands its own on to itself."""

_COMPUTES = (FORWARD, FULL_BACKWARD, BACKWARD_INPUT, BACKWARD_WEIGHT)
_BACKWARD = (FULL_BACKWARD, BACKWARD_INPUT)


class ScheduleError(ValueError):
    """A schedule that cannot run, in one sentence."""


def made(name: str, ranks: int, parts: int, micro_batches: int) -> Any:
    """The schedule's own object, on stages that hold nothing: its actions before and after lowering."""
    stages = [
        SimpleNamespace(group_size=ranks, group_rank=0, num_stages=ranks * parts, stage_index=part * ranks, submod=None)
        for part in range(parts)
    ]
    return SCHEDULES[name](stages, micro_batches)


def lowered(name: str, ranks: int, parts: int, micro_batches: int) -> Orders:
    """Every rank's actions with their sends and receives, as torch's runtime would carry them out."""
    orders: Orders = made(name, ranks, parts, micro_batches).pipeline_order_with_comms
    return orders


def computed(ranks: int, parts: int, micro_batches: int, extra: int = 1, pairs: bool = True) -> Orders:
    """What every rank computes under the overlapped schedule, or a variant of it (schedule.rank_actions)."""
    return {rank: rank_actions(rank, ranks, parts, micro_batches, extra, pairs) for rank in range(ranks)}


def passes(action: _Action) -> tuple[_Action, ...]:
    """What an action computes: one pass, two together, or none."""
    return tuple(one for one in action.sub_actions or (action,) if one.computation_type in _COMPUTES)


def needs(one: _Action, last_stage: int) -> Iterator[tuple[bool, int, int]]:
    """The passes (is it backward, stage, micro-batch) whose results a pass reads."""
    stage, number = one.stage_index, one.microbatch_index
    assert number is not None
    if one.computation_type == FORWARD:
        if stage > 0:
            yield False, stage - 1, number
    elif one.computation_type == BACKWARD_WEIGHT:
        yield True, stage, number
    else:
        yield False, stage, number
        if stage < last_stage:
            yield True, stage + 1, number


def gives(one: _Action) -> tuple[bool, int, int] | None:
    assert one.microbatch_index is not None
    if one.computation_type == BACKWARD_WEIGHT:
        return None
    return one.computation_type in _BACKWARD, one.stage_index, one.microbatch_index


def check(orders: Orders, stages: int) -> None:
    """Refuse a schedule that cannot run.

    Raises:
        ScheduleError: two passes of a pair depend on each other; a rank waits for what is never computed; or messages
            wait for each other for ever where those of two ranks pass in order, each direction by itself.
    """
    for rank, actions in orders.items():
        for action in actions:
            pair = passes(action)
            if len(pair) == 2 and pair[0][::2] == pair[1][::2]:
                raise ScheduleError(
                    f"rank {rank} would run the forward and the backward pass of micro-batch "
                    f"{pair[0].microbatch_index} through stage {pair[0].stage_index} together, and the one waits for "
                    "the other: the warm-up must be one forward pass longer"
                )
    simulate(orders, stages, Costs())
    _check_messages(orders, stages)


def _check_messages(orders: Orders, stages: int) -> None:
    """Play sends and receives: of two ranks' messages in one direction the first posted on each side must fit."""
    rank_of = {one.stage_index: rank for rank, actions in orders.items() for a in actions for one in passes(a)}
    posted: dict[tuple[int, int, bool], deque[tuple[bool, int, int | None]]] = defaultdict(deque)
    arrived: set[tuple[bool, int, int | None]] = set()
    at = dict.fromkeys(orders, 0)

    def post(action: _Action) -> tuple[int, int]:
        """From which rank to which."""
        kind, stage = action.computation_type, action.stage_index
        back, sends = kind in (SEND_B, RECV_B), kind in (SEND_F, SEND_B)
        source = stage if sends else stage + (1 if back else -1)
        way = rank_of[source], rank_of[source + (-1 if back else 1)]
        posted[(*way, sends)].append((back, source, action.microbatch_index))
        return way

    moved = True
    while moved:
        moved = False
        for rank, actions in orders.items():
            while at[rank] < len(actions):
                action = actions[at[rank]]
                if action.computation_type in (SEND_F, SEND_B, RECV_F, RECV_B):
                    way = post(action)
                    sent, awaited = posted[(*way, True)], posted[(*way, False)]
                    while sent and awaited and sent[0] == awaited[0]:
                        arrived.add(sent.popleft())
                        awaited.popleft()
                elif not all(
                    rank_of[need[1]] == rank or need in arrived
                    for one in passes(action)
                    for need in needs(one, stages - 1)
                ):
                    break
                at[rank], moved = at[rank] + 1, True
    stuck = [f"rank {rank} before {orders[rank][at[rank]]}" for rank in orders if at[rank] < len(orders[rank])]
    if stuck:
        raise ScheduleError(f"the messages wait for each other for ever: {', '.join(stuck)}")


@dataclass(frozen=True)
class Costs:
    """Times of one micro-batch through one layer, in any unit; the backward pass of a product takes twice as long.

    attention: with norms, router and shared experts. experts: the routed ones. exchange: one all-to-all of rows; a
    layer has two in each direction. message: a hidden state from stage to stage. layers: of each stage, 1 each where
    not given; head: what the last one does besides, in layers. again: activations are computed anew (checkpointing).
    """

    attention: float = 1 / 2
    experts: float = 1 / 2
    exchange: float = 0.0
    message: float = 0.0
    layers: tuple[int, ...] = ()
    head: float = 0.0
    again: bool = False

    @property
    def layer(self) -> float:
        return self.attention + self.experts

    def layers_of(self, stage: int) -> int:
        return self.layers[stage] if self.layers else 1

    def head_of(self, stage: int) -> float:
        last = bool(self.layers) and stage == len(self.layers) - 1
        return self.head * self.layer if last else 0.0


class Step(NamedTuple):
    """A stretch of computation, the exchange that is launched at its end (None: a turn is given up without one), and
    what is computed before the turn passes."""

    work: float
    exchange: float | None
    behind: float = 0.0


def steps_forward(costs: Costs, stage: int) -> list[Step]:
    layer = [Step(costs.attention, 0.0), Step(0.0, costs.exchange), Step(costs.experts, costs.exchange)]
    return [*layer * costs.layers_of(stage), Step(costs.head_of(stage), None)]


def steps_backward(costs: Costs, stage: int) -> list[Step]:
    """Half of an expert layer's weight gradients are put off until the next exchange is under way, half until that
    after it, of the layer before."""
    head = 2 * costs.head_of(stage)
    found = [Step(0.0, None)]  # the forward pass sends its first rows in the next turn
    for number in range(costs.layers_of(stage)):
        before = (2 * costs.attention if number else head) + costs.again * costs.layer
        late = costs.experts / 2
        found += [Step(before, costs.exchange, late), Step(costs.experts, costs.exchange, late), Step(0.0, None)]
    return [*found, Step(2 * costs.attention, None)]


def alone(costs: Costs, one: _Action, late: bool) -> tuple[float, float]:
    """Seconds of a pass by itself, and how many of them it waits for its exchanges.

    late: the experts' weight gradients run beside the exchanges of the backward pass, half of a layer's beside each.
    """
    layers = costs.layers_of(one.stage_index)
    work = layers * costs.layer + costs.head_of(one.stage_index)
    exposed = 2 * layers * costs.exchange
    if one.computation_type == FORWARD:
        return work + exposed, exposed
    if one.computation_type == BACKWARD_WEIGHT:
        return work, 0.0
    if late:
        exposed = 2 * layers * max(0.0, costs.exchange - costs.experts / 2)
    work *= 1 if one.computation_type == BACKWARD_INPUT else 2
    return work + costs.again * layers * costs.layer + exposed, exposed


def together(costs: Costs, pair: tuple[_Action, ...]) -> tuple[float, float]:
    """As `alone`, for two passes that take turns (baton.py)."""
    forward, backward = pair
    ways = [iter(steps_forward(costs, forward.stage_index)), iter(steps_backward(costs, backward.stage_index))]
    ready, clock, exposed, link, turn = [0.0, 0.0], 0.0, 0.0, 0.0, 0
    running = {0, 1}
    while running:
        step = next(ways[turn], None)
        if step is None:
            running.discard(turn)
        else:
            waits = max(0.0, ready[turn] - clock)
            clock, exposed = clock + waits + step.work, exposed + waits
            if step.exchange:
                link = max(link, clock) + step.exchange
                ready[turn] = link
            clock += step.behind
        if 1 - turn in running:
            turn = 1 - turn
    ends = max(clock, *ready)
    return ends, exposed + ends - clock


class Bar(NamedTuple):
    """What a rank did from `start` to `end`, of which it waited `exposed` for all-to-alls."""

    start: float
    end: float
    exposed: float
    passes: tuple[_Action, ...]


@dataclass
class Simulation:
    makespan: float = 0.0
    exposed: dict[int, float] = field(default_factory=dict)
    """By rank: seconds in which it waits for an all-to-all."""
    busy: dict[int, float] = field(default_factory=dict)
    """By rank: seconds in which it computes."""
    peak: dict[int, int] = field(default_factory=dict)
    """By rank: micro-batches through parts whose activations it holds between two actions at most, a forward pass by
    itself counted at its end. In a pair the one takes layer by layer what the other lets go, and counts once."""
    bars: dict[int, list[Bar]] = field(default_factory=dict)

    @property
    def bubble(self) -> float:
        """The share of all ranks' time in which they neither compute nor wait for an all-to-all."""
        return 1 - self.computing - self.waiting

    @property
    def computing(self) -> float:
        return sum(self.busy.values()) / (len(self.busy) * self.makespan)

    @property
    def waiting(self) -> float:
        return sum(self.exposed.values()) / (len(self.exposed) * self.makespan)


def simulate(orders: Orders, stages: int, costs: Costs, late: bool = False) -> Simulation:
    """Play a schedule. Raises ScheduleError where a rank waits for what is never computed."""
    ready: dict[tuple[bool, int, int], float] = {}
    rank_of = {one.stage_index: rank for rank, actions in orders.items() for a in actions for one in passes(a)}
    todo = {rank: deque(pair for action in actions if (pair := passes(action))) for rank, actions in orders.items()}
    clock = dict.fromkeys(orders, 0.0)
    held = dict.fromkeys(orders, 0)
    waiting: dict[tuple[bool, int, int], int] = {}
    lengths: dict[Any, tuple[float, float]] = {}
    made = Simulation(
        exposed=dict.fromkeys(orders, 0.0),
        busy=dict.fromkeys(orders, 0.0),
        peak=dict.fromkeys(orders, 0),
        bars={rank: [] for rank in orders},
    )
    awake = deque(orders)
    while awake:
        rank = awake.popleft()
        while todo[rank]:
            pair = todo[rank][0]
            wanted = [need for one in pair for need in needs(one, stages - 1)]
            missing = next((need for need in wanted if need not in ready), None)
            if missing is not None:
                waiting[missing] = rank
                break
            todo[rank].popleft()
            key = tuple(one[:2] for one in pair)
            if key not in lengths:
                lengths[key] = together(costs, pair) if len(pair) == 2 else alone(costs, pair[0], late)
            length, exposed = lengths[key]
            arrivals = [ready[need] + costs.message * (rank_of[need[1]] != rank) for need in wanted]
            start = max([clock[rank], *arrivals])
            clock[rank] = end = start + length
            made.bars[rank].append(Bar(start, end, exposed, pair))
            made.exposed[rank] += exposed
            made.busy[rank] += length - exposed
            held[rank] += change(pair)
            made.peak[rank] = max(made.peak[rank], held[rank])
            for given in filter(None, map(gives, pair)):
                ready[given] = end
                if given in waiting:
                    awake.append(waiting.pop(given))
    stuck = [f"rank {rank} before {todo[rank][0]}" for rank in orders if todo[rank]]
    if stuck:
        raise ScheduleError(f"the ranks wait for each other for ever: {', '.join(map(str, stuck))}")
    made.makespan = max(clock.values())
    return made


def change(pair: tuple[_Action, ...]) -> int:
    """By how many the micro-batches that are held change: a pass through the weights alone is what lets the
    activations of a divided backward pass go."""
    kinds = [one.computation_type for one in pair]
    return sum(kind == FORWARD for kind in kinds) - sum(kind in (FULL_BACKWARD, BACKWARD_WEIGHT) for kind in kinds)
