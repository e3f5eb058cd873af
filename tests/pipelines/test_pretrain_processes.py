"""pretrain on two processes: a rank that is killed is started again, and SIGTERM to all leaves a checkpoint."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from tests.pipelines.test_pretrain import JOB, STEPS, weights, write_shards

ROOT = Path(__file__).resolve().parents[2]
LAYOUT = "layout: {dp_shard: 2, ep: 2}\n"

# What torchrun starts: pretrain, in which one rank, in a place and step that DIE names, ends itself in the first
# attempt; or, where DIE says so, leaves a sign and waits to be killed with all others.
CHILD = """
import os, pathlib, signal, sys, time
from dots_train import checkpoint
from dots_train.trainer import Trainer
from pipelines import pretrain

how, rank, where, step = os.environ.get("DIE", "never 0 step 0").split()

def end():
    if how == "killed" and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "waits":
        pathlib.Path(os.environ["SIGN"]).touch()
        time.sleep(60)

train, write, sync = Trainer._train_step, checkpoint.save_tensors, checkpoint._sync

def train_or_die(self, stage, received):
    if where == "step" and self.step + 1 == int(step) and rank == os.environ["RANK"]:
        end()
    return train(self, stage, received)

def write_or_die(tensors, *, storage_writer, **others):
    if where == "save" and f".step-{step}." in str(storage_writer.path) and rank == os.environ["RANK"]:
        end()
    return write(tensors, storage_writer=storage_writer, **others)

def sync_or_die(path):
    if where == "commit" and path.parent.name == f".step-{step}.partial" and path.name == "__1_0.distcp":
        end()
    sync(path)

Trainer._train_step, checkpoint.save_tensors, checkpoint._sync = train_or_die, write_or_die, sync_or_die
sys.exit(pretrain.main(sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("processes")
    job = JOB.format(data=write_shards(folder / "tokens")).replace("micro_batch: 2", "micro_batch: 1")
    (folder / "job.yaml").write_text(job + LAYOUT)
    (folder / "child.py").write_text(CHILD)
    return folder


def start(folder: Path, output: Path, *options: str, **environment: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += ["--max-restarts", "1", "--monitor-interval", "0.1", str(folder / "child.py")]
    command += ["--job", str(folder / "job.yaml"), "--output", str(output), *options]
    known = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **environment}
    return subprocess.Popen(command, cwd=ROOT, env=known, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


# Changes no number: what was begun with the plain schedule goes on with it.
OVERLAPPED = ("--set", "layout.schedule=overlapped")


def numbers(output: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "timing"} for line in lines]


def assert_equal(output: Path, unbroken: Path) -> None:
    assert numbers(output) == numbers(unbroken)
    assert all(torch.equal(weights(output)[name], value) for name, value in weights(unbroken).items())


@pytest.fixture(scope="module")
def unbroken(folder: Path) -> Path:
    process = start(folder, folder / "unbroken")
    said, _ = process.communicate(timeout=240)
    assert process.returncode == 0, said
    assert said.count("pretrain is done") == 1, "one process speaks for all"
    assert len(numbers(folder / "unbroken")) == STEPS
    return folder / "unbroken"


# A start costs seconds: one run goes through all of it.
KILLS = [
    # A checkpoint is written while training goes on: that of step 3 may be whole by step 5, or not.
    ("1 step 5", {"step-3", None}),
    ("1 save 6", {"step-3"}),
    ("0 commit 9", {"step-6"}),
]


def test_all_killed_thrice_then_one_rank_lost_in_a_save(folder: Path, unbroken: Path) -> None:
    output = folder / "killed"
    for place, left in KILLS:
        sign = folder / f"sign of {place}"
        process = start(folder, output, DIE=f"waits {place}", SIGN=str(sign))
        deadline = time.monotonic() + 120
        while not sign.exists():
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)
        for one in [*psutil.Process(process.pid).children(recursive=True), process]:
            one.send_signal(signal.SIGKILL)
        process.communicate(timeout=60)
        found = sorted((output / "checkpoints").glob("step-*"), key=lambda path: int(path.name[5:]))
        assert (found[-1].name if found else None) in left
    process = start(folder, output, *OVERLAPPED, DIE="killed 1 save 12")
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 0, said
    assert said.count("resuming from") == 2 and "step-9" in said
    assert_equal(output, unbroken)


def test_sigterm_leaves_a_checkpoint_of_all_ranks_and_a_lost_one_is_started_again(folder: Path, unbroken: Path) -> None:
    output = folder / "stopped"
    process = start(folder, output)
    deadline = time.monotonic() + 120
    while not (output / "metrics.jsonl").exists() or len(numbers(output)) < 2:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=120)
    assert process.returncode != 0 and "was written; run the same command again" in said
    done = len(numbers(output))
    assert done < STEPS and (output / "checkpoints" / f"step-{done}" / "manifest.json").exists()
    process = start(folder, output, DIE="killed 1 step 9")
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 0, said
    assert_equal(output, unbroken)
