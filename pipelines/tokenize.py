"""tokenize: clean documents in, shuffled token shards out.

    python -m pipelines.tokenize --job jobs/tokenize.yaml --input build/crawl --output build/tokens

INPUT is the output of crawl-clean, or Parquet or JSON Lines files with a column `text` (and, if there is one,
an id in `doc_id` or `id`). Without TOKENIZER a byte-level BPE is trained on the documents; any Hugging Face
tokenizer.json can be given instead. What a run leaves in OUTPUT:

    tokenizer.json                   the tokenizer that made the ids
    shard-NNNNN.arrow                a row a document: tokens ending with EOS, id, source (one a shard)
    shard-NNNNN.provenance.parquet   URL, WARC file and offset, language of the same rows
    summary.json                     counts, seconds, which encoder and why
    manifest.json                    the dataset: shards, batches, checksums; written last,
                                     what it does not name does not exist

The documents are shuffled exactly, by a keyed hash of their ids: the shards are the same, byte for byte, for
any number of workers and any order or division of the input files. Run it again after an interruption and it
goes on where it was.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import yaml

from dots_data import __version__, console
from dots_data.arguments import paths_in
from dots_data.engines import ray as engine
from dots_data.tokens import documents, manifest, shards, shuffle, tokenizer
from dots_data.tokens.documents import DocumentsError, InputError, SourceFrom, Survey
from dots_data.tokens.manifest import Manifest, ManifestError, Recipe
from dots_data.tokens.shards import Header, ShardError
from dots_data.tokens.tokenizer import Checked, TextTokenizer, TokenizerConfig, TokenizerError
from dots_data.tokens.workspace import SUMMARY, OutputError, claim, make_folder, write_json
from dots_data.typed_yaml import ConfigError, build, read_yaml, to_mapping

T = TypeVar("T")
R = TypeVar("R")

EXIT_DONE, EXIT_FAILED, EXIT_USAGE, EXIT_INTERRUPTED = 0, 1, 2, 130
CHECKED_BYTES = 2_000_000  # of the documents on which the encoders are compared, and tokens a byte measured


@dataclass(frozen=True)
class ShardConfig:
    """How documents are cut into files. The number of shards follows from the amount of text, not from the
    workers.

    shard_bytes: token bytes a shard, about. batch_tokens: a record batch closes at so many (the unit of
        reading).
    """

    shard_bytes: int = 256_000_000
    batch_tokens: int = 4_000_000

    def __post_init__(self) -> None:
        if min(self.shard_bytes, self.batch_tokens) < 1:
            raise ValueError("shard_bytes and batch_tokens are at least 1")


@dataclass(frozen=True)
class Job:
    """A tokenize job. No result depends on `workers` (None: one a core; 0: no Ray, all in this process).

    source_from: the column that says which source a document is of. Each source has shards of its own, which a mixture
        can weight.
    source: the source of documents that name none there.
    seed: of the shuffle, and of the choice of documents that train the tokenizer.
    """

    input: tuple[str, ...] | str = ("build/crawl",)
    output: str = "build/tokens"
    source: str = "crawl"
    source_from: str = "source"
    seed: int = 0
    workers: int | None = None
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    shards: ShardConfig = field(default_factory=ShardConfig)

    def __post_init__(self) -> None:
        if not manifest.PLAIN_NAME.fullmatch(self.source):
            raise ValueError(f"source: {self.source[:100]!r} is no plain name ({manifest.PLAIN_NAME.pattern})")

    @property
    def named(self) -> SourceFrom:
        return SourceFrom(self.source, self.source_from)

    @property
    def inputs(self) -> tuple[str, ...]:
        return (self.input,) if isinstance(self.input, str) else self.input


class Stages:
    """Runs tasks on the workers with a progress bar a stage, and remembers the seconds."""

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self.seconds: dict[str, float] = {}

    def map(
        self, name: str, work: Callable[[T], R], items: Sequence[T], count: Callable[[R], tuple[int, int]]
    ) -> list[R]:
        """`work` on every item; `count` tells documents and bytes of a result."""
        done = console.Done(0, len(items))

        def heard(result: R) -> None:
            documents_, bytes_ = count(result)
            done.steps += 1
            done.documents += documents_
            done.bytes += bytes_

        return self.one(name, lambda: engine.map_tasks(work, items, self.workers, heard), lambda: done)

    def one(self, name: str, work: Callable[[], R], look: Callable[[], console.Done] | None = None) -> R:
        started = time.monotonic()
        result = console.watch(name, work, look or (lambda: console.Done(0, 0)))
        self.seconds[name] = self.seconds.get(name, 0.0) + time.monotonic() - started
        return result


def tokenize(job: Job, found: documents.Input, stages: Stages) -> dict[str, Any]:
    """The steps in their order; returns the summary."""
    # 1 Documents: how many, how much text, and a fingerprint that no division into files changes.
    given = tokenizer.load(job.tokenizer.file, job.tokenizer.eos) if job.tokenizer.file else None
    pieces, surveys = survey(job, found, stages)
    total = Survey.total(surveys)
    documents.check_number(total.sources, job.named, " ".join(job.inputs))
    if not total.rows:
        raise DocumentsError(f"{' '.join(job.inputs)}: holds no document with text: there is nothing to tokenize")
    described = describe(job, total, found.recipe, given)
    job_hash = manifest.content_id(described)

    with claim(Path(job.output), job_hash, described) as (work, finished):
        if finished is not None:
            return finished

        # 2 Tokenizer: given, or trained on a sample chosen by keyed hash; the fastest encoder with equal ids.
        text, sample = prepare_tokenizer(job, given, pieces, surveys, work, stages)
        checked = stages.one("check", lambda: tokenizer.check(text, sample, job.tokenizer.encoder))
        console.console.print(
            f"encoder: {checked.engine} ({console.safe(checked.because)}); vocabulary {text.info.vocab_size:,}"
        )
        plan = shuffle.Plan(
            work=str(work),
            output=job.output,
            source=job.named,
            engine=checked.engine,
            batch_tokens=job.shards.batch_tokens,
            headers=tuple(Header(text.info, one, found.recipe, job_hash, job.seed) for one in sorted(total.sources)),
            buckets=numbers_of_shards(job, text, checked, total),
        )

        # 3 Scatter: encode, and sort the documents into one bucket a shard by a keyed hash of their ids.
        keyed = [(piece, one.key) for piece, one in zip(pieces, surveys, strict=True) if one.rows]
        scattered = stages.map("encode", functools.partial(_scatter, plan), keyed, lambda r: (r.documents, r.bytes))

        # 4 Gather: one task a bucket orders it by a second keyed hash and writes one shard.
        gather = functools.partial(_gather, plan, sorted(key for _, key in keyed))
        gathered = stages.map("shuffle", gather, range(sum(plan.buckets)), _rows_and_bytes)

        # 5 Manifest, last: what it does not name does not exist.
        dataset = assemble(plan, gathered, total)
        summary = {
            "format": "dots.tokenize/1",
            "version": __version__,
            "job_hash": job_hash,
            "job": described,
            "dataset": dataset.id,
            "documents": dataset.documents,
            "without_text": total.empty,
            "sharing_an_id": sum(one.repeated for one in gathered),
            "tokens": dataset.tokens,
            "bytes": total.bytes,
            "vocab_size": text.info.vocab_size,
            "tokenizer": {
                "made": "given" if job.tokenizer.file else "trained",
                "from": job.tokenizer.file,
                "sha256": text.info.sha256,
            },
            "decodes_exactly": checked.exact,
            "encoder": {"name": checked.engine, "because": checked.because},
            "sources": {one.name: {"documents": one.rows, "tokens": one.tokens} for one in dataset.sources},
            "shards": len(dataset.shards),
            "shard_bytes": sum(one.bytes + one.provenance.bytes for one in dataset.shards),
            "seconds": {name: round(value, 3) for name, value in stages.seconds.items()},
        }
        if (encoded := sum(one.tokens for one in scattered)) != dataset.tokens:
            raise ShardError(f"{encoded} tokens were encoded, {dataset.tokens} written: the shards are not committed")
        write_json(Path(job.output) / SUMMARY, summary)
        manifest.write(job.output, dataset)
        return summary


def survey(job: Job, found: documents.Input, stages: Stages) -> tuple[list[documents.Piece], list[Survey]]:
    """Every piece of the input and what it holds."""
    pieces = documents.pieces(found.files)
    work = functools.partial(_survey, job.named, job.seed)
    return pieces, stages.map("documents", work, pieces, lambda one: (one.rows, one.bytes))


def describe(job: Job, total: Survey, recipe: str | None, given: TextTokenizer | None) -> dict[str, Any]:
    """All that the shards depend on, and nothing else; its hash is the job's."""
    settings = to_mapping(job.tokenizer)
    made = {name: settings[name] for name in ("vocab_size", "train_bytes", "special_tokens")}
    return {
        "format": f"{manifest.FORMAT}/{manifest.VERSION}",
        "documents": {"rows": total.rows, "bytes": total.bytes, "digest": f"{total.digest:032x}"},
        "recipe": recipe,
        "source_from": job.source_from,
        "seed": job.seed,
        "tokenizer": {**({"sha256": given.info.sha256} if given else made), "eos": job.tokenizer.eos},
        "shards": to_mapping(job.shards),
    }


