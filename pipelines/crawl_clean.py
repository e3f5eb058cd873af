"""crawl-clean: WARC files in, clean documents and the ledger out (dots.llm1 report, Appendix C.1 and C.2).

    python -m pipelines.crawl_clean --job jobs/crawl-clean.yaml --input 'crawl/*.warc.gz' --output build/crawl

What a run leaves in OUTPUT:

    documents/*.parquet   the kept documents: text, language, URL, WARC file and offset
    ledger/*.parquet      one row for every response record read: kept, dropped or quarantined, and why
    lines/*.parquet       the lines that were taken out of documents, for many others have them
    near/*.parquet        the near-duplicates that were found, with their similarity (for `dots judge`)
    summary.json          the funnel, the seconds, what could not be read, the recipe; written last

Run it again after an interruption and it goes on where it was: what is committed is not done twice.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import os
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import yaml

from dots_data import __version__, console, ledger
from dots_data.arguments import paths_in
from dots_data.crawl.sites import Sites
from dots_data.crawl.sources import InputError, Source, Unit, expand_dumps, fingerprint, units
from dots_data.crawl.urls import UrlFilter
from dots_data.dedup import alarms, identity, lines, minhash, survivors
from dots_data.dedup.index import KEYS, Earlier, Index, IndexFault, Run, run_name
from dots_data.engines import spark as engine
from dots_data.prepare import prepare_unit, unit_name, worker_preparation
from dots_data.recipe import Job, load_job
from dots_data.rules.apply import judge_documents
from dots_data.schema import DOCUMENT, DROPPED, LEDGER, NEAR, PLACE, REMOVED_LINE
from dots_data.typed_yaml import ConfigError, to_mapping

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

EXIT_DONE, EXIT_FAILED, EXIT_USAGE, EXIT_INTERRUPTED = 0, 1, 2, 130


class OutputError(RuntimeError):
    """The output folder cannot be used; the message says why and what to do."""


def clean(
    spark: SparkSession, job: Job, sources: list[Source], stages: engine.Stages, index: Index | None = None
) -> dict[str, Any]:
    """The steps, in the order of the report; returns the summary."""
    recipe, output = job.recipe, Path(job.output)
    earlier = index.earlier(spark) if index else Earlier()

    # C.1 Document preparation: URL filter, extraction, language identification ...
    pages, read = prepare(spark, job, units(sources), stages)
    if index and index.taken_down:
        pages = without_taken_down(pages, index)
    texts = pages.where("decision IS NULL")

    # ... and identity removal: one of all documents with the same normalised text goes on.
    wanted = dict.fromkeys((*PLACE, *survivors.ORDERED_BY, "text_md5"))
    keys = texts.selectExpr("*", "length(text) AS length").select(*wanted)
    copies = show("identity", stages, lambda: identity.find_copies(keys, recipe.identity, earlier.keys))
    documents = texts.join(copies, [*PLACE], "left_anti")

    # C.2 Rule-based processing: lines that many documents share, ...
    shortened = show(
        "lines",
        stages,
        lambda: lines.find_shortened(documents, recipe.lines, stages.inside("lines"), earlier.counts),
        without="identity",
    )
    documents = with_new_text(documents, shortened)

    # ... rules of quality and repetition, ...
    all_texts = recipe.fuzzy.compare_dropped
    judged = show("rules", stages, lambda: judge_documents(documents, recipe.rules, all_texts), without="identity")
    documents = judged.where("decision IS NULL")

    # ... and fuzzy deduplication: bands name candidates, the true similarity decides, one of a kind stays.
    duplicates = show("fuzzy", stages, lambda: near_duplicates(judged, recipe.fuzzy, stages, earlier), "rules")

    # What comes after: the fate of every record, and for dumps to come, what they must know of this one.
    ends = ledger.fates(judged, duplicates, recipe.fuzzy.threshold)
    rows = ledger.assemble(pages, copies, ends, earlier.ends)
    if index:
        add_to_index(index, stages, texts, copies, documents, ends)
    documents = documents.join(duplicates, "doc_id", "left_anti")
    near = near_pairs(stages, earlier)
    return write(output, job, stages, documents, rows, near, shortened, read)


def prepare(
    spark: SparkSession, job: Job, todo: list[Unit], stages: engine.Stages
) -> tuple[DataFrame, list[dict[str, Any]]]:
    """Every response record as a row of schema.PREPARED; each unit of input is committed on its own."""
    folder, recipe, identity_of_run = stages.folder / "prepare", job.recipe, stages.identity
    folder.mkdir(parents=True, exist_ok=True)
    names = [unit_name(unit) for unit in todo]

    def committed() -> list[dict[str, Any]]:
        manifests = (engine.read_json(folder / f"{name}.json") for name in names)
        return [manifest for manifest in manifests if manifest and manifest.get("identity") == identity_of_run]

    def prepare_units(batches: engine.Batches) -> engine.Batches:
        tools = worker_preparation(recipe)
        for batch in batches:
            for row in batch.to_pylist():
                started = time.monotonic()
                stats = prepare_unit(Unit(**row), tools, folder)
                facts = {"identity": identity_of_run, "seconds": time.monotonic() - started}
                engine.write_json(folder / f"{stats.unit}.json", {**dataclasses.asdict(stats), **facts})
            yield batch.slice(0, 0)

    def run() -> None:
        done = {manifest["unit"] for manifest in committed()}
        rest = [unit._asdict() for unit, name in zip(todo, names, strict=True) if name not in done]
        if rest:
            table = pa.Table.from_pylist(rest)
            tasks = min(job.resources.partitions or len(rest), len(rest))
            spread = spark.createDataFrame(table).repartition(tasks)
            engine.map_batches(spread, prepare_units, table.schema).count()

    def look() -> console.Done:
        done = committed()
        return console.Done(len(done), len(todo), sum(one["pages"] for one in done), sum(one["bytes"] for one in done))

    started = time.monotonic()
    console.watch("prepare", run, look)
    read = committed()
    if len(read) != len(todo):
        raise engine.EngineError(f"{len(todo) - len(read)} of {len(todo)} units of input were not committed")
    stages.commit("prepare", started)
    return spark.read.parquet(*(str(folder / f"{name}.parquet") for name in names)), read


def with_new_text(documents: DataFrame, shortened: DataFrame) -> DataFrame:
    """The documents with the texts that line deduplication changed."""
    from pyspark.sql import functions as F

    changed = shortened.drop("removed").withColumnRenamed("text", "shorter")
    return documents.join(changed, "doc_id", "left").withColumn("text", F.coalesce("shorter", "text")).drop("shorter")


def without_taken_down(pages: DataFrame, index: Index) -> DataFrame:
    """The pages; those of documents that were taken down, or of their addresses, end here."""
    from pyspark.sql import functions as F

    gone = F.lit(False)
    for name in ("doc_id", "url"):
        gone |= F.col(name).isin([one[name] for one in index.taken_down])
    ends = gone & F.col("decision").isNull()
    verdict = {"decision": DROPPED, "stage": "url", "rule": "url.taken_down", "value": 1.0, "threshold": 0.0}
    return pages.withColumns(
        {name: F.when(ends, F.lit(value)).otherwise(F.col(name)) for name, value in verdict.items()}
    )


def add_to_index(
    index: Index, stages: engine.Stages, texts: DataFrame, copies: DataFrame, documents: DataFrame, ends: DataFrame
) -> None:
    """Write this run's part of the index, from which no reader takes anything before the run is committed."""
    if index.holds(run_name(stages.identity)):
        return
    keys = texts.selectExpr("*", "length(text) AS length").join(copies.drop("copies"), [*PLACE], "left")
    bands = stages.read("fuzzy.bands").join(documents, "doc_id", "left_semi")
    tables = {
        "keys": keys.select(*KEYS.names),
        "counts": stages.read("lines.counts"),
        "bands": bands,
        "texts": documents.select(*DOCUMENT.names),
        "edges": stages.read("fuzzy.edges"),
        "ends": ends.drop("fate_measures"),
    }
    tasks = engine.task_counter(stages.spark)
    console.watch("index", lambda: index.write(run_name(stages.identity), tables), lambda: console.Done(*tasks()))


