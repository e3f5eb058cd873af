"""The training loop: batches by number, one optimizer step each, exact on resume.

A step depends on the weights, the optimizer state and three numbers (step, tokens, next sample), all of which
a checkpoint holds; nothing depends on time. On a CPU, with the same number of threads, a run that was killed
and started again repeats the losses of an unbroken one to the bit.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from dots_data.typed_yaml import ConfigError, to_mapping
from dots_train import checkpoint, metrics
from dots_train.checkpoint import Checkpoint
from dots_train.config import Job, differences, identity
from dots_train.curriculum import Stage
from dots_train.experts import backend
from dots_train.metrics import Metrics, Record, Timing
from dots_train.model.dots1 import Dots1, parameters
from dots_train.model.moe import update_biases
from dots_train.optim import clip, make_optimizer, set_learning_rate
from dots_train.weights.sources import start_from

CONFIG_FILE = "config.json"
SUMMARY_FILE = "summary.json"


class TrainingError(RuntimeError):
    """Training cannot go on; the message names the step."""


class Interrupted(Exception):
    """A signal asked to stop; a checkpoint was written."""

    def __init__(self, number: int, path: Path):
        super().__init__(f"stopped by {signal.Signals(number).name}; {path} was written")
        self.exit_code = 128 + number


class Tokens(Protocol):
    """A batch of B windows of S tokens, int64 on the CPU; see dots_train.data.Batch."""

    @property
    def tokens_BS(self) -> Tensor: ...
    @property
    def targets_BS(self) -> Tensor: ...
    @property
    def position_BS(self) -> Tensor: ...
    @property
    def document_BS(self) -> Tensor: ...


class Reader(Protocol):
    """What the trainer asks of dots_train.data.ShardReader."""

    @property
    def manifest(self) -> Any: ...
    @property
    def windows(self) -> int: ...
    def batch(self, g: int, n: int) -> Tokens: ...
    def state(self, g: int) -> dict[str, str | int]: ...
    def resume(self, state: Any) -> int: ...


class Trainer:
    """One run, in one process.

    Args:
        job: what to train; a vocabulary of 0 is replaced by the shards' own.
        reader: the data, opened with the job's sequence length and seed.
        log: for sentences that people should see.

    Raises:
        ConfigError: the output folder belongs to another run, or the model cannot read these shards.
        CheckpointError: the output folder holds checkpoints of which none can be read.
    """

    def __init__(
        self,
        job: Job,
        reader: Reader,
        log: Callable[[str], None] = print,
    ):
        self.job = _with_vocabulary(job, reader)
        self.reader, self.log = reader, log
        self.output = Path(job.output)
        self.device = _prepare_torch(self.job)
        self.identity = {**identity(self.job), "manifest": str(reader.manifest.id)}
        claim(self.output, self.identity)

        torch.manual_seed(self.job.seed)
        with torch.device("meta"):
            self.model = Dots1(self.job.model, self.job.experts)
        self.model.to_empty(device=self.device)
        self.model.initialize(self.job.seed)
        self.optimizer = make_optimizer(self.model, self.job.optimizer)
        self.step = self.tokens = self.sample = 0
        found = checkpoint.latest(self.output / "checkpoints", log)
        if found is not None:
            self._restore(found)
        elif self.job.init:
            start_from(self.job.init, self.model, self.job.model, Path(self.job.data) / reader.manifest.tokenizer.file)
            log(f"starting from the weights of {self.job.init}")
        self.steps = self.job.curriculum.steps(self.job.sequence_length, self.step, self.tokens)

    def run(self, on_step: Callable[[Record], None] = lambda record: None) -> dict[str, Any]:
        """Train to the end of the curriculum, calling `on_step` after each step.

        Returns the summary, which is also written to summary.json.

        Raises:
            TrainingError: a loss or gradient is not finite.
            Interrupted: SIGTERM or SIGINT came; the step was finished and a checkpoint written.
            CheckpointError: a checkpoint could not be written.
        """
        log = Metrics(self.output, self.step, self.job.tensorboard, self.log)
        try:
            with _signals() as received:
                while (stage := self._stage()) is not None:
                    record = self._train_step(stage)
                    log.write(record)
                    on_step(record)
                    due = self.step % self.job.checkpoint.every_steps == 0 or self._stage() is None
                    if due or received:
                        log.sync()
                        path = self._save()
                    if received:
                        raise Interrupted(received[0], path)
        finally:
            log.close()
        return self._summarize()

    def _stage(self) -> Stage | None:
        return self.job.curriculum.at(self.step, self.tokens, self.job.sequence_length)

    def _train_step(self, stage: Stage) -> Record:
        """Forward and backward over the global batch by micro-batches, then one update of the weights."""
        began = time.perf_counter()
        length = self.job.sequence_length
        loss = balance = 0.0
        counts_LE: Tensor | int = 0
        self.optimizer.zero_grad(set_to_none=True)
        for first in range(0, stage.sequences, self.job.micro_batch):
            count = min(self.job.micro_batch, stage.sequences - first)
            batch = self.reader.batch(self.sample + first, count)
            micro_loss, micro_balance, micro_counts_LE = self._micro_step(batch, stage.sequences)
            self._require_finite(micro_loss, "loss", first, count)
            loss, balance, counts_LE = loss + micro_loss, balance + micro_balance, counts_LE + micro_counts_LE
        assert isinstance(counts_LE, Tensor)
        norm = clip(self.model, self.job.optimizer.clip_norm)
        self._require_finite(norm, "gradient norm", 0, stage.sequences)
        set_learning_rate(self.optimizer, stage.learning_rate)
        self.optimizer.step()
        update_biases(self.model, counts_LE, self.job.balance.bias_rate)

        self.step += 1
        self.sample += stage.sequences
        self.tokens += stage.sequences * length
        seconds = time.perf_counter() - began
        busiest_L = counts_LE.max(1).values / counts_LE.float().mean(1) if len(counts_LE) else counts_LE.new_zeros(0)
        return Record(
            step=self.step,
            tokens=self.tokens,
            epoch=self.sample / self.reader.windows,
            phase=stage.phase,
            learning_rate=stage.learning_rate,
            sequences=stage.sequences,
            loss=loss,
            balance=balance,
            gradient_norm=norm,
            load=tuple(busiest_L.tolist()),
            timing=Timing(seconds, stage.sequences * length / seconds),
        )

    def _micro_step(self, batch: Tokens, sequences: int) -> tuple[float, float, Tensor]:
        """Add this micro-batch's share of the gradients; returns its shares of the losses, and its counts."""
        tokens, targets, position, document = (
            tensor.to(self.device)
            for tensor in (batch.tokens_BS, batch.targets_BS, batch.position_BS, batch.document_BS)
        )
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.job.precision == "bfloat16"):
            output = self.model(tokens, position, document)
        total = cross_entropy(output.logits_BSV.float().flatten(0, 1), targets.flatten(), reduction="sum")
        loss = total / (sequences * self.job.sequence_length)
        balance = output.balance * (len(tokens) / sequences)
        (loss + self.job.balance.sequence_alpha * balance).backward()
        return loss.item(), balance.item(), output.counts_LE

    def _require_finite(self, value: float, what: str, first: int, count: int) -> None:
        if math.isfinite(value):
            return
        first += self.sample
        last = next(iter(checkpoint.saved(self.output / "checkpoints")), None)
        raise TrainingError(
            f"step {self.step + 1}: the {what} is {value}, in samples {first} to {first + count - 1}"
            f"{self._documents(first, count)}; this step changed no weight, "
            f"{f'{last} stands' if last else 'no checkpoint had been written'}; "
            "look at these documents, or train with a lower learning rate"
        )

    def _documents(self, first: int, count: int) -> str:
        """The documents behind samples, where the reader can tell; the first few."""
        where = getattr(self.reader, "where", None)
        if where is None:
            return ""
        try:
            found = [place.doc_id for sample in range(first, first + min(count, 4)) for place in where(sample)]
        except ValueError as error:  # the failure being reported matters more than this one
            return f" (their documents are not known: {error})"
        return f" (documents {', '.join(found[:4])}{', ...' if len(found) > 4 else ''})"

    def _save(self) -> Path:
        """All that the next step depends on."""
        return checkpoint.save(
            self.output / "checkpoints",
            self.step,
            tensors={
                "model": self.model.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "random": {"torch": torch.get_rng_state()},
            },
            state={
                "identity": self.identity,
                "config": to_mapping(self.job),
                "tokens": self.tokens,
                "loader": self.reader.state(self.sample),
                "versions": {"torch": torch.__version__},
            },
            keep=self.job.checkpoint.keep,
        )

    def _restore(self, found: Checkpoint) -> None:
        changed = differences(found.state["identity"], self.identity)
        if changed:
            raise ConfigError(f"{found.path}: a checkpoint of another run: {'; '.join(changed)}")
        self.model.load_state_dict(found.tensors["model"])
        self.optimizer.load_state_dict(found.tensors["optimizer"])
        torch.set_rng_state(found.tensors["random"]["torch"])
        self.step, self.tokens = found.step, int(found.state["tokens"])
        self.sample = self.reader.resume(found.state["loader"])
        written_by = found.state["versions"]["torch"]
        if written_by != torch.__version__:
            self.log(f"{found.path}: written by torch {written_by}; last bits may differ in {torch.__version__}")
        self.log(f"resuming from {found.path}: step {self.step}, {self.tokens:,} tokens")

    def _summarize(self) -> dict[str, Any]:
        records = metrics.read(self.output)
        losses = [record["loss"] for record in records]
        seconds = sum(record["timing"]["seconds"] for record in records)
        size = parameters(self.model)
        summary = {
            "steps": self.step,
            "tokens": self.tokens,
            "epochs": self.sample / self.reader.windows,
            "seconds": round(seconds, 3),
            "tokens_per_second": round(self.tokens / seconds) if seconds else 0,
            "first_loss": losses[0],
            "last_loss": losses[-1],
            "first_10_loss": sum(losses[:10]) / len(losses[:10]),
            "last_10_loss": sum(losses[-10:]) / len(losses[-10:]),
            "vocabulary": self.job.model.vocab_size,
            "ln_vocabulary": math.log(self.job.model.vocab_size),
            "parameters_total": size.total,
            "parameters_active": size.active,
            "manifest": self.identity["manifest"],
            "checkpoint": str(self.output / "checkpoints" / f"step-{self.step}"),
        }
        _write_json(self.output / SUMMARY_FILE, summary)
        return summary


