"""The loop: it learns, it resumes to the bit, it refuses what is not its own."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from dots_data.typed_yaml import ConfigError
from dots_train import checkpoint, metrics
from dots_train.config import GuardConfig, Job
from dots_train.metrics import Record
from dots_train.model.moe import Router
from dots_train.optim import make_optimizer
from dots_train.trainer import Trainer, TrainingError
from tests.dots_train.conftest import tensors_of


def run(job: Job, reader: Any, stop_at: int | None = None) -> list[str]:
    """Train; `stop_at` breaks off after that step as a crash would. Returns what was said."""

    class Crash(Exception):
        pass

    def crash(record: Record) -> None:
        if record.step == stop_at:
            raise Crash

    said: list[str] = []
    trainer = Trainer(job, reader, log=said.append)
    if stop_at is None:
        trainer.run()
    else:
        with pytest.raises(Crash):
            trainer.run(crash)
    return said


def numbers(job: Job) -> list[dict[str, Any]]:
    return [{key: value for key, value in line.items() if key != "timing"} for line in metrics.read(Path(job.output))]


def final(job: Job) -> dict[str, torch.Tensor]:
    """Every tensor of the newest checkpoint."""
    found = checkpoint.latest(Path(job.output) / "checkpoints", pytest.fail)  # type: ignore[arg-type]
    assert found is not None
    return tensors_of(found)


def elsewhere(job: Job, name: str) -> Job:
    return dataclasses.replace(job, output=str(Path(job.output).parent / name))


def test_it_learns_and_says_how_far(job: Job, reader: Any) -> None:
    trainer = Trainer(job, reader, log=pytest.fail)  # type: ignore[arg-type]
    summary = trainer.run()
    assert (summary["steps"], summary["tokens"]) == (12, 8 * 64 + 4 * 128)
    assert summary["first_loss"] == pytest.approx(math.log(64), abs=0.3)
    assert summary["last_loss"] < summary["first_loss"] - 0.5
    assert json.loads((Path(job.output) / "summary.json").read_text()) == summary
    lines = metrics.read(Path(job.output))
    assert [line["step"] for line in lines] == list(range(1, 13))
    assert [line["sequences"] for line in lines] == [4] * 8 + [8] * 4
    assert [line["phase"] for line in lines] == ["stable"] * 8 + ["anneal"] * 4
    assert sorted(p.name for p in (Path(job.output) / "checkpoints").iterdir()) == ["step-12", "step-9"]


def test_a_batch_is_the_same_however_it_is_cut(job: Job, reader: Any) -> None:
    whole = dataclasses.replace(elsewhere(job, "whole"), micro_batch=8)
    run(job, reader)
    run(whole, reader)
    losses = [[line["loss"] for line in numbers(one)] for one in (job, whole)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    assert losses[0][0] == pytest.approx(losses[1][0], rel=1e-6)


@pytest.mark.parametrize("stop_at", [1, 3, 4, 8, 11])
def test_a_resumed_run_equals_an_unbroken_one_to_the_bit(job: Job, reader: Any, stop_at: int) -> None:
    broken = elsewhere(job, "broken")
    run(job, reader)
    run(broken, reader, stop_at)
    said = run(broken, reader)
    # The crash came before the checkpoint of its own step was written.
    assert (said != []) == (stop_at > 3)
    assert numbers(broken) == numbers(job)
    ours, theirs = final(broken), final(job)
    assert ours.keys() == theirs.keys() and any(name.startswith("optimizer.exp_avg_sq.") for name in ours)
    for name, tensor in theirs.items():
        assert torch.equal(ours[name], tensor), name
    biases = [value for name, value in theirs.items() if name.endswith("e_score_correction_bias")]
    assert biases
    assert all(bias.abs().sum() > 0 and bias.dtype == torch.float32 for bias in biases)


def test_a_damaged_checkpoint_costs_steps_and_no_numbers(job: Job, reader: Any) -> None:
    broken = elsewhere(job, "broken")
    run(job, reader)
    run(broken, reader, 8)
    path = Path(broken.output) / "checkpoints" / "step-6" / "__0_0.distcp"
    path.write_bytes(path.read_bytes()[:-100])
    said = run(broken, reader)
    assert "step-6/__0_0.distcp: damaged" in said[0]
    assert "step-3: step 3" in said[1]
    assert numbers(broken) == numbers(job)


def test_a_finished_run_is_left_as_it_is(job: Job, reader: Any) -> None:
    run(job, reader)
    before = (Path(job.output) / "metrics.jsonl").read_bytes()
    run(job, reader)
    assert (Path(job.output) / "metrics.jsonl").read_bytes() == before


def test_another_configuration_is_refused_with_the_difference(job: Job, reader: Any) -> None:
    run(job, reader, 4)
    before = {path: path.read_bytes() for path in Path(job.output).rglob("*") if path.is_file()}
    model = dataclasses.replace(job.model, layers=3)
    for other, message in (
        (
            dataclasses.replace(job, model=model),
            r"model\.layers is 2 there, 3 here.*choose another output folder",
        ),
        (dataclasses.replace(job, seed=5), "seed is 0 there, 5 here"),
    ):
        with pytest.raises(ConfigError, match=message):
            Trainer(other, reader)
    reader.manifest.id = "other"
    with pytest.raises(ConfigError, match="manifest is 'counting' there, 'other' here"):
        Trainer(job, reader)
    assert {path: path.read_bytes() for path in Path(job.output).rglob("*") if path.is_file()} == before


def test_a_checkpoint_of_another_run_is_refused(job: Job, reader: Any) -> None:
    other = elsewhere(dataclasses.replace(job, model=dataclasses.replace(job.model, layers=3)), "other")
    run(other, reader, 4)
    run(job, reader, 2)
    (Path(other.output) / "checkpoints").rename(Path(job.output) / "checkpoints")
    with pytest.raises(ConfigError, match=r"step-3: a checkpoint of another run: model\.layers is 3 there, 2 here"):
        Trainer(job, reader)


def test_a_folder_with_a_run_of_unknown_configuration_is_refused(job: Job, reader: Any) -> None:
    output = Path(job.output)
    output.mkdir()
    (output / "metrics.jsonl").touch()
    with pytest.raises(ConfigError, match=r"holds a run but no config\.json"):
        Trainer(job, reader)
    (output / "config.json").write_text("{")
    with pytest.raises(ConfigError, match=r"config\.json: damaged"):
        Trainer(job, reader)


def test_an_output_that_is_a_file_is_refused(job: Job, reader: Any) -> None:
    Path(job.output).write_text("")
    with pytest.raises(ConfigError, match="cannot be used as the output folder"):
        Trainer(job, reader)


def test_a_vocabulary_too_small_for_the_shards_is_refused(job: Job, reader: Any) -> None:
    small = dataclasses.replace(job, model=dataclasses.replace(job.model, vocab_size=50))
    with pytest.raises(ConfigError, match="vocab_size is 50, but the shards were made with a vocabulary of 64"):
        Trainer(small, reader)


@pytest.mark.parametrize(("what", "value"), [("loss", math.nan), ("gradient norm", math.inf)])
def test_a_number_that_is_not_finite_skips_the_step_and_then_stops(
    job: Job, reader: Any, what: str, value: float
) -> None:
    """Two poisoned steps change nothing and are named; three in a row are too many."""
    job = dataclasses.replace(job, guards=GuardConfig(skip_in_a_row=3))
    said: list[str] = []
    trainer = Trainer(job, reader, log=said.append)
    parameter = trainer.parts[0].layers["1"].get_submodule("self_attn.q_norm").weight
    poisoned = {3, 4, 7, 8, 9}
    healthy = parameter.detach().clone()

    def poison(record: Record) -> None:
        parameter.data.copy_(healthy) if record.skipped else healthy.copy_(parameter.data)
        if what == "loss" and record.step + 1 in poisoned:
            parameter.data.fill_(value)

    if what == "gradient norm":
        parameter.register_hook(lambda gradient: gradient * (value if trainer.step + 1 in poisoned else 1.0))
    with pytest.raises(TrainingError, match=rf"step 9: the {what} is .*samples 32 to .*3 steps one .*step-6 stands"):
        trainer.run(poison)
    lines = metrics.read(Path(job.output))
    assert [line["step"] for line in lines] == list(range(1, 9))
    assert {line["step"] for line in lines if line["skipped"]} == {3, 4, 7, 8}
    assert lines[2]["loss" if what == "loss" else "gradient_norm"] is None
    told = rf"step 3: the {what} is .*, in samples 8 to \d+, in the gradient of \S+; this step changed no weight"
    assert re.match(told, said[0])
    assert checkpoint.saved(Path(job.output) / "checkpoints")[0].name == "step-6"


def test_master_weights_must_be_float32(job: Job, reader: Any) -> None:
    model = Trainer(job, reader).parts[0].to(torch.bfloat16)
    with pytest.raises(TypeError, match="master weights must be float32"):
        make_optimizer([model], job.optimizer)


def test_the_router_bias_moves_once_a_global_batch(job: Job, reader: Any) -> None:
    trainer = Trainer(job, reader)
    router = next(module for module in trainer.parts[0].modules() if isinstance(module, Router))
    seen = []
    trainer.run(lambda record: seen.append(router.e_score_correction_bias.clone()))
    steps = torch.stack(seen).diff(dim=0).abs()
    rate = job.balance.bias_rate
    assert steps.max() <= 2 * rate + 1e-7, "a second update in one batch would move further"
    assert steps.max() > 0


def test_an_expert_that_gets_no_token_is_named(job: Job, reader: Any) -> None:
    """Once, and training goes on."""
    job = dataclasses.replace(job, guards=GuardConfig(dead_after=4))
    said: list[str] = []
    trainer = Trainer(job, reader, log=said.append)
    router = next(module for module in trainer.parts[0].modules() if isinstance(module, Router))
    router.e_score_correction_bias[5] = -100.0
    summary = trainer.run()
    assert summary["steps"] == 12
    assert [one for one in said if "expert 5" in one] == ["step 4: layer 1 expert 5 got no token for 4 steps"]
    assert [line["dead_experts"] for line in metrics.read(Path(job.output))] == [0] * 3 + [1] * 9


def test_a_phase_may_have_longer_windows(job: Job, reader: Any) -> None:
    """The data is opened anew with them, at the place that the tokens say; a run that was broken off goes on there."""
    from tests.dots_train.conftest import CountingReader

    first, second = job.curriculum.phases
    longer = dataclasses.replace(second, sequence_length=32, rope_theta=1e5)
    job = dataclasses.replace(job, curriculum=dataclasses.replace(job.curriculum, phases=(first, longer)))

    def train(output: Job, stop_at: int | None) -> None:
        trainer = Trainer(output, CountingReader(), log=lambda _: None, at_length=CountingReader)

        def stop(record: Record) -> None:
            if record.step == stop_at:
                raise KeyboardInterrupt

        trainer.run(stop)

    train(job, None)
    lines = numbers(job)
    assert [line["sequence_length"] for line in lines] == [16] * 8 + [32] * 4
    assert lines[8]["first_sample"] == 512 // 32 and lines[-1]["tokens"] == 1024
    broken = elsewhere(job, "broken")
    with pytest.raises(KeyboardInterrupt):
        train(broken, 11)
    train(broken, None)
    assert numbers(broken) == lines
