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

import pytest

from tests.pipelines.test_pretrain import JOB, STEPS, write_shards

ROOT = Path(__file__).resolve().parents[2]
LAYOUT = "layout: {dp_shard: 2, ep: 2}\n"

# What torchrun starts: pretrain, in which rank 1 of the first attempt ends as STEP is written down.
CHILD = """
import os, signal, sys
from dots_train.trainer import Trainer
from pipelines import pretrain

step = Trainer._train_step
def step_or_die(self, stage, received):
    first, rank = os.environ["TORCHELASTIC_RESTART_COUNT"] == "0", os.environ["RANK"]
    if first and rank == "1" and self.step + 1 == int(os.environ.get("DIE_AT", "0")):
        os.kill(os.getpid(), signal.SIGKILL)
    return step(self, stage, received)
Trainer._train_step = step_or_die
sys.exit(pretrain.main(sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("processes")
    (folder / "job.yaml").write_text(JOB.format(data=write_shards(folder / "tokens")) + LAYOUT)
    (folder / "child.py").write_text(CHILD)
    return folder


def start(folder: Path, output: Path, **environment: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += ["--max-restarts", "1", "--monitor-interval", "0.1", str(folder / "child.py")]
    command += ["--job", str(folder / "job.yaml"), "--output", str(output)]
    known = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **environment}
    return subprocess.Popen(command, cwd=ROOT, env=known, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def numbers(output: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "timing"} for line in lines]


@pytest.fixture(scope="module")
def unbroken(folder: Path) -> Path:
    process = start(folder, folder / "unbroken")
    said, _ = process.communicate(timeout=240)
    assert process.returncode == 0, said
    assert said.count("pretrain is done") == 1, "one process speaks for all"
    assert len(numbers(folder / "unbroken")) == STEPS
    return folder / "unbroken"


def test_a_lost_rank_is_started_again_and_the_numbers_are_the_same(folder: Path, unbroken: Path) -> None:
    process = start(folder, folder / "lost", DIE_AT="9")
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 0, said
    assert "resuming from" in said
    assert numbers(folder / "lost") == numbers(unbroken)


def test_sigterm_leaves_a_checkpoint_of_all_ranks(folder: Path, unbroken: Path) -> None:
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
    process = start(folder, output)
    said, _ = process.communicate(timeout=240)
    assert process.returncode == 0, said
    assert numbers(output) == numbers(unbroken)
