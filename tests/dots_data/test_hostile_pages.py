"""Hostile pages: every one ends in bounded time and memory, with a text or with a reason in its row."""

from __future__ import annotations

import os
import resource
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dots_data.crawl.sample.records import http_message, record
from dots_data.crawl.sources import Unit
from dots_data.extraction import ENGINES, Engine, ExtractionLimits, check_limits
from dots_data.extraction import sandbox as sandbox_module
from dots_data.extraction.sandbox import Sandbox
from dots_data.judge import Verdict
from dots_data.prepare import Preparation, prepare_unit
from dots_data.recipe import Recipe

MILLION = 1_000_000
LIMITS = ExtractionLimits()
# As if nothing were looked at before a parser sees it: the kernel's limits remain, tight for the sake of time.
KERNEL_ALONE = ExtractionLimits(
    max_chars=10**12,
    max_tags=10**12,
    max_depth=10**12,
    max_attributes=10**12,
    max_tag_chars=10**12,
    max_parsed_bytes=10**12,
    max_parsed_tags=10**12,
    cpu_seconds=2,
    memory_bytes=1 << 30,
)
KERNEL_RULES = ("extraction.memory_bytes", "extraction.cpu_seconds")

_FORMATTING = "".join(f"<b a={k}>" for k in range(100))
_WIDE = '<td colspan="9000000000000000" rowspan="9000000000000000">x'

# A text or none, as the model likes.
EITHER = "either"
# A page, and the rule that ends it before it is parsed or where it is parsed by the default engine; "" for a text,
# `min_characters` for a page that holds none.
PAGES: dict[str, tuple[Callable[[], str], str]] = {
    "nesting": (lambda: "<div>" * 100_000 + "x", "max_depth"),
    "nesting below the limit": (lambda: "<div>" * 499 + "x", "min_characters"),
    "nested tables": (lambda: "<table><tr><td>" * 5_000 + "x", "max_depth"),
    "nesting that hides": (lambda: "<object></div><div a='>'><!-->" * 20_000, "max_depth"),
    "no end tags": (lambda: "<p><b><i><font>x" * 40_000, "max_parsed_tags"),
    "a wide table": (lambda: f"<table><tr>{_WIDE}</table>", ""),
    "wide cells": (lambda: f"<table><tr>{_WIDE * 20_000}", ""),
    "attributes": (lambda: "<p " + "a " * 990_000 + ">x", "max_attributes"),
    "a long tag": (lambda: "<p a='" + "x" * 7 * MILLION + "'>x", "max_tag_chars"),
    "white space": (lambda: " " * 7_900_000 + "<p>x", ""),
    "more white space": (lambda: " " * 200 * MILLION, "max_chars"),
    "entities": (lambda: "&amp;&nbsp;&lol;&#x41;" * 300_000, ""),
    "an entity that never ends": (lambda: "&" + "a" * MILLION, ""),
    "an entity bomb": (lambda: "<!DOCTYPE x [" + '<!ENTITY a "&a;&a;">' * 1000 + "]><p>&a;", EITHER),
    "formatting opened again": (lambda: f"{_FORMATTING}{'<p>x' * 20_000}", ""),
    "formatting opened in each": (lambda: f"<p>{_FORMATTING}{'<p>x' * 15_000}", "max_parsed_tags"),
    "elements that end themselves": (lambda: "<svg>" + "<path/>" * 40_000, "min_characters"),
    "end tags": (lambda: "<div>" * 490 + "</p></b></x>" * 20_000, "min_characters"),
    "frames": (lambda: "<frameset>" * 400 + "<frame>" * 100_000, "max_depth"),
    "foreign": (lambda: "<svg><foreignObject><math><mi><svg><desc>" * 80 + "x", "min_characters"),
    "every byte": (lambda: bytes(range(256)).decode("latin-1") * 2_000, ""),
    "NUL": (lambda: "\0" * MILLION, "min_characters"),
    "surrogates": (lambda: "\ud800" * MILLION, "min_characters"),
    "a long word": (lambda: "x" * 7 * MILLION, ""),
    "line breaks": (lambda: "x<br>" * 30_000, ""),
    "links": (lambda: "<a href=x>y</a>" * 30_000, EITHER),
    "comments": (lambda: "<!--" * 190_000, "min_characters"),
    "a comment": (lambda: "<!--" + "-" * 7 * MILLION, "min_characters"),
    "scripts": (lambda: "<script>" * 190_000, "min_characters"),
    "names": (lambda: "".join(f"<x-{k}>y</x-{k}>" for k in range(10_000)), ""),
}
# What the parser itself takes too long or too much for.
WORSE: dict[str, Callable[[], str]] = {
    "choices": lambda: "<select>" + "<option>x" * 150_000,
    "deep formatting": lambda: f"<p>{_FORMATTING}{'<p>x' * 60_000}",
}
BEFORE_PARSING = ("max_chars", "max_tags", "max_depth", "max_attributes", "max_tag_chars")