def near_duplicates(
    judged: DataFrame, config: minhash.FuzzyConfig, stages: engine.Stages, earlier: Earlier
) -> DataFrame:
    """`doc_id`, `duplicate_of`, `similarity` of the documents that are near to one that is kept, now or in an earlier
    dump.

    The verified pairs are the table `fuzzy.edges`; with `compare_dropped` also those of documents that the rules
    dropped, which have no say in what is kept.
    """
    checkpoint = stages.inside("fuzzy")
    passed = judged.where("decision IS NULL").select("doc_id")
    compared = judged if config.compare_dropped else judged.where("decision IS NULL")
    signed = checkpoint("bands", minhash.sign(compared, config))
    pairs = minhash.candidate_pairs(signed, config, earlier.bands)
    if config.compare_dropped:
        # In a large bucket of theirs alone others are compared.
        alone = minhash.candidate_pairs(signed.join(passed, "doc_id", "left_semi"), config, earlier.bands)
        pairs = pairs.union(alone).distinct()
    texts = compared.select("doc_id", "text", "language")
    if earlier.texts is not None:
        texts = texts.union(earlier.texts.select("doc_id", "text", "language"))
    edges = checkpoint("edges", minhash.verify_pairs(checkpoint("pairs", pairs), texts, config))
    # No document that is dropped already, by a rule or in an earlier dump, has a say in what is kept.
    kept = earlier.kept()
    edges = edges.join(passed.withColumnRenamed("doc_id", "loser"), "loser", "left_semi")
    winners = passed if kept is None else passed.union(kept)
    edges = edges.join(winners.withColumnRenamed("doc_id", "winner"), "winner", "left_semi")
    return survivors.choose_in_spark(edges, checkpoint)