def claim(output: Path, wanted: dict[str, Any]) -> None:
    """Write the run's identity into its output folder, or find the same one there.

    Raises:
        ConfigError: the folder cannot be written, holds another run, or holds part of a run and no identity.
    """
    path = output / CONFIG_FILE
    again = f"choose another output folder, or remove {output} to start anew"
    try:
        if path.exists():
            changed = differences(json.loads(path.read_text(encoding="utf-8")), wanted)
            if changed:
                raise ConfigError(f"{output}: holds a run of another configuration ({'; '.join(changed)}); {again}")
            return
        if any((output / name).exists() for name in ("metrics.jsonl", "checkpoints", SUMMARY_FILE)):
            raise ConfigError(f"{output}: holds a run but no {CONFIG_FILE} that says which; {again}")
        output.mkdir(parents=True, exist_ok=True)
        _write_json(path, wanted)
    except OSError as error:
        raise ConfigError(f"{output}: cannot be used as the output folder ({error.strerror})") from error
    except (json.JSONDecodeError, AttributeError) as error:
        raise ConfigError(f"{path}: damaged; {again}") from error


def _with_vocabulary(job: Job, reader: Reader) -> Job:
    tokenizer = int(reader.manifest.tokenizer.vocab_size)
    size = job.model.vocab_size or tokenizer
    if size < tokenizer:
        raise ConfigError(
            f"model.vocab_size is {size}, but the shards were made with a vocabulary of {tokenizer}; "
            "leave it out to take theirs"
        )
    return dataclasses.replace(job, model=dataclasses.replace(job.model, vocab_size=size))


