"""pretrain: token shards -> a trained model.

Reads a job file (a preset, what it changes, the curriculum in tokens), opens the shards that `make tokenize`
wrote, and trains from the last good checkpoint of the same configuration in the output folder, or from the
start. Stop it however you like and run the same command again: it goes on, with the numbers of a run never
stopped.

In the output folder:
  config.json           what decides the numbers; another configuration is refused here
  metrics.jsonl         one line a step: loss, learning rate, gradient norm, expert load, speed
  tensorboard/          the same for TensorBoard, where it is installed
  checkpoints/step-N/   weights, optimizer, router biases, place in the data; the newest few
  summary.json          the figures printed at the end

Exit codes: 0 done; 1 training failed (the last good checkpoint stands); 2 the command, job, data or output
folder cannot be used as asked; 130 and 143 stopped by SIGINT or SIGTERM, after writing a checkpoint.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from dots_data.typed_yaml import ConfigError
from dots_train.checkpoint import CheckpointError
from dots_train.config import Job, load_job
from dots_train.curriculum import check_mixture
from dots_train.data import DataError, Dataset, MixtureReader, ShardReader, open_reader
from dots_train.metrics import Record
from dots_train.mixture import read as read_mixture
from dots_train.model.dots1 import parameters
from dots_train.trainer import Interrupted, Trainer, TrainingError
from dots_train.weights.shards import WeightsError

EXAMPLES = """examples:
  python -m pipelines.pretrain                                    the debug model on build/tokens
  python -m pipelines.pretrain --data build/tokens --output build/model
  python -m pipelines.pretrain --output build/wide --set model.hidden_size=256 --set seed=1
  python -m pipelines.pretrain --output build/tenth --scale 0.1   the same curriculum for a tenth of the tokens
