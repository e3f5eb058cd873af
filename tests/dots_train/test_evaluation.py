"""Validation beside training: the figures of a plain forward pass, and nothing of training is touched."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy

from dots_train import metrics
from dots_train.config import EvaluationConfig, Job
from dots_train.health import read_loads
from dots_train.trainer import Trainer
from tests.dots_train.conftest import CountingReader


def with_validation(job: Job, every_steps: int = 4, windows: int = 7) -> Job:
    return dataclasses.replace(job, evaluation=EvaluationConfig(every_steps=every_steps, windows=windows))


def lines(job: Job) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (Path(job.output) / "evaluation.jsonl").read_text().splitlines()]


def test_figures_are_those_of_a_forward_pass(job: Job, reader: Any) -> None:
    job = with_validation(job)
    said: list[str] = []
    held_out = {"zh": CountingReader(), "en": CountingReader()}
    trainer = Trainer(job, reader, log=said.append, held_out=held_out)
    trainer.run()
    found = lines(job)
    assert [line["step"] for line in found] == [4, 8, 12] and found[-1]["loss"]["zh"] < found[0]["loss"]["zh"]
    # Seven windows are two whole micro-batches of three.
    batch = reader.batch(0, 6)
    with torch.no_grad():
        logits = trainer.parts[0](batch.tokens_BS, batch.position_BS, batch.document_BS)
    loss = float(cross_entropy(logits.flatten(0, 1), batch.targets_BS.flatten()))
    assert found[-1]["loss"] == {"zh": pytest.approx(loss, rel=1e-6), "en": pytest.approx(loss, rel=1e-6)}
    assert found[-1]["perplexity"]["en"] == pytest.approx(math.exp(loss), rel=1e-5)
    assert said[-1].startswith("validation at step 12: loss ") and "perplexity zh " in said[-1]
    loads = read_loads(Path(job.output))
    assert loads is not None and (loads.step, loads.domains) == (12, ("zh", "en"))
    assert [sum(counts[0]) for counts in loads.counts] == [6 * 16 * 2] * 2


def test_training_does_not_notice(job: Job, reader: Any) -> None:
    other = dataclasses.replace(with_validation(job, every_steps=1), output=job.output + "-validated")
    Trainer(job, reader, log=lambda _: None).run()
    Trainer(other, reader, log=lambda _: None, held_out={"all": CountingReader()}).run()
    plain, validated = ([{**line, "timing": None} for line in metrics.read(Path(one.output))] for one in (job, other))
    assert plain == validated


def test_a_run_that_goes_on_validates_no_step_twice(job: Job, reader: Any) -> None:
    class Crash(Exception):
        pass

    def crash(record: Any) -> None:
        if record.step == 9:
            raise Crash

    job = with_validation(job)
    with pytest.raises(Crash):
        Trainer(job, reader, log=lambda _: None, held_out={"all": CountingReader()}).run(crash)
    before = lines(job)
    Trainer(job, reader, log=lambda _: None, held_out={"all": CountingReader()}).run()
    assert [line["step"] for line in lines(job)] == [4, 8, 12] and lines(job)[:1] == before[:1]
