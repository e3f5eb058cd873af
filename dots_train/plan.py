"""What a run will be before it is one: steps and hours, parameters, FLOPs, memory a rank, bytes on the wire.

`dots plan` prints the tables of `plan`; the formulas behind them are in dots_train/cost.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from dots_data.tokens import manifest as manifests
from dots_data.tokens.manifest import ManifestError
from dots_data.typed_yaml import ConfigError
from dots_train import cost
from dots_train.config import Job, Layout, check_layout
from dots_train.cost import Checkpointing, Gpu, Memory, Parts, stage_flops, stage_layers
from dots_train.curriculum import Curriculum, Span

# The report's cost of pre-training, in GPU hours a trillion tokens on H800s; at 20% MFU the formula gives 130.4K.
REPORTED_GPU_HOURS = 130_000


class Table(NamedTuple):
    title: str
    columns: tuple[str, ...]
    rows: list[tuple[Any, ...]]


@dataclass(frozen=True)
class Plan:
    job: Job
    layout: Layout
    gpu: Gpu
    mfu: float
    checkpointing: Checkpointing

    @property
    def spans(self) -> list[Span]:
        return self.job.curriculum.spans(self.job.sequence_length)

    @property
    def by_length(self) -> dict[int, Span]:
        """The first phase of each sequence length."""
        found: dict[int, Span] = {}
        for span in self.spans:
            found.setdefault(span.sequence_length, span)
        return found

    def hours(self, span: Span) -> float:
        flops = cost.training_flops(self.job.model, span.sequence_length).total
        tokens = span.end_tokens - span.tokens
        return cost.seconds(flops * tokens, self.gpu.teraflops, self.mfu, self.layout.world) / 3600

    def memory(self, span: Span) -> tuple[int, list[Memory]]:
        """The pipeline rank that needs most, and its table."""
        totals = cost.peak_ranks(self.job, self.layout, span, self.checkpointing)
        rank = totals.index(max(totals))
        return rank, cost.memory(self.job, self.layout, span, rank, self.checkpointing)


def make_plan(job: Job, layout: Layout, gpu: Gpu, mfu: float, checkpointing: Checkpointing | None = None) -> Plan:
    """A plan for a layout that the job can have; checkpointing None is as the job says.

    Raises:
        ConfigError: the layout does not divide, the MFU is no share, or the vocabulary is not known.
    """
    if not 0 < mfu <= 1:
        raise ConfigError(f"the MFU is a share of the peak, over 0 and at most 1, found {mfu}")
    check_layout(job, layout, layout.world)
    by_job: Checkpointing = "selective" if job.activation_checkpointing else "off"
    return Plan(with_vocabulary(job), layout, gpu, mfu, checkpointing or by_job)


def with_vocabulary(job: Job) -> Job:
    """The job with the vocabulary of its shards, where it names none itself. Raises ConfigError without shards."""
    if job.model.vocab_size:
        return job
    try:
        size = manifests.read(Path(job.folders[0])).tokenizer.vocab_size
    except (ManifestError, OSError) as error:
        raise ConfigError(
            f"model.vocab_size is 0, that of the shards, and {job.folders[0]} holds none to read it from; "
            "add --set model.vocab_size=152064, or name shards with --set data=FOLDER"
        ) from error
    return replace(job, model=replace(job.model, vocab_size=size))


def tables(plan: Plan) -> list[Table]:
    return [_curriculum(plan), _parameters(plan), _flops(plan), _memory(plan)]


def _curriculum(plan: Plan) -> Table:
    """`until` is the border in the table of the recipe; `tokens` are those of the phase's whole batches."""
    rows: list[tuple[Any, ...]] = []
    before = plan.spans[0].phase.learning_rate
    for span in plan.spans:
        phase = span.phase
        rate = f"{before:g}" if before == phase.learning_rate else f"{before:g} to {phase.learning_rate:g}"
        rows.append(
            (
                phase.name,
                rate,
                f"{phase.rope_theta or plan.job.model.rope_theta:g}",
                phase.mixture or "-",
                f"{phase.untie:g}" if phase.untie else "-",
                f"{phase.until}",
                span.end_tokens - span.tokens,
                span.steps,
                span.sequence_length,
                span.sequences,
                span.batch_tokens,
                _hours(plan.hours(span)),
            )
        )
        before = phase.learning_rate
    last, hours = plan.spans[-1], sum(plan.hours(span) for span in plan.spans)
    rows.append(("in all", *[""] * 5, last.end_tokens, last.end_step, None, None, None, _hours(hours)))
    columns = ("phase", "learning rate", "RoPE base", "mixture", "untie")
    numbers = ("until", "tokens", "steps", "length", "sequences", "batch tokens", "hours")
    return Table("curriculum", (*columns, *numbers), rows)