"""


def main(arguments: list[str] | None = None) -> int:
    """The job: read it, open the data, train, say what came of it. Returns the exit code."""
    options = parse(arguments)
    try:
        scale = [] if options.scale is None else [f"scale={options.scale}"]
        job = load_job(options.job, [*options.set, *scale])
        job = dataclasses.replace(job, data=options.data or job.data, output=options.output or job.output)
        job = dataclasses.replace(job, init=options.init or job.init)
        trainer = make_trainer(job)
    except DataError as error:
        return fail(f"{error}; give the folder that `make tokenize` wrote, with --data", 2)
    except (ConfigError, WeightsError) as error:
        return fail(str(error), 2)
    except CheckpointError as error:
        return fail(str(error), 1)

    say(opening(trainer))
    try:
        with progress(trainer) as on_step:
            summary = trainer.run(on_step)
    except Interrupted as stop:
        say(f"{stop}; run the same command again to go on")
        return stop.exit_code
    except (TrainingError, CheckpointError, DataError) as error:
        return fail(str(error), 1)
    except OSError as error:
        return fail(f"{error.filename or job.output}: {error.strerror}; the last checkpoint stands", 1)
    if rank() == 0:
        say(closing(summary))
    return 0


def make_trainer(job: Job) -> Trainer:
    """Open what the job reads, and the trainer on it. Raises as `open_reader` and `Trainer` do."""
    mixture = read_mixture(job.mixture) if job.mixture else None
    if mixture is not None:
        check_mixture(job.curriculum, [(segment.name, segment.end) for segment in mixture.segments])
    untied = {phase.sequence_length or job.sequence_length: phase.untie for phase in job.curriculum.phases}
    if any(untied.values()) and (mixture is None or mixture.untie is None):
        raise ConfigError("curriculum: a phase unties windows, but there is no mixture whose `untie` says how")

    def at_length(length: int) -> ShardReader | MixtureReader:
        config = mixture
        if mixture is not None and mixture.untie is not None:
            rule = dataclasses.replace(mixture.untie, probability=untied.get(length, 0.0))
            config = dataclasses.replace(mixture, untie=rule if rule.probability else None)
        return open_reader(
            job.folders,
            length,
            job.seed,
            mixture=config,
            packed=job.packed,
            verify=job.verify_data,
            storage=job.storage,
        )

    reader = at_length(job.sequence_length)
    held_out: dict[str, ShardReader] = {}
    if job.evaluation.data:
        folder = job.evaluation.data
        dataset = Dataset(folder, verify=job.verify_data, storage=job.storage)
        if dataset.manifest.tokenizer.sha256 != reader.manifest.tokenizer.sha256:
            raise DataError(f"{folder}: was made with another tokenizer than {', '.join(job.folders)}")
        names = [source.name for source in dataset.manifest.sources]
        held_out = {
            name: ShardReader(folder, job.sequence_length, 0, source=name, verify=False, storage=job.storage)
            for name in names
        }
    return Trainer(job, reader, log=say, at_length=at_length, held_out=held_out)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    what, _, rest = (__doc__ or "").partition("\n")
    parser = argparse.ArgumentParser(
        prog="python -m pipelines.pretrain",
        description=f"{what}\n{rest}",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--job", default="jobs/pretrain.yaml", help="job file (default: %(default)s)")
    parser.add_argument("--data", metavar="DIR", help="folder of token shards; goes before the job's `data`")
    parser.add_argument("--output", metavar="DIR", help="folder to write; goes before the job's `output`")
    parser.add_argument(
        "--init", metavar="DIR", help="weights to start from: of `dots import`, of transformers, a checkpoint/step-N"
    )
    parser.add_argument(
        "--set",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        help="change one value of the job, e.g. checkpoint.keep=5; may be given several times",
    )
    parser.add_argument(
        "--scale",
        type=float,
        metavar="F",
        help="shrink the curriculum to F times its tokens, with smaller batches and a shorter warm-up",
    )
    return parser.parse_args(arguments)


def opening(trainer: Trainer) -> str:
    """What is about to be done."""
    size, job, reader = parameters(trainer.job.model), trainer.job, trainer.reader
    length = job.sequence_length
    epochs = job.curriculum.tokens / (reader.windows * length)
    return (
        f"model   {job.preset}: {size.total:,} parameters, {size.active:,} active a token, on {job.device}\n"
        f"data    {', '.join(job.folders)}: {reader.manifest.tokens:,} tokens, {reader.windows:,} windows of {length}\n"
        f"plan    {trainer.steps:,} steps, {job.curriculum.tokens:,} tokens, {epochs:.2f} passes over the data\n"
        f"loss    {math.log(job.model.vocab_size):.3f} is that of a guess (the logarithm of the vocabulary)"
    )


def closing(summary: dict[str, Any]) -> str:
    """What was done, on one screen."""
    rows = (
        ("loss", f"{summary['first_loss']:.4f} -> {summary['last_loss']:.4f}"),
        ("mean of 10 steps", f"{summary['first_10_loss']:.4f} -> {summary['last_10_loss']:.4f}"),
        ("below a guess", f"{summary['ln_vocabulary'] - summary['last_10_loss']:.4f} nats"),
        ("steps", f"{summary['steps']:,}"),
        ("tokens", f"{summary['tokens']:,} ({summary['epochs']:.2f} passes over the data)"),
        ("seconds", f"{summary['seconds']:,.1f} ({summary['tokens_per_second']:,} tokens a second)"),
        (
            "parameters",
            f"{summary['parameters_total']:,} ({summary['parameters_active']:,} active for a token)",
        ),
        ("checkpoint", summary["checkpoint"]),
    )
    return "\n".join(["", "pretrain is done", *(f"  {name:<18}{value}" for name, value in rows)])


@contextmanager
def progress(trainer: Trainer) -> Iterator[Callable[[Record], None]]:
    """A bar where rich finds a terminal, and a line every few steps; yields what to call after a step."""
    bar = _bar() if sys.stdout.isatty() and rank() == 0 else None
    if bar is None:
        yield lambda record: _line(trainer, record)
        return
    with bar:
        task = bar.add_task("train", total=trainer.job.curriculum.tokens, completed=trainer.tokens, loss="", rate="")

        def on_step(record: Record) -> None:
            rate = f"{record.timing.tokens_per_second:,.0f} tok/s"
            bar.update(task, completed=record.tokens, loss=f"loss {record.loss:.4f}", rate=rate)
            _line(trainer, record, bar.console.print)

        yield on_step


def _bar() -> Any:
    try:
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
    except ImportError:
        return None
    loss, rate = TextColumn("{task.fields[loss]}"), TextColumn("{task.fields[rate]}")
    left = TimeRemainingColumn(elapsed_when_finished=True)
    return Progress(TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), loss, rate, left)


def _line(trainer: Trainer, record: Record, write: Callable[[str], None] | None = None) -> None:
    if record.step % trainer.job.log_every and record.step not in (1, trainer.steps):
        return
    left = max(0, trainer.job.curriculum.tokens - record.tokens) / record.timing.tokens_per_second
    (write or say)(f"{record.line(trainer.steps)}  {left // 60:.0f}m{left % 60:02.0f}s left")


def rank() -> int:
    """Of this process among those that torchrun started."""
    return int(os.environ.get("RANK", "0"))


def say(sentence: str) -> None:
    """Said once, whatever the number of processes."""
    if rank() == 0:
        print(sentence, flush=True)


def fail(sentence: str, code: int) -> int:
    """What all processes know is said by the first; what goes wrong on the way may be known to one alone."""
    if rank() == 0 or code == 1:
        print(f"error: {f'rank {rank()}: ' if rank() else ''}{sentence}", file=sys.stderr, flush=True)
    return code


if __name__ == "__main__":
    sys.exit(main())