def near_pairs(stages: engine.Stages, earlier: Earlier) -> DataFrame:
    """The verified near-duplicates (columns of schema.NEAR), without documents of earlier dumps that were dropped."""
    edges = stages.read("fuzzy.edges").selectExpr("loser AS doc_id", "winner AS near_to", "similarity")
    if earlier.ends is None:
        return edges
    dropped = earlier.ends.where("fate != 'kept'").selectExpr("judged_id AS near_to")
    return edges.join(dropped, "near_to", "left_anti")


def show(name: str, stages: engine.Stages, make: Any, given: str = "prepare", without: str | None = None) -> DataFrame:
    """A committed stage, with a bar of its Spark tasks; what goes through are the rows of `given` not in `without`."""
    documents, size = engine.going_on(stages.folder / given)
    if without:
        documents -= engine.going_on(stages.folder / without)[0]
    whole = None if stages.committed(name) else console.Done(0, 0, documents, size)
    tasks = engine.task_counter(stages.spark)
    return console.watch(name, lambda: stages.table(name, make), lambda: console.Done(*tasks()), whole)


def write(
    output: Path,
    job: Job,
    stages: engine.Stages,
    documents: DataFrame,
    rows: DataFrame,
    near: DataFrame,
    shortened: DataFrame,
    read: list[dict[str, Any]],
) -> dict[str, Any]:
    """documents/, ledger/, lines/, near/ and, last of all, summary.json: an output without it does not exist."""
    started = time.monotonic()
    marks = ledger.metadata(job.recipe.hash, stages.identity)

    gone = shortened.selectExpr("doc_id", "explode(removed) AS gone").select("doc_id", "gone.*")

    def all_four() -> tuple[dict[str, int], dict[str, int]]:
        engine.write_parts(near, output / "near", ledger.with_metadata(NEAR, marks))
        engine.write_parts(gone, output / "lines", ledger.with_metadata(REMOVED_LINE, marks))
        kept = engine.write_parts(documents, output / "documents", ledger.with_metadata(DOCUMENT, marks))
        return kept, engine.write_parts(rows, output / "ledger", ledger.with_metadata(LEDGER, marks))

    removed = shortened.selectExpr("sum(lines_removed) AS lines", "count(*) AS documents").first()
    assert removed is not None
    tasks = engine.task_counter(stages.spark)
    whole = console.Done(0, 0, sum(one["pages"] for one in read), engine.going_on(stages.folder / "rules")[1])
    parts, ledger_parts = console.watch("write", all_four, lambda: console.Done(*tasks()), whole)
    stages.seconds["write"] = time.monotonic() - started
    by_rule = ledger.counts(output / "ledger")
    records = sum(by_rule.values())
    summary = {
        "format": "dots.crawl-clean/1",
        "version": __version__,
        "recipe_hash": job.recipe.hash,
        "input_hash": stages.identity,
        "recipe": to_mapping(job.recipe),
        "records": records,
        **{d: sum(n for (x, _, _), n in by_rule.items() if x == d) for d in ("kept", "dropped", "quarantined")},
        "funnel": [{**dataclasses.asdict(step), "kept": step.kept} for step in ledger.funnel(by_rule)],
        "rules": [
            {"decision": d, "stage": s, "rule": r, "records": n} for (d, s, r), n in sorted(by_rule.items()) if r
        ],
        "bytes": sum(one["bytes"] for one in read),
        "lines_removed": int(removed["lines"] or 0),
        "documents_shortened": int(removed["documents"]),
        "seconds": seconds_by_step(stages.seconds, read),
        "unreadable": sorted(
            (damage for one in read for damage in one["damages"]), key=lambda d: (d["file"], d["offset"])
        ),
        "problems": ledger.problems(output / "ledger"),
        "alarms": alarms.find_alarms(stages.spark.read.parquet(str(output / "ledger")), near, stages.inside("alarms")),
        "documents": parts,
        "ledger": ledger_parts,
    }
    check(summary, sum(one["pages"] for one in read))
    engine.write_json(output / "summary.json", summary)
    shutil.rmtree(stages.folder, ignore_errors=True)
    return summary


