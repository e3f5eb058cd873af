"""metrics.jsonl: exact numbers, and a resumed file equal to an unbroken one."""

from __future__ import annotations

import dataclasses
import math
import sys
from pathlib import Path

import pytest

from dots_train.config import load_job
from dots_train.metrics import Metrics, Record, Timing, model_flops_utilisation, read, scalars


def record(step: int, loss: float = 1 / 3) -> Record:
    return Record(
        step=step,
        tokens=step * 64,
        epoch=step / 7,
        phase="stable",
        learning_rate=1e-3,
        first_sample=24,
        shares=1,
        sequences=4,
        loss=loss,
        balance=1.0,
        gradient_norm=math.pi,
        load=(1.5, 1.25),
        timing=Timing(0.1, 640.0),
    )


def fill(folder: Path, first: int, last: int, at: int) -> None:
    metrics = Metrics(folder, at, tensorboard=False, log=pytest.fail)  # type: ignore[arg-type]
    for step in range(first, last + 1):
        metrics.write(record(step))
    metrics.sync()
    metrics.close()


def test_floats_come_back_to_the_bit(tmp_path: Path) -> None:
    fill(tmp_path, 1, 1, 0)
    (line,) = read(tmp_path)
    assert (line["loss"], line["gradient_norm"]) == (1 / 3, math.pi)
    assert line["timing"] == {"seconds": 0.1, "tokens_per_second": 640.0, "mfu": None}


@pytest.mark.parametrize("tail", [b"", b'{"step": 6, "lo', b"\x00\xff\n", b'{"loss": 1}\n'])
def test_resuming_forgets_what_came_after(tmp_path: Path, tail: bytes) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    for folder in (whole, broken):
        folder.mkdir()
    fill(whole, 1, 8, 0)
    fill(broken, 1, 5, 0)
    with (broken / "metrics.jsonl").open("ab") as file:
        file.write(tail)
    assert len(read(broken)) >= 5
    fill(broken, 4, 8, 3)
    assert (broken / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()


def test_no_tensorboard_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    said: list[str] = []
    metrics = Metrics(tmp_path, 0, tensorboard=True, log=said.append)
    metrics.write(record(1))
    metrics.close()
    assert len(said) == 1
    assert "TensorBoard is not installed" in said[0]
    assert len(read(tmp_path)) == 1


def test_tensorboard_events_where_installed(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    metrics = Metrics(tmp_path, 0, tensorboard=True, log=pytest.fail)  # type: ignore[arg-type]
    metrics.write(record(1))
    metrics.close()
    assert list((tmp_path / "tensorboard").glob("events.*"))


def test_a_line_for_people() -> None:
    line = record(3).line(10)
    assert line.startswith("step 3/10  loss 0.3333  lr 1.00e-03")
    assert "load 1.50" in line
    assert "load" not in dataclasses.replace(record(3), load=()).line(10)


def test_a_line_for_people_on_a_gpu_and_with_dead_experts() -> None:
    full = dataclasses.replace(record(3), timing=Timing(0.1, 640.0, mfu=0.314), dead_experts=2)
    line = full.line(10)
    assert line.endswith("640 tok/s  mfu 31.4%")
    assert "load 1.50  dead 2" in line


def test_scalars_of_a_step() -> None:
    plain = scalars(record(1))
    assert {"loss", "perplexity", "learning_rate", "gradient_norm", "tokens_per_second", "dead_experts"} <= set(plain)
    assert (plain["load/layer-0"], plain["load/layer-1"]) == (1.5, 1.25)
    assert not {"mfu", "spike/loss", "all_to_all_bytes", "bias/layer-0"} & set(plain)
    full = dataclasses.replace(
        record(1),
        timing=Timing(0.1, 640.0, 0.25),
        entropy=(0.9, 0.8),
        bias=(0.01, 0.02),
        spike=(7.0, 0.5),
        spike_score=0.1,
        all_to_all_bytes=1024,
    )
    more = {name: value for name, value in scalars(full).items() if name not in plain}
    assert more == {
        "mfu": 0.25,
        "spike/loss": 7.0,
        "spike/gradient_norm": 0.5,
        "spike/score": 0.1,
        "all_to_all_bytes": 1024,
        "entropy/layer-0": 0.9,
        "entropy/layer-1": 0.8,
        "bias/layer-0": 0.01,
        "bias/layer-1": 0.02,
    }


def test_model_flops_utilisation() -> None:
    """The report's 130K GPU hours a trillion tokens on H800s are about 20%."""
    model = load_job("dots1").model
    rate = 1e12 / (130_000 * 3600)
    assert model_flops_utilisation(model, 8192, rate, "NVIDIA H800") == pytest.approx(0.2, rel=0.01)
    assert model_flops_utilisation(model, 8192, 64 * rate, "NVIDIA H800", ranks=64) == pytest.approx(0.2, rel=0.01)
    assert model_flops_utilisation(model, 8192, rate, "cpu") is None
