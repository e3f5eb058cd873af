"""What a run leaves behind about itself: metrics.jsonl, and TensorBoard events where the package is
installed.

metrics.jsonl has one line a step. Numbers that depend on the clock stand under `timing`; all the others are
equal, to the last bit, in a run that was stopped and resumed and in one that never was (Python prints a float
so that reading gives it back exactly).
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dots_train import cost
from dots_train.config import ModelConfig
from dots_train.cost import gpu, training_flops


@dataclass(frozen=True)
class Timing:
    seconds: float
    tokens_per_second: float
    mfu: float | None = None
    """Share of the devices' peak that went into the model; None where the peak is not known, as on a CPU."""


def model_flops_utilisation(
    model: ModelConfig, sequence_length: int, tokens_per_second: float, device_name: str, ranks: int = 1
) -> float | None:
    """MFU of `ranks` devices of a kind that together train so many tokens a second.

    device_name: as torch.cuda.get_device_name gives it. None for a device whose peak is not in dots_train.cost.GPUS.
    """
    device = gpu(device_name)
    if device is None:
        return None
    flops = training_flops(model, sequence_length).total
    return cost.mfu(tokens_per_second, flops, device.teraflops * 1e12, ranks)


@dataclass(frozen=True)
class Record:
    """One step, counted from 1."""

    step: int
    tokens: int
    """Seen when the step was done."""
    epoch: float
    """Passes over the data when the step was done."""
    phase: str
    learning_rate: float
    first_sample: int
    """The batch is the samples from this one on, as many as `sequences`: what they are, dots_train.data tells."""
    sequences: int
    shares: int
    """Into so many equal parts, one behind the other, the batch was divided among those who read data."""
    loss: float
    """Mean cross-entropy of the next token, in nats."""
    balance: float
    """Sequence-wise balance loss before its weight; 1 is an even spread."""
    gradient_norm: float
    """Before clipping."""
    load: tuple[float, ...]
    """Of each mixture layer: tokens of its busiest expert over the mean."""
    timing: Timing
    skipped: str | None = None
    """Why the step changed no weight: what was not finite. Its numbers are then left out."""
    entropy: tuple[float, ...] = ()
    """Of each mixture layer's load: 1 is even; see dots_train.health."""
    dead_experts: int = 0
    bias: tuple[float, ...] = ()
    """Of each mixture layer: the largest absolute selection bias."""
    spike: tuple[float, float] | None = None
    """Standard deviations of loss and gradient norm above the mean of the steps before; None while they are too few."""
    spike_score: float = 0.0
    """Share of all steps so far that were spikes."""
    all_to_all_bytes: int = 0
    """Sent between ranks to and from experts in this step, over all ranks."""

    def line(self, steps: int) -> str:
        """For people."""
        if self.skipped is not None:
            return f"step {self.step}/{steps}  skipped: {self.skipped}"
        load = f"  load {max(self.load):.2f}" if self.load else ""
        dead = f"  dead {self.dead_experts}" if self.dead_experts else ""
        mfu = f"  mfu {self.timing.mfu:.1%}" if self.timing.mfu is not None else ""
        return (
            f"step {self.step}/{steps}  loss {self.loss:.4f}  lr {self.learning_rate:.2e}  "
            f"grad {self.gradient_norm:.2f}{load}{dead}  {self.tokens:,} tokens  "
            f"{self.timing.tokens_per_second:,.0f} tok/s{mfu}"
        )


def scalars(record: Record) -> dict[str, float]:
    """What TensorBoard shows of a step; layers are those with experts, counted from 0."""
    names = ("loss", "learning_rate", "sequences", "balance", "gradient_norm", "epoch")
    found: dict[str, float] = {name: getattr(record, name) for name in names}
    found["perplexity"] = math.exp(min(record.loss, 80.0))
    found["tokens_per_second"] = record.timing.tokens_per_second
    if record.timing.mfu is not None:
        found["mfu"] = record.timing.mfu
    if record.spike is not None:
        found["spike/loss"], found["spike/gradient_norm"] = record.spike
        found["spike/score"] = record.spike_score
    if record.all_to_all_bytes:
        found["all_to_all_bytes"] = record.all_to_all_bytes
    if record.load:
        found["dead_experts"] = record.dead_experts
    for name in ("load", "entropy", "bias"):
        found |= {f"{name}/layer-{layer}": value for layer, value in enumerate(getattr(record, name))}
    return found


class Metrics:
    """Writes each record. Opened at a step, it first forgets what was written after that step."""

    def __init__(self, folder: Path, step: int, tensorboard: bool, log: Callable[[str], None]):
        self._path = folder / "metrics.jsonl"
        self._path.touch()
        _truncate(self._path, step)
        self._file = self._path.open("a", encoding="utf-8")
        self._events = _events(folder / "tensorboard", step, log) if tensorboard else None

    def write(self, record: Record) -> None:
        values = {name: _or_none(value) for name, value in asdict(record).items()}
        self._file.write(json.dumps(values, allow_nan=False) + "\n")
        self._file.flush()
        if self._events is not None and record.skipped is None:
            for name, value in scalars(record).items():
                self._events.add_scalar(name, value, record.step)

    def sync(self) -> None:
        """To disk; called before a checkpoint, which must not know more steps than this file."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()
        if self._events is not None:
            self._events.close()


def _or_none(value: Any) -> Any:
    """JSON knows no number that is not finite."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read(folder: Path) -> list[dict[str, Any]]:
    """The records of a run, oldest first; a half-written last line is left out."""
    path = folder / "metrics.jsonl"
    if not path.exists():
        return []
    records = []
    for line in path.read_bytes().splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            break
        if not isinstance(record, dict):
            break
        records.append(record)
    return records


def _truncate(path: Path, step: int) -> None:
    """Keep the lines of the first `step` steps, byte for byte."""
    kept = 0
    with path.open("rb+") as file:
        for line in file:
            try:
                if not line.endswith(b"\n") or json.loads(line)["step"] > step:
                    break
            except (ValueError, KeyError, TypeError):
                break
            kept += len(line)
        file.truncate(kept)


def _events(folder: Path, step: int, log: Callable[[str], None]) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        log("TensorBoard is not installed: no event files, metrics.jsonl has every number")
        return None
    return SummaryWriter(str(folder), purge_step=step + 1)
