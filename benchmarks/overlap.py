"""`make bench-overlap`: a step with the experts' all-to-all beside computation, next to a step with it in between.

    python -m benchmarks.overlap [--ratios 0.5 1 2] [--turns N]

Two processes of one thread each, so that they do not compete for a core. Between two processes of one machine an
all-to-all costs next to nothing: here each takes as long as a slow wire would, one after another on each rank's wire,
whoever waits for it or not. "communication over computation" is their sum over the time of a step without them.
Two layouts: two ranks that divide the experts and accumulate gradients (PP 1), and a pipeline of two ranks with two
parts each, in which an all-to-all of each rank with itself takes that time. The schedules take turns in the same
processes; the fastest of their steps counts, and that all of them give the same losses is checked. Exposed is the time
in which a rank waits for an all-to-all and computes nothing.

build/bench/overlap.svg shows a part of a step of both on one axis of time.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing

from benchmarks.texts import CACHE, save_result
from dots_data import console
from dots_data.typed_yaml import build
from dots_train.config import Job, Layout
from dots_train.experts.late import LateGradients
from dots_train.model.dots1 import Dots1, Tally
from dots_train.model.moe import MoE
from dots_train.parallel import mesh
from dots_train.parallel.dispatch import dispatched
from dots_train.parallel.pipeline import Pipeline, Share
from dots_train.parallel.schedule import keep_gathered
from dots_train.pictures import label, svg

LAYOUTS = {"experts on 2 ranks": {"dp_shard": 2, "ep": 2}, "pipeline of 2 x 2 parts": {"pp": 2, "vpp": 2}}
MODEL = {
    "vocab_size": 256,
    "hidden_size": 256,
    "layers": 4,
    "dense_layers": 0,
    "dense_ffn_size": 256,
    "heads": 4,
    "head_dim": 64,
    "experts": 8,
    "experts_per_token": 2,
    "shared_experts": 1,
    "expert_ffn_size": 256,
    "init_std": 0.02,
    "rope_theta": 1e4,
}
LENGTH = 128
MICRO_BATCHES = {"experts on 2 ranks": 12, "pipeline of 2 x 2 parts": 24}  # as much computation on a rank


class Wire:
    """One all-to-all after another, each as many seconds as it is told; notes what was launched and waited for."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.free = 0.0
        self.events: list[tuple[float, str, bool]] = []
        """(when, what, in a backward pass)."""
        self.sent: list[tuple[float, float]] = []
        """From when to when the wire was in use."""
        self.own = dist.all_to_all_single

    def clear(self) -> None:
        self.events.clear()
        self.sent.clear()

    def note(self, what: str) -> None:
        self.events.append((time.perf_counter(), what, torch._C._current_graph_task_id() >= 0))

    def launch(self, output: torch.Tensor, *args: Any, **options: Any) -> Any:
        work = self.own(output, *args, **options)
        # Counts and weights of rows are a few bytes: they go along with the rows.
        if output.dim() < 2 or output.dtype == torch.int64:
            return work
        now = time.perf_counter()
        start = max(now, self.free)
        self.free = start + self.seconds
        self.sent.append((start, self.free))
        self.note("launched")
        return Arrives(self, work, self.free)


class Arrives(NamedTuple):
    wire: Wire
    work: Any
    at: float

    def wait(self) -> None:
        self.wire.note("waits")
        self.work.wait()
        time.sleep(max(0.0, self.at - time.perf_counter()))
        self.wire.note("goes on")


def job(layout: dict[str, int], schedule: str) -> Job:
    values = {
        "model": MODEL,
        "sequence_length": LENGTH,
        "threads": 1,
        "curriculum": {"phases": [{"until": 1 << 20, "learning_rate": 0.001, "batch": 1 << 16}]},
        "layout": {**layout, "schedule": schedule},
    }
    return build(Job, values, "bench")


class Runner(NamedTuple):
    parts: list[Dots1]
    engine: Pipeline

    def step(self, share: Share) -> tuple[float, torch.Tensor]:
        """Seconds, all ranks beginning together, and the losses."""
        for part in self.parts:
            part.tally = Tally()
            part.zero_grad(set_to_none=True)
        dist.barrier()
        began = time.perf_counter()
        losses = self.engine.run(share, 1 / len(share.tokens))
        return time.perf_counter() - began, losses