def prepare_tokenizer(
    job: Job,
    given: TextTokenizer | None,
    pieces: list[documents.Piece],
    surveys: list[Survey],
    folder: Path,
    stages: Stages,
) -> tuple[TextTokenizer, list[str]]:
    """The tokenizer, written to OUTPUT, and a sample of texts; the same for any division of the input."""
    trained = folder / tokenizer.NAME  # of an interrupted run, if it came so far
    if given is None and trained.exists():
        given = tokenizer.load(trained, job.tokenizer.eos)
    train_bytes = 0 if given else job.tokenizer.train_bytes
    bound = documents.sample_bound(Survey.total(surveys), max(train_bytes, CHECKED_BYTES))
    holding = [piece for piece, one in zip(pieces, surveys, strict=True) if one.histogram[:bound].any()]
    work = functools.partial(_sample, job.named, job.seed, bound)
    parts = stages.map("sample", work, holding, lambda one: (len(one), sum(len(text) for _, _, text in one)))
    candidates = [one for part in parts for one in part]
    if given is None:
        train = functools.partial(tokenizer.train, documents.choose(candidates, train_bytes), job.tokenizer)
        content = stages.one("train tokenizer", lambda: console.interruptible(train))
        manifest.write_atomically(trained, content)
        given = tokenizer.load(trained, job.tokenizer.eos)
    manifest.write_atomically(Path(job.output) / tokenizer.NAME, given.content)
    return given, documents.choose(candidates, CHECKED_BYTES)


