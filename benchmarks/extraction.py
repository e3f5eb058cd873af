"""`make bench-extraction`: the extraction engines beside the tools they stand in for, quality and speed in one run.

    python -m benchmarks.extraction [--pages 'crawl/*.warc.gz'] [--gold gold.jsonl]

Quality: passages that people marked, `with` (the main text must hold them) and `without` (it must not). The fast
engine is judged by cross-validation with folds by site, never on a site that its model has seen. For Chinese, where
nobody marked, the reference is what two extractors outside this comparison agree on, on pages where they do.

Speed: pages per CPU second, single-threaded, reading the WARC files included. `fast` and `cascade` extract in the
sandbox, as pipelines do, and its processes count with their start: these rows compare with datatrove, whose sandbox
counts too. The row `in-process` and the bare extractors have none. datatrove is measured in an environment of its own,
made by infra/peer.sh (`make bench-extraction`; or DOTS_DATATROVE_PYTHON); left out, with a word, where there is none.
"""

# ruff: noqa: E402
from __future__ import annotations

import os

# Read once, when numpy and torch load their libraries: nothing set later binds them.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"

import argparse
import datetime
import gc
import json
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.__main__ import RESULTS
from dots_data import console
from dots_data.crawl.sources import Source, expand
from dots_data.crawl.warc import Page, read_pages
from dots_data.extraction import ENGINES, Engine, check_limits, decode, fast_engine
from dots_data.extraction.labels import LabelledPage
from dots_data.extraction.limits import ExtractionLimits
from dots_data.extraction.quality import quality
from dots_data.extraction.sandbox import Sandbox
from dots_data.extraction.teachers import EXTRACTORS, extracted
from dots_data.language import LanguageConfig, LanguageIdentifier

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("DOTS_REAL_DATA", ROOT.parent / "shared" / "data")) / "warc"
# The judges of Chinese pages; neither is compared with itself.
JUDGES = ("readability", "resiliparse")
_AGREEMENT = 0.8
DATATROVE = ROOT / "build" / "peers" / "datatrove-extraction" / "bin" / "python"
# Precision is the default's work with other thresholds, and costs what that costs.
TIMED = ("trafilatura", "trafilatura fast", "resiliparse", "readability")
SANDBOXED: tuple[Engine, ...] = ("fast", "cascade")
Texts = dict[str, list[str]]


# ---- quality -------------------------------------------------------------------------------------------------


def judged_by_agreement(pages: Sequence[LabelledPage]) -> list[LabelledPage]:
    """Chinese pages marked by what the judges agree on: lines that both hold, lines that neither does.

    The lines are those of a plain rendering of the whole page, by a tool that knows nothing of our units.
    """
    from dots_data.extraction.train import contained, normal

    identifier = LanguageIdentifier(LanguageConfig())
    out = []
    for page in pages:
        if not identifier.identify(page.texts[JUDGES[0]]).code.startswith("zh"):
            continue
        lines = list(dict.fromkeys(" ".join(line.split()) for line in rendered(page.html).split("\n")))
        votes = [contained([normal(line) for line in lines], page.texts[judge]) for judge in JUDGES]
        long = [len(normal(line)) >= 10 for line in lines]
        both = [line for line, a, b, fit in zip(lines, *votes, long, strict=True) if a and b and fit]
        none = [line for line, a, b, fit in zip(lines, *votes, long, strict=True) if not (a or b) and fit]
        either = sum(len(line) for line, a, b in zip(lines, *votes, strict=True) if a or b)
        if both and sum(map(len, both)) >= _AGREEMENT * either:
            out.append(replace(page, required=tuple(both), forbidden=tuple(none)))
    return out


def rendered(html: str) -> str:
    """All text of a page, line by line, as resiliparse renders it."""
    from resiliparse.extract.html2text import extract_plain_text

    return str(extract_plain_text(html, main_content=False, alt_texts=False, list_bullets=False))


