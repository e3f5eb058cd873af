"""`dots export`, `dots import` and `dots eval`: a model leaves the trainer, comes in, and is judged.

Parsing loads no torch: each command imports what it needs when it runs.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

EXPORT = """A checkpoint of a run as a folder that transformers loads as Dots1ForCausalLM, and vLLM and SGLang read:
config.json, safetensors in parts, the tokenizer, and a README.md that tells what the model is and how it was trained.

  dots export build/model --to hf --output build/export                     the newest checkpoint, bfloat16
  dots export build/model --to hf --output build/export --checkpoint 1000 --dtype float32

The weights pass through part by part: memory is that of one part (--part-size), not of the model. The folder appears
when it is whole; one that holds something is refused. The router stays float32 in any type.
Exit codes: 0 written, 1 it could not be written (a full disk), 2 it cannot be done as asked.
"""

IMPORT = """Weights of a folder of transformers (the released dots.llm1, or an export) under the trainer's names.

  dots import dots.llm1.base --output build/start
  make pretrain INIT=build/start CONFIG=build/start/job.yaml DATA=build/tokens OUTPUT=build/continued

Only safetensors are read; a pickle (pytorch_model.bin) is refused, since it may run code. Keys, shapes and the config
are checked before anything is written. Training can also start from the folder itself (INIT=dots.llm1.base): importing
checks it once and leaves files that each process reads its own share of, without stacking experts first.
The shards must have been made with the tokenizer of these weights: make tokenize TOKENIZER=build/start/tokenizer.json
Exit codes: 0 written, 1 it could not be written (a full disk), 2 it cannot be done as asked.
"""

EVAL = """An export judged by EleutherAI's lm-evaluation-harness (pip install 'dots[eval]').

  dots eval build/export --tasks my-tasks                    all tasks of a folder of the harness's YAML files
  dots eval build/export --tasks my-tasks my_choice          one task of it
  dots eval build/export --tasks hellaswag --limit 100       a task of the harness, if its data is in the local cache

No hub is asked for anything. A task file names local data: dataset_path: json (or csv, parquet, text), dataset_kwargs:
{data_files: {test: test.jsonl}}; paths begin in the folder. Task files may call Python functions of their folder: use
folders that you trust. Writes OUTPUT/results.json and prints a table.
Exit codes: 0 done, 1 a task failed, 2 it cannot be done as asked.
"""


def add(commands: Any) -> None:
    """Add the commands to those of `dots` (an argparse subparsers object)."""
    command = _command(commands, "export", "a checkpoint as a folder that transformers loads", EXPORT)
    command.add_argument("run_folder", metavar="RUN", help="output folder of pretrain")
    command.add_argument("--to", choices=("hf",), default="hf", help="format (default: %(default)s)")
    command.add_argument("--output", required=True, metavar="FOLDER", help="a new or an empty folder")
    command.add_argument("--checkpoint", type=int, metavar="STEP", help="default: the newest")
    command.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16", help="default: %(default)s")
    command.add_argument("--data", metavar="FOLDER", help="the shards, if they are not where the run read them")
    command.add_argument("--name", help="of the model, in its card (default: the name of FOLDER)")
    command.add_argument("--part-size", type=float, default=5.0, metavar="GB", help="default: %(default)s")
    command.set_defaults(run=export)

    command = _command(commands, "import", "weights of transformers, to continue training from", IMPORT)
    command.add_argument("source", metavar="FOLDER", help="config.json and safetensors")
    command.add_argument("--output", required=True, metavar="CHECKPOINT", help="a new or an empty folder")
    command.add_argument("--part-size", type=float, default=5.0, metavar="GB", help="default: %(default)s")
    command.set_defaults(run=import_)

    command = _command(commands, "eval", "benchmarks on an export, with the lm-evaluation-harness", EVAL)
    command.add_argument("export", metavar="EXPORT", help="a folder that dots export wrote")
    command.add_argument(
        "--tasks", nargs="+", required=True, metavar="FOLDER|NAME", help="task files, or tasks by name"
    )
    command.add_argument("--output", metavar="FOLDER", help="default: EXPORT-eval, beside it")
    command.add_argument("--device", default="cpu", help="cpu, cuda, cuda:0, ... (default: %(default)s)")
    command.add_argument("--batch-size", type=int, default=8, help="default: %(default)s")
    command.add_argument("--limit", type=int, metavar="N", help="the first N documents of each task, for a trial")
    command.set_defaults(run=evaluate)


def _command(commands: Any, name: str, help: str, description: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=help, description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    return parser


def export(options: argparse.Namespace) -> int:
    """Write a checkpoint for transformers."""
    import torch

    from dots_data import console
    from dots_train.model.dots1 import parameters
    from dots_train.weights.card import model_card
    from dots_train.weights.convert import export_hf
    from dots_train.weights.run import open_run
    from dots_train.weights.tokenizer_files import tokenizer_files

    output = Path(options.output)
    run = open_run(Path(options.run_folder), options.checkpoint, options.data)
    size = parameters(run.config)
    texts: dict[str, str | bytes] = tokenizer_files(run.tokenizer, run.manifest.tokenizer, run.positions)
    texts["README.md"] = model_card(run, size, options.name or output.resolve().name, options.dtype)
    try:
        export_hf(
            run.weights,
            output,
            dtype=getattr(torch, options.dtype),
            config=run.config,
            positions=run.positions,
            eos=run.manifest.tokenizer.eos_id,
            texts=texts,
            shard_bytes=_bytes(options.part_size),
        )
    except OSError as error:
        console.fail(_not_written(output, error))
        return 1
    console.console.print(
        f"{console.safe(output)}: step {run.step:,} ({run.tokens:,} tokens), {size.total:,} parameters"
    )
    return 0


def import_(options: argparse.Namespace) -> int:
    """Write weights of transformers under the trainer's names."""
    from dots_data import console
    from dots_train.weights.convert import import_hf

    output = Path(options.output)
    try:
        config = import_hf(Path(options.source), output, _bytes(options.part_size))
    except OSError as error:
        console.fail(_not_written(output, error))
        return 1
    kind = f"{config.layers} layers, {config.experts} experts, {config.vocab_size:,} ids"
    console.console.print(f"{console.safe(output)}: {kind}; to train on: make pretrain CONFIG={output / 'job.yaml'}")
    return 0


def evaluate(options: argparse.Namespace) -> int:
    """Run tasks of the harness and print what came of them."""
    from dots_data import console
    from dots_train.evaluate import EvaluationError
    from dots_train.evaluate import evaluate as judge

    source = Path(options.export)
    output = Path(options.output) if options.output else source.with_name(f"{source.name}-eval")
    try:
        scores = judge(
            source,
            options.tasks,
            output,
            device=options.device,
            batch_size=options.batch_size,
            limit=options.limit,
        )
    except EvaluationError as error:
        console.fail(str(error))
        return 1
    arrows = {True: "higher", False: "lower", None: ""}
    rows = [(s.task, s.metric, arrows[s.higher_is_better], s.documents, s.value, s.error) for s in scores]
    console.table(
        f"{source.name}", ("task", "metric", "better is", "documents", "value", "standard error"), rows, left=3
    )
    console.console.print(f"written to {console.safe(output / 'results.json')}")
    return 0


def _bytes(gigabytes: float) -> int:
    if not gigabytes > 0:
        raise ValueError(f"--part-size must be positive, found {gigabytes:g}")
    return int(gigabytes * 1e9)


def _not_written(output: Path, error: OSError) -> str:
    return f"{output}: could not be written ({error.strerror or error}); nothing is left of it"