def _hours(hours: float) -> str:
    return f"{hours:,.1f}" if hours >= 1 else f"{hours:.2g}"


_PARTS = {
    "embedding": "embedding",
    "attention": "attention projections",
    "scores": "attention scores",
    "dense": "dense layers",
    "router": "routers",
    "experts": "routed experts",
    "shared": "shared experts",
    "norms": "norms",
    "head": "output matrix",
}


def _parameters(plan: Plan) -> Table:
    total, active = cost.parameters(plan.job.model), cost.parameters(plan.job.model, active=True)
    rows: list[tuple[Any, ...]] = [
        (name, int(getattr(total, part)), int(getattr(active, part)), f"{getattr(total, part) / total.total:.2%}")
        for part, name in _PARTS.items()
        if getattr(total, part)
    ]
    rows.append(("in all", int(total.total), int(active.total), ""))
    return Table("parameters", ("part", "total", "active a token", "share"), rows)


def _flops(plan: Plan) -> Table:
    """Of a token forward, by part; of a token and of a step in training."""
    lengths = plan.by_length
    forward = {length: cost.forward_flops(plan.job.model, length) for length in lengths}
    training = {length: cost.training_flops(plan.job.model, length).total for length in lengths}
    rows: list[tuple[Any, ...]] = [
        (name, *(_unit(getattr(forward[length], part), "FLOP") for length in lengths))
        for part, name in _PARTS.items()
        if any(getattr(parts, part) for parts in forward.values())
    ]
    rows += [
        ("forward", *(_unit(forward[length].total, "FLOP") for length in lengths)),
        ("forward and backward", *(_unit(training[length], "FLOP") for length in lengths)),
        ("a step", *(_unit(training[length] * span.batch_tokens, "FLOP") for length, span in lengths.items())),
    ]
    return Table("FLOPs a token", ("part", *(f"at {length:,}" for length in lengths)), rows)


def _memory(plan: Plan) -> Table:
    """One column of bytes a sequence length, and beside them what divides each part."""
    by_length = {length: plan.memory(span)[1] for length, span in plan.by_length.items()}
    rows: list[tuple[Any, ...]] = [
        (lines[0].part, lines[0].pp, lines[0].fsdp, lines[0].ep, *(_unit(line.bytes, "B") for line in lines))
        for lines in zip(*by_length.values(), strict=True)
    ]
    totals = [_unit(sum(line.bytes for line in lines), "B") for lines in by_length.values()]
    rows.append(("in all", "", "", "", *totals))
    return Table(
        "memory on the fullest rank",
        ("part", "PP divides", "FSDP divides", "EP divides", *(f"at {length:,}" for length in by_length)),
        rows,
    )


