"""The overlapped schedule beside torch's own in the same processes: gradients, losses, counts, biases, to the bit.

python -m tests.dots_train.overlap_cases     all cases; the suite takes a part of them
"""

from __future__ import annotations

import dataclasses
import itertools
import os
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing

from dots_data.typed_yaml import build
from dots_train.config import Job, Layout
from dots_train.model.dots1 import Tally
from dots_train.model.moe import MoE
from dots_train.model.recompute import recompute
from dots_train.parallel import mesh
from dots_train.parallel.pipeline import Pipeline, Share, engine
from tests.dots_train.conftest import TINY, VOCABULARY, CountingReader

LENGTH, MICRO = 8, 2


class Case(NamedTuple):
    pp: int
    vpp: int
    ep: int
    shards: int
    """Rows of ranks that share each expert's weights: dp_shard is ep * shards."""
    micro_batches: tuple[int, ...]
    """Of each step: more than one number is a batch ramp."""
    checkpointing: bool
    late: bool
    replicas: int = 1
    precision: str = "float32"

    @property
    def layout(self) -> dict[str, Any]:
        shape = {"pp": self.pp, "vpp": self.vpp, "dp_shard": self.ep * self.shards, "ep": self.ep}
        return shape | {"dp_replicate": self.replicas}

    @property
    def world(self) -> int:
        return Layout(**self.layout).world


SUITE = [
    Case(1, 1, 2, 1, (4,), False, True),
    Case(1, 1, 2, 2, (4,), True, True),
    Case(1, 1, 2, 1, (4,), True, True, precision="bfloat16"),
    Case(2, 2, 2, 1, (8,), False, True, precision="bfloat16"),
    Case(1, 1, 2, 1, (2,), False, False, replicas=2),
    Case(2, 2, 1, 1, (8,), True, False),
    Case(2, 2, 2, 1, (4, 8), False, True),
    Case(2, 3, 2, 1, (4,), True, True),
    Case(2, 2, 1, 2, (4,), False, False),
    Case(2, 2, 1, 1, (32,), False, False),
    Case(4, 2, 1, 1, (8,), False, False),
    Case(4, 3, 1, 1, (4,), True, False),
]
ALL = [
    Case(pp, vpp, ep, shards, (micro_batches,), checkpointing, late)
    for pp, ep, shards in itertools.product((1, 2, 4), (1, 2), (1, 2))
    for vpp in ((1,) if pp == 1 else (2, 3))
    for checkpointing in (False, True)
    for late in ((False, True) if ep == 2 else (False,))
    for micro_batches in ((8, 32) if checkpointing == (late or ep == 1) else (8,))
    if 1 < pp * ep * shards <= 8
]


def job(case: Case, schedule: str, **changes: Any) -> Job:
    values = {
        "model": {**TINY, "layers": max(case.pp * case.vpp + 1, 3), "vocab_size": VOCABULARY},
        "sequence_length": LENGTH,
        "micro_batch": MICRO,
        "threads": 1,
        "curriculum": {"phases": [{"until": 1 << 20, "learning_rate": 0.003, "batch": 256}]},
        "layout": {**case.layout, "schedule": schedule},
        "activation_checkpointing": case.checkpointing,
        "precision": case.precision,
        **changes,
    }
    return build(Job, values, "test")


class Result(NamedTuple):
    losses: torch.Tensor
    counts: torch.Tensor
    gradients: list[torch.Tensor]
    biases: list[torch.Tensor]


class Log(list[str]):
    """The collectives of this process in the order of their launch, by group."""

    @contextmanager
    def listening(self) -> Iterator[None]:
        names = ("all_to_all_single", "all_gather_into_tensor", "reduce_scatter_tensor", "all_reduce")
        own = {name: getattr(dist, name) for name in names}

        def told(name: str) -> Any:
            def call(output: torch.Tensor, *args: Any, **options: Any) -> Any:
                group = options.get("group")
                ranks = dist.get_process_group_ranks(group) if group is not None else "all"
                self.append(f"{ranks} {name} {tuple(output.shape[1:])}")
                return own[name](output, *args, **options)

            return call

        for name in names:
            setattr(dist, name, told(name))
        try:
            yield
        finally:
            for name in names:
                setattr(dist, name, own[name])


def uneven(parts: Sequence[torch.nn.Module]) -> None:
    """Routers that send every token of some layers to the first experts, and none to those of the last rank."""
    for part in parts:
        for number, layer in part.layers.items():  # type: ignore[union-attr, operator]
            if isinstance(layer.mlp, MoE):
                bias = layer.mlp.gate.e_score_correction_bias
                bias.copy_(torch.arange(len(bias), 0, -1) * (2.0 if int(number) % 2 else 0.02))


