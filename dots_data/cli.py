"""`dots`: questions about what the pipelines left, and models in and out. Run `dots --help`."""

from __future__ import annotations

import argparse
import json
import sys
import urllib.request
from collections.abc import Callable, Sequence
from http.client import HTTPException
from pathlib import Path
from typing import Any

from dots_data import console, shards_cli
from dots_data.extraction import DEFAULT_ENGINE, ENGINES
from dots_data.typed_yaml import ConfigError
from dots_train import commands as training  # parsers alone; torch is loaded by the command that needs it

DESCRIPTION = """Questions about pages, a crawl and its tokens; models in and out of the trainer.

  dots extract page.html                    the main text of a page; --scores: every line with its score
  dots explain URL --output build/crawl     why a page was kept or dropped, step by step
  dots duplicates URL --diff                the near-duplicates and copies of a page, who stays and why, and a diff
  dots judge --recipe new.yaml              what other thresholds would have kept and dropped, from the ledger alone
  dots sites                                the hosts with most text, for hand cleaning
  dots index build/index                    what a living index holds; --export: its documents of all dumps
  dots takedown URL --index build/index     a document goes from an index, and what was dropped for it comes back
  dots export build/model --output FOLDER   a checkpoint as a folder that transformers, vLLM and SGLang load
  dots import FOLDER --output build/start   weights of such a folder, to continue training from
  dots eval FOLDER --tasks my-tasks         benchmarks on an export, with the lm-evaluation-harness
  dots shards verify build/tokens           whether every shard is what its manifest says; more: dots shards --help
  dots plan dots1                           what a training run takes: steps, hours, FLOPs, memory a rank
  dots curves build/model                   pictures of a run: its loss curve, the load of its experts
"""


class UsageError(ValueError):
    """What was asked cannot be answered from these files; the message says what to do."""


def extract(options: argparse.Namespace) -> int:
    """Print the main text of files and URLs, or every line of them with its score."""
    from dots_data.extraction import ExtractionLimits, check_limits, decode
    from dots_data.extraction.sandbox import Sandbox

    limits = ExtractionLimits()
    engine = ENGINES["fast"] + "_with_scores" if options.scores else ENGINES[options.engine]
    failed = 0
    with Sandbox(limits, engine) as sandbox:
        for where in options.pages:
            if len(options.pages) > 1:
                console.console.print(f"[bold]{console.safe(where)}[/]")
            body, charset, url = _page(where, limits.max_chars)
            html = decode(body, charset).text
            answer = check_limits(html, limits) or sandbox.extract(html, url)
            if isinstance(answer, str) and answer:
                sys.stdout.write(_printable(answer) + "\n")
                continue
            failed += 1
            reason = "no text found" if isinstance(answer, str) else f"{answer.rule} {answer.value:g} {answer.detail}"
            console.fail(f"{where}: {reason.strip()}")
    return 1 if failed else 0


def _page(where: str, most: int) -> tuple[bytes, str | None, str | None]:
    """Body, character set of its header and URL of a file or an http(s) address."""
    if not where.startswith(("http://", "https://")):
        with open(where, "rb") as file:
            return file.read(most + 1), None, None
    request = urllib.request.Request(where, headers={"User-Agent": "dots"})
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            return response.read(most + 1), response.headers.get_content_charset(), response.url
    except (OSError, HTTPException, ValueError) as error:
        raise UsageError(f"{where}: {error}") from error


def _printable(text: str) -> str:
    """Crawled text, fit for a terminal: no control characters but tabs and line ends."""
    return "".join(c if c.isprintable() or c in "\t\n" else "\N{REPLACEMENT CHARACTER}" for c in text)


def explain(options: argparse.Namespace) -> int:
    """Print the fate of every record of a URL, record id or doc id."""
    from dots_data import ledger
    from dots_data.explain import explain_record

    output = Path(options.output)
    summary = _summary(output)
    rows = ledger.find(output / "ledger", options.wanted)
    if not rows:
        console.fail(
            f"{options.wanted}: no such URL, record id or doc id among the {summary['records']:,} records of {output}"
        )
        return 1
    others = ledger.by_id(output / "ledger", {row[k] for row in rows for k in ("duplicate_of", "copy_of") if row[k]})
    for row in rows:
        explain_record(row, others, summary)
    return 0


DUPLICATES = """The cluster of a document: all that hang together with it by equal normalised text or by a
verified similarity, each with what it went for, and the values by which the survivor was chosen.

  dots duplicates https://example.org/page               its cluster, kept documents first, numbered
  dots duplicates 3f...c1 --diff --input crawl/          how its text differs from its survivor's
  dots duplicates 3f...c1 --diff 1 4 --input crawl/      how those of the members 1 and 4 differ

Texts of dropped documents are extracted again from their WARC files, with the recipe of the run; --input says where
these are. In a diff, - and [-so-] stand in the first text alone, + and {+so+} in the second alone.
Exit codes: 0 answered, 1 unknown document or no text to compare, 2 the question cannot be put.
"""