def _prepare_torch(job: Job) -> torch.device:
    """Threads and determinism for the whole process. Raises ConfigError for what this machine does not have."""
    try:
        backend(job.experts)
    except ValueError as error:
        raise ConfigError(f"experts: {error}") from error
    device = torch.device(job.device)
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise ConfigError("device is cuda, but torch finds no GPU; add --set device=cpu")
        # Read by cuBLAS when it starts; without it, its sums may differ from run to run.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.set_num_threads(job.threads)
    torch.use_deterministic_algorithms(True)
    # Filling fresh memory with NaN helps to find reads before writes; a tenth of the time is too much for it.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    return device


def _write_json(path: Path, value: dict[str, Any]) -> None:
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
    partial.replace(path)


@contextmanager
def _signals() -> Iterator[list[int]]:
    """Collect SIGTERM and SIGINT instead of dying of them; a second one acts at once."""
    received: list[int] = []
    numbers: tuple[int, ...] = (signal.SIGTERM, signal.SIGINT)

    def note(number: int, frame: FrameType | None) -> None:
        received.append(number)
        signal.signal(number, previous[number])

    try:
        previous = {number: signal.signal(number, note) for number in numbers}
    except ValueError:  # not the main thread: the embedding program owns the signals
        yield received
        return
    try:
        yield received
    finally:
        for number in numbers:
            signal.signal(number, previous[number])
