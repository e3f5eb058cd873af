"""The training loop: batches by number, one optimizer step each, exact on resume.

A step depends on the weights, the optimizer state and three numbers (step, tokens, next sample), all of which
a checkpoint holds; nothing depends on time. On a CPU, with the same number of threads, a run that was killed
and started again repeats the losses of an unbroken one to the bit.
"""

from __future__ import annotations

import dataclasses
import math
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor

from dots_data.typed_yaml import ConfigError, to_mapping
from dots_train import checkpoint, evaluation, metrics
from dots_train.checkpoint import Checkpoint
from dots_train.config import Job, check_layout, differences, identity
from dots_train.cost import all_to_all_bytes
from dots_train.curriculum import Stage
from dots_train.evaluation import Evaluation
from dots_train.experts import choose
from dots_train.guards import FirstNotFinite, first_gradient
from dots_train.health import RoutingState, SpikeState, watch_routing, watch_spikes
from dots_train.metrics import Metrics, Record, Timing, model_flops_utilisation
from dots_train.model.dots1 import Tally, parameters
from dots_train.model.moe import MoE
from dots_train.model.recompute import recompute
from dots_train.optim import apply_stage, make_optimizer, optimizer_state
from dots_train.parallel import mesh
from dots_train.parallel.pipeline import Share, engine
from dots_train.reading import ReadAhead, Reader, Windows
from dots_train.run_folder import SUMMARY_FILE, about_data, claim, write_json
from dots_train.weights.sources import start_from


class TrainingError(RuntimeError):
    """Training cannot go on; the message names the step."""


class Interrupted(Exception):
    """A signal asked to stop; a checkpoint was written."""

    def __init__(self, number: int, path: Path):
        super().__init__(f"stopped by {signal.Signals(number).name}; {path} was written")
        self.exit_code = 128 + number