def duplicates(options: argparse.Namespace) -> int:
    """Print the cluster of a document, and how two of its texts differ."""
    from dots_data import ledger
    from dots_data.arguments import paths_in
    from dots_data.duplicates import answer
    from dots_data.recipe import Recipe
    from dots_data.typed_yaml import build

    if options.diff is not None and len(options.diff) not in (0, 2):
        raise UsageError("--diff compares two members, or with none named the document and its survivor")
    output = Path(options.output)
    summary = _summary(output)
    rows = ledger.find(output / "ledger", options.wanted)
    if not rows:
        console.fail(f"{options.wanted}: no such URL, record id or doc id among the records of {output}")
        return 1
    recipe = build(Recipe, summary["recipe"], f"{output}/summary.json: recipe")
    return answer(output, rows, recipe, options.most, options.diff, paths_in(options.input))


def judge(options: argparse.Namespace) -> int:
    """Print the funnel of a run beside that of another recipe, and documents that it would gain and lose."""
    from dots_data.recipe import Recipe
    from dots_data.typed_yaml import build
    from dots_data.what_if import judge_again, overlaid, save_job, show

    ledger = Path(options.ledger)
    output = ledger.parent if ledger.name == "ledger" else ledger
    recipe = build(Recipe, _summary(output)["recipe"], f"{output}/summary.json: recipe")
    new = overlaid(recipe, Path(options.recipe))
    show(judge_again(output, recipe, new, options.samples), output, recipe, new)
    if options.save:
        save_job(new, Path(options.save))
    return 0


def sites(options: argparse.Namespace) -> int:
    """Rank the hosts of a run by their share of the text, or show what recurs on the pages of one."""
    from dots_data import top_sites
    from dots_data.crawl.sites import Sites, SitesConfig

    output, rules = Path(options.ledger), Sites(SitesConfig(options.rules))
    summary = _summary(output)
    if options.host:
        return top_sites.show_host(output, options.host, options.top)
    top_sites.show(output, rules, options.top, summary["recipe_hash"])
    return 0


def index(options: argparse.Namespace) -> int:
    """Show what an index holds, or write the documents that it keeps."""
    from dots_data.dedup.index import Index
    from dots_data.dedup.takedown import documents, export

    opened = Index.open(Path(options.index))
    if not opened.runs:
        console.fail(f"{options.index}: no index is there; crawl-clean makes one (--index, INDEX=)")
        return 1
    with Index.lock(opened.folder):
        if options.export:
            console.console.print(f"{export(opened, Path(options.export)):,} documents written to {options.export}")
            return 0
        kept = {run.name: 0 for run in opened.runs}
        for run, table in documents(opened):
            kept[run.name] += len(table)
    rows = [(console.safe(", ".join(run.dumps)), kept[run.name], run.name) for run in opened.runs]
    console.table(f"index {opened.folder}", ("dumps", "documents kept", "folder"), rows)
    console.console.print(
        f"{len(opened.taken_down):,} taken down; recipe {opened.recipe.hash if opened.recipe else ''}"
    )
    return 0


def takedown(options: argparse.Namespace) -> int:
    """Take a document, or all of a URL, out of an index."""
    from dots_data.dedup import takedown as down
    from dots_data.dedup.index import Index

    folder = Path(options.index)
    if not (folder / "index.json").exists():
        raise UsageError(f"{folder}: no index is there; crawl-clean makes one (--index, INDEX=)")
    with Index.lock(folder):
        opened = Index.open(folder)
        planned = down.plan(opened, options.wanted)
        for doc_id, url in sorted(planned.removed.items()):
            console.console.print(f"goes: {doc_id} {console.safe(url)}")
        for doc_id in planned.released:
            console.console.print(f"kept from now on: {doc_id}")
        if options.dry_run:
            console.console.print("nothing was changed (--dry-run)")
            return 0
        after = down.carry_out(opened, options.wanted, planned)
        if options.released and planned.released:
            down.write_documents(after, planned.released, Path(options.released))
            console.console.print(f"their texts: {options.released}")
    console.console.print(f"{console.safe(options.wanted)} is out of {folder}, and will not come back")
    if planned.removed:
        console.console.print("outputs and shards that were written before still hold it: remove these ids from them")
    return 0


