"""Many processes on gloo: every layout gives the numbers of one, and goes on from the checkpoint of any other."""

from __future__ import annotations

import json
import os
import shutil
import traceback
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing

from dots_data.typed_yaml import ConfigError, build
from dots_train import checkpoint, metrics
from dots_train.config import Job, Layout, check_layout
from dots_train.health import read_loads
from dots_train.trainer import Trainer
from tests.dots_train.conftest import TINY, CountingReader, tensors_of

STEPS, SAVED = 20, 18
LAYOUTS: dict[str, dict[str, Any]] = {
    "one": {},
    "fsdp": {"dp_shard": 2},
    "ep2": {"dp_shard": 2, "ep": 2},
    "ep4": {"dp_shard": 4, "ep": 4},
    "pp": {"pp": 2},
    "pp-interleaved": {"pp": 2, "vpp": 2},
    "pp-ep": {"pp": 2, "dp_shard": 2, "ep": 2},
    "fsdp-ep": {"dp_shard": 4, "ep": 2, "schedule": "overlapped"},
    "hsdp": {"dp_replicate": 2, "dp_shard": 2},
}
# The same in bfloat16, where sums in another order round differently.
HALF = {"half": {}, "half-hsdp": LAYOUTS["hsdp"], "half-fsdp-ep": LAYOUTS["fsdp-ep"]}


def job(output: Path, layout: dict[str, Any], **changes: Any) -> Job:
    """Twenty steps of sixteen sequences; each rank's share is whole micro-batches in every layout."""
    phase = {"until": 16 * 16 * STEPS, "learning_rate": 0.003, "batch": 256}
    values = {
        "model": {**TINY, "layers": 4},
        "output": str(output),
        "sequence_length": 16,
        "micro_batch": 2,
        "threads": 1,
        "curriculum": {"warmup_steps": 3, "phases": [phase]},
        "checkpoint": {"every_steps": SAVED, "keep": 2},
        "tensorboard": False,
        "layout": layout,
        "evaluation": {"every_steps": SAVED, "windows": 16},
        **changes,
    }
    return build(Job, values, "test")


def train(root: Path, source: str | None, target: str) -> None:
    """A run in the layout `target`, from the start or from a checkpoint of `source`."""
    output = root / (target if source is None else f"{source}-to-{target}")
    recomputing = source is not None and target != source
    precision = "bfloat16" if target in HALF else "float32"
    layout = {**LAYOUTS, **HALF}[target]
    what = job(output, layout, activation_checkpointing=recomputing, precision=precision)
    held_out = {"near": CountingReader(), "far": CountingReader(name="far")}
    Trainer(what, CountingReader(), log=lambda _: None, held_out=held_out).run()


def in_process(rank: int, root: Path, sources: tuple[str | None, ...]) -> None:
    """What one of the processes does: all layouts that it is part of, each from all `sources`, in the same order as the
    other processes."""
    try:
        torch.set_num_threads(1)
        for target, layout in {**LAYOUTS, **(HALF if sources == (None,) else {})}.items():
            world = Layout(**layout).world
            if rank >= world:
                continue
            os.environ["WORLD_SIZE"] = str(world)
            if world > 1:
                meet = f"file://{root}/meet-{target}-{len(sources)}"
                dist.init_process_group("gloo", meet, timedelta(minutes=2), world, rank)
            for source in sources:
                train(root, source, target)
            if world > 1:
                dist.barrier()
                dist.destroy_process_group()
    except Exception:
        (root / f"failed-{rank}").write_text(traceback.format_exc())
        raise


def in_processes(root: Path, sources: tuple[str | None, ...]) -> None:
    """`in_process` in as many processes as the largest layout has. Fails with what they raised."""
    count = max(Layout(**layout).world for layout in LAYOUTS.values())
    context = multiprocessing.spawn(in_process, (root, sources), nprocs=count, join=False)
    try:
        while not context.join(timeout=300):
            pass
    except Exception as error:
        said = "\n".join(path.read_text() for path in sorted(root.glob("failed-*")))
        pytest.fail(said or str(error))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    root = tmp_path_factory.mktemp("layouts")
    in_processes(root, (None,))
    yield root


def assert_same(lines: list[dict[str, Any]], expected: list[dict[str, Any]], name: str) -> None:
    assert [line["step"] for line in lines] == [line["step"] for line in expected], name
    for line, other in zip(lines, expected, strict=True):
        for key in ("loss", "gradient_norm", "balance"):
            assert line[key] == pytest.approx(other[key], rel=1e-6), (name, line["step"], key)
        for key in ("load", "entropy", "bias"):
            assert line[key] == pytest.approx(other[key], rel=1e-6), (name, line["step"], key)