def quality_rows(pages: Sequence[LabelledPage], texts: Texts) -> list[list[Any]]:
    """Extractor, then recall and rejection for all, de, en and zh."""
    place = {page.record_id: index for index, page in enumerate(pages)}
    marked = [page for page in pages if page.marked]
    groups = [marked, *([page for page in marked if page.language == code] for code in ("de", "en"))]
    groups.append(judged_by_agreement([page for page in pages if not page.marked]))
    rows = []
    for name, found in texts.items():
        row: list[Any] = [name]
        for index, group in enumerate(groups):
            if index == 3 and name in JUDGES:
                row += [None, None]
                continue
            score = quality(group, [found[place[page.record_id]] for page in group])
            row += [score.recall, score.rejection]
        rows.append(row)
    console.console.print(f"pages judged: {', '.join(str(len(group)) for group in groups)} (all, de, en, zh)")
    return rows


def measure_quality(inputs: Sequence[str], gold: Path, cache: Path, folds: int) -> list[list[Any]]:
    """Train and judge by folds; print and return the table's rows."""
    from dots_data.extraction import train

    pages = train.labelled(inputs, gold, cache)
    config = train.TrainConfig()
    examples = [train.example(page, config.marked_weight) for page in pages]
    scores = train.held_out(examples, config, folds, cache, console.console.print)
    texts: Texts = train.held_out_texts(examples, scores, folds)
    texts |= {name: [page.texts[name] for page in pages] for name in EXTRACTORS}
    return quality_rows(pages, texts)


# ---- speed ---------------------------------------------------------------------------------------------------


@dataclass
class Tool:
    """An extractor with what it has read so far: pages, and CPU seconds of this process and of its sandbox's."""

    name: str
    extract: Callable[[Any, str], object]
    sandbox: Sandbox | None = None
    pages: int = 0
    seconds: float = 0.0

    def read(self, source: Source) -> None:
        """Read, decode, check and extract all pages of a file."""
        limits, started = ExtractionLimits(), time.process_time()
        for item in read_pages(source.path):
            if isinstance(item, Page) and item.body:
                html = decode(item.body, item.http_charset).text
                utf8 = html.encode("utf-8", "replace")
                self.pages += 1
                if check_limits(utf8, limits) is None:
                    self.extract(utf8 if self.sandbox else html, item.url)
        self.seconds += time.process_time() - started

    def end(self) -> None:
        """Count the sandbox's process, from its start to its end."""
        if self.sandbox is not None:
            before = _children()
            self.sandbox.close()
            self.seconds += _children() - before


def _children() -> float:
    """CPU seconds of the children of this process that ended."""
    times = os.times()
    return times.children_user + times.children_system


def tools() -> Iterator[Tool]:
    """Ours, as pipelines run them and bare, and the others in this process; loaded and compiled."""
    for name in SANDBOXED:
        sandbox = Sandbox(ExtractionLimits(), ENGINES[name])
        yield Tool(name, sandbox.extract, sandbox)
    bare: dict[str, Callable[[str, str], object]] = {"fast, in-process": fast_engine.extract}
    bare |= {name: (lambda html, url, name=name: extracted(name, html)) for name in TIMED}
    for name, extract in bare.items():
        extract("<p>warm</p>", "")
        yield Tool(name, extract)


def datatrove_python() -> str | None:
    """An interpreter with datatrove; None where there is none."""
    python = os.environ.get("DOTS_DATATROVE_PYTHON", str(DATATROVE))
    try:
        done = subprocess.run([python, "-c", "import datatrove, trafilatura"], check=False, capture_output=True)
    except OSError:
        return None
    return python if done.returncode == 0 else None


