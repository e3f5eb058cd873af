"""`make bench-savings`: what each check before parsing saves, and which pages it loses that would have been kept.

    python -m benchmarks.savings [--pages 'crawl/*.warc.gz'] [--lists ut1.tar.gz]

Every response is extracted and its language identified, whatever the checks say of it; then each check is asked alone.
`saved` is the CPU time that extraction and language of the pages it ends took, `cost` its own over all pages, both as a
share of extraction and language of all. `lost` counts pages that the check ends and that the steps after it would have
passed: for the early look those whose extracted text is of a kept language. What URL lists and status codes end is
ended by choice: there is nothing to lose.
"""

# ruff: noqa: E402
from __future__ import annotations

import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.__main__ import RESULTS
from dots_data import console
from dots_data.crawl.admission import HttpConfig, check_response
from dots_data.crawl.sources import expand
from dots_data.crawl.urls import UrlFilter, UrlFilterConfig
from dots_data.crawl.warc import Page, read_pages
from dots_data.extraction import check_limits, decode, fast_engine
from dots_data.extraction.limits import ExtractionLimits
from dots_data.judge import Verdict
from dots_data.language import Language, LanguageConfig, LanguageIdentifier, check, look

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("DOTS_REAL_DATA", ROOT.parent / "shared" / "data"))
# What a user might keep: one language, two, five.
KEPT = (("zh",), ("de",), ("en",), ("en", "zh"), ("en", "zh", "de", "fr", "es"))


@dataclass
class Read:
    """A page and what it costs and comes to when no check ends it; the page's markup, decoded."""

    page: Page
    html: str
    seconds: float
    language: Language


def read_all(paths: Sequence[str], identifier: LanguageIdentifier) -> Iterator[Read]:
    """Every response of the files, extracted."""
    limits = ExtractionLimits()
    fast_engine.extract("<p>warm</p>")
    for path in paths:
        for page in read_pages(path):
            if not isinstance(page, Page) or not page.body:
                continue
            html = decode(page.body, page.http_charset).text
            started = time.process_time()
            text = "" if check_limits(html, limits) else fast_engine.extract(html)
            language = identifier.identify(text)
            yield Read(page, html, time.process_time() - started, language)


class Tally:
    """What a check does to the pages, one after another."""

    def __init__(self, name: str, ends: Callable[[Read], bool], wanted: Callable[[Read], bool] | None) -> None:
        self.name, self.ends, self.wanted = name, ends, wanted
        self.ended = self.lost = 0
        self.saved = self.cost = 0.0

    def add(self, read: Read) -> None:
        started = time.process_time()
        ended = self.ends(read)
        self.cost += time.process_time() - started
        if ended:
            self.ended += 1
            self.saved += read.seconds
            self.lost += self.wanted is not None and self.wanted(read)

    def row(self, pages: int, seconds: float) -> list[Any]:
        lost = None if self.wanted is None else self.lost
        return [self.name, self.ended, self.ended / pages, self.saved / seconds, self.cost / seconds, lost]


def early_look(config: LanguageConfig, identifier: LanguageIdentifier) -> Tally:
    """The look at what a page names and at its raw text, for a recipe that keeps some languages."""
    return Tally(
        f"early look, keeping {' '.join(config.keep or ())}",
        lambda read: look(read.html, identifier, config) is not None,
        lambda read: check(read.language, config) is None,
    )


def tallies(lists: Path, identifier: LanguageIdentifier) -> list[Tally]:
    """The checks that stand before parsing, in the pipeline's order."""
    urls = UrlFilter(UrlFilterConfig(blocklists=(str(lists),) if lists.exists() else ()))
    http, seen = HttpConfig(), set[str]()

    def came_before(read: Read) -> bool:
        before = read.page.payload_digest in seen
        seen.add(read.page.payload_digest)
        return before

    def ended(check_page: Callable[[Read], Verdict | None]) -> Callable[[Read], bool]:
        return lambda read: check_page(read) is not None

    out = [
        Tally("URL lists and words", ended(lambda read: urls.check(read.page.url)), None),
        Tally("status, size, media type", ended(lambda read: check_response(read.page, http)), None),
        # The text of a body that came before is known: nothing is lost.
        Tally("body came before", came_before, lambda read: False),
    ]
    out += [early_look(LanguageConfig(keep=codes), identifier) for codes in KEPT]
    return out


def main() -> int:
    arguments = argparse.ArgumentParser(prog="python -m benchmarks.savings", description=__doc__)
    arguments.add_argument("--pages", nargs="+", default=[str(DATA / "warc" / "*.warc.gz")], help="WARC files")
    arguments.add_argument("--lists", type=Path, default=DATA / "blocklists" / "ut1.tar.gz", help="UT1 layout")
    options = arguments.parse_args()
    identifier = LanguageIdentifier()
    checks = tallies(options.lists, identifier)
    pages, seconds = 0, 0.0
    sources = expand(options.pages)
    for read in read_all([source.path for source in sources], identifier):
        pages, seconds = pages + 1, seconds + read.seconds
        for tally in checks:
            tally.add(read)
    columns = ("check", "pages ended", "of all", "saved", "cost", "lost")
    rows = [tally.row(pages, seconds) for tally in checks]
    console.table(f"checks before parsing, {pages:,} pages", columns, rows)
    RESULTS.mkdir(exist_ok=True)
    result = {
        "input": [source.name for source in sources],
        "pages": pages,
        "seconds": seconds,
        "checks": [dict(zip(columns, row, strict=True)) for row in rows],
    }
    (RESULTS / "savings.json").write_text(json.dumps(result, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
