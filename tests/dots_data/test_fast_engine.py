"""The fast engine: units, features, model, lines, on made, hostile and real pages."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from selectolax.lexbor import LexborHTMLParser

from dots_data import cli
from dots_data.crawl.warc import Page, read_pages
from dots_data.extraction import (
    ENGINES,
    FAST_MODEL,
    ExtractionLimits,
    cascade_engine,
    decode,
    extract_text,
    limits,
    model,
)
from dots_data.extraction import fast_engine as fast
from dots_data.extraction import scan as s
from dots_data.extraction import vocabulary as v
from dots_data.extraction.features import FEATURES, VERSION, features
from dots_data.extraction.sandbox import Sandbox
from dots_data.extraction.scan import Scan, scan_html

ARTICLE = "The harbour was rebuilt after the storm, and its new walls have kept the town dry since then. "
CHINESE = "港口在风暴过后得到重建，新的防波堤从此让小镇免受海水侵袭，渔民们也回到了码头。"
GERMAN = "Der Hafen wurde nach dem Sturm neu gebaut, und seine Mauern halten die Stadt seither trocken. "


def scanned(html: str) -> Scan:
    return scan_html(fast.parse(html))


def everything(html: str) -> str:
    units = scanned(html)
    return fast.assemble(units, np.ones(len(units.units), np.bool_))


def page(sentence: str, language: str, title: str) -> str:
    menu = "".join(f'<li><a href="/{k}">{word}</a></li>' for k, word in enumerate(("Home", "News", "Sport", "Login")))
    return f"""<!doctype html><html lang="{language}"><head><title>{title}</title></head><body>