class Child(subprocess.Popen[bytes]):
    """A process that tells, once it has ended, how much memory it held at most."""

    peak = 0

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            _, status, usage = os.wait4(self.pid, 0)
            self.returncode = os.waitstatus_to_exitcode(status)
            # The kernel counts from the peak of the process that started it: below that nothing is known.
            if usage.ru_maxrss > resource.getrusage(resource.RUSAGE_SELF).ru_maxrss:
                Child.peak = max(Child.peak, usage.ru_maxrss << 10)
        return self.returncode


def peak(sandbox: Sandbox) -> int:
    """Bytes that the sandbox's processes have held at most, the living and the dead."""
    child = sandbox._child
    if child is None:
        return Child.peak
    lines = Path(f"/proc/{child.pid}/status").read_text().splitlines()
    return max(Child.peak, next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM:")))


@pytest.fixture(scope="module")
def sandboxes() -> Iterator[Callable[[Engine, ExtractionLimits], Sandbox]]:
    made: dict[tuple[Engine, ExtractionLimits], Sandbox] = {}

    def get(engine: Engine, limits: ExtractionLimits) -> Sandbox:
        return made.setdefault((engine, limits), Sandbox(limits, ENGINES[engine]))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sandbox_module.subprocess, "Popen", Child)
        yield get
        for sandbox in made.values():
            sandbox.close()


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", PAGES)
def test_a_hostile_page_ends(
    name: str, engine: Engine, sandboxes: Callable[[Engine, ExtractionLimits], Sandbox]
) -> None:
    make, rule = PAGES[name]
    html, sandbox, Child.peak = make(), sandboxes(engine, LIMITS), 0
    answer = check_limits(html, LIMITS)
    assert (answer is not None) == (rule in BEFORE_PARSING)
    if answer is None:
        answer = sandbox.extract(html, None)
        assert peak(sandbox) < LIMITS.memory_bytes
    if isinstance(answer, Verdict):
        assert (answer.stage, answer.decision) == ("extraction", "quarantined") and answer.value >= answer.threshold > 0
        # Another engine than the fast one has no limit of its own on what it makes of a page.
        assert answer.rule == f"extraction.{rule}" or (engine == "trafilatura" and answer.rule in KERNEL_RULES)
    elif engine == "fast" and rule != EITHER:
        assert rule in ("", "min_characters") and (rule == "") == any(map(str.isalnum, answer))


@pytest.mark.parametrize("name", [*WORSE, *(name for name, (_, rule) in PAGES.items() if rule.startswith("max_"))])
def test_the_kernel_stops_what_no_limit_foresaw(
    name: str, sandboxes: Callable[[Engine, ExtractionLimits], Sandbox]
) -> None:
    html, sandbox, Child.peak = WORSE[name]() if name in WORSE else PAGES[name][0](), sandboxes("fast", KERNEL_ALONE), 0
    answer = sandbox.extract(html, None)
    assert isinstance(answer, str) or (answer.rule in KERNEL_RULES and answer.value == answer.threshold > 0)
    assert peak(sandbox) < KERNEL_ALONE.memory_bytes
    assert sandbox.extract("<p>The next page is not harmed.") == "The next page is not harmed."


def test_every_hostile_page_has_a_row_with_its_reason(tmp_path: Path) -> None:
    with open(tmp_path / "a.warc", "wb") as file:
        for name, (make, _) in PAGES.items():
            body = make().encode("utf-8", "replace")
            message = http_message("200 OK", (("Content-Type", "text/html; charset=utf-8"),), body)
            url = f"https://a.example/{name.replace(' ', '-')}"
            fields = (("WARC-Target-URI", url), ("Content-Type", "application/http; msgtype=response"))
            file.write(record("response", f"<urn:{name}>", "2024-01-01T00:00:00Z", fields, message))
    with Preparation(Recipe()) as preparation:
        stats = prepare_unit(Unit(str(tmp_path / "a.warc"), "a.warc", 0, 1), preparation, tmp_path)
    (file_of_rows,) = tmp_path.glob("*.parquet")
    rows = {row["url"].rpartition("/")[2].replace("-", " "): row for row in pq.read_table(file_of_rows).to_pylist()}
    assert rows.keys() == PAGES.keys() and stats.damages == []
    for name, (_, rule) in PAGES.items():
        row = rows[name]
        if row["decision"] is not None:
            assert row["stage"] and row["rule"].startswith(row["stage"])
            assert row["value"] != row["threshold"] and None not in (row["value"], row["threshold"])
        if rule not in ("", EITHER):
            wanted = {"more white space": "http.max_body_bytes", "NUL": "http.min_body_bytes"}
            assert row["rule"] == wanted.get(name, f"extraction.{rule}")
        elif rule != EITHER:
            # No language is sure of a text like these; some pass.
            assert row["rule"] is None or row["stage"] == "language"


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=400))
def test_no_bytes_bring_the_process_down(sandboxes: Callable[[Engine, ExtractionLimits], Sandbox], body: bytes) -> None:
    for engine in ENGINES:
        assert isinstance(sandboxes(engine, LIMITS).extract(body.decode("latin-1"), None), str)