def _unit(number: float, unit: str) -> str:
    """`1.5e9 -> 1.50 GB`; powers of ten."""
    for prefix, size in (("E", 1e18), ("P", 1e15), ("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= size:
            return f"{number / size:,.2f} {prefix}{unit}"
    return f"{number:g} {unit}"


def sentences(plan: Plan) -> list[str]:
    """What the tables come to, and what they count."""
    said = [
        f"warm-up: {plan.job.curriculum.warmup_steps:,} steps; hours: {_count(plan.layout.world, 'GPU')} at "
        f"{plan.mfu:.1%} of {plan.gpu.teraflops:g} TFLOP/s",
        _layout(plan),
        "FLOPs: matrix products alone, attention under the causal mask; masks between documents leave less",
        f"memory: micro-batches of {plan.job.micro_batch}, activation checkpointing {plan.checkpointing}, even routing"
        "; the allocator's slack, the CUDA context and NCCL's buffers come on top",
    ]
    for length, span in plan.by_length.items():
        hours = cost.gpu_hours_a_trillion(plan.job.model, length, plan.gpu.teraflops, plan.mfu)
        said.append(f"at {length:,}: {_fits(plan, span)}; {hours:,.0f} GPU hours a trillion tokens")
        if plan.layout.ep > 1:
            moved = _all_to_all(plan, span)
            said.append(
                f"at {length:,}: the all-to-alls of a step move {_unit(moved, 'B')} between ranks, "
                f"{_unit(moved / plan.layout.world, 'B')} from each"
            )
        if plan.checkpointing != "off":
            again = cost.forward_flops(plan.job.model, length)
            more = (again.total - again.head) / cost.training_flops(plan.job.model, length).total
            said.append(f"at {length:,}: checkpointing computes up to {more:.0%} more FLOPs, which MFU does not count")
    return said


def _layout(plan: Plan) -> str:
    layout = plan.layout
    if layout.stages == 1:
        return f"layout: {_named(layout)}"
    model, length = plan.job.model, plan.job.sequence_length
    sizes = [len(layers) for layers in stage_layers(model, length, layout.stages)]
    work = stage_flops(model, length, layout.stages)
    lost = 1 - sum(work) / (len(work) * max(work))
    span = plan.spans[0]
    count = span.sequences // (layout.dp * plan.job.micro_batch)
    bubble = (layout.pp - 1) / (layout.vpp * count + layout.pp - 1)
    return (
        f"layout: {_named(layout)}; layers of the {layout.stages} stages: "
        f"{', '.join(map(str, sizes))}, of unequal work: {lost:.1%} is waiting for the slowest; {count:,} "
        f"micro-batches a rank at first: the pipeline is empty {bubble:.1%} of a step"
    )


def _fits(plan: Plan, span: Span) -> str:
    rank, lines = plan.memory(span)
    need = sum(line.bytes for line in lines)
    verdict = "fits in" if need <= plan.gpu.gigabytes * 1e9 else "does not fit in"
    answer = f"{_unit(need, 'B')} {verdict} the {plan.gpu.gigabytes:g} GB of a GPU"
    if plan.layout.pp == 1:
        return answer
    ranks = cost.peak_ranks(plan.job, plan.layout, span, plan.checkpointing)
    return f"{answer} (on pipeline rank {rank}; by rank {', '.join(f'{need / 1e9:,.0f}' for need in ranks)} GB)"


def _all_to_all(plan: Plan, span: Span) -> int:
    width = 2 if plan.job.precision == "bfloat16" else cost.FLOAT32
    again = plan.checkpointing == "full"
    return cost.all_to_all_bytes(plan.job.model, plan.layout, span.batch_tokens, width, again)


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'s' if number != 1 else ''}"


def _named(layout: Layout) -> str:
    values = ", ".join(f"{name} {value}" for name, value in asdict(layout).items() if value not in (1, "1f1b"))
    return f"{values}: {_count(layout.world, 'GPU')}" if values else "1 GPU"


def as_mapping(plan: Plan) -> dict[str, Any]:
    """The plan for programs: plain numbers, bytes and FLOPs."""
    model, curriculum = plan.job.model, plan.job.curriculum
    return {
        "layout": {**asdict(plan.layout), "world": plan.layout.world},
        "gpu": plan.gpu._asdict(),
        "mfu": plan.mfu,
        "checkpointing": plan.checkpointing,
        "curriculum": _phases(plan, curriculum),
        "parameters": {
            "total": _plain(cost.parameters(model)),
            "active": _plain(cost.parameters(model, active=True)),
        },
        "lengths": {
            str(length): {
                "forward_flops_a_token": _plain(cost.forward_flops(model, length)),
                "training_flops_a_token": cost.training_flops(model, length).total,
                "all_to_all_bytes_a_step": _all_to_all(plan, span),
                "gpu_hours_a_trillion": cost.gpu_hours_a_trillion(model, length, plan.gpu.teraflops, plan.mfu),
                "pipeline_rank": plan.memory(span)[0],
                "memory_bytes": {line.part: line.bytes for line in plan.memory(span)[1]},
            }
            for length, span in plan.by_length.items()
        },
    }


def _phases(plan: Plan, curriculum: Curriculum) -> list[dict[str, Any]]:
    return [
        {
            "phase": span.phase.name,
            "first_step": span.step,
            "steps": span.steps,
            "first_token": span.tokens,
            "tokens": span.end_tokens - span.tokens,
            "sequences": span.sequences,
            "sequence_length": span.sequence_length,
            "learning_rate": span.phase.learning_rate,
            "hours": plan.hours(span),
        }
        for span in curriculum.spans(plan.job.sequence_length)
    ]


def _plain(parts: Parts) -> Mapping[str, float]:
    return {**asdict(parts), "total": parts.total}