def datatrove(sources: Sequence[Source]) -> tuple[float, dict[str, str]] | None:
    """CPU seconds of datatrove's step over the same files, and the versions; None where it cannot run."""
    python = datatrove_python()
    if python is None:
        console.console.print("datatrove: left out, no environment with it (make bench-extraction makes one)")
        return None
    paths = [Path(source.path).resolve() for source in sources]
    command = [python, str(ROOT / "benchmarks" / "datatrove_extraction.py"), str(paths[0].parent)]
    done = subprocess.run([*command, *(path.name for path in paths)], check=False, capture_output=True, text=True)
    if done.returncode:
        console.console.print(f"datatrove: left out, it failed: {done.stderr.strip().splitlines()[-1:]}")
        return None
    answer = json.loads(done.stdout.strip().splitlines()[-1])
    return float(answer["seconds"]), answer["versions"]


def measure_speed(sources: Sequence[Source]) -> list[list[Any]]:
    """Rows of tool, pages a CPU second, and ratios to trafilatura's fast mode and to datatrove.

    The tools take turns file by file: whatever else the machine does, it does to all of them.
    """
    from dots_data.extraction import trafilatura_engine

    # Compiled once and kept on disk, for the sandbox too, before the clock starts.
    fast_engine.extract("<p>warm</p>")
    check_limits("<p>", ExtractionLimits())
    ours, peer, peer_seconds = list(tools()), "", 0.0
    # What is loaded once is nothing that reading a page should be charged for again and again.
    gc.collect()
    gc.freeze()
    for source in sources:
        for tool in ours:
            tool.read(source)
            trafilatura_engine.forget()
        if (other := datatrove([source])) is not None:
            peer, peer_seconds = f"datatrove {other[1]['datatrove']}", peer_seconds + other[0]
        console.console.print(f"{source.name}: {', '.join(f'{tool.name} {tool.seconds:.1f} s' for tool in ours)}")
    for tool in ours:
        tool.end()
    rates = {tool.name: tool.pages / tool.seconds for tool in ours}
    if peer:
        rates[peer] = ours[0].pages / peer_seconds
    peers = [rates["trafilatura fast"], rates.get(peer)]
    return [[name, rate, *(rate / peer if peer else None for peer in peers)] for name, rate in rates.items()]


def main() -> int:
    arguments = argparse.ArgumentParser(prog="python -m benchmarks.extraction", description=__doc__)
    arguments.add_argument("--pages", nargs="+", default=[str(DATA / "*.warc.gz")], help="WARC files")
    arguments.add_argument("--gold", type=Path, default=DATA / "gold.jsonl", help="marked passages")
    arguments.add_argument("--cache", type=Path, default=Path("build/extraction"), help="labels are kept here")
    arguments.add_argument("--folds", type=int, default=5)
    arguments.add_argument("--files", type=int, help="time the first so many files (default: all)")
    arguments.add_argument("--only", choices=("quality", "speed"))
    options = arguments.parse_args()
    if not options.gold.exists():
        console.fail(f"{options.gold}: no such file; name marked pages with --gold, or set DOTS_REAL_DATA")
        return 2
    import torch

    torch.set_num_threads(1)
    sources = expand(options.pages)
    result: dict[str, Any] = {
        "date": datetime.date.today().isoformat(),
        "python": platform.python_version(),
        "processor": platform.processor() or platform.machine(),
        "versions": {name: version(name) for name in ("trafilatura", "resiliparse", "selectolax")},
        "input": [source.name for source in sources],
    }
    # First: the labels of the other part are millions of objects, which the garbage collector would go through.
    if options.only != "quality":
        columns = ("extractor", "pages a CPU s", "x trafilatura fast", "x datatrove")
        rows = measure_speed(sources[: options.files])
        console.table("speed, reading included", columns, rows)
        result["timed"] = [source.name for source in sources[: options.files]]
        result["speed"] = [dict(zip(columns, row, strict=True)) for row in rows]
    if options.only != "speed":
        columns = (
            "extractor",
            *(f"{group} {what}" for group in ("all", "de", "en", "zh") for what in ("with", "without")),
        )
        rows = measure_quality(options.pages, options.gold, options.cache, options.folds)
        console.table("passages kept / refused, held-out sites", columns, rows)
        result["quality"] = [dict(zip(columns, row, strict=True)) for row in rows]
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "extraction.json").write_text(json.dumps(result, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
