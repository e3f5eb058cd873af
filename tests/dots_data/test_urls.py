"""URLs: hosts, lists, words."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from urllib.parse import quote

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from dots_data import cache
from dots_data.crawl import blocklist
from dots_data.crawl.blocklist import BlockList, compile_lists
from dots_data.crawl.expressions import Expression, required
from dots_data.crawl.urls import UrlFilter, UrlFilterConfig, _split, _url_entry, _url_prefixes, host_of, parents
from dots_data.typed_yaml import ConfigError

URL_LINES = """site.example/casino/
http://www.other.example/a/b?x=1
root.example/?v=1
bare.example?v=1
HTTPS://port.example:8443//x//y/#top
whole.example/#top
whole.example/
"""


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(scope="module")
def lists(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lists")
    files = {
        "gambling/domains": "b.example\nBÜCHER.example\n10.1.2.3\n.dotted.example\n",
        "gambling/urls": URL_LINES,
        "adult/domains": "# comment\n\nbad.example\n",
        "press/domains": "news.example\nb.example\n",
        "ads/expressions": "(/banner/|/sponsor[0-9]+/)\n^[0-9]+\\.[0-9]+/search\\?q=[0-9]+$\n",
    }
    for name, text in files.items():
        path = folder / "blacklists" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    with tarfile.open(folder / "lists.tar.gz", "w:gz") as archive:
        archive.add(folder / "blacklists", "x/blacklists")
    return folder


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("http://Example.ORG/a", "example.org"),
        ("https://user:pa@ss@example.org:8080/", "example.org"),
        ("http://example.org.", "example.org"),
        ("HTTP://example.org?q", "example.org"),
        ("http://b%C3%BCcher.example/", "xn--bcher-kva.example"),
        ("http://Bücher.example", "xn--bcher-kva.example"),
        ("http://[2001:DB8::1]:80/x", "[2001:db8::1]"),
        ("http://10.0.0.1/", "10.0.0.1"),
        ("http://example.org\\@evil.example/", "example.org"),
        ("nonsense", ""),
        ("", ""),
    ],
)
def test_host_of(url: str, host: str) -> None:
    assert host_of(url) == host


def test_parents_stop_at_two_labels() -> None:
    assert list(parents("x.a.b.example")) == ["x.a.b.example", "a.b.example", "b.example"]
    assert list(parents("10.0.0.1")) == ["10.0.0.1"]
    assert list(parents("localhost")) == ["localhost"]


@pytest.mark.parametrize("source", ["blacklists", "lists.tar.gz"])
@pytest.mark.parametrize(
    ("url", "rule", "detail"),
    [
        ("http://b.example/", "url.domain", "b.example (gambling)"),
        ("http://a.B.example:80/x", "url.domain", "b.example (gambling)"),
        ("http://bb.example/", None, ""),
        ("http://b.example.org/", None, ""),
        ("http://www.xn--bcher-kva.example/", "url.domain", "xn--bcher-kva.example (gambling)"),
        ("http://10.1.2.3/", "url.domain", "10.1.2.3 (gambling)"),
        ("http://9.10.1.2.3/", "url.domain", "10.1.2.3 (gambling)"),
        ("http://www.dotted.example/", "url.domain", "dotted.example (gambling)"),
        ("http://bad.example./", "url.domain", "bad.example (adult)"),
        ("http://news.example/", None, ""),
        ("http://www.site.example/casino/page.html", "url.url", "site.example/casino (gambling)"),
        ("http://site.example/casinos", None, ""),
        ("http://other.example/a/b?x=1#y", "url.url", "other.example/a/b?x=1 (gambling)"),
        ("http://other.example/a/b", None, ""),
        ("http://root.example/?v=1", "url.url", "root.example/?v=1 (gambling)"),
        ("http://www.root.example?v=1#x", "url.url", "root.example/?v=1 (gambling)"),
        ("http://root.example/?v=2", None, ""),
        ("http://root.example/v=1", None, ""),
        ("https://bare.example/?v=1", "url.url", "bare.example/?v=1 (gambling)"),
        ("http://bare.example/", None, ""),
        ("http://port.example/x/y/z", "url.url", "port.example/x/y (gambling)"),
        ("http://whole.example/", None, ""),
        ("http://x.allowed.bad.example/porn", None, ""),
    ],
)
def test_lists(lists: Path, source: str, url: str, rule: str | None, detail: str) -> None:
    config = UrlFilterConfig(blocklists=(source,), categories=("adult", "gambling"), allow=("allowed.bad.example",))
    verdict = UrlFilter(config, lists).check(url)
    assert (verdict and verdict.rule) == rule
    if verdict:
        assert (verdict.stage, verdict.detail, verdict.value, verdict.threshold) == ("url", detail, 1.0, 0.0)


@pytest.mark.parametrize(
    ("url", "rule", "value"),
    [
        ("http://a.example/PORN/video", "url.word", 1),
        ("http://milf.example/porn/porn", "url.word", 3),
        ("http://xxx.example/a/Sex", "url.word", 2),
        ("http://a.example/hentai", "url.word", 1),
        ("http://myfreepornsite.example/", "url.subword", 1),
        ("http://a.example/x/x-v-i-d-e-o-s.html", "url.subword", 1),
        ("http://f.r_e-e.p.o.r.n.example/", "url.subword", 1),
        ("http://a.example/?q=" + "x-v-i-d-e-o-" * 3, None, 0),
        ("http://a.example/%70orn", "url.word", 1),
        ("http://a.example/Casino", None, 0),
        ("http://a.example/casino/casino", None, 0),
        ("http://poker.example/Casino", "url.word", 2),
        ("http://a.example/essex/popcorn/alphabet", None, 0),
        ("http://a.example/unicorporn", None, 0),
        # What other words lie side by side spell nothing.
        ("http://a.example/2020/when-taiwan-votes", None, 0),
        ("http://a.example/kitchen/tailored", None, 0),
        ("http://a.example/people/stephen-tai", None, 0),
        ("http://kitchen.tai.example/", None, 0),
        ("http://a.example/free-pornography-law", None, 0),
        ("http://a.example/p-o-r-nhub", None, 0),
        # Words that are innocent too.
        ("http://a.example/super-bowl-xxx", None, 0),
        ("http://a.example/adult-sex-differences", None, 0),
        ("http://a.example/adult-education/sex-ratio", None, 0),
        ("dns:example.org", "url.invalid", 1),
        ("", "url.invalid", 1),
        ("http://?path", "url.invalid", 1),
        ("http://a b.example/", "url.invalid", 1),
        ("http://a..example/", "url.invalid", 1),
        ("http://" + "a." * 200 + "example/", "url.invalid", 1),
        ("https://example.org/a page with spaces?x=[1]", None, 0),
    ],
)
def test_words_and_invalid_urls(url: str, rule: str | None, value: int) -> None:
    verdict = UrlFilter(UrlFilterConfig()).check(url)
    assert (verdict and verdict.rule) == rule
    if verdict:
        assert verdict.value == value and verdict.value > verdict.threshold


HOST = st.sampled_from(["a.example", "www.a.example", "A.example:80", "b.c.example"])
REST = st.text("ab/?=&", max_size=12)


@given(HOST, REST, st.sampled_from(["", "http://", "https://"]))
def test_a_listed_url_is_found(host: str, rest: str, scheme: str) -> None:
    line = f"{host}/{rest}"
    key = _url_entry(f"{scheme}{line}")
    assert key in set(_url_prefixes(*_split(f"http://{line}"))) if key else not rest.strip("/").strip("?")


@given(st.text(max_size=60), st.sampled_from(["", "http://", "https://x@", "http://[", "http://a.b/"]))
def test_no_url_makes_it_raise(text: str, start: str) -> None:
    UrlFilter(UrlFilterConfig()).check(start + text)


@pytest.mark.parametrize(
    ("url", "expression"),
    [
        ("http://a.example/x/BANNER/y", "(/banner/|/sponsor[0-9]+/)"),
        ("http://a.example/sponsor12/", "(/banner/|/sponsor[0-9]+/)"),
        ("http://a.example/banner", None),
        ("http://a.example/banner/\ud800", "(/banner/|/sponsor[0-9]+/)"),
        ("http://a.example/\ud800", None),
        ("http://www.1.2/search?q=12", "^[0-9]+\\.[0-9]+/search\\?q=[0-9]+$"),
        ("http://x1.2/search?q=12", None),
    ],
)
def test_expressions(lists: Path, url: str, expression: str | None) -> None:
    verdict = UrlFilter(UrlFilterConfig(("blacklists",), ("ads",)), lists).check(url)
    assert (verdict and (verdict.rule, verdict.detail)) == (expression and ("url.expression", f"{expression} (ads)"))


def test_an_expression_takes_linear_time(tmp_path: Path) -> None:
    (tmp_path / "evil").mkdir()
    (tmp_path / "evil" / "expressions").write_text("^(a+)+$\n(.*a){20}x\n")
    # Minutes for a matcher that tries every way.
    assert UrlFilter(UrlFilterConfig((str(tmp_path),), None)).check(f"http://e.example/{'a' * 8000}!") is None
    (tmp_path / "evil" / "expressions").write_text("(a)\\1\n")
    with pytest.raises(ConfigError, match="of the category evil"):
        UrlFilter(UrlFilterConfig((str(tmp_path),), None))


@pytest.mark.parametrize(
    ("expression", "pieces"),
    [
        (r"^[0-9]+\.[0-9]+/search\?q=[0-9]+$", {"/search?q="}),
        ("/Banner", {"/banner"}),
        ("ab?c+de*f", {"a"}),
        (r"a{2}bc.d\.e", {"d.e"}),
        ("[]ab]cd[^]x]e", {"cd"}),
        ("(/ab|cd)e", {"/ab", "cd"}),
        ("((one.*two)|x(three|four)+)(a|b)", {"one", "three", "four"}),
        ("(ab|)cd*", {"c"}),
        ("(abc)?d", {"d"}),
        (r"ab\d\wcd", {""}),
        ("(?:ab)", {""}),
        ("ab)", {""}),
        ("a+?cde", {""}),
        ("x{1,2}?porn", {""}),
        ("[[:digit:]]abc", {""}),
        (r"[\]x]foo", {""}),
        ("[]x[]foo", {""}),
        ("ſex", {""}),
        ("", {""}),
    ],
)
def test_text_that_an_expression_requires(expression: str, pieces: set[str]) -> None:
    assert required(expression) == pieces


MARKS = ("(", ")", "|", "^", "$", "*", "+", "?", "+?", "*?", "{1,2}", "{2}?", "{", r"\.", r"\]", r"\?", r"\d", r"\w")
CLASSES = ("[ab]", "[^a]", "[]a]", "[^]a]", "[[:alpha:]]", r"[\]x]", "[a[]", "(?:", "(?i)", r"\Qa")
TOKENS = st.sampled_from([*"abkS.]?:", "ab", "sab", *MARKS, *CLASSES])
ADDRESS = st.lists(st.sampled_from([*"abks.]?:[x1{", "ſ", "\u212a", "ab", "sab"]), max_size=8).map("".join)


@settings(max_examples=300)
@given(st.lists(TOKENS, min_size=1, max_size=6).map("".join), st.lists(ADDRESS, min_size=5, max_size=5))
def test_what_is_required_changes_no_answer(pattern: str, addresses: list[str]) -> None:
    try:
        expression = Expression(pattern)
    except ConfigError:
        reject()
    found = pc.match_substring_regex(pa.array(addresses), pattern, ignore_case=True).to_pylist()
    assert [expression.matches(address) for address in addresses] == found


def test_any_categories(lists: Path) -> None:
    every = UrlFilter(UrlFilterConfig(("blacklists",), None), lists)
    verdict = every.check("http://b.example/")
    assert verdict is not None
    # Of its categories the first in the alphabet.
    assert verdict.detail == "b.example (gambling)"
    one = UrlFilter(UrlFilterConfig(("blacklists/press",), None), lists)
    assert one.check("http://b.example/") and one.check("http://bad.example/") is None


@pytest.mark.parametrize(
    ("url", "rule", "detail"),
    [
        ("http://a.example/very-Bad_thing", "url.word", "bad thing"),
        ("http://a.example/bad/things", None, ""),
        ("http://a.example/x?q=foul", "url.word", "foul"),
        ("http://mild.example/meek", "url.word", "meek mild"),
        ("http://mild.example/mild", None, ""),
        ("http://supersub.example/", "url.subword", "ersu"),
        ("http://super-sub.example/", None, ""),
        ("http://a.example/plain", None, ""),
    ],
)
def test_word_files(tmp_path: Path, url: str, rule: str | None, detail: str) -> None:
    for name, lines in {"hard": "# a comment\nfoul\nBad  Thing\n\n", "soft": "mild\nmeek\n", "sub": "er-su\n"}.items():
        (tmp_path / name).write_text(lines)
    config = UrlFilterConfig(
        hard_words=(),
        soft_words=(),
        subwords=(),
        hard_word_files=("hard",),
        soft_word_files=("soft",),
        subword_files=("sub",),
    )
    verdict = UrlFilter(config, tmp_path).check(url)
    assert (verdict and (verdict.rule, verdict.detail)) == (rule and (rule, detail))
    with pytest.raises(ConfigError, match="word list gone"):
        UrlFilter(UrlFilterConfig(hard_word_files=("gone",)), tmp_path)


@given(st.dictionaries(st.text(max_size=6), st.sampled_from("abc"), max_size=30), st.text(max_size=6))
def test_a_compiled_list_is_a_dictionary(entries: dict[str, str], entry: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        compile_lists(Path(folder) / "list", entries.items())
        found = BlockList(Path(folder) / "list")
        assert len(found) == len(entries)
        assert found.find(entry) == entries.get(entry)
        assert {item: found.find(item) for item in entries} == entries


def test_entries_with_one_hash_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocklist.xxhash, "xxh3_64_intdigest", lambda entry: 7)
    compile_lists(tmp_path / "list", [("a.example", "x"), ("b.example", "y")])
    found = BlockList(tmp_path / "list")
    assert [found.find(f"{name}.example") for name in "abc"] == ["x", "y", None]


def test_a_list_is_compiled_once(lists: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = UrlFilterConfig(("blacklists",), ("gambling", "press"))
    UrlFilter(config, lists)
    monkeypatch.setattr(blocklist, "compile_lists", lambda *given: pytest.fail("compiled again"))
    assert UrlFilter(config, lists).check("http://news.example/")


def test_several_processes_compile_once(lists: Path, tmp_path: Path) -> None:
    script = (
        "import sys; from dots_data.crawl import blocklist, urls\n"
        "compile_lists = blocklist.compile_lists\n"
        "blocklist.compile_lists = lambda *given: (print('compiled'), compile_lists(*given))\n"
        "urls.UrlFilter(urls.UrlFilterConfig(('blacklists',), None), sys.argv[1])\n"
    )
    command = [sys.executable, "-c", script, str(lists)]
    environment = os.environ | {cache.VARIABLE: str(tmp_path), "PYTHONPATH": str(Path.cwd())}
    several = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    assert "".join(one.communicate(timeout=60)[0] for one in several) == "compiled\n"
    assert [one.returncode for one in several] == [0, 0, 0]
    (made,) = tmp_path.glob("*.bin")
    assert made.stat().st_mode & 0o777 == 0o644
    assert not list(tmp_path.glob("*.tmp")) and not list(tmp_path.glob(".*.tmp"))


@pytest.mark.parametrize("damage", [b"", b"x" * 100, b"dots.blocklist/2", None])
def test_what_is_broken_in_the_cache_is_made_again(
    lists: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: bytes | None
) -> None:
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path))
    config = UrlFilterConfig(("blacklists",), ("gambling",))
    UrlFilter(config, lists)
    (made,) = tmp_path.glob("*.bin")
    whole = made.read_bytes()
    made.write_bytes(whole[:-1] if damage is None else damage)
    # As a killed process leaves it.
    made.with_name(f".{made.name}.tmp").write_bytes(b"half")
    with pytest.raises(ConfigError, match=made.name):
        BlockList(made)
    assert UrlFilter(config, lists).check("http://b.example/")
    assert made.read_bytes() == whole
    assert not list(tmp_path.glob(".*.tmp"))


def test_nobody_waits_for_ever(lists: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path))
    monkeypatch.setattr(cache, "_MAX_WAIT_SECONDS", 0.1)
    config = UrlFilterConfig(("blacklists",), ("gambling",))
    UrlFilter(config, lists)
    (made,) = tmp_path.glob("*.bin")
    made.unlink()
    with (
        open(made.with_suffix(".lock")) as lock,
        pytest.raises(ConfigError, match=r"\.lock: another process"),
    ):
        fcntl.flock(lock, fcntl.LOCK_EX)
        UrlFilter(config, lists)
    assert UrlFilter(config, lists).check("http://b.example/")


@given(
    st.lists(st.text("abcxyz", min_size=1, max_size=8), min_size=1, max_size=4),
    st.text("pq/?# .", max_size=9),
)
def test_a_listed_domain_covers_all_below_it(labels: list[str], rest: str) -> None:
    url = f"http://{'.'.join([*labels, 'b', 'example'])}/{quote(rest)}"
    assert "b.example" in list(parents(host_of(url)))


def test_lists_that_are_missing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"gone.tar.gz: cannot be read"):
        UrlFilter(UrlFilterConfig(blocklists=("gone.tar.gz",)), tmp_path)
    with pytest.raises(ConfigError, match="none of the categories"):
        UrlFilter(UrlFilterConfig(blocklists=(".",)), tmp_path)


def test_an_allowed_domain_is_a_host() -> None:
    assert UrlFilter(UrlFilterConfig(allow=("Bücher.example",))).check("http://xn--bcher-kva.example/porn") is None
    with pytest.raises(ConfigError, match=r"url.allow: 'http://a.example' is no host"):
        UrlFilter(UrlFilterConfig(allow=("http://a.example",)))
