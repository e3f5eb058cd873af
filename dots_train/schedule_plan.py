"""`dots plan --schedule`: the pipeline schedules that a layout can have, beside each other, and checked.

Times are those of computation at a given share of the GPU's peak and of messages at a given speed of the wire; the
schedules are played action by action (parallel/preflight.py). Not counted: FSDP's own messages, which are sent once a
step and stage, the optimizer, counts of rows, and what a slow rank makes others wait.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from torch.distributed.pipelining.schedules import FORWARD

from dots_train import cost
from dots_train.cost import stage_layers
from dots_train.curriculum import Span
from dots_train.parallel import preflight
from dots_train.parallel.preflight import V_SHAPED, Bar, Costs, Simulation
from dots_train.pictures import Lane, gantt
from dots_train.plan import Plan, Table


class Assumed(NamedTuple):
    efficiency: float
    """Share of the GPU's peak while it computes."""
    wire: float
    """Gigabytes a second that a rank's all-to-all moves, and a message between stages."""


class Played(NamedTuple):
    name: str
    parts: int
    result: Simulation
    gigabytes: float
    """Activations on the fullest rank."""


def costs(plan: Plan, span: Span, stages: int, assumed: Assumed) -> Costs:
    """Seconds of a micro-batch's passes through the stages."""
    model, width = plan.job.model, 2 if plan.job.precision == "bfloat16" else cost.FLOAT32
    tokens = plan.job.micro_batch * span.sequence_length
    flops = cost.forward_flops(model, span.sequence_length)
    moe = model.layers - model.dense_layers
    speed = plan.gpu.teraflops * 1e12 * assumed.efficiency
    experts = flops.experts / moe * tokens / speed
    layer = (flops.total - flops.head) / model.layers * tokens / speed
    rows = cost.all_to_all_bytes(model, plan.layout, tokens, width) / (4 * moe)
    return Costs(
        attention=layer - experts,
        experts=experts,
        exchange=rows / (assumed.wire * 1e9),
        message=tokens * model.hidden_size * cost.FLOAT32 / (assumed.wire * 1e9),
        layers=tuple(len(layers) for layers in stage_layers(model, plan.job.sequence_length, stages)),
        head=flops.head * model.layers / (flops.total - flops.head),
        again=plan.checkpointing != "off",
    )


def play(plan: Plan, assumed: Assumed, span: Span | None = None) -> list[Played]:
    """Every schedule that has as many ranks and micro-batches; checked, where it is one that this trainer runs.

    Raises:
        ScheduleError: the trainer's schedule cannot run.
        ValueError: the layout has no pipeline.
    """
    layout, span = plan.layout, span or plan.spans[0]
    if layout.pp == 1:
        raise ValueError("--schedule compares pipelines, but pp is 1: give --layout pp=8,vpp=2,...")
    micro_batches = span.sequences // (layout.dp * plan.job.micro_batch)
    found = []
    for name in preflight.SCHEDULES:
        parts = 2 if name in V_SHAPED else layout.vpp
        if parts == 1 or layout.pp * parts > plan.job.model.layers:
            continue
        stages = layout.pp * parts
        try:
            orders = preflight.lowered(name, layout.pp, parts, micro_batches)
        except ValueError:  # so few micro-batches are none of its
            continue
        if name == "overlapped":
            preflight.check(orders, stages)
        result = preflight.simulate(orders, stages, costs(plan, span, stages, assumed), late=name == "overlapped")
        found.append(Played(name, parts, result, _gigabytes(plan, span, parts, result)))
    return found


def _gigabytes(plan: Plan, span: Span, parts: int, result: Simulation) -> float:
    """Of activations on the fullest rank between two actions; see Simulation.peak."""
    model, tokens = plan.job.model, plan.job.micro_batch * span.sequence_length
    width = 2 if plan.job.precision == "bfloat16" else cost.FLOAT32
    stages = stage_layers(model, plan.job.sequence_length, plan.layout.pp * parts)
    of_stage = [
        sum(cost.kept(model, plan.layout, layer, tokens, width, plan.checkpointing) for layer in layers)
        for layers in stages
    ]
    most = 0.0
    for bars in result.bars.values():
        held = 0.0
        for bar in bars:
            held += sum(preflight.change((one,)) * of_stage[one.stage_index] for one in bar.passes)
            most = max(most, held)
    return most / 1e9


def table(plan: Plan, played: list[Played], span: Span | None = None) -> Table:
    span = span or plan.spans[0]
    micro_batches = span.sequences // (plan.layout.dp * plan.job.micro_batch)
    rows = [
        (
            one.name,
            one.parts,
            f"{one.result.makespan:.2f}",
            f"{one.result.computing:.1%}",
            f"{one.result.waiting:.1%}",
            f"{one.result.bubble:.1%}",
            max(one.result.peak.values()),
            f"{one.gigabytes:,.1f}",
        )
        for one in played
    ]
    columns = ("schedule", "parts a rank", "step, s", "computes", "waits for all-to-all", "empty", "held", "GB held")
    return Table(f"a step of {micro_batches:,} micro-batches a rank", columns, rows)


def sentences(plan: Plan, assumed: Assumed, played: list[Played]) -> list[str]:
    span = plan.spans[0]
    one = costs(plan, span, plan.layout.stages, assumed)
    said = [
        f"a layer of one micro-batch: {one.layer * 1e3:.1f} ms forward, of which {one.experts * 1e3:.1f} ms in routed "
        f"experts, and 2 all-to-alls of {one.exchange * 1e3:.1f} ms; computation at {assumed.efficiency:.0%} of "
        f"{plan.gpu.teraflops:g} TFLOP/s, messages at {assumed.wire:g} GB/s; checkpointing {plan.checkpointing}",
        "held: micro-batches times parts of the model whose activations the fullest rank holds; of a pair one, since "
        "it gives up layer by layer what it takes",
    ]
    if any(one.name == "overlapped" for one in played):
        said.append("overlapped: checked; the passes of every pair are independent, and no order of messages can hang")
    return said


def draw(plan: Plan, played: list[Played], path: Path) -> None:
    """The schedules below each other on one axis of time, as SVG."""
    drawn = [
        (
            f"{one.name}, {one.parts} parts a rank: {one.result.makespan:.2f} s",
            [[_lane(bar, plan.layout.pp) for bar in bars] for bars in one.result.bars.values()],
        )
        for one in played
    ]
    path.write_text(gantt(drawn), encoding="utf-8")


def _lane(bar: Bar, ranks: int) -> Lane:
    passes = tuple((one.computation_type == FORWARD, one.stage_index // ranks) for one in bar.passes)
    return Lane(bar.start, bar.end, bar.exposed, passes)