def numbers_of_shards(job: Job, text: TextTokenizer, checked: Checked, total: Survey) -> tuple[int, ...]:
    """Of each source, by name: from its bytes of text and the tokens a byte of the sample, so by content alone."""
    width = manifest.DTYPES[text.info.dtype]
    held = (size * checked.tokens // max(1, checked.bytes) for _, size in sorted(total.sources.items()))
    return tuple(max(1, -(-tokens * width // job.shards.shard_bytes)) for tokens in held)


def assemble(plan: shuffle.Plan, gathered: list[shuffle.Gathered], total: Survey) -> Manifest:
    """The manifest of all shards, in order of their numbers. Raises ShardError if a document is missing."""
    entries = tuple(
        manifest.shard_from(one.entry, f"shard {number}")
        for number, one in enumerate(gathered)
        if one.entry is not None
    )
    dataset = Manifest(
        tokenizer=plan.tokenizer,
        dtype=plan.tokenizer.dtype,
        recipe=Recipe(plan.headers[0].recipe, plan.headers[0].job),
        seed=plan.headers[0].seed,
        documents=sum(entry.rows for entry in entries),
        tokens=sum(entry.tokens for entry in entries),
        sources=shards.sources_of(entries),
        shards=entries,
    )
    if dataset.documents != total.rows:
        raise ShardError(f"{total.rows} documents were read, {dataset.documents} written: the shards are not committed")
    return dataset


# Tasks take one argument, and what they share through partial.
def _survey(source: SourceFrom, seed: int, piece: documents.Piece) -> Survey:
    return documents.survey(piece, source, seed)


def _sample(source: SourceFrom, seed: int, bound: int, piece: documents.Piece) -> list[tuple[int, bytes, str]]:
    return documents.sample(piece, source, seed, bound)


def _scatter(plan: shuffle.Plan, keyed: tuple[documents.Piece, str]) -> shuffle.Scattered:
    return shuffle.scatter(*keyed, plan)


def _gather(plan: shuffle.Plan, keys: Sequence[str], number: int) -> shuffle.Gathered:
    return shuffle.gather(number, keys, plan)


def _rows_and_bytes(done: shuffle.Gathered) -> tuple[int, int]:
    return (done.entry["rows"], done.entry["bytes"]) if done.entry else (0, 0)


def run(job: Job) -> dict[str, Any]:
    """The whole job; returns the summary. A finished job is not run again.

    Raises:
        ConfigError, InputError, TokenizerError, OutputError: the job cannot start as it is.
        DocumentsError, RayError, ShardError, OSError: it started and could not go on.
    """
    found = documents.find(job.inputs)
    workers = job.workers if job.workers is not None else len(os.sched_getaffinity(0))
    if workers < 0:
        raise ConfigError(f"workers: {workers} is negative")
    started = time.monotonic()
    make_folder(Path(job.output))
    with engine.session(workers, Path(job.output) / "logs" / "ray.log"):
        stages = Stages(workers)
        stages.seconds["start"] = time.monotonic() - started
        return tokenize(job, found, stages)


def report(summary: dict[str, Any], output: str) -> None:
    """The one screen at the end."""
    say = console.console.print
    if summary.get("finished_before"):
        say(f"{output} holds the finished result of this job; nothing to do")
    total = max(1, summary["tokens"])
    console.table(
        "tokenize",
        ("source", "documents", "tokens", "percent", "tokens a document"),
        [
            (
                name,
                one["documents"],
                one["tokens"],
                100 * one["tokens"] / total,
                one["tokens"] / max(1, one["documents"]),
            )
            for name, one in summary["sources"].items()
        ],
    )
    left_out = f", {summary['without_text']:,} without text left out" if summary["without_text"] else ""
    repeated = f", {summary['sharing_an_id']:,} rows share an id" if summary["sharing_an_id"] else ""
    say(
        f"{summary['documents']:,} documents{left_out}{repeated}; {summary['bytes'] / 1e6:,.1f} MB of text; "
        f"{summary['tokens']:,} tokens ({summary['bytes'] / total:.2f} bytes a token)"
    )
    made, used = summary["tokenizer"], summary["encoder"]
    say(
        f"tokenizer: {made['made']}, vocabulary {summary['vocab_size']:,}; "
        f"encoder: {used['name']} ({console.safe(used['because'])})"
    )
    if not summary["decodes_exactly"]:
        say("[yellow]this tokenizer changes text: decoding does not give every document back exactly[/]")
    say("seconds: " + ", ".join(f"{name} {value:.1f}" for name, value in summary["seconds"].items()))
    say(
        f"dataset {summary['dataset']}: {summary['shards']} shards, "
        f"{summary['shard_bytes'] / 1e6:,.1f} MB, in {output}/"
    )
    say(f"check it: {console.program('dots')} shards verify {output}   train on it: make pretrain DATA={output}")


def parser() -> argparse.ArgumentParser:
    arguments = argparse.ArgumentParser(
        prog="python -m pipelines.tokenize",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    arguments.add_argument("--job", default="jobs/tokenize.yaml", help="the job file (default: %(default)s)")
    arguments.add_argument(
        "--input", nargs="+", help="output of crawl-clean, folders, files or globs; replaces the job's"
    )
    arguments.add_argument("--output", help="the output folder; replaces the job's")
    arguments.add_argument(
        "--source-from", metavar="COLUMN",
        help="the column that says which source a document is of, for instance `language` (default: source)",
    )  # fmt: skip
    arguments.add_argument("--tokenizer", help="a tokenizer.json to use instead of training one")
    arguments.add_argument(
        "--workers", type=int, help="Ray workers (default: one a core; 0: no Ray); no result depends on it"
    )
    arguments.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE",
        help="set one key of the job, with dots for the inner ones: --set tokenizer.vocab_size=32000",
    )  # fmt: skip
    arguments.epilog = (
        "exit codes: 0 done, 1 failed on the way (run it again to go on), 2 cannot start as asked, 130 interrupted"
    )
    return arguments


def job_of(options: argparse.Namespace) -> Job:
    """The job file with what the command line says instead. Raises ConfigError."""
    values = read_yaml(options.job)
    for setting in options.set:
        name, equals, given = setting.partition("=")
        if not equals:
            raise ConfigError(f"--set {setting}: expected KEY=VALUE")
        *outer, last = name.split(".")
        inner = values
        for part in outer:
            inner = inner.setdefault(part, {})
            if not isinstance(inner, dict):
                raise ConfigError(f"--set {setting}: {part} holds no keys")
        try:
            inner[last] = yaml.safe_load(given)
        except yaml.YAMLError as error:
            raise ConfigError(f"--set {setting}: not valid YAML: {error}") from error
    job = build(Job, values, options.job)
    if options.input:
        job = dataclasses.replace(job, input=tuple(paths_in(options.input)))
    if options.output:
        job = dataclasses.replace(job, output=options.output)
    if options.source_from:
        job = dataclasses.replace(job, source_from=options.source_from)
    if options.tokenizer:
        job = dataclasses.replace(job, tokenizer=dataclasses.replace(job.tokenizer, file=options.tokenizer))
    if options.workers is not None:
        job = dataclasses.replace(job, workers=options.workers)
    return job


def main(arguments: list[str] | None = None) -> int:
    """Run from the command line; returns the exit code."""
    options = parser().parse_args(arguments)
    output = options.output or "OUTPUT"
    try:
        job = job_of(options)
        output = job.output
        summary = run(job)
    except (ConfigError, InputError, TokenizerError, OutputError) as error:
        console.fail(str(error))
        return EXIT_USAGE
    except (DocumentsError, ShardError, ManifestError, engine.RayError) as error:
        console.fail(str(error))
        return EXIT_FAILED
    except OSError as error:
        console.fail(f"{error.filename or output}: {error.strerror or error}; run it again to go on")
    except KeyboardInterrupt:
        console.fail("interrupted; run it again to go on")
        return EXIT_INTERRUPTED
    except Exception as error:
        console.fail(f"{type(error).__name__}: {error} (DOTS_TRACEBACK=1 shows where)")
        if os.environ.get("DOTS_TRACEBACK"):
            raise
    else:
        report(summary, output)
        return EXIT_DONE
    return EXIT_FAILED


if __name__ == "__main__":
    sys.exit(main())