def steps(case: Case, schedule: str, ranks: mesh.Ranks, log: Log) -> list[Result]:
    """What each step of a case comes to on this rank."""
    what = job(case, schedule)
    parts = mesh.make_parts(what, ranks, torch.device("cpu"))
    uneven(parts)
    if case.checkpointing:
        for part in parts:
            recompute(part)
    runner = engine(parts, what, ranks, torch.device("cpu"))
    if isinstance(runner, Pipeline) and not case.late:
        runner.late = None
    results = []
    for number, micro_batches in enumerate(case.micro_batches):
        mine = micro_batches * MICRO
        share = Share.of(CountingReader(LENGTH).batch(1000 * number + ranks.share * mine, mine), torch.device("cpu"))
        for part in parts:
            part.tally, part.balance_weight = Tally(), 0.01
            part.zero_grad(set_to_none=True)
        with log.listening(), torch.autocast("cpu", torch.bfloat16, enabled=case.precision == "bfloat16"):
            losses = runner.run(share, 1 / mine)
        counts = mesh.expert_counts(parts, what.model, ranks)
        gradients = [mesh.held_here(p.grad).clone() for part in parts for p in part.parameters() if p.grad is not None]
        biases = []
        for part in parts:
            for name, layer in part.layers.items():
                if isinstance(layer.mlp, MoE):
                    layer.mlp.gate.update_bias(counts[int(name) - what.model.dense_layers], 0.01)
                    biases.append(layer.mlp.gate.e_score_correction_bias.clone())
        assert len(gradients) == sum(len([*part.parameters()]) for part in parts)
        results.append(Result(losses, counts, gradients, biases))
    return results


def compare(case: Case, root: Path) -> str:
    """Run a case with both schedules. Raises AssertionError where a bit differs."""
    began = time.perf_counter()
    log, other = Log(), Log()
    schedules = ("1f1b", "overlapped")
    ranks = mesh.connect(Layout(**case.layout), torch.device("cpu"))
    plain, ours = (
        steps(case, schedule, dataclasses.replace(ranks, layout=Layout(**case.layout, schedule=schedule)), into)  # type: ignore[arg-type]
        for schedule, into in zip(schedules, (other, log), strict=True)
    )
    for number, (mine, theirs) in enumerate(zip(ours, plain, strict=True)):
        where = f"{case} step {number} rank {ranks.rank}"
        assert torch.equal(mine.losses, theirs.losses), f"{where}: losses"
        assert torch.equal(mine.counts, theirs.counts), f"{where}: counts"
        empty = (mine.counts == 0).any(1)
        assert empty.any() and not empty.all(), f"{where}: some layers have experts without a token"
        for one, same in zip(mine.gradients, theirs.gradients, strict=True):
            assert torch.equal(one, same), f"{where}: gradients differ by {(one - same).abs().max()}"
        assert all(map(torch.equal, mine.biases, theirs.biases)), f"{where}: biases"
        assert any(gradient.abs().sum() > 0 for gradient in mine.gradients)
    check_order(log, case, ranks)
    return f"{case}: {time.perf_counter() - began:.1f} s"


def check_order(log: Log, case: Case, ranks: mesh.Ranks) -> None:
    """Every group's collectives come in one order on all its ranks."""
    logs: list[list[str]] = [[] for _ in range(ranks.world)]
    dist.all_gather_object(logs, [*log])
    for group in {line.split("]")[0] + "]" for line in log if line.startswith("[")}:
        members = [int(rank) for rank in group.strip("[]").split(",")]
        orders = [[line for line in logs[rank] if line.startswith(f"{group} ")] for rank in members]
        assert all(order == orders[0] for order in orders), f"{case}: {group} differ in their order"
    if case.ep > 1:
        assert sum("all_to_all" in line for line in log) > 0


def in_process(rank: int, root: Path, cases: list[Case]) -> None:
    try:
        torch.set_num_threads(1)
        torch.use_deterministic_algorithms(True)
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
        for number, case in enumerate(cases):
            if rank >= case.world:
                continue
            os.environ["WORLD_SIZE"] = str(case.world)
            meet = f"file://{root}/meet-{number}"
            dist.init_process_group("gloo", meet, timedelta(minutes=10), case.world, rank)
            said = compare(case, root)
            dist.barrier()
            dist.destroy_process_group()
            if rank == 0:
                with (root / "said").open("a") as file:
                    print(said, file=file)
                print(said, flush=True)
    except BaseException:
        (root / f"failed-{rank}").write_text(traceback.format_exc())
        raise


def run(root: Path, cases: list[Case]) -> str:
    """All cases in one start of processes; what the first process said of each.

    Raises:
        RuntimeError: what a process failed with.
    """
    # Some virtual machines announce AMX and die of it in bfloat16; the processes inherit this.
    os.environ |= {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE", "ATEN_CPU_CAPABILITY": "avx2"}
    context = multiprocessing.spawn(in_process, (root, cases), nprocs=max(case.world for case in cases), join=False)
    try:
        while not context.join(timeout=600):
            pass
    except Exception as error:
        said = "\n".join(path.read_text() for path in sorted(root.glob("failed-*")))
        raise RuntimeError(said or str(error)) from error
    return (root / "said").read_text()


if __name__ == "__main__":
    chosen = SUITE if "--suite" in sys.argv else ALL
    with TemporaryDirectory() as folder:
        for world in sorted({case.world for case in chosen}):
            (Path(folder) / str(world)).mkdir()
            run(Path(folder) / str(world), [case for case in chosen if case.world == world])
        print(f"{len(chosen)} cases are equal to the bit")