def runner(layout: dict[str, int], schedule: str, ranks: mesh.Ranks) -> Runner:
    what = job(layout, schedule)
    ranks = dataclasses.replace(ranks, layout=what.layout)
    parts = mesh.make_parts(what, ranks, torch.device("cpu"))
    # The plain schedule, too, holds weights whole for the step: the experts' all-to-all is all that differs.
    made = Pipeline(parts, what, ranks, torch.device("cpu"))
    for part in parts:
        keep_gathered(part)
    if what.layout.ep == 1:
        alone = [dist.new_group([rank]) for rank in range(ranks.world)][ranks.rank]
        for part in parts:
            for layer in part.layers.values():
                assert isinstance(layer.mlp, MoE)
                layer.mlp.experts.backend = dispatched(layer.mlp.experts.backend, alone)
        if schedule == "overlapped":
            made.late = LateGradients()
    return Runner(parts, made)


def measure(rank: int, folder: Path, ratios: Sequence[float], turns: int) -> None:
    """What one of the two processes does; the first writes what came of it."""
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    wire = Wire()
    dist.all_to_all_single = wire.launch  # type: ignore[assignment]
    os.environ["WORLD_SIZE"] = "2"
    dist.init_process_group("gloo", f"file://{folder}/meet", timedelta(minutes=5), 2, rank)
    lines: list[dict[str, Any]] = []
    for name, layout in LAYOUTS.items():
        ranks = mesh.connect(Layout(**layout), torch.device("cpu"))
        runners = {schedule: runner(layout, schedule, ranks) for schedule in ("1f1b", "overlapped")}
        generator = torch.Generator().manual_seed(ranks.share)
        shape = (MICRO_BATCHES[name], LENGTH)
        tokens = torch.randint(MODEL["vocab_size"], shape, generator=generator)  # type: ignore[call-overload]
        place = torch.arange(LENGTH).expand(shape)
        share = Share(tokens, tokens.roll(-1, 1), place, torch.zeros_like(place))
        wire.seconds = 0.0
        free = best(runners, share, wire, turns)
        count, least = len(wire.sent), min(one["seconds"] for one in free.values())
        for ratio in ratios:
            wire.seconds = agreed(ratio * least / count)
            found = best(runners, share, wire, turns)
            lines += [
                {"layout": name, "ratio": ratio, "schedule": schedule, "free": least, **values}
                for schedule, values in found.items()
            ]
    if rank == 0:
        (folder / "lines.json").write_text(json.dumps(lines))
    dist.barrier()
    dist.destroy_process_group()


def best(runners: dict[str, Runner], share: Share, wire: Wire, turns: int) -> dict[str, dict[str, Any]]:
    """The fastest step of each schedule, with what happened in it."""
    found: dict[str, dict[str, Any]] = {}
    losses: list[torch.Tensor] = []
    for turn in range(turns + 1):  # the first warms up
        for schedule, one in runners.items():
            wire.clear()
            began = time.perf_counter()
            seconds, loss = one.step(share)
            seconds = agreed(seconds)
            losses.append(loss)
            if turn and (schedule not in found or seconds < found[schedule]["seconds"]):
                found[schedule] = {
                    "seconds": seconds,
                    "sent": sum(end - start for start, end in wire.sent),
                    "exposed": exposed(wire.events),
                    "events": [(when - began, what, back) for when, what, back in wire.events],
                    "wire": [(start - began, end - began) for start, end in wire.sent],
                }
    assert all(torch.equal(loss, losses[0]) for loss in losses), "the schedules differ in their losses"
    return found


def agreed(seconds: float) -> float:
    """The longest of all ranks."""
    value = torch.tensor(seconds, dtype=torch.float64)
    dist.all_reduce(value, dist.ReduceOp.MAX)
    return float(value)


def exposed(events: Sequence[tuple[float, str, bool]]) -> float:
    """Seconds between "waits" and the "goes on" behind it."""
    pairs = pairwise(events)
    return sum(after - when for (when, what, _), (after, then, _) in pairs if (what, then) == ("waits", "goes on"))


