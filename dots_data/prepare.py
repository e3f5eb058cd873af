"""Document preparation (dots.llm1 report, Appendix C.1): one response record in, one row out.

A row either carries the verdict that ended the record or a text that goes on. Cheap questions come first: what
a URL or a header can settle costs no parsing.
"""

from __future__ import annotations

import os
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import pyarrow.parquet as pq
import xxhash

from dots_data.crawl import sites
from dots_data.crawl.admission import check_response
from dots_data.crawl.sources import Unit
from dots_data.crawl.urls import UrlFilter
from dots_data.crawl.warc import Damage, Page, ReadLimits, read_pages
from dots_data.dedup.identity import text_md5
from dots_data.engines.spark import rows_to_batches
from dots_data.extraction import ENGINES, check_limits, decode
from dots_data.extraction.sandbox import Sandbox
from dots_data.extraction.selectors import Selectors
from dots_data.extraction.trafilatura_engine import plain_text
from dots_data.judge import Verdict
from dots_data.language import LanguageIdentifier
from dots_data.language import check as check_language
from dots_data.language import look as look_at_language
from dots_data.recipe import Recipe
from dots_data.schema import PREPARED, doc_id
from dots_data.text import finished_share

# A worker remembers what bodies came to, in characters of text: one that comes again costs nothing.
REMEMBERED_CHARS = 32_000_000
_ENTRY_CHARS = 1_000


class Outcome(NamedTuple):
    """What a body came to: columns of its row, measures, and what ended it, if anything did."""

    columns: dict[str, Any]
    measures: dict[str, float]
    ended: Verdict | None


@dataclass
class UnitStats:
    """What one unit of input held: pages (response records), bytes (decoded bodies), texts that go on, damages.

    step_seconds: a worker's time by step, reading included.
    """

    unit: str
    pages: int = 0
    bytes: int = 0
    texts: int = 0
    step_seconds: dict[str, float] = field(default_factory=dict)
    damages: list[dict[str, Any]] = field(default_factory=list)


class Remembered:
    """What bodies came to that were read before, the latest up to so many characters of text."""

    def __init__(self, most_chars: int = REMEMBERED_CHARS) -> None:
        self._most, self._chars = most_chars, 0
        self._outcomes: OrderedDict[Hashable, Outcome] = OrderedDict()

    def get(self, key: Hashable) -> Outcome | None:
        """What is remembered under `key`."""
        if key in self._outcomes:
            self._outcomes.move_to_end(key)
        return self._outcomes.get(key)

    def put(self, key: Hashable, outcome: Outcome) -> None:
        """Remember; what was asked for least lately is forgotten."""
        self._outcomes[key] = outcome
        self._chars += _weight(outcome)
        while self._chars > self._most:
            self._chars -= _weight(self._outcomes.popitem(last=False)[1])


def _weight(outcome: Outcome) -> int:
    return len(outcome.columns.get("text", "")) + _ENTRY_CHARS