PLAN = """What a training run will be: the curriculum with steps, tokens and hours, parameters and FLOPs by part, memory
on the fullest rank by part, bytes of the expert all-to-all, GPU hours a trillion tokens.

  dots plan                                                       jobs/pretrain.yaml on one GPU
  dots plan dots1 --layout pp=8,dp_shard=64,ep=16 --gpu H800      the released model
  dots plan dots1 --scale 1e-4                                    its recipe for a ten-thousandth of the tokens
  dots plan dots1 --layout pp=8,vpp=2,dp_shard=64,ep=16,schedule=overlapped --schedule pipeline.svg
                                                                  its pipeline: checked, compared, drawn

The layout is that of the job but for what --layout changes: pp pipeline ranks of vpp model chunks each, dp_replicate
copies of dp_shard sharded ranks, of which ep divide the experts; on their product of GPUs.
--schedule plays a step of the pipeline under every schedule that fits the layout: how long it takes, for how much of it
ranks are empty or wait for the experts' all-to-all, what they hold. The overlapped one is checked before.
Exit codes: 0 answered, 2 the job, the layout or an option cannot be meant (a layout that does not divide says why).
"""


def plan(options: argparse.Namespace) -> int:
    """Print what a training run takes on a layout."""
    from dots_train.config import load_job
    from dots_train.cost import GPUS, Gpu
    from dots_train.plan import as_mapping, make_plan, sentences, tables

    changed = [f"layout.{item}" for item in options.layout.split(",") if item]
    if options.scale is not None:
        changed.append(f"scale={options.scale}")
    job = load_job(options.job, [*options.set, *changed])
    if options.gpu not in GPUS:
        raise UsageError(
            f"no GPU {options.gpu!r} is known; there are {', '.join(GPUS)}, or give --teraflops and --gigabytes"
        )
    known = GPUS[options.gpu]
    card = Gpu(options.teraflops or known.teraflops, options.gigabytes or known.gigabytes)
    made = make_plan(job, job.layout, card, options.mfu, options.checkpointing)
    if options.schedule is not None:
        return _plan_schedule(made, options)
    if options.json:
        print(json.dumps(as_mapping(made), indent=1))
        return 0
    for shown in tables(made):
        left = {"curriculum": 5, "memory on the fullest rank": 4}.get(shown.title, 1)
        console.table(shown.title, shown.columns, shown.rows, left)
        console.console.print()
    for sentence in sentences(made):
        console.console.print(console.safe(sentence))
    return 0


def _plan_schedule(made: Any, options: argparse.Namespace) -> int:
    """Print, and draw, the pipeline of a plan (dots_train.plan.Plan)."""
    from dots_train import schedule_plan

    assumed = schedule_plan.Assumed(options.efficiency, options.wire)
    played = schedule_plan.play(made, assumed)
    if options.schedule:
        schedule_plan.draw(made, played, Path(options.schedule))
    shown = schedule_plan.table(made, played)
    console.table(shown.title, shown.columns, shown.rows, 1)
    for sentence in schedule_plan.sentences(made, assumed, played):
        console.console.print(console.safe(sentence))
    return 0


def curves(options: argparse.Namespace) -> int:
    """Draw the loss curve and the expert load of a run into its pictures/."""
    from dots_train.pictures import draw

    for sentence in draw(Path(options.run_folder)):
        console.console.print(console.safe(sentence))
    return 0