def seconds_by_step(stages: dict[str, float], read: list[dict[str, Any]]) -> dict[str, float]:
    """Elapsed seconds; those of preparation are divided among its steps by their share of the workers' time."""
    worked: dict[str, float] = {}
    for one in read:
        for step, seconds in one["step_seconds"].items():
            worked[step] = worked.get(step, 0.0) + seconds
    whole = sum(worked.values()) or 1.0
    steps = {step: stages["prepare"] * seconds / whole for step, seconds in worked.items()}
    steps |= {name: seconds for name, seconds in stages.items() if name != "prepare" and "." not in name}
    return {step: round(seconds, 3) for step, seconds in steps.items()}


def check(summary: dict[str, Any], records_read: int) -> None:
    """The sums that must hold. Raises EngineError where they do not: such an output is not committed."""
    counted = summary["kept"] + summary["dropped"] + summary["quarantined"]
    written = sum(summary["documents"].values())
    if not (records_read == summary["records"] == counted) or written != summary["kept"]:
        raise engine.EngineError(
            f"the ledger does not add up: {records_read} records read, {summary['records']} rows, {counted} fates, "
            f"{summary['kept']} kept, {written} documents written"
        )


def run(job: Job) -> dict[str, Any]:
    """The whole job; returns the summary. A finished job is not run again.

    Raises:
        ConfigError, InputError, OutputError, JavaError: the job cannot be started as it is.
        EngineError: it started and could not go on.
    """
    sources = expand_dumps(job.dumps or {"": job.input})
    run_hash = f"{fingerprint(sources)}-{job.recipe.assets_hash()}"
    # What is wrong with lists and site rules is said before anything starts, and no worker has lists to compile.
    UrlFilter(job.recipe.url)
    Sites(job.recipe.sites)
    if job.recipe.rules.decontamination is not None:
        job.recipe.rules.decontamination.check()
    with against(job, run_hash) as index, claim(Path(job.output), job.recipe.hash, run_hash) as (work, finished):
        if finished is not None:
            console.console.print(f"{job.output} holds the finished result of this job; nothing to do")
            commit_to_index(index, job, finished)
            return finished
        with engine.session("crawl-clean", job.resources, work, Path(job.output) / "logs" / "spark.log") as spark:
            stages = engine.Stages(spark, work / stages_folder(index), f"{job.recipe.hash}-{run_hash}")
            try:
                summary = clean(spark, job, sources, stages, index)
                commit_to_index(index, job, summary)
                return summary
            except engine.EngineError:
                raise
            except Exception as error:
                # Put into words here: Spark's exceptions cannot be read once the session has ended.
                raise engine.EngineError(explain_failure(error, job.output)) from error


