"""Validation beside training: the perplexity of every source of a held-out dataset, and where its tokens went.

All ranks take part, each with its share of the windows. Which windows these are is a function of the dataset and the
job alone, so that the figures of a run can be compared with each other, and with those of another run.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from dots_train.config import Job
from dots_train.health import Loads, write_loads
from dots_train.model.dots1 import Dots1, Tally
from dots_train.parallel.mesh import Ranks, expert_counts
from dots_train.parallel.pipeline import Pipeline, Plain, Share
from dots_train.reading import Windows

FILE = "evaluation.jsonl"


@dataclass(frozen=True)
class Result:
    """What an evaluation found; `loss` in nats a token, by source and over all of them together (by tokens)."""

    step: int
    tokens: int
    """Of training, before it."""
    loss: Mapping[str, float]
    whole: float

    @property
    def perplexity(self) -> dict[str, float]:
        return {source: math.exp(min(loss, 80.0)) for source, loss in self.loss.items()}

    def line(self) -> str:
        """For people."""
        each = "  ".join(f"{source} {value:.2f}" for source, value in self.perplexity.items())
        return f"validation at step {self.step}: loss {self.whole:.4f}, perplexity {each}"


class Evaluation:
    """The validation of a run.

    Args:
        sources: windows by the name of the source.
    """

    def __init__(self, job: Job, sources: Mapping[str, Windows], ranks: Ranks, device: torch.device):
        self.job, self.sources, self.ranks, self.device = job, sources, ranks, device
        # Equal shares of whole micro-batches, of which a pipeline wants one for each of its ranks at least.
        self.unit = ranks.shares * job.micro_batch * (job.layout.pp if job.layout.pp > 1 else 1)

    def run(self, step: int, tokens: int, parts: list[Dots1], engine: Plain | Pipeline) -> tuple[Result, Loads]:
        """Forward passes over every source, no gradients; what the parts tallied for training stays as it was."""
        kept = [part.tally for part in parts]
        losses: dict[str, float] = {}
        total = count = 0.0
        counts_DLE = []
        for name, reader in self.sources.items():
            for part in parts:
                part.tally = Tally()
            loss, targets = self._source(reader, engine)
            losses[name] = loss / max(1.0, targets)
            total, count = total + loss, count + targets
            counts_DLE.append(expert_counts(parts, self.job.model, self.ranks).tolist())
        for part, tally in zip(parts, kept, strict=True):
            part.tally = tally
        first = self.job.model.dense_layers
        return Result(step, tokens, losses, total / max(1.0, count)), Loads(step, first, (*self.sources,), counts_DLE)

    def _source(self, reader: Windows, engine: Plain | Pipeline) -> tuple[float, float]:
        """The summed loss and the number of targets of a source's windows, over all ranks."""
        wanted = min(self.job.evaluation.windows, reader.windows)
        windows = max(1, wanted // self.unit) * self.unit
        mine = windows // self.ranks.shares
        step = self.unit // self.ranks.shares
        first = self.ranks.share * mine
        summed = torch.zeros(2, dtype=torch.float64)
        for at in range(first, first + mine, step):
            batch = reader.batch(at, step)
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.job.precision == "bfloat16"):
                summed[0] += engine.evaluate(Share.of(batch, self.device)).cpu()
            # Every rank of a pipeline is given the same windows: the last one, which knows the loss, counts them.
            if self.ranks.stage == self.job.layout.pp - 1:
                summed[1] += int((batch.targets_BS >= 0).sum())
        loss, targets = self.ranks.sum(summed).tolist()
        return loss, targets


def write(folder: Path, result: Result, loads: Loads) -> None:
    """A line more in evaluation.jsonl, and the counts in place of the last ones."""
    with (folder / FILE).open("a", encoding="utf-8") as file:
        file.write(json.dumps({**asdict(result), "perplexity": result.perplexity}) + "\n")
    write_loads(folder, loads)


def forget_after(folder: Path, step: int) -> None:
    """Leave out of evaluation.jsonl what a run that goes on from `step` will do again."""
    path = folder / FILE
    if path.exists():
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= step]
        path.write_text("".join(kept), encoding="utf-8")