def test_in_bfloat16_a_sharded_run_computes_what_one_process_does(runs: Path) -> None:
    expected = metrics.read(runs / "half")
    found = {name: metrics.read(runs / name) for name in HALF}
    assert found["half-hsdp"][0]["loss"] == expected[0]["loss"], "the same products of the same bfloat16 weights"
    for name, lines in found.items():
        for line, other in zip(lines, expected, strict=True):
            assert line["loss"] == pytest.approx(other["loss"], rel=5e-3), (name, line["step"])
            assert line["gradient_norm"] == pytest.approx(other["gradient_norm"], rel=0.1), (name, line["step"])


def validations(output: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (output / "evaluation.jsonl").read_text().splitlines()]


def tensors(output: Path) -> dict[str, torch.Tensor]:
    return tensors_of(checkpoint.load(output / "checkpoints" / f"step-{STEPS}"))


def test_every_layout_gives_the_numbers_of_one_process(runs: Path) -> None:
    expected, weights = metrics.read(runs / "one"), tensors(runs / "one")
    assert len(expected) == STEPS and expected[-1]["loss"] < expected[0]["loss"] - 1
    for name in LAYOUTS:
        assert_same(metrics.read(runs / name), expected, name)
        for mine, one in zip(validations(runs / name), validations(runs / "one"), strict=True):
            assert mine["loss"] == pytest.approx(one["loss"], rel=1e-6) and mine["step"] == one["step"]
        loads = read_loads(runs / name)
        assert loads == read_loads(runs / "one") and loads is not None and loads.domains == ("near", "far")
        found = tensors(runs / name)
        assert found.keys() == weights.keys()
        for key, value in weights.items():
            if key.endswith("e_score_correction_bias"):
                assert torch.equal(found[key], value), (name, key)
            elif value.is_floating_point():
                torch.testing.assert_close(found[key], value, rtol=1e-3, atol=1e-5, msg=lambda m, k=key: f"{k}: {m}")


def test_every_layout_goes_on_from_every_other(runs: Path) -> None:
    """With activations computed again, besides, which no number depends on either."""
    for source in LAYOUTS:
        for target in LAYOUTS:
            copy = runs / f"{source}-to-{target}"
            (copy / "checkpoints").mkdir(parents=True)
            shutil.copytree(runs / source / "checkpoints" / f"step-{SAVED}", copy / "checkpoints" / f"step-{SAVED}")
            shutil.copy(runs / source / "config.json", copy)
    in_processes(runs, (*LAYOUTS,))
    expected = metrics.read(runs / "one")
    for source in LAYOUTS:
        for target in LAYOUTS:
            lines = metrics.read(runs / f"{source}-to-{target}")
            assert_same(lines, expected[SAVED:], f"{source} to {target}")
            if source == target:
                unbroken = metrics.read(runs / source)[SAVED:]
                assert [{**line, "timing": 0} for line in lines] == [{**line, "timing": 0} for line in unbroken]


@pytest.mark.parametrize(
    ("layout", "world", "changes", "message"),
    [
        ({"dp_shard": 2}, 1, {}, "is 2 ranks, but there are 1"),
        ({"dp_shard": 16, "ep": 16}, 16, {}, "the 8 experts of a layer do not divide among ep 16 ranks"),
        ({"pp": 5}, 5, {}, "4 layers do not divide among pp 5"),
        ({"dp_shard": 3}, 3, {}, "batch of 16 sequences does not divide among 3"),
        ({"pp": 4}, 4, {"micro_batch": 8}, "2 micro-batches, fewer than the pipeline's 4 ranks"),
        ({"pp": 2}, 2, {"micro_batch": 3}, "does not divide among 1 data-parallel ranks in micro-batches of 3"),
    ],
)
def test_a_layout_that_cannot_be_is_one_sentence(
    tmp_path: Path, layout: dict[str, int], world: int, changes: dict[str, Any], message: str
) -> None:
    what = job(tmp_path, layout, **changes)
    with pytest.raises(ConfigError, match=message):
        check_layout(what, what.layout, world)


@pytest.mark.parametrize(
    ("layout", "message"),
    [
        ({"dp_shard": 3, "ep": 2}, "ep is 2, which does not divide dp_shard"),
        ({"vpp": 2}, "there is no pipeline"),
        ({"pp": 0}, "pp must be at least 1"),
    ],
)
def test_a_layout_that_contradicts_itself(tmp_path: Path, layout: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        job(tmp_path, layout)
