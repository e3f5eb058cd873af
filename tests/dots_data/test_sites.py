"""Site rules and the ranking of hosts."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from selectolax.lexbor import LexborHTMLParser

from dots_data import cli
from dots_data.crawl.sites import SiteRules, Sites, SitesConfig, check_url, remove_lines
from dots_data.extraction import ExtractionLimits
from dots_data.extraction.sandbox import Sandbox
from dots_data.extraction.selectors import Selectors, prune
from dots_data.judge import Verdict
from dots_data.recipe import Recipe
from dots_data.schema import LEDGER
from dots_data.top_sites import count, recurring
from dots_data.typed_yaml import ConfigError, build

# Where a sandbox's process finds the engines of extraction_engines.py.
sys.path.append(str(Path(__file__).parent))

PAGE = """<html><head><title>T</title></head><body><nav>menu <p>inner</p></nav>
<div class="ads">ad <div class="ads">inner ad</div></div>
<article><p>first</p><article><p>second</p></article></article><p>outside</p></body></html>"""


def rules_file(folder: Path, text: str) -> SitesConfig:
    (folder / "sites.yaml").write_text(text, encoding="utf-8")
    return SitesConfig(str(folder / "sites.yaml"))


@pytest.mark.parametrize(
    ("url", "line"),
    [
        ("http://example.org/a", "general"),
        ("https://WWW.Example.org:80/", "general"),
        ("http://a.b.example.org/", "general"),
        ("http://news.example.org/", "news"),
        ("http://x.news.example.org/", "news"),
        ("http://example.com/", None),
        ("http://www.B\u00dcCHER.example./x", "idn"),
        ("http://xn--bcher-kva.example/", "idn"),
        ("http://[2001:DB8::1]:80/", "ip"),
        ("http://notexample.org/", None),
        ("nonsense", None),
    ],
)
def test_the_nearest_entry_counts(tmp_path: Path, url: str, line: str | None) -> None:
    sites = Sites(
        rules_file(
            tmp_path,
            "www.Example.org: {remove_lines: [general]}\nnews.example.org: {remove_lines: [news]}\n"
            "bücher.example: {remove_lines: [idn]}\n'[2001:db8::1]': {remove_lines: [ip]}",
        )
    )
    found = sites.of(url)
    assert (found and found.remove_lines) == (line and (line,))


@pytest.mark.parametrize(
    ("rules", "holds", "lacks", "removed"),
    [
        (SiteRules(remove=("nav", ".ads")), ["first", "outside"], ["menu", "inner"], 2),
        (SiteRules(remove=("nav, nav p",)), ["ad", "outside"], ["menu", "inner<"], 1),
        (SiteRules(keep="article"), ["first", "second", "<title>T"], ["menu", "outside"], 0),
        (SiteRules(keep="article", remove=("article article",)), ["first"], ["second", "outside"], 1),
        (SiteRules(keep="main"), ["first", "menu", "outside"], [], 0),
        (SiteRules(), [PAGE], [], 0),
        (SiteRules(remove=("body", "html", "nav, nav, *.ads")), ["first", "outside"], ["menu", "inner ad"], 2),
        (SiteRules(keep="body"), ["first", "menu", "outside"], [], 0),
    ],
)
def test_elements(rules: SiteRules, holds: list[str], lacks: list[str], removed: int) -> None:
    html, count = prune(PAGE, rules.selectors)
    assert count == removed
    assert all(text in html for text in holds)
    assert not any(text in html for text in lacks)
    assert html.count("second") <= 1


@pytest.mark.parametrize("html", ["", "\0", "<p>no body", "<frameset>", "<div>" * 3000 + "x", "<nav>" * 500])
def test_any_page_is_pruned(html: str) -> None:
    pruned, _ = prune(html, Selectors("nav", ("div", "nav nav")))
    assert isinstance(pruned, str)


@given(st.lists(st.sampled_from(["<a class=x>", "<b>", "<div class=x>", "<p>", "</a>", "</div>", "t"]), max_size=30))
def test_no_match_is_left(parts: list[str]) -> None:
    page = f"<body>{''.join(parts)}"
    outermost = 0
    tree = LexborHTMLParser(page)
    for element in tree.css(".x"):
        above = element.parent
        while above is not None and above.attributes.get("class") != "x":
            above = above.parent
        outermost += above is None
    html, removed = prune(page, Selectors(remove=(".x",)))
    assert removed == outermost and "class" not in html


# An engine that answers with the length of the page.
ENGINE = "extraction_engines:count"


def test_many_matches_take_linear_time() -> None:
    page = f"<body>{'<li class=x>go' * 20_000}</li><p>The text stays.</p><div>{'<i class=y>go</i>' * 20_000}"
    with Sandbox(ExtractionLimits(cpu_seconds=4), ENGINE) as sandbox:
        text, removed = sandbox.extract_pruned(page, None, Selectors(remove=(".x", ".y")))
        assert removed == 40_000
        assert isinstance(text, str) and int(text) < 200


@pytest.mark.parametrize("limit", ["max_chars", "max_tags"])
def test_a_page_that_grows_is_judged_again(limit: str) -> None:
    bomb = f"<div>{''.join(f'<b id={i}>' for i in range(300))}</div>{'<div>x</div>' * 1000}"
    limits = ExtractionLimits(**{limit: 250_000})
    with Sandbox(limits, ENGINE) as sandbox:
        verdict, _ = sandbox.extract_pruned(bomb, None, Selectors(remove=("nav",)))
        assert isinstance(verdict, Verdict)
        assert (verdict.rule, verdict.threshold, verdict.decision) == (f"extraction.{limit}", 250_000.0, "quarantined")
        assert verdict.value > 250_000
        # Without selectors nothing is parsed here, and the engine gets it as it is.
        assert sandbox.extract(bomb) == str(len(bomb))


def test_lines() -> None:
    rules = SiteRules(remove_lines=("^Share ", "©", "(a+)+$"))
    assert remove_lines("Share this\nI Share that\n2020 ©\nend", rules) == ("I Share that\nend", 2)
    assert remove_lines("nothing\n\nto do", rules) == ("nothing\n\nto do", 0)
    # Linear, and no trouble with what cannot be encoded.
    assert remove_lines("a" * 100_000 + "!\ud800", rules)[1] == 0


@pytest.mark.parametrize(
    ("rules", "url", "detail"),
    [
        (SiteRules(drop=True), "http://a.example/", "the whole site"),
        (SiteRules(drop_urls=("^/tag/",)), "http://a.example/tag/x", "^/tag/"),
        (SiteRules(drop_urls=("^/tag/",)), "http://a.example/a/tag/x", None),
        (SiteRules(drop_urls=("^/tag/",)), "http://a.example/tag/\ud800", "^/tag/"),
        (SiteRules(drop_urls=("^/tag/",)), "http://a.example/\ud800", None),
        (SiteRules(drop_urls=(r"[?&]print=1",)), "http://a.example?print=1", None),
        (SiteRules(drop_urls=(r"[?&]print=1",)), "http://a.example/?print=1", "[?&]print=1"),
    ],
)
def test_pages_that_a_site_does_not_want(rules: SiteRules, url: str, detail: str | None) -> None:
    verdict = check_url(rules, url)
    assert (verdict and (verdict.rule, verdict.detail)) == (detail and ("url.site", detail))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a.example: {remov: [nav]}", "remove"),
        ("a.example: nav", "a.example"),
        ('a.example: {keep: "a[[["}', "not a CSS selector"),
        ("a.example: {remove_lines: ['(']}", "remove_lines"),
        ("[]", "keys and values"),
        ("https://a.example: {drop: true}", "'https://a.example' is no host"),
        ("a.example/tag: {drop: true}", "is no host"),
        ("a.example:80: {drop: true}", "is no host"),
        ("'*.a.example': {drop: true}", "is no host"),
        ("'': {drop: true}", "is no host"),
        ("www.a.example: {drop: true}\nA.example: {drop: true}", "a.example is there twice"),
    ],
)
def test_what_is_wrong_with_a_file_is_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Sites(rules_file(tmp_path, text))


def test_the_file_is_part_of_a_run(tmp_path: Path) -> None:
    hashes = set()
    for text in ("a.example: {drop: true}", "b.example: {drop: true}"):
        recipe = build(Recipe, {"sites": {"file": rules_file(tmp_path, text).file}}, "recipe")
        hashes.add(recipe.assets_hash())
    assert len(hashes) == 2


def test_hosts_by_their_share() -> None:
    rows = [
        ("http://www.b.example/1", "kept", None, 10.0),
        ("http://b.example/2", "dropped", "gopher.min_words", 5.0),
        ("http://a.example/", "kept", None, 30.0),
        ("http://c.example/", "dropped", "url.domain", 0.0),
    ]
    sites = count(rows)
    assert [(site.host, site.records, site.documents, site.characters) for site in sites] == [
        ("a.example", 1, 1, 30),
        ("b.example", 2, 1, 10),
        ("c.example", 1, 0, 0),
    ]
    assert sites[1].dropped_by == {"gopher.min_words": 1}
    assert recurring(["a\n a\nb", "a\n\nc"]) == {"a": 2, "b": 1, "c": 1}


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = {
        **dict.fromkeys(LEDGER.names),
        "site_rank": 0,
        "warc_offset": 0,
        "warc_index": 0,
        "date": "",
        "dump": "",
        "warc_file": "f",
    }
    rows = [
        {
            **base,
            "doc_id": str(number),
            "record_id": "",
            "url": f"http://{host}/{number}",
            "decision": "kept",
            "measures": [("extraction.characters", 12.0)],
        }
        for number, host in enumerate(["a.example", "a.example", "sub.a.example", "b.example"])
    ]
    documents = {"url": [row["url"] for row in rows], "text": ["Share\nthis", "Share\nthat", "other", "more"]}
    for folder, table in (("ledger", pa.Table.from_pylist(rows, LEDGER)), ("documents", pa.table(documents))):
        (tmp_path / folder).mkdir()
        pq.write_table(table, tmp_path / folder / "part-00000.parquet")
    (tmp_path / "summary.json").write_text(json.dumps({"recipe_hash": "0123"}))
    rules = rules_file(tmp_path, "a.example: {drop: true}").file
    asked = ["sites", "--ledger", str(tmp_path)]
    assert cli.main([*asked, "--rules", str(rules)]) == 0
    shown = capsys.readouterr().out
    assert "3 hosts" in shown and "a.example" in shown and "yes" in shown and "50" in shown
    assert cli.main([*asked, "a.example"]) == 0
    shown = capsys.readouterr().out
    assert "3 documents" in shown and "Share" in shown and "http://sub.a.example/2" in shown
    assert cli.main([*asked, "c.example"]) == 1