class Preparation:
    """The tools that a worker keeps between pages: lists, the language model, the extraction sandbox."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self.urls = UrlFilter(recipe.url)
        self.sites = sites.Sites(recipe.sites)
        self.languages = LanguageIdentifier(recipe.language)
        self.sandbox = Sandbox(recipe.extraction.limits, ENGINES[recipe.extraction.engine])
        self.bodies = Remembered()
        self.step_seconds: dict[str, float] = {}

    def __enter__(self) -> Self:
        self.sandbox.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.sandbox.__exit__(kind, error, trace)

    def row(self, page: Page, dump: str = "") -> dict[str, Any]:
        """The row (columns of schema.PREPARED) of one page."""
        row: dict[str, Any] = {
            "doc_id": doc_id(page.record_id, page.url, page.date, page.payload_digest, *_headers(page)),
            "record_id": page.record_id,
            "url": page.url,
            "warc_file": page.warc_file,
            "warc_offset": page.warc_offset,
            "warc_index": page.warc_index,
            "date": page.date,
            "dump": dump,
            "site_rank": self._site_rank(page.url),
            "problem": page.problem or (f"truncated: {page.truncated}" if page.truncated else None),
            "measures": {"http.status": float(page.status), "http.body_bytes": float(page.body_bytes)},
        }
        if (ended := self._end(page, row)) is not None:
            row.pop("text", None)
            row |= _fate(ended)
        row["measures"] = sorted(row["measures"].items())
        return row

    def _end(self, page: Page, row: dict[str, Any]) -> Verdict | None:
        """The first step that ends the page, if any does; what is found out on the way goes into the row."""
        ended = self._first(
            ("url", lambda: self.urls.check(page.url) or self._site_wants(page.url)),
            ("http", lambda: check_response(page, self.recipe.http)),
        )
        if ended is not None:
            return ended
        outcome = self._outcome(page)
        row |= outcome.columns
        row["measures"] |= outcome.measures
        return outcome.ended

    def _outcome(self, page: Page) -> Outcome:
        """What the body comes to. All that decides it is in the key."""
        rules = self.sites.of(page.url)
        key = (page.payload_digest, page.http_charset, page.content_type == "text/plain", rules)
        if (known := self.bodies.get(key)) is not None:
            return known
        found = Outcome({}, {}, None)
        ended = self._first(
            ("extraction", lambda: self._extract(page, rules, found)),
            ("language", lambda: self._identify(found)),
        )
        found = found._replace(ended=ended)
        if ended is None or not ended.rule.endswith(".error"):
            self.bodies.put(key, found)
        return found

    def _first(self, *steps: tuple[str, Callable[[], Verdict | None]]) -> Verdict | None:
        """The first verdict. A page that breaks a step ends there; the others go on."""
        for name, step in steps:
            started = time.perf_counter()
            try:
                if (ended := step()) is not None:
                    return ended
            except Exception as error:
                return Verdict(name, f"{name}.error", 1.0, 0.0, type(error).__name__, "quarantined")
            finally:
                self.step_seconds[name] = self.step_seconds.get(name, 0.0) + time.perf_counter() - started
        return None

    def _site_wants(self, url: str) -> Verdict | None:
        rules = self.sites.of(url)
        return sites.check_url(rules, url) if rules else None

    def _site_rank(self, url: str) -> int:
        rules = self.sites.of(url)
        return rules.rank if rules else 0

    def _extract(self, page: Page, rules: sites.SiteRules | None, found: Outcome) -> Verdict | None:
        """Body to text."""
        decoded = decode(page.body, page.http_charset)
        found.measures["extraction.replaced_characters"] = float(decoded.replaced)
        plain, html = page.content_type == "text/plain", decoded.text
        ended = None if plain else look_at_language(html, self.languages, self.recipe.language)
        utf8 = html.encode("utf-8", "replace")
        if (ended := ended or check_limits(utf8, self.recipe.extraction.limits)) is not None:
            return ended
        selectors = rules.selectors if rules else Selectors()
        text, elements = (plain_text(html), 0) if plain else self.sandbox.extract_pruned(utf8, page.url, selectors)
        if isinstance(text, Verdict):
            return text
        text = text.replace("\0", "").strip()
        if rules:
            text, removed = sites.remove_lines(text, rules)
            found.measures["sites.removed_elements"] = float(elements)
            found.measures["sites.removed_lines"] = float(removed)
        found.columns["text"] = text
        found.measures["extraction.characters"] = float(len(text))
        if not any(map(str.isalnum, text)):
            return Verdict("extraction", "extraction.min_characters", float(len(text)), 1.0, "no text found")
        return None

    def _identify(self, found: Outcome) -> Verdict | None:
        """Text to language, and to the key of identity removal."""
        text = found.columns["text"]
        language = self.languages.identify(text)
        found.columns["language"] = language.tag if self.recipe.language.script_subtags else language.code
        found.columns["language_score"] = language.score
        found.measures.update(language.measures)
        if (ended := check_language(language, self.recipe.language)) is not None:
            return ended
        found.columns["text_md5"] = text_md5(text)
        found.columns["quality"] = finished_share(text)
        return None


_KEPT_BY_WORKER: dict[str, Preparation] = {}


def worker_preparation(recipe: Recipe) -> Preparation:
    """The tools of this worker process, made once: lists and models are large."""
    if recipe.hash not in _KEPT_BY_WORKER:
        _KEPT_BY_WORKER[recipe.hash] = Preparation(recipe).__enter__()
    return _KEPT_BY_WORKER[recipe.hash]


def _headers(page: Page) -> tuple[str, str, str]:
    return str(page.status), page.content_type, page.http_charset or ""


def _fate(verdict: Verdict) -> dict[str, Any]:
    return {
        "decision": verdict.decision,
        "stage": verdict.stage,
        "rule": verdict.rule,
        "value": float(verdict.value),
        "threshold": float(verdict.threshold),
        "detail": verdict.detail or None,
    }


def unit_name(unit: Unit) -> str:
    """A file name for what is prepared from `unit`: the same for any run over the same input."""
    readable = "".join(c if c.isalnum() or c in "-._" else "_" for c in unit.name)[-80:]
    digest = xxhash.xxh3_64_hexdigest(unit.name.encode("utf-8", "surrogateescape"))
    return f"{readable}-{unit.share}of{unit.shares}-{digest}"


def prepare_unit(unit: Unit, preparation: Preparation, folder: Path) -> UnitStats:
    """Write `folder/<unit>.parquet` (schema.PREPARED), in one step once it is whole."""
    stats, started = UnitStats(unit_name(unit)), time.perf_counter()
    preparation.step_seconds = {}
    target = folder / f"{stats.unit}.parquet"
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        with pq.ParquetWriter(temporary, PREPARED, compression="zstd") as writer:
            for batch in rows_to_batches(_rows(unit, preparation, stats), PREPARED):
                writer.write_batch(batch)
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
    steps = preparation.step_seconds
    stats.step_seconds = {"read": time.perf_counter() - started - sum(steps.values()), **steps}
    return stats


def _rows(unit: Unit, preparation: Preparation, stats: UnitStats) -> Iterator[dict[str, Any]]:
    limits = ReadLimits.for_bodies(preparation.recipe.http.max_body_bytes)
    for item in read_pages(unit.path, share=(unit.share, unit.shares), limits=limits, name=unit.name):
        if isinstance(item, Damage):
            stats.damages.append({"file": item.warc_file, "offset": item.offset, "reason": item.reason})
            continue
        row = preparation.row(item, unit.dump)
        stats.pages += 1
        stats.bytes += item.body_bytes
        stats.texts += row.get("decision") is None
        yield row