<div class="cookie-banner"><p>We use cookies. <a href="/p">Read our privacy policy</a></p><button>OK</button></div>
<header class="site-header"><nav class="menu"><ul>{menu}</ul></nav></header>
<main><article class="post"><h1>{title}</h1>
<p>{sentence * 4}</p><p>{sentence * 3}</p><p>{sentence * 5}</p></article></main>
<aside class="sidebar"><h3>More</h3><ul>{menu}</ul></aside>
<footer class="footer"><p>© 2024 Example <a href="/i">Imprint</a> <a href="/t">Terms</a></p></footer></body></html>"""


@pytest.mark.parametrize(
    ("html", "lines"),
    [
        ("<p>one<p>two", ["one", "two"]),
        ("one<br>two<br><br>three", ["one", "two", "three"]),
        ("<p>a <b>bold</b>\n word&nbsp;here</p>", ["a bold word here"]),
        ("<p>1 &lt; 2 &amp;&amp; 3 &gt; 2 &quot;x&quot; &eacute; &#8364;</p>", ['1 < 2 && 3 > 2 "x" é €']),
        ("<a href=/1>One</a><a href=/2>Two</a>", ["One Two"]),
        ("<div>x<div>y</div>z</div>", ["x", "y", "z"]),
        ("<p>a<script>if (a<b) {'</p>'}</script>b<style>p{}</style>c</p>", ["abc"]),
        ("<p>a<!-- <p>no</p> -->b", ["ab"]),
        ("<ul><li>one<li>two<p>more</ul>", ["- one", "- two", "more"]),
        ("<ul><li><p>one</p><p>more</p></li></ul>", ["- one", "more"]),
        ("<table><tr><th>a<th>b<tr><td>1<td>2</table>", ["a | b", "1 | 2"]),
        ("<pre>for x in y:\n    print(x)\n</pre>after", ["for x in y:", "    print(x)", "after"]),
        ("<pre>a<br>b</pre>", ["a", "b"]),
        ("<pre>\n\n  \n    if x:\n\ty\n\t\tz  \n \n</pre>  after", ["    if x:", "\ty", "\t\tz", "after"]),
        ("<pre>  <b> a</b>\u3000b</pre>", ["   a b"]),
        ("<pre>  <br>\t<br>  a<br>  b</pre>", ["  a", "  b"]),
        ("<pre>  <a href=1></a><a href=2>x</a></pre>", ["  x"]),
        ("<pre> \n\t</pre>", []),
        ("<p>  a\t\tb</p>", ["a b"]),
        ("<h2>Title</h2>text", ["Title", "text"]),
        ("<template><p>no</p></template><svg><text>no</text></svg><p>yes", ["yes"]),
        ("<svg><path><p>out of it</p>", ["out of it"]),
        ("<select><option>no</option></select>yes", ["yes"]),
        ("<textarea>no</textarea><noframes>no</noframes><iframe>no</iframe>yes", ["yes"]),
        ("<p>中文　段落\u200b。</p>", ["中文 段落。"]),
        ("<dl><dt>term<dd>meaning</dl>", ["term", "meaning"]),
        ("", []),
        ("\0", []),
    ],
)
def test_lines(html: str, lines: list[str]) -> None:
    assert everything(html).split("\n") == (lines or [""])


def test_what_is_counted() -> None:
    units = scanned('<p class="intro">Hello, <a href="x">big <b>World</b></a> 42!<br><code>x</code> end.').units
    assert units[:, s.CHARS].tolist() == [17, 5]
    first = units[0]
    assert (first[s.LINK_CHARS], first[s.LINKS], first[s.STRONG_CHARS]) == (8, 1, 5)
    assert (first[s.WORDS], first[s.DIGITS], first[s.CAPITALS], first[s.COMMAS], first[s.STOPS]) == (4, 2, 2, 1, 1)
    assert first[s.LAST_STOP] == first[s.CHARS]
    assert (units[1][s.AFTER_BR], units[1][s.CODE_CHARS]) == (1, 1)
    chinese = scanned("<p>港口重建，渔民回来。</p>").units[0]
    assert (chinese[s.UNSPACED], chinese[s.COMMAS], chinese[s.STOPS]) == (8, 1, 1)


@pytest.mark.parametrize(
    ("markup", "word"),
    [
        ('<div class="SiteFooter">x</div>', "footer"),
        ('<div id="x-ad-2">x</div>', "-ad-"),
        ('<div class="bad shadow">x</div>', ""),
        ('<div role="navigation">x</div>', "nav"),
        ('<div itemprop="articleBody">x</div>', "article text"),
        ('<body class="sidebar">x', ""),
    ],
)
def test_words_of_attributes(markup: str, word: str) -> None:
    units = scanned(markup)
    bits = int(units.elements[units.units[0][s.ELEMENT], s.BITS_OWN])
    wanted = {k for k, words in enumerate(v.WORDS) for one in word.split() if one in words.split()}
    assert {k for k in range(len(v.WORDS)) if bits >> k & 1} == wanted


@pytest.mark.parametrize("attribute", ["hidden", 'style="color:red; display: none"', 'aria-hidden="true"'])
def test_hidden_elements_are_known(attribute: str) -> None:
    units = scanned(f"<div {attribute}><p>x</p></div><p>y</p>")
    roles = units.elements[units.units[:, s.ELEMENT], s.ROLES_ALL]
    assert [int(role) >> v.HIDDEN & 1 for role in roles] == [1, 0]


MARKUP = st.lists(
    st.sampled_from(
        [
            *(
                "<p>",
                "</p>",
                "<div class='a\"b'>",
                "</div>",
                "<b>",
                "</b>",
                '<a href="x>y">',
                "</a>",
                "<br>",
                "<table>",
            ),
            *(
                "<tr>",
                "<td>",
                "</table>",
                "<li>",
                "<pre>",
                "</pre>",
                "<svg>",
                "<!--",
                "-->",
                "<script>",
                "</script>",
                "&lt;",
            ),
            *(
                "<x-y>",
                "</x-y>",
                "<p a<b=c>",
                "<p =x>",
                "<",
                ">",
                "&amp",
                " ",
                "text",
                "é中",
                "\n",
                "<title>",
                "</title>",
            ),
            *("<select>", "<button>", "<template>", "</template>", "<math>", "<mi>", "<plaintext>", "<![CDATA[", "]]>"),
        ]
    ),
    max_size=40,
).map("".join)

_NOT_TEXT = (
    "script, style, iframe, noembed, noframes, xmp, plaintext, title, svg, template, select, datalist, textarea, "
    "object, audio, video, canvas, map, head, applet, frameset"
)


@settings(max_examples=300, deadline=None)
@given(MARKUP)
def test_the_scanner_reads_what_the_parser_holds(html: str) -> None:
    """Character for character, white space aside."""
    tree = LexborHTMLParser(html)
    for node in tree.css(_NOT_TEXT):
        node.decompose()
    expected = tree.root.text(deep=True) if tree.root is not None else ""
    found = "".join(fast.texts(scanned(html)))
    assert "".join(found.split()) == "".join(expected.split()).replace("\xad", "")


@settings(max_examples=100, deadline=None)
@given(st.one_of(st.binary(max_size=400), st.text(max_size=200).map(lambda text: text.encode("utf-8", "replace"))))
def test_no_bytes_make_it_raise(body: bytes) -> None:
    assert isinstance(extract_text(b"<html><body><p>" + body), str)
    assert isinstance(fast.extract(body.decode("latin-1")), str)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=600))
def test_the_scanner_survives_what_no_parser_wrote(raw: bytes) -> None:
    units = scan_html(raw)
    assert np.isfinite(features(units, len(raw))).all()
    assert all(0 <= start <= end <= len(units.text) for start, end in units.units[:, [s.START, s.END]])


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(ExtractionLimits(memory_bytes=2 << 30), ENGINES["fast"]) as made:
        yield made


def test_a_page_that_grows_too_much_is_refused() -> None:
    page, parsed = "<p>&amp;&</p>", len(fast.parse("<p>&amp;&</p>"))
    try:
        for limit, value in (("max_parsed_bytes", parsed), ("max_parsed_tags", 8)):
            limits.enforce(ExtractionLimits(**{limit: value}))
            assert fast.extract(page) == ""
            limits.enforce(ExtractionLimits(**{limit: value - 1}))
            with pytest.raises(limits.ParsedTooLargeError, match=f"{limit}: {value}"):
                fast.extract(page)
    finally:
        limits.enforce(ExtractionLimits())


@pytest.mark.parametrize(
    ("sentence", "language", "title"),
    [(ARTICLE, "en", "The harbour"), (CHINESE, "zh", "港口重建记"), (GERMAN, "de", "Der neue Hafen")],
)
def test_main_text_is_found(sentence: str, language: str, title: str) -> None:
    html = page(sentence, language, title)
    text = extract_text(html.encode())
    assert text.count(sentence.strip()) == 12
    for boilerplate in ("Sport", "cookies", "Imprint"):
        assert boilerplate not in text
    assert fast.extract(html) == text == fast.extract(html)


def test_scores_are_shown_for_every_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "page.html"
    file.write_text(page(ARTICLE, "en", "The harbour"), encoding="utf-8")
    assert cli.main(["extract", str(file)]) == 0
    assert ARTICLE.strip() in capsys.readouterr().out
    assert cli.main(["extract", "--scores", str(file)]) == 0
    rows = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert {row[2]: row[1] for row in rows}["Sport"] == "-"
    assert all(0 <= float(score) <= 1 and sign in "+-" for score, sign, _ in rows)
    assert any(sign == "+" and ARTICLE.strip() in text for _, sign, text in rows)
    (tmp_path / "none.html").write_text("<p>")
    assert cli.main(["extract", str(tmp_path / "none.html")]) == 1
    assert cli.main(["extract", str(tmp_path / "absent.html")]) == 2


def test_a_long_line_that_stands_twice_is_kept_once() -> None:
    units = scanned(f"<p>{ARTICLE}</p><p>{ARTICLE}</p><p>Yes.</p><p>Yes.</p>")
    assert fast.keep(units, np.ones(4, np.float32), 0.5).tolist() == [True, False, True, True]


def test_features_have_bounds(real_data: Path) -> None:
    pages = [one for one in read_pages(str(real_data / "warc-quirks" / "encodings.warc.gz")) if isinstance(one, Page)]
    for one in pages:
        serialised = fast.parse(decode(one.body, one.http_charset).text)
        found = features(scan_html(serialised), len(serialised))
        assert found.shape[1] == FEATURES and found.dtype == np.float32
        assert np.isfinite(found).all() and found.min(initial=0) >= -1 and found.max(initial=0) <= 8


def test_the_order_of_pages_does_not_matter(real_data: Path, sandbox: Sandbox) -> None:
    pages = [one for one in read_pages(str(real_data / "warc-quirks" / "encodings.warc.gz")) if isinstance(one, Page)]
    texts = [decode(one.body, one.http_charset).text for one in pages]
    there = [sandbox.extract(text) for text in texts]
    assert there == [fast.extract(text) for text in reversed(texts)][::-1]
    assert sum(len(text) > 200 for text in there if isinstance(text, str)) > 20


def test_model_files(tmp_path: Path) -> None:
    weights = model.load().weights
    model.save(tmp_path / "m.npz", model.Model(weights, model.Limits(0.3, 0.7)))
    again = model.load(tmp_path / "m.npz")
    assert again.weights.keys() == weights.keys()
    assert all(np.array_equal(again.weights[name], weights[name]) for name in weights)
    assert again.limits == (0.3, 0.7)
    for wrong in (float("nan"), 1.5):
        model.save(tmp_path / f"{wrong}.npz", model.Model(weights, model.Limits(wrong, 0.7)))
        with pytest.raises(model.ModelError, match=f"{wrong}.npz: threshold and max_doubt must be"):
            model.load(tmp_path / f"{wrong}.npz")
    (tmp_path / "broken.npz").write_bytes(b"PK\x03\x04 no")
    with open(tmp_path / "other.npz", "wb") as file:
        np.savez(file, version=np.array("0"), w0=np.zeros((FEATURES, 2)))
    with open(tmp_path / "pickled.npz", "wb") as file:
        np.savez(file, version=np.array([{}], dtype=object))
    for name in ("absent.npz", "broken.npz", "other.npz", "pickled.npz"):
        with pytest.raises(model.ModelError, match=name):
            model.load(tmp_path / name)
    assert str(np.load(FAST_MODEL, allow_pickle=False)["version"]) == VERSION


def test_pages_of_few_units_have_scores() -> None:
    for count in (0, 1, 9, 10):
        scores = model.load().score(np.zeros((count, FEATURES), np.float32), np.zeros((2, count), np.int64))
        assert scores.shape == (count,)


def test_the_cascade_asks_trafilatura_where_the_model_doubts(monkeypatch: pytest.MonkeyPatch) -> None:
    html = page(ARTICLE, "en", "The harbour")
    sure = fast.extract(html)
    assert cascade_engine.extract(html) == sure
    shipped = model.load()
    monkeypatch.setattr(model, "load", lambda: model.Model(shipped.weights, shipped.limits._replace(max_doubt=-1.0)))
    monkeypatch.setattr(cascade_engine.trafilatura_engine, "extract", lambda html, url: "asked")
    assert cascade_engine.extract(html) == "asked"
    monkeypatch.setattr(cascade_engine.trafilatura_engine, "extract", lambda html, url: "")
    assert cascade_engine.extract(html) == sure


def test_doubt() -> None:
    units = scanned(f"<p>{ARTICLE}</p><p>{ARTICLE}</p>")
    assert cascade_engine.doubt(units, np.array([1, 0], np.float32)) == 0
    assert cascade_engine.doubt(units, np.array([0.5, 0.5], np.float32)) == pytest.approx(1)


def test_readings_of_characters_are_not_text() -> None:
    html = "<p><ruby>漢<rp>(</rp><rt>かん</rt><rp>)</rp></ruby><ruby>字<rt>じ</rt></ruby>である。"
    assert fast.texts(scan_html(fast.parse(html))) == ["漢字である。"]