def picture(lines: Sequence[dict[str, Any]], span: float = 0.2) -> str:
    """Both schedules of PP 1 at the ratio nearest to 1, from the middle of the plain step, `span` of it."""
    nearest = min((line["ratio"] for line in lines), key=lambda ratio: abs(ratio - 1))
    shown = [line for line in lines if line["ratio"] == nearest and line["layout"] == next(iter(LAYOUTS))]
    wide = shown[0]["seconds"] * span
    left, width, row = 130, 960, 26
    across = (width - left - 10) / wide
    colours = {"forward": "#6baed6", "backward": "#fd8d3c", "waits": "#67000d", "wire": "#74c476"}
    body = []
    for number, (name, colour) in enumerate(colours.items()):
        what = {"waits": "waits for an all-to-all", "wire": "all-to-all under way"}.get(name, f"computes {name}")
        body.append(f'<rect x="{20 + 200 * number}" y="10" width="20" height="12" fill="{colour}"/>')
        body.append(label(46 + 200 * number, 20, what))
    top = 50
    for line in shown:
        name = {"1f1b": "all-to-all in between", "overlapped": "all-to-all beside"}[line["schedule"]]
        title = f"{name}: a step takes {line['seconds']:.2f} s, {line['exposed']:.2f} s of them waiting"
        body.append(label(left, top, title, weight="bold"))
        begins = line["seconds"] * 0.3
        for track, bars in enumerate((tracks(line["events"]), [(*pair, "wire") for pair in line["wire"]])):
            y = top + 8 + track * row
            body.append(label(left - 8, y + 15, ("rank 0", "its wire")[track], anchor="end"))
            for start, end, kind in bars:
                first, last = max(0.0, start - begins), min(wide, end - begins)
                if last > first:
                    at, size = left + first * across, (last - first) * across
                    body.append(
                        f'<rect x="{at:.2f}" y="{y}" width="{size:.2f}" height="{row - 4}" fill="{colours[kind]}"/>'
                    )
        top += 2 * row + 40
    body.append(label(left, top - 14, f"{wide:.2f} s from left to right; communication over computation {nearest:g}"))
    return svg(width, top, body)


def tracks(events: Sequence[tuple[float, str, bool]]) -> list[tuple[float, float, str]]:
    """What a rank did between two events: what ends a stretch of computation tells whose it was."""
    found = []
    for (when, what, _), (after, then, back) in pairwise(events):
        waits = (what, then) == ("waits", "goes on")
        found.append((when, after, "waits" if waits else "backward" if back else "forward"))
    return found


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.overlap", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--ratios", nargs="+", type=float, default=[0.5, 1.0, 2.0], metavar="R")
    parser.add_argument("--turns", type=int, default=4, help="steps of each schedule (default: %(default)s)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        multiprocessing.spawn(measure, (Path(folder), options.ratios, options.turns), nprocs=2)
        lines = json.loads((Path(folder) / "lines.json").read_text())
    plain = {(line["layout"], line["ratio"]): line["seconds"] for line in lines if line["schedule"] == "1f1b"}
    rows = [
        (
            line["layout"],
            f"{line['ratio']:g}",
            "plain" if line["schedule"] == "1f1b" else "overlapped",
            f"{line['free']:.2f}",
            f"{line['sent']:.2f}",
            f"{line['seconds']:.2f}",
            f"{line['exposed']:.2f}",
            f"{max(0.0, 1 - line['exposed'] / line['sent']):.0%}",
            f"{line['seconds'] / plain[line['layout'], line['ratio']]:.2f}",
        )
        for line in lines
    ]
    columns = ("layout", "communication over computation", "schedule", "free s", "sent s", "step s", "exposed s")
    console.table("a step, the experts' all-to-all slow", (*columns, "hidden", "of the plain step"), rows, left=1)
    CACHE.mkdir(parents=True, exist_ok=True)
    (CACHE / "overlap.svg").write_text(picture(lines), encoding="utf-8")
    console.console.print(f"drawn: {CACHE / 'overlap.svg'}")
    kept = [{key: value for key, value in line.items() if key not in ("events", "wire")} for line in lines]
    save_result("overlap", [], model=MODEL, length=LENGTH, micro_batches=MICRO_BATCHES, lines=kept)
    return 0


if __name__ == "__main__":
    sys.exit(main())