class Trainer:
    """One run; every process of it makes one of these, and all do the same steps.

    Args:
        job: what to train; a vocabulary of 0 is replaced by the shards' own.
        reader: the data, opened with the job's sequence length and seed.
        log: for sentences that people should see; said by the first process alone.
        at_length: opens the data with another sequence length, for a curriculum that has several.
        held_out: windows to validate on, by source.

    Raises:
        ConfigError: the output folder belongs to another run, the model cannot read these shards, or the layout is
            not one for so many processes.
        CheckpointError: the output folder holds checkpoints of which none can be read.
    """

    def __init__(
        self,
        job: Job,
        reader: Reader,
        log: Callable[[str], None] = print,
        at_length: Callable[[int], Reader] | None = None,
        held_out: Mapping[str, Windows] | None = None,
    ):
        self.job = _with_vocabulary(job, reader)
        check_layout(self.job, self.job.layout, mesh.world_size())
        self.reader, self.readers, self.at_length = reader, {job.sequence_length: reader}, at_length
        self.output = Path(job.output)
        self.device = _prepare_torch(self.job)
        self.job = _with_experts(self.job, self.device)
        self.ranks = mesh.connect(job.layout, self.device)
        self.log = log if self.ranks.rank == 0 else _say_nothing
        self.identity = {**identity(self.job), "manifest": reader.id}
        self._alone(lambda: claim(self.output, self.identity, about_data(self.job, reader)))

        torch.manual_seed(self.job.seed)
        self.parts = mesh.make_parts(self.job, self.ranks, self.device)
        if self.job.activation_checkpointing:
            for part in self.parts:
                recompute(part)
        self.watch = FirstNotFinite(self.parts) if self.job.guards.find_first else None
        self.engine = engine(self.parts, self.job, self.ranks, self.device)
        self.optimizer = make_optimizer(self.parts, self.job.optimizer)
        self.saver = checkpoint.Saver(self.output / "checkpoints", self.job.checkpoint.keep)
        self.evaluation = Evaluation(self.job, held_out, self.ranks, self.device) if held_out else None
        self.step = self.tokens = self.skipped = 0
        self.ahead = ReadAhead()
        self.spikes = SpikeState()
        self.routing = RoutingState.start(job.model.layers - job.model.dense_layers, job.model.experts)
        found = checkpoint.latest(self.output / "checkpoints", self.log)
        if found is not None:
            self._restore(found)
        elif self.job.init:
            tokenizer = Path(self.job.folders[0]) / reader.manifest.tokenizer.file
            start_from(self.job.init, self.parts, self.job.model, tokenizer)
            self.log(f"starting from the weights of {self.job.init}")
        self.steps = self.job.curriculum.steps(self.job.sequence_length, self.step, self.tokens)

    def run(self, on_step: Callable[[Record], None] = lambda record: None) -> dict[str, Any]:
        """Train to the end of the curriculum, calling `on_step` after each step (in the first process).

        Returns the summary, which is also written to summary.json.

        Raises:
            TrainingError: too many steps one after another had a loss or gradient that is not finite.
            Interrupted: SIGTERM or SIGINT came to any process; the step was finished and a checkpoint written.
            CheckpointError: a checkpoint could not be written.
        """
        first = self.ranks.rank == 0
        if first:
            evaluation.forget_after(self.output, self.step)
        log = Metrics(self.output, self.step, self.job.tensorboard, self.log) if first else None
        try:
            with _signals() as received:
                while (stage := self._stage()) is not None:
                    record, stop = self._train_step(stage, received)
                    if log is not None:
                        log.write(record)
                        on_step(record)
                    over = self._stage() is None
                    if self.evaluation and (over or self.step % self.job.evaluation.every_steps == 0) and not stop:
                        self._evaluate()
                    if self.step % self.job.checkpoint.every_steps == 0 or over or stop:
                        if log is not None:
                            log.sync()
                        self._save(record)
                    if stop:
                        raise Interrupted(stop, self._saved())
                self._saved()
        finally:
            self.ahead.close()
            self.saver.close()
            if log is not None:
                log.close()
        return self._summarize() if first else {}

    def _stage(self) -> Stage | None:
        return self.job.curriculum.at(self.step, self.tokens, self.job.sequence_length)

    def _reader(self, length: int) -> Reader:
        """The data in windows of a length. Raises ConfigError for one that nobody can open."""
        if length not in self.readers:
            if self.at_length is None:
                raise ConfigError(f"curriculum: a phase has windows of {length} tokens; the data cannot be opened so")
            self.readers[length] = self.at_length(length)
        return self.readers[length]

    def _evaluate(self) -> None:
        """Validate; the first process says and writes what came of it."""
        assert self.evaluation is not None
        result, loads = self.evaluation.run(self.step, self.tokens, self.parts, self.engine)
        if self.ranks.rank == 0:
            evaluation.write(self.output, result, loads)
            self.log(result.line())

    def _train_step(self, stage: Stage, received: list[int]) -> tuple[Record, int]:
        """Forward and backward over the global batch, then one update of the weights; also the signal that any
        process received, or 0."""
        began = time.perf_counter()
        length, reader = stage.sequence_length, self._reader(stage.sequence_length)
        losses_M, balance, counts_LE = self._gradients(stage)
        told = torch.stack([losses_M.sum().cpu(), balance, torch.tensor(float(sum(received[:1])))])
        loss, balance_sum, signals = self.ranks.sum(told).tolist()
        norm = mesh.gradient_norm(self.parts, self.ranks)
        problem = self._problem(loss, norm, losses_M, stage)
        if problem is None:
            mesh.scale_gradients(self.parts, min(1.0, self.job.optimizer.clip_norm / (norm + 1e-6)))
            apply_stage(self.optimizer, stage, self.job.optimizer)
            self.optimizer.step()
            self._update_biases(counts_LE)

        self.step += 1
        self.tokens += stage.sequences * length
        health, self.routing = watch_routing(
            self.routing,
            self.step,
            counts_LE,
            self.job.model.experts_per_token,
            self.job.model.dense_layers,
            self.job.guards.dead_after,
        )
        spike, self.spikes = watch_spikes(self.spikes, self.step, loss, norm)
        for warning in (*health.warnings, *([spike.warning] if spike.warning and problem is None else [])):
            self.log(warning)
        bias_L = self._largest_biases()
        seconds = time.perf_counter() - began
        speed = stage.sequences * length / seconds
        record = Record(
            step=self.step,
            tokens=self.tokens,
            epoch=(stage.sample + stage.sequences) / reader.windows,
            phase=stage.phase,
            learning_rate=stage.learning_rate,
            first_sample=stage.sample,
            sequences=stage.sequences,
            shares=self.ranks.shares,
            loss=loss,
            balance=balance_sum / self.job.balance.sequence_alpha if self.job.balance.sequence_alpha else 0.0,
            gradient_norm=norm,
            load=health.load,
            sequence_length=length,
            skipped=problem,
            entropy=health.entropy,
            dead_experts=len(health.dead),
            bias=bias_L,
            spike=(spike.loss, spike.gradient_norm) if math.isfinite(loss + norm) else None,
            spike_score=spike.score,
            all_to_all_bytes=all_to_all_bytes(
                self.job.model, self.job.layout, stage.sequences * length, 2 if self.job.precision == "bfloat16" else 4
            ),
            timing=Timing(seconds, speed, self._utilisation(length, speed)),
        )
        # A process that learns of a signal through another stops as that one does.
        number = received[0] if received else signal.SIGTERM if signals else 0
        return record, number

    def _gradients(self, stage: Stage) -> tuple[Tensor, Tensor, Tensor]:
        """Make the gradients of a global batch: the losses of this process's micro-batches [M] and its balance loss,
        each as its share of the batch's, float64 on the CPU; and the counts [L, E] of all processes."""
        self.optimizer.zero_grad(set_to_none=True)
        mine = stage.sequences // self.ranks.shares
        batch = self.ahead.take(self._reader(stage.sequence_length), stage.sample + self.ranks.share * mine, mine)
        self._read_ahead(stage)
        # The ranks of a pipeline read the same: one of them counts what is to be predicted.
        targets = (batch.targets_BS >= 0).sum() if self.ranks.stage == 0 else torch.zeros((), dtype=torch.int64)
        scale = 1.0 / max(1, int(self.ranks.sum(targets)))
        if self.watch is not None:
            self.watch.reset()
        for part in self.parts:
            part.tally = Tally()
            part.balance_weight = self.job.balance.sequence_alpha / stage.sequences
            part.rope_theta = stage.rope_theta or self.job.model.rope_theta
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.job.precision == "bfloat16"):
            try:
                losses_M = self.engine.run(Share.of(batch, self.device), scale)
            except Exception as error:
                first = self.ranks.first_failure(error)
                if first is None:
                    raise
                raise RuntimeError(f"step {self.step + 1}: {first}; this rank waited for it in vain") from error
        balance = torch.zeros((), dtype=torch.float64)
        for part in self.parts:
            balance += torch.as_tensor(part.tally.balance).cpu()
        return losses_M, balance, mesh.expert_counts(self.parts, self.job.model, self.ranks)

    def _read_ahead(self, stage: Stage) -> None:
        """Have the batch of the step after `stage` read while this one computes."""
        tokens = self.tokens + stage.sequences * stage.sequence_length
        after = self.job.curriculum.at(self.step + 1, tokens, self.job.sequence_length)
        if after is not None and after.sequence_length == stage.sequence_length:
            mine = after.sequences // self.ranks.shares
            self.ahead.begin(self._reader(after.sequence_length), after.sample + self.ranks.share * mine, mine)

    def _update_biases(self, counts_LE: Tensor) -> None:
        """Move the bias of every router that is here by the counts of one global batch."""
        for part in self.parts:
            for number, layer in part.layers.items():
                if isinstance(layer.mlp, MoE):
                    counts_E = counts_LE[int(number) - self.job.model.dense_layers]
                    layer.mlp.gate.update_bias(counts_E.to(self.device), self.job.balance.bias_rate)

    def _largest_biases(self) -> tuple[float, ...]:
        """The largest absolute selection bias of each mixture layer."""
        model = self.job.model
        bias_L = torch.zeros(model.layers)
        for part in self.parts:
            for number, layer in part.layers.items():
                if isinstance(layer.mlp, MoE):
                    bias_L[int(number)] = layer.mlp.gate.e_score_correction_bias.abs().max().cpu()
        return tuple(self.ranks.greatest(bias_L)[model.dense_layers :].tolist())

    def _utilisation(self, length: int, tokens_per_second: float) -> float | None:
        if self.device.type != "cuda":
            return None
        name = torch.cuda.get_device_name(self.device)
        return model_flops_utilisation(self.job.model, length, tokens_per_second, name, self.ranks.world)

    def _problem(self, loss: float, norm: float, losses_M: Tensor, stage: Stage) -> str | None:
        """What is not finite, in a sentence, once all processes know of it; counts the steps that are skipped.

        Raises:
            TrainingError: too many of them, one after another.
        """
        if math.isfinite(loss) and math.isfinite(norm):
            self.skipped = 0
            return None
        self.skipped += 1
        what = f"the loss is {loss}" if not math.isfinite(loss) else f"the gradient norm is {norm}"
        mine = stage.sequences // self.ranks.shares
        bad = torch.nonzero(~torch.isfinite(losses_M.cpu()))
        here = stage.sample + self.ranks.share * mine + int(bad[0]) * self.job.micro_batch if len(bad) else sys.maxsize
        first = self.ranks.least(here)
        count = self.job.micro_batch
        if first == sys.maxsize:
            first, count = stage.sample, stage.sequences
        problem = f"{what}, in samples {first} to {first + count - 1}{self._documents(first, count)}{self._first()}"
        self.log(f"step {self.step + 1}: {problem}; this step changed no weight")
        if self.skipped >= self.job.guards.skip_in_a_row:
            self.saver.wait()
            last = next(iter(checkpoint.saved(self.output / "checkpoints")), None)
            raise TrainingError(
                f"step {self.step + 1}: {problem}; {self.skipped} steps one after another were not finite, "
                f"{f'{last} stands' if last else 'no checkpoint had been written'}; "
                "look at these documents, or train with a lower learning rate"
            )
        return problem

    def _first(self) -> str:
        """Where it began, as far as anyone knows: in which module of the forward pass, else in whose gradient."""
        forward = self.ranks.first_to_say(self.watch.name if self.watch is not None else None)
        if forward is not None:
            return f", first in the output of {forward}"
        gradient = self.ranks.first_to_say(first_gradient(self.parts))
        return f", in the gradient of {gradient}" if gradient is not None else ""

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

    def _tensors(self) -> dict[str, Tensor]:
        """All tensors that the next step depends on, by names that no layout changes."""
        tensors: dict[str, Tensor] = {}
        for name, tensor in mesh.named_tensors(self.parts):
            tensors[f"model.{name}"] = tensor
            for key, value in optimizer_state(self.optimizer, tensor).items():
                tensors[f"optimizer.{key}.{name}"] = value
        return tensors

    def _save(self, record: Record) -> None:
        """Begin to write all that the next step depends on; a milestone where this step passed one."""
        every = self.job.checkpoint.milestone_tokens
        before = record.tokens - record.sequences * self.job.sequence_length
        self.saver.save(
            self.step,
            tensors={**self._tensors(), "random.torch": torch.get_rng_state()},
            state={
                "identity": self.identity,
                "config": to_mapping(self.job),
                "tokens": self.tokens,
                "skipped": self.skipped,
                "loader": self._place().state(self._sample()),
                "spikes": self.spikes.plain(),
                "routing": self.routing.plain(),
                "versions": {"torch": torch.__version__},
            },
            milestone=bool(every) and self.tokens // every > before // every,
        )

    def _place(self) -> Reader:
        """The data as the next step reads it; as the last one did, where there is no next."""
        stage = self._stage()
        return self._reader(stage.sequence_length) if stage else self.readers[[*self.readers][-1]]

    def _sample(self) -> int:
        """The first sample of the next step."""
        stage = self._stage()
        return stage.sample if stage else -(-self.tokens // [*self.readers][-1])

    def _saved(self) -> Path:
        """Wait for the checkpoint that was begun last."""
        self.saver.wait()
        return self.output / "checkpoints" / f"step-{self.step}"

    def _restore(self, found: Checkpoint) -> None:
        changed = differences(found.state["identity"], self.identity)
        if changed:
            raise ConfigError(f"{found.path}: a checkpoint of another run: {'; '.join(changed)}")
        random = torch.get_rng_state()
        found.read({**self._tensors(), "random.torch": random})
        torch.set_rng_state(random)
        self.step, self.tokens = found.step, int(found.state["tokens"])
        self.skipped = int(found.state["skipped"])
        self.spikes = SpikeState.of(found.state["spikes"])
        self.routing = RoutingState.of(found.state["routing"])
        at = self._place().resume(found.state["loader"])
        if at != self._sample():
            raise ConfigError(f"{found.path}: stands at sample {at}, and {self.tokens} tokens are at {self._sample()}")
        written_by = found.state["versions"]["torch"]
        if written_by != torch.__version__:
            self.log(f"{found.path}: written by torch {written_by}; last bits may differ in {torch.__version__}")
        self.log(f"resuming from {found.path}: step {self.step}, {self.tokens:,} tokens")

    def _alone(self, work: Callable[[], None]) -> None:
        """Do it in the first process, before the others go on; what it raises, all raise."""
        problem: str | None = None
        if self.ranks.rank == 0:
            try:
                work()
            except ConfigError as error:
                problem = str(error)
        problem = self.ranks.told_by_first(problem)
        if problem is not None:
            raise ConfigError(problem)

    def _summarize(self) -> dict[str, Any]:
        records = [record for record in metrics.read(self.output) if record["loss"] is not None]
        losses = [record["loss"] for record in records]
        seconds = sum(record["timing"]["seconds"] for record in records)
        size = parameters(self.job.model)
        summary = {
            "steps": self.step,
            "tokens": self.tokens,
            "epochs": self._sample() / self._place().windows,
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
        write_json(self.output / SUMMARY_FILE, summary)
        return summary


def _say_nothing(sentence: str) -> None:
    """In place of `log` in all processes but the first."""


def _with_vocabulary(job: Job, reader: Reader) -> Job:
    tokenizer = int(reader.manifest.tokenizer.vocab_size)
    size = job.model.vocab_size or tokenizer
    if size < tokenizer:
        raise ConfigError(
            f"model.vocab_size is {size}, but the shards were made with a vocabulary of {tokenizer}; "
            "leave it out to take theirs"
        )
    return dataclasses.replace(job, model=dataclasses.replace(job.model, vocab_size=size))


def _with_experts(job: Job, device: torch.device) -> Job:
    """With the backend by its own name: a run that goes on elsewhere must see where that differs."""
    try:
        return dataclasses.replace(job, experts=choose(job.experts, device))
    except ValueError as error:
        raise ConfigError(f"experts: {error}") from error


def _prepare_torch(job: Job) -> torch.device:
    """Threads and determinism for the whole process. Raises ConfigError for what this machine does not have."""
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
