"""From decoded HTML to text: limits, the engine, the sandbox."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dots_data.crawl.warc import Page, read_pages
from dots_data.extraction import ENGINES, ExtractionLimits, decode, extract_text
from dots_data.extraction import sandbox as sandbox_module
from dots_data.extraction.sandbox import Sandbox, SandboxError
from dots_data.extraction.trafilatura_engine import extract, plain_text
from dots_data.judge import Verdict

# Where a sandbox's process finds the engines of extraction_engines.py.
sys.path.append(str(Path(__file__).parent))

LIMITS = ExtractionLimits()

ARTICLE = "The harbour was rebuilt after the storm, and its new walls have kept the town dry since then. "
PAGE = f"""<!doctype html><html lang="en"><head><title>Harbour</title></head><body>
<div class="cookie-banner"><p>{"We use cookies to make this site better for everyone. " * 3}</p></div>
<nav><ul><li><a href="/">Home</a></li><li><a href="/news">News</a></li></ul></nav>
<article><h1>The harbour</h1><p>{ARTICLE * 4}</p><p>{ARTICLE * 3}</p>
<table><tr><td>Height of the wall</td><td>12 metres</td></tr></table>
<div class="Related_Posts"><p>{"Read also how the lighthouse was painted in a single night. " * 3}</p></div>
</article><footer>Copyright</footer></body></html>"""


def test_the_engine_keeps_text_and_tables_and_drops_boilerplate() -> None:
    text = extract(PAGE, "http://example.org/harbour")
    assert text.count(ARTICLE.strip()) == 7 and "12 metres" in text
    for dropped in ("cookies", "lighthouse", "News", "Copyright"):
        assert dropped not in text


def test_extract_text_decodes() -> None:
    page = PAGE.replace("harbour", "harboür").encode("cp1252")
    assert "harboür was rebuilt" in extract_text(page, "http://example.org/")


@pytest.mark.parametrize("html", ["", " ", "\0", "<", "<html>", "\ud800<p>x", "<?xml version='1.0' encoding='x'?><p>y"])
def test_pages_without_text(html: str) -> None:
    assert len(extract(html)) < 5


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=300))
def test_no_bytes_make_extraction_raise(body: bytes) -> None:
    try:
        extract_text(b"<html><body><p>" + body + b"</body></html>")
    except ValueError as error:  # pragma: no cover
        pytest.fail(f"{error}")


def test_plain_text() -> None:
    assert plain_text("\0one\r\ntwo\rthree\x1b\n") == "one\ntwo\nthree"


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(LIMITS, ENGINES["trafilatura"]) as made:
        yield made


def test_the_sandbox_gives_what_the_engine_gives(sandbox: Sandbox) -> None:
    assert sandbox.extract(PAGE, "http://example.org/harbour") == extract(PAGE, "http://example.org/harbour")
    assert sandbox.extract("", None) == ""
    assert isinstance(sandbox.extract("\ud800" * 70_000, "\ud800"), str)


def test_the_order_of_pages_does_not_matter(sandbox: Sandbox, real_data: Path) -> None:
    pages = [
        page for page in read_pages(str(real_data / "warc-quirks" / "encodings.warc.gz")) if isinstance(page, Page)
    ]
    decoded = [(decode(page.body, page.http_charset).text, page.url) for page in pages[:14]]
    there = [sandbox.extract(text, url) for text, url in decoded]
    back = [sandbox.extract(text, url) for text, url in reversed(decoded)][::-1]
    assert there == back and sum(len(text) > 200 for text in there if isinstance(text, str)) > 7


HOSTILE = "extraction_engines:hostile"


@pytest.fixture(scope="module")
def hostile() -> Iterator[Sandbox]:
    limits = ExtractionLimits(cpu_seconds=1, wall_seconds=6, memory_bytes=1 << 30)
    with Sandbox(limits, HOSTILE) as made:
        yield made


@pytest.mark.parametrize(
    ("page", "rule", "value", "threshold", "detail"),
    [
        ("never-ends", "cpu_seconds", 1, 1, ""),
        ("hogs", "memory_bytes", 1 << 30, 1 << 30, ""),
        ("sleeps", "wall_seconds", 6, 6, ""),
        ("dies", "crashed", 1, 0, "SIGABRT"),
        ("raises", "failed", 1, 0, "ValueError"),
    ],
)
def test_a_page_that_costs_too_much_is_quarantined_alone(
    hostile: Sandbox, page: str, rule: str, value: float, threshold: float, detail: str
) -> None:
    verdict = hostile.extract(page, "http://example.org/")
    assert verdict == Verdict("extraction", f"extraction.{rule}", value, threshold, detail, "quarantined")
    assert hostile.extract("x" * 300_000, "u") == "300000 u"


def test_what_an_engine_prints_is_no_answer(hostile: Sandbox) -> None:
    assert hostile.extract("prints") == "6" and hostile.extract("abc") == "3"


def test_a_page_does_not_pay_for_the_memory_of_others(hostile: Sandbox) -> None:
    assert [hostile.extract("leaks") for _ in range(6)] == ["5"] * 6


def test_the_child_is_replaced_after_many_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox_module, "RECYCLE_PAGES", 3)
    with Sandbox(LIMITS, HOSTILE) as made:
        # The first page of a process is its warm-up.
        assert [made.extract("counts") for _ in range(5)] == [
            "page 2",
            "page 3",
            "page 4",
            "page 2",
            "page 3",
        ]


def test_a_child_killed_from_outside_costs_no_page() -> None:
    with Sandbox(LIMITS, HOSTILE) as made:
        assert made.extract("ab") == "2"
        assert made._child is not None
        os.kill(made._child.pid, signal.SIGKILL)
        assert made.extract("abc") == "3"


def test_an_engine_that_does_not_start_is_an_error() -> None:
    with (
        Sandbox(LIMITS, "no_such_module:extract") as made,
        pytest.raises(SandboxError, match="does not start: ModuleNotFoundError"),
    ):
        made.extract("x")


def test_the_child_ends_with_its_parent() -> None:
    code = (
        "import os, signal\nfrom dots_data.extraction import ExtractionLimits\n"
        "from dots_data.extraction.sandbox import Sandbox\n"
        f"s = Sandbox(ExtractionLimits(), {HOSTILE!r}); s.extract('x')\n"
        "print(s._child.pid, flush=True)\nos.kill(os.getpid(), signal.SIGKILL)\n"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, timeout=60, check=False
    )
    child = int(done.stdout)
    for _ in range(100):
        if not psutil.pid_exists(child) or psutil.Process(child).status() == psutil.STATUS_ZOMBIE:
            return
        time.sleep(0.1)
    pytest.fail("the extraction process outlived its parent")