@contextlib.contextmanager
def against(job: Job, run_hash: str) -> Iterator[Index | None]:
    """The job's index, held for this run alone; None where it has none.

    Raises IndexFault for an index that cannot take the job's dumps.
    """
    if job.index is None:
        yield None
        return
    with Index.lock(Path(job.index)):
        index = Index.open(Path(job.index))
        if index.run_of(f"{job.recipe.hash}-{run_hash}") is None:
            index.check_new(sorted(job.dumps), job.recipe)
        yield index


def stages_folder(index: Index | None) -> str:
    """Where a run commits its stages: what was decided against one state of an index is never mixed with another."""
    return "stages" if index is None else f"stages-{index.digest}"


def commit_to_index(index: Index | None, job: Job, summary: dict[str, Any]) -> None:
    """Name the run in the index, once its output is whole: killed before, the index is as it was."""
    identity_of_run = summary["input_hash"]
    if index is not None and index.run_of(identity_of_run) is None:
        run = Run(run_name(identity_of_run), tuple(sorted(job.dumps)), identity_of_run)
        index.with_run(job.recipe, run).commit()


@contextlib.contextmanager
def claim(output: Path, recipe_hash: str, input_hash: str) -> Iterator[tuple[Path, dict[str, Any] | None]]:
    """Take `output` for this job alone: its work folder, and the summary if the job is already finished.

    Raises OutputError for a folder that cannot be written, is in use, or holds the result of another job.
    """
    work = output / "work"
    with contextlib.ExitStack() as stack:
        try:
            if (foreign := _not_ours(output)) is not None:
                raise OutputError(f"{foreign}: is there and was not made by crawl-clean; choose another OUTPUT")
            stack.enter_context(engine.held(output))
        except BlockingIOError:
            raise OutputError(f"{output}: another run is writing to it; wait for it or choose another OUTPUT") from None
        except OSError as error:
            raise OutputError(f"{output}: cannot be written ({error.strerror}); choose another OUTPUT") from error
        mine = {"recipe_hash": recipe_hash, "input_hash": f"{recipe_hash}-{input_hash}"}
        summary = engine.read_json(output / "summary.json")
        for found in (summary, engine.read_json(work / "job.json")):
            if found is not None and (differs := _difference(found, mine)):
                raise OutputError(
                    f"{output}: holds the output of another {differs}; choose another OUTPUT or remove it"
                )
        if summary is None:
            engine.write_json(work / "job.json", mine)
        yield work, summary
        shutil.rmtree(work, ignore_errors=True)


def _not_ours(output: Path) -> Path | None:
    """Something that stands where a run would write, in a folder that no run has marked as its own."""
    if any(engine.read_json(output / name) for name in ("summary.json", "work/job.json")):
        return None
    places = (output / name for name in ("work", "documents", "ledger", "lines", "near"))
    return next((place for place in places if place.exists() and not _is_empty(place)), None)


def _is_empty(place: Path) -> bool:
    return place.is_dir() and not any(place.iterdir())


def _difference(found: dict[str, Any], mine: dict[str, str]) -> str | None:
    if found.get("recipe_hash") != mine["recipe_hash"]:
        return f"recipe ({found.get('recipe_hash')}, this one is {mine['recipe_hash']})"
    return "input" if found.get("input_hash") != mine["input_hash"] else None


def report(summary: dict[str, Any], output: str) -> None:
    """The one screen at the end."""
    seconds = summary["seconds"]
    rows: list[tuple[Any, ...]] = [("read", summary["records"], 0, summary["records"], seconds.get("read"))]
    for step in summary["funnel"]:
        dropped = step["dropped"] + step["quarantined"]
        rows.append((step["stage"], step["entered"], dropped, step["kept"], seconds.get(step["stage"])))
    rows.append(("write", summary["kept"], 0, summary["kept"], seconds.get("write")))
    console.table("crawl-clean", ("step", "in", "dropped", "kept", "seconds"), rows)
    console.console.print(
        f"{summary['records']:,} records = {summary['kept']:,} kept + {summary['dropped']:,} dropped "
        f"+ {summary['quarantined']:,} quarantined; {summary['lines_removed']:,} lines removed from "
        f"{summary['documents_shortened']:,} documents; {sum(seconds.values()):,.1f} s"
    )
    for damage in summary["unreadable"][:20]:
        console.console.print(
            f"unreadable: {console.safe(damage['file'])} at {damage['offset']:,}: {console.safe(damage['reason'])}"
        )
    if len(summary["unreadable"]) > 20:
        console.console.print(f"... and {len(summary['unreadable']) - 20} more in {output}/summary.json")
    for problem, pages in summary["problems"].items():
        console.console.print(f"damaged but read: {pages:,} pages: {console.safe(problem)}")
    for alarm in summary["alarms"]:
        console.console.print(alarms.words(alarm), style="bold yellow")
    console.console.print(f"documents: {output}/documents/   ledger: {output}/ledger/   summary: {output}/summary.json")
    console.console.print(f"why a page was dropped: {console.program('dots')} explain URL --output {output}")


