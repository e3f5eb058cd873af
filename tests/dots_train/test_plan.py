"""`dots plan` and `dots curves`: what they print, and what they refuse in one sentence."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from dots_data import cli
from dots_data.typed_yaml import ConfigError
from dots_train import cost
from dots_train.config import Layout, load_job
from dots_train.cost import GPUS
from dots_train.plan import make_plan, sentences, tables, with_vocabulary

LAYOUT = Layout(pp=8, dp_shard=64, ep=16)


def plan_of(capsys: pytest.CaptureFixture[str], *options: str) -> dict[str, object]:
    assert cli.main(["plan", *options, "--json"]) == 0
    answer: dict[str, object] = json.loads(capsys.readouterr().out)
    return answer


def test_the_released_models_plan() -> None:
    plan = make_plan(load_job("dots1"), LAYOUT, GPUS["H800"], 0.2)
    curriculum, parameters, flops, memory = tables(plan)
    assert [row[0] for row in curriculum.rows] == [*["stable"] * 3, "anneal-1", "anneal-2", "long-context", "in all"]
    assert curriculum.rows[-1][6:8] == (11_328_109_412_352, 141_301)
    assert parameters.rows[-1][1:3] == (142_774_373_888, 14_016_581_120)
    assert flops.columns == ("part", "at 8,192", "at 32,768")
    assert flops.rows[-2] == ("forward and backward", "92.84 GFLOP", "130.29 GFLOP")
    assert memory.columns[1:4] == ("PP divides", "FSDP divides", "EP divides")
    assert memory.rows[0] == (
        "master weights, float32",
        "its layers, 1/8",
        "1/64",
        "experts 1/16, then 1/4",
        "1.07 GB",
        "1.07 GB",
    )
    assert all(len(row) == len(table.columns) for table in tables(plan) for row in table.rows)
    said = " ".join(sentences(plan))
    assert "130,383 GPU hours a trillion tokens" in said
    assert "layers of the 8 stages: 8, 8, 8, 8, 8, 8, 8, 6, of unequal work: 6.1% is waiting" in said
    assert "the pipeline is empty 5.4% of a step" in said
    assert "at 32,768: 229.67 GB does not fit in the 80 GB of a GPU" in said


def test_hours_add_up_to_the_reports() -> None:
    """1.456M GPU hours for 11.2T tokens, at 8K."""
    plan = make_plan(load_job("dots1"), LAYOUT, GPUS["H800"], 0.2)
    hours = sum(plan.hours(span) for span in plan.spans if span.sequence_length == 8192)
    assert hours * LAYOUT.world == pytest.approx(1_456_000, rel=0.01)


def test_a_plan_for_programs_has_the_same_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    answer = plan_of(capsys, "dots1", "--layout", "pp=8,dp_shard=64,ep=16", "--gpu", "H200", "--mfu", "0.4")
    layout = {"pp": 8, "vpp": 1, "dp_replicate": 1, "dp_shard": 64, "ep": 16, "schedule": "1f1b", "world": 512}
    assert answer["layout"] == layout
    assert answer["gpu"] == {"teraflops": 989, "gigabytes": 141}
    at = answer["lengths"]["8192"]  # type: ignore[index]
    assert at["gpu_hours_a_trillion"] == pytest.approx(130_383 / 2, rel=1e-4)
    assert at["all_to_all_bytes_a_step"] == cost.all_to_all_bytes(load_job("dots1").model, LAYOUT, 7808 * 8192, 2)
    assert len(answer["curriculum"]) == 6  # type: ignore[arg-type]


@pytest.mark.parametrize("how", ["off", "selective", "full"])
def test_checkpointing_trades_memory(capsys: pytest.CaptureFixture[str], how: str) -> None:
    options = ["dots1", "--layout", "pp=8,dp_shard=64,ep=16", "--checkpointing", how]
    at = plan_of(capsys, *options)["lengths"]["8192"]  # type: ignore[index]
    assert sum(at["memory_bytes"].values()) / 1e9 == pytest.approx(
        {"off": 163, "selective": 72, "full": 27}[how], abs=1
    )


def test_a_scaled_plan(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["dots1", "--scale", "1e-4", "--set", "curriculum.batch_multiple=1"]
    curriculum = plan_of(capsys, *options)["curriculum"]
    assert sum(phase["steps"] for phase in curriculum) == pytest.approx(1413, rel=0.01)  # type: ignore[union-attr,index]


def test_the_screen(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["plan", "debug", "--set", "model.vocab_size=512"]) == 0
    shown = capsys.readouterr().out
    assert all(title in shown for title in ("curriculum", "parameters", "FLOPs a token", "memory on the fullest rank"))
    assert "layout: 1 GPU" in shown


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["no-such-file.yaml"], "no-such-file.yaml: cannot be read"),
        (["debug"], "model.vocab_size is 0, that of the shards, and .* holds none"),
        (["dots1", "--layout", "pp=3,dp_shard=64,ep=3"], r"layout: ep is 3, which does not divide dp_shard \(64\)"),
        (["dots1", "--layout", "tp=3"], "unknown key 'tp'"),
        (["dots1", "--layout", "pp"], "expected KEY=VALUE"),
        (["dots1", "--layout", "pp=8,vpp=2,dp_shard=64"], "set curriculum.batch_multiple to 512"),
        (["dots1", "--mfu", "20"], "the MFU is a share of the peak"),
        (["dots1", "--gpu", "H900"], "no GPU 'H900' is known; there are B200"),
        (["dots1", "--scale", "0"], "scale must be over 0"),
    ],
)
def test_what_cannot_be_planned_is_one_sentence(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, options: list[str], message: str
) -> None:
    assert cli.main(["plan", *options, "--set", f"data={tmp_path}"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert error.startswith("error: ")
    assert re.search(message, error), error


def test_the_vocabulary_is_read_from_shards_where_there_are_some(tmp_path: Path) -> None:
    job = load_job("debug", ["model.vocab_size=77", f"data={tmp_path}"])
    assert with_vocabulary(job) == job
    with pytest.raises(ConfigError, match=f"{tmp_path} holds none to read it from"):
        with_vocabulary(load_job("debug", [f"data={tmp_path}"]))


def test_curves(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert cli.main(["curves", str(tmp_path)]) == 2
    assert "holds no training run" in capsys.readouterr().err
    record = {"step": 1, "tokens": 10, "phase": "stable", "loss": 2.0, "learning_rate": 0.1, "gradient_norm": 1.0}
    (tmp_path / "metrics.jsonl").write_text(json.dumps(record) + "\n")
    assert cli.main(["curves", str(tmp_path)]) == 0
    assert (tmp_path / "pictures" / "curves.svg").exists()
