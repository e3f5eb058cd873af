"""The command: what it says, what it leaves, its exit codes, and a run that is killed and started again."""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from dots_data.tokens import manifest as manifests
from dots_data.tokens import shards
from dots_train import checkpoint
from pipelines import pretrain
from tests.dots_train.conftest import tensors_of

ROOT = Path(__file__).resolve().parents[2]
VOCABULARY = 96

JOB = """
preset: debug
data: {data}
model:
  {{hidden_size: 32, layers: 2, dense_ffn_size: 48, heads: 2, head_dim: 16, experts: 8, experts_per_token: 2,
   expert_ffn_size: 16, init_std: 0.05}}
sequence_length: 32
micro_batch: 2
threads: 1
curriculum:
  warmup_steps: 2
  phases:
    - {{until: 1K, learning_rate: 0.01, batch: 128}}
    - {{until: 2K, learning_rate: 0.001, batch: 192, name: anneal}}
checkpoint: {{every_steps: 3}}
log_every: 5
tensorboard: false
"""
STEPS = 14  # 8 of 128 tokens, then 6 of 192

# Runs the command and sends itself a signal, either after the step named or inside the save of that step.
CHILD = """
import os, sys
from dots_train import checkpoint, metrics
from pipelines import pretrain

where, step, number = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
write, sync = metrics.Metrics.write, checkpoint._sync

def write_and_die(self, record):
    write(self, record)
    if where == "step" and record.step == step:
        os.kill(os.getpid(), number)

def sync_and_die(path):
    if where == "save" and path.parent.name == f".step-{step}.partial" and path.name == "__0_0.distcp":
        os.kill(os.getpid(), number)
    sync(path)

metrics.Metrics.write, checkpoint._sync = write_and_die, sync_and_die
sys.exit(pretrain.main(sys.argv[4:]))
"""


def write_shards(folder: Path) -> Path:
    """Forty documents of a walk that mostly counts upwards."""
    folder.mkdir()
    tokenizer = folder / "tokenizer.json"
    tokenizer.write_text("{}")
    digest = hashlib.sha256(tokenizer.read_bytes()).hexdigest()
    info = manifests.TokenizerInfo("tokenizer.json", digest, VOCABULARY, "<eos>", 0, None, {"<eos>": 0})
    header = shards.Header(info, "test", None, "job", 0)
    draw = np.random.default_rng(0)
    steps = [draw.choice([1, 1, 1, 1, 5], size=draw.integers(20, 200)) for _ in range(40)]
    texts = [np.append((start + np.cumsum(step)) % (VOCABULARY - 1) + 1, 0) for start, step in enumerate(steps)]
    lengths = [len(text) for text in texts]
    ids = [hashlib.blake2b(bytes([n]), digest_size=16).digest() for n in range(len(texts))]
    documents = shards.Documents(
        np.concatenate(texts),
        np.cumsum([0, *lengths]),
        pa.array(ids, pa.binary(16)),
        np.zeros(len(texts), np.uint8),
    )
    known: dict[str, Any] = {"doc_id": [one.hex() for one in ids], "tokens": lengths}
    provenance = pa.table({f.name: pa.array(known.get(f.name, [None] * len(ids)), f.type) for f in shards.PROVENANCE})
    shard = shards.write_shard(folder, "part-0", [shards.record_batch(documents, header)], provenance, header)
    sources = (manifests.Source("test", shard.rows, shard.tokens),)
    recipe = manifests.Recipe(None, "job")
    manifest = manifests.Manifest(info, info.dtype, recipe, 0, shard.rows, shard.tokens, sources, (shard,))
    manifests.write(folder, manifest)
    return folder


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pretrain")
    path = folder / "job.yaml"
    path.write_text(JOB.format(data=write_shards(folder / "tokens")))
    return path


@pytest.fixture(scope="module")
def unbroken(job: Path) -> Path:
    output = job.parent / "unbroken"
    assert pretrain.main(["--job", str(job), "--output", str(output)]) == 0
    return output


@pytest.fixture(autouse=True)
def torch_settings() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(False)


def numbers(output: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "timing"} for line in lines]


def weights(output: Path) -> dict[str, torch.Tensor]:
    return tensors_of(checkpoint.load(output / "checkpoints" / f"step-{STEPS}"))