def parser() -> argparse.ArgumentParser:
    arguments = argparse.ArgumentParser(
        prog="python -m pipelines.crawl_clean",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    arguments.add_argument("--job", default="jobs/crawl-clean.yaml", help="the job file (default: %(default)s)")
    arguments.add_argument("--input", nargs="+", help="WARC files, folders or globs; replaces the job's input")
    arguments.add_argument(
        "--dump",
        nargs="+",
        action="append",
        metavar=("NAME", "INPUT"),
        help="a crawl by its name and its files, again for each of several; names sort as the crawls came",
    )
    arguments.add_argument("--index", help="the folder of a living index: drop what earlier dumps hold, add this one")
    arguments.add_argument("--output", help="the output folder; replaces the job's output")
    arguments.add_argument("--partitions", type=int, help="tasks of the preparation stage; no result depends on it")
    arguments.add_argument("--cores", type=int, help="cores to use (default: all)")
    arguments.add_argument(
        "--show-recipe", action="store_true", help="print the whole recipe, defaults and all, and stop"
    )
    arguments.epilog = (
        "exit codes: 0 done, 1 failed on the way (run it again to go on), 2 cannot start as asked, 130 interrupted"
    )
    return arguments


def job_of(options: argparse.Namespace) -> Job:
    """The job file with what the command line says instead."""
    job = load_job(options.job)
    if options.input:
        job = dataclasses.replace(job, input=tuple(paths_in(options.input)))
    if options.dump:
        if options.input:
            raise ConfigError("--input or --dump: each dump names its own input")
        job = dataclasses.replace(job, dumps={name: tuple(paths_in(paths)) for name, *paths in options.dump})
    for name in ("output", "index"):
        if getattr(options, name):
            job = dataclasses.replace(job, **{name: getattr(options, name)})
    changes = {"partitions": options.partitions, "cores": options.cores}
    resources = dataclasses.replace(job.resources, **{k: v for k, v in changes.items() if v is not None})
    return dataclasses.replace(job, resources=resources)


def main(arguments: list[str] | None = None) -> int:
    """Run from the command line; returns the exit code."""
    options = parser().parse_args(arguments)
    try:
        job = job_of(options)
        if options.show_recipe:
            print(yaml.safe_dump({"recipe": to_mapping(job.recipe)}, sort_keys=False, allow_unicode=True), end="")
            return EXIT_DONE
        summary = run(job)
    except (ConfigError, InputError, OutputError, IndexFault, engine.JavaError) as error:
        console.fail(str(error))
        return EXIT_USAGE
    except KeyboardInterrupt:
        console.fail("interrupted; give the same command again and it goes on where it was")
        return EXIT_INTERRUPTED
    except (engine.EngineError, OSError) as error:
        if os.environ.get("DOTS_TRACEBACK"):
            raise
        console.fail(str(error))
        return EXIT_FAILED
    report(summary, job.output)
    return EXIT_DONE


def explain_failure(error: Exception, output: str) -> str:
    """A failure inside the engine in one sentence."""
    words = str(error)
    if "No space left on device" in words:
        return f"{output}: the disk is full; free some space and run the same command again, it goes on where it was"
    said = words.splitlines() or ["no message"]
    first = next((line.strip() for line in reversed(said) if "Error" in line), said[0][:300])
    return f"{type(error).__name__}: {first}; Spark's own log is {output}/logs/spark.log (DOTS_TRACEBACK=1 shows all)"


if __name__ == "__main__":
    sys.exit(main())