def _summary(output: Path) -> dict[str, Any]:
    try:
        summary: dict[str, Any] = json.loads((output / "summary.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(
            f"{output}: holds no finished crawl-clean output (no readable summary.json); name it with --output"
        ) from error
    return summary


def parser() -> argparse.ArgumentParser:
    arguments = argparse.ArgumentParser(
        prog="dots", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = arguments.add_subparsers(dest="command", required=True, metavar="COMMAND")

    command = commands.add_parser("extract", help="the main text of HTML files and web pages")
    command.add_argument("pages", nargs="+", metavar="FILE|URL")
    command.add_argument("--engine", choices=tuple(ENGINES), default=DEFAULT_ENGINE, help="default: %(default)s")
    command.add_argument(
        "--scores", action="store_true", help="every line: its score by the fast engine, + where it is kept, the text"
    )
    command.set_defaults(run=extract)

    command = commands.add_parser("explain", help="a page's fate: each step, each value beside its threshold")
    command.add_argument("wanted", metavar="URL|RECORD", help="a URL, a WARC record id or a doc id")
    command.add_argument("--output", default="build/crawl", help="output folder of crawl-clean (default: %(default)s)")
    command.set_defaults(run=explain)

    command = commands.add_parser(
        "duplicates",
        help="a document's near-duplicates and copies, who stays and why, and how two texts differ",
        description=DUPLICATES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_argument("wanted", metavar="URL|RECORD", help="a URL, a WARC record id or a doc id")
    command.add_argument("--output", default="build/crawl", help="output folder of crawl-clean (default: %(default)s)")
    command.add_argument("--diff", nargs="*", metavar="MEMBER", help="show how two texts differ; members by #, id, URL")
    command.add_argument("--input", nargs="+", default=[], help="WARC files, folders or globs that the run read")
    command.add_argument("--most", type=int, default=50, help="documents shown of a cluster (default: %(default)s)")
    command.set_defaults(run=duplicates)

    command = commands.add_parser("judge", help="what another recipe would have decided, from the recorded measures")
    command.add_argument("--ledger", default="build/crawl", help="output folder of crawl-clean (default: %(default)s)")
    command.add_argument("--recipe", required=True, help="a job file; its recipe is laid over the one of the run")
    command.add_argument("--samples", type=int, default=10, help="documents shown of each kind (default: %(default)s)")
    command.add_argument("--save", metavar="FILE", help="write the whole recipe that was judged, as a job file")
    command.set_defaults(run=judge)

    command = commands.add_parser("sites", help="the hosts with most text, and what recurs on the pages of one")
    command.add_argument("host", nargs="?", help="show this host: pages, and lines that many of them share")
    command.add_argument("--ledger", default="build/crawl", help="output folder of crawl-clean (default: %(default)s)")
    command.add_argument("--top", type=int, default=30, help="how many hosts or lines (default: %(default)s)")
    command.add_argument("--rules", metavar="FILE", help="the site rules, to see which hosts have some")
    command.set_defaults(run=sites)

    command = commands.add_parser("index", help="what a living index holds, or its documents of all dumps")
    command.add_argument("index", nargs="?", default="build/index", help="folder of the index (default: %(default)s)")
    command.add_argument("--export", metavar="FOLDER", help="write the documents that are kept now, for tokenization")
    command.set_defaults(run=index)

    command = commands.add_parser("takedown", help="remove a document from an index, for good")
    command.add_argument("wanted", metavar="URL|ID", help="a URL (all its documents), or a doc id")
    command.add_argument("--index", default="build/index", help="folder of the index (default: %(default)s)")
    command.add_argument("--released", metavar="FILE", help="write the documents that are kept from now on (Parquet)")
    command.add_argument("--dry-run", action="store_true", help="say what would happen, change nothing")
    command.set_defaults(run=takedown)

    shards_cli.add(commands)

    command = commands.add_parser(
        "plan",
        help="what a training run takes: steps, hours, FLOPs, memory a rank",
        description=PLAN,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_argument(
        "job", nargs="?", default="jobs/pretrain.yaml", help="job file or preset (default: %(default)s)"
    )
    command.add_argument(
        "--layout", default="", metavar="KEY=N,...", help="pp, vpp, dp_replicate, dp_shard, ep, schedule"
    )
    command.add_argument("--gpu", default="H800", metavar="NAME", help="its peak and memory (default: %(default)s)")
    command.add_argument("--teraflops", type=float, help="dense bfloat16 peak, instead of the GPU's")
    command.add_argument("--gigabytes", type=float, help="memory of a GPU, instead of the GPU's")
    command.add_argument("--mfu", type=float, default=0.2, help="share of the peak that is used (default: %(default)s)")
    command.add_argument(
        "--checkpointing",
        choices=("off", "selective", "full"),
        help="activations computed again: none, all but the experts' exchange, all (default: as the job says)",
    )
    command.add_argument(
        "--schedule",
        nargs="?",
        const="",
        metavar="FILE.svg",
        help="the pipeline instead: its schedules compared, and drawn into the file",
    )
    command.add_argument(
        "--efficiency", type=float, default=0.45, help="with --schedule: share of the peak (default: %(default)s)"
    )
    command.add_argument(
        "--wire", type=float, default=50, metavar="GB/S", help="with --schedule: all-to-all (default: %(default)s)"
    )
    command.add_argument("--scale", type=float, metavar="F", help="shrink the curriculum to F times its tokens")
    command.add_argument("--set", metavar="KEY=VALUE", action="append", default=[], help="change a value of the job")
    command.add_argument("--json", action="store_true", help="plain numbers, for programs")
    command.set_defaults(run=plan)

    command = commands.add_parser("curves", help="pictures of a training run: its loss curve, the load of its experts")
    command.add_argument("run_folder", nargs="?", default="build/model", metavar="RUN", help="default: %(default)s")
    command.set_defaults(run=curves)

    training.add(commands)
    return arguments


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit codes: 0 answered, 1 the answer is no (unknown page, damaged shard), 2 the question cannot be put."""
    options = parser().parse_args(arguments)
    run: Callable[[argparse.Namespace], int] = options.run
    try:
        return run(options)
    except (UsageError, ConfigError, OSError, ValueError) as error:
        console.fail(str(error))
        return 2


if __name__ == "__main__":
    sys.exit(main())