def test_it_trains_and_says_what_came_of_it(unbroken: Path, job: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert pretrain.main(["--job", str(job), "--output", str(unbroken)]) == 0, "done already: says it again"
    said = capsys.readouterr().out
    summary = json.loads((unbroken / "summary.json").read_text())
    assert summary["steps"] == STEPS
    assert summary["last_loss"] < summary["first_loss"] - 0.5
    assert summary["vocabulary"] == VOCABULARY
    assert summary["parameters_active"] < summary["parameters_total"]
    for expected in ("pretrain is done", "mean of 10 steps", "nats", "active for a token", "step-14"):
        assert expected in said
    assert len(numbers(unbroken)) == STEPS


@pytest.mark.parametrize(
    ("where", "step", "number", "code", "left"),
    [
        # A checkpoint is written while training goes on: that of step 6 may be whole by step 8, or not.
        ("step", 8, signal.SIGKILL, -9, {"step-3", "step-6"}),
        ("save", 9, signal.SIGKILL, -9, {"step-6"}),
        ("step", 2, signal.SIGKILL, -9, {None}),
        # A signal that comes while a step is written down is heard in the next one.
        ("step", 4, signal.SIGTERM, 143, {"step-5"}),
        ("step", 4, signal.SIGINT, 130, {"step-5"}),
    ],
)
def test_stopped_and_started_again_it_equals_an_unbroken_run_to_the_bit(
    job: Path, unbroken: Path, tmp_path: Path, where: str, step: int, number: int, code: int, left: set[str | None]
) -> None:
    output = tmp_path / "run"
    arguments = ["--job", str(job), "--output", str(output)]
    child = [sys.executable, "-c", CHILD, where, str(step), str(int(number)), *arguments]
    stopped = subprocess.run(child, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert stopped.returncode == code, stopped.stderr
    folder = output / "checkpoints"
    found = sorted(folder.glob("step-*"), key=lambda path: int(path.name[5:]))
    assert (found[-1].name if found else None) in left
    assert not (output / "summary.json").exists()

    assert pretrain.main(arguments) == 0
    assert numbers(output) == numbers(unbroken)
    assert all(torch.equal(weights(output)[name], value) for name, value in weights(unbroken).items())


def test_a_bar_on_a_terminal(job: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    assert pretrain.main(["--job", str(job), "--output", str(tmp_path / "run")]) == 0
    monkeypatch.setitem(sys.modules, "rich.progress", None)
    assert pretrain.main(["--job", str(job), "--output", str(tmp_path / "plain")]) == 0
    assert numbers(tmp_path / "run") == numbers(tmp_path / "plain")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--job", "absent.yaml"], "absent.yaml: cannot be read"),
        (["--data", "absent"], "give the folder that `make tokenize` wrote, with --data"),
        (["--set", "modl.layers=3"], "unknown key 'modl'; did you mean 'model'?"),
        (["--set", "sequence_length=99999"], "one window of 99999 tokens needs 100000"),
        (["--set", "model.vocab_size=9"], "model.vocab_size is 9, but the shards were made with"),
        (["--set", "experts=fusd"], "unknown expert backend 'fusd'; there are auto, fused, reference"),
        (["--scale", "2"], "scale must be over 0 and at most 1, found 2.0"),
        (["--set", "device=nonsense"], "device: 'nonsense' is not one of 'cpu', 'cuda'"),
        (["--set", "seed=1", "--output", "UNBROKEN"], "seed is 0 there, 1 here"),
    ],
)
def test_what_cannot_be_done_is_one_sentence_and_exit_code_2(
    job: Path, unbroken: Path, tmp_path: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = numbers(unbroken)
    given = [str(unbroken) if argument == "UNBROKEN" else argument for argument in arguments]
    assert pretrain.main(["--job", str(job), "--output", str(tmp_path / "run"), *given]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.startswith("error: ")
    assert said.count("\n") == 1
    assert numbers(unbroken) == before


def test_a_failure_on_the_way_is_exit_code_1(job: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    huge = ["--set", "curriculum.phases=[{until: 2K, learning_rate: 1e30, batch: 128}]"]
    assert pretrain.main(["--job", str(job), "--output", str(tmp_path / "run"), *huge]) == 1
    said = capsys.readouterr().err
    assert "error: step " in said
    assert "documents " in said, "the reader knows them"
    assert "train with a lower learning rate" in said


def test_a_shard_cut_since_is_named(job: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_shards(tmp_path / "tokens")
    shard = folder / "part-0.arrow"
    shard.write_bytes(shard.read_bytes()[:-7])
    assert pretrain.main(["--job", str(job), "--data", str(folder), "--output", str(tmp_path / "run")]) == 2
    assert "part-0.arrow" in capsys.readouterr().err


def test_help_teaches(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        pretrain.main(["--help"])
    assert ended.value.code == 0
    said = capsys.readouterr().out
    for expected in ("--job", "--data", "--output", "--set", "Exit codes", "examples:", "checkpoints/step-N/"):
        assert expected in said
