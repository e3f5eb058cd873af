"""What is counted before a page is parsed: never less than what a parser will find."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from selectolax.lexbor import LexborHTMLParser

from dots_data.crawl.warc import Page, read_pages
from dots_data.extraction import ExtractionLimits, check_limits, decode, nesting

LIMITS = ExtractionLimits()
SMALL = ExtractionLimits(max_chars=2000, max_tags=100, max_depth=10, max_attributes=20, max_tag_chars=500)


@pytest.mark.parametrize(
    ("html", "rule", "value"),
    [
        ("<p>fine</p>", None, 0),
        ("x" * 2001, "extraction.max_chars", 2001),
        ("<b></b>" * 51, "extraction.max_tags", 102),
        ("<p " + "x" * 600 + ">", "extraction.max_tag_chars", 601),
        ("<p " + "a=1 " * 21 + ">", "extraction.max_attributes", 21),
        ("<p " + "a " * 21 + ">", "extraction.max_attributes", 21),
        ("<div>" * 12, "extraction.max_depth", 11),
        ("<script>" + "a<b;" * 90 + "</script>", None, 0),
        ("<script>var " + "a, " * 200 + "</script>", None, 0),
        ("<!-- " + "<div>" * 30 + "-->", None, 0),
        ("<p>x" * 30 + "<li>y" * 30 + "<br>" * 30, None, 0),
        ("<br/>" * 30, None, 0),
        ("<div/>" * 30, "extraction.max_depth", 11),
        ("<svg>" + "<path d='M0'/>" * 30 + "</svg>", None, 0),
    ],
)
def test_limits(html: str, rule: str | None, value: int) -> None:
    for page in (html, html.encode()):
        verdict = check_limits(page, SMALL)
        assert (verdict and verdict.rule) == rule
        if verdict:
            assert verdict.value == value > verdict.threshold
            assert (verdict.stage, verdict.decision) == ("extraction", "quarantined")


@pytest.mark.parametrize(
    ("html", "deepest"),
    [
        ("<div><div></div></div><div></div>", 2),
        ("<html><head><title>x</title></head><body>x</body></html>", 1),
        ("<div><span><b></div><div><span><b></div>", 4),
        ("<div></p></i><div></u><div>", 3),
        ("<ul><li><ul><li>x</ul></ul>", 4),
        ("<p>x<p>y<li>x<li>y<dd>x<dt>y", 2),
        ("<table><td>x<tr><td>y<table><td>z</table></table><div>", 8),
        ("<table><div><td></table>", 4),
        # What hides tags, and what does not.
        ("<style>div > div {}</style><div>", 1),
        ("<script> never ends <div><div>", 1),
        ("<script><!--<script></script><div>--></script><div>", 1),
        ("<textarea><div><div></textarea><title><div><div></title>", 1),
        ("<xmp><b><b></xmp><iframe><b><b></iframe><noembed><b><b></noembed><noframes><b><b></noframes>", 1),
        ("<body><noscript><b><b></noscript>", 3),
        ("<plaintext><div><div>", 1),
        ("<!-- never ends <div><div>", 2),
        ("<!--><div><!-->-->", 1),
        ("<!---><div><!-->-->", 1),
        ("<!-- --!><div><!-->-->", 1),
        ("<!x <div><?x <div></ x <div></><![CDATA[<div>", 0),
        ("<svg><![CDATA[<a><a><a>]]><a>", 2),
        ("<div a='>' b=\"<div>\" c=<div>x", 1),
        ("<div a='></div><div>'><div>", 2),
        ("<div<div><div\0>", 2),
        # What an end tag does not close.
        ("<div><object></div><div><object></div>", 4),
        ("<form><div></form><form><div></form>", 4),
        ("<div><table><td></div><div>", 6),
        ("<span><div></span><span><div></span>", 4),
        ("<b><div></b><b><div></b>", 4),
        ("<button><p></button><p><button></p>", 3),
        ("<ol><li><div><li><ol><li>", 4),
        # Formatting is opened again, as often as it is open.
        ("<p><b><i>x<p>y", 3),
        ("<p><b><p>x<b><p>y<b><p>z<b><p>w", 5),
        ("".join(f"<p><b id={k}>" for k in range(20)) + "<p>x", 21),
        ("<table><td><b></table><table><td><p>x", 5),
        ("<b><table><td><p><i></table>x", 7),
        # SVG and MathML.
        ("<div/><x-y /><path/>", 3),
        ("<svg><title>x</title><g><path/><circle r='1' /></g><use/></svg><path/>", 3),
        ("<math><mrow><mi>x</mi><mspace/><mspace/></mrow></math>", 3),
        ("<svg/><path/><path/>", 2),
        ("<svg><path a=b/><path a=b/>", 3),
        ("<svg><div></div><path/><path/>", 2),
        ("<svg><title><path/><path/>", 4),
        ("<svg><style><a><a><textarea><a>", 6),
        ("<svg><input><input><td><td>", 5),
        ("<svg><foreignObject><input><input><style><a></style>", 3),
        ("<math><mi><mglyph><b>", 3),
        ("<math><svg><desc><i>", 3),
        # Where the model is lost, every start tag counts.
        ("<frameset><title><frameset><frameset>", 4),
        ("<math><annotation-xml encoding=text/html><p><p><p>", 6),
    ],
)
def test_depth(html: str, deepest: int) -> None:
    assert nesting.measure(html.encode(), 100).depth == deepest >= real_depth(html)


@pytest.mark.parametrize(
    ("html", "longest", "most"),
    [
        ("<p>", 1, 0),
        ("<p/a//b /c=/d e = 'x y' f=>", 24, 5),
        ('<p =a=b =="c"d\'e>', 14, 3),
        ("<p a='é中' b>", 9, 2),
        ("<p a a a>", 6, 3),
        ("</p a b>", 4, 2),
        ("<a b='>", 4, 1),
        ("<title><p a b></title><!-- <p a b> -->", 5, 0),
    ],
)
def test_attributes_are_those_of_the_standard(html: str, longest: int, most: int) -> None:
    assert nesting.measure(html.encode(), 100)[1:] == (longest, most)


@pytest.mark.parametrize(
    ("piece", "rule"),
    [
        ("<div>", "max_depth"),
        ("<div/>", "max_depth"),
        ("<!--", None),
        ("<!-->", None),
        ("<script>", None),
        ("<script><!--", None),
        ("<a <", "max_attributes"),
        ('<a "', "max_attributes"),
        ("</div>", None),
        ("</a", "max_attributes"),
        ("<div", None),
        ("<b></i>", "max_depth"),
        ("<b>x</b>", None),
        ("<p a='", "max_attributes"),
        ("<object></div>", "max_depth"),
        ("<svg></p>", None),
        ("<svg><![CDATA[", None),
        ("<p><b>", None),
        ("<i><div>", "max_depth"),
        ("<frameset>", "max_depth"),
        ("<table><td>", "max_depth"),
        ("<td>", None),
    ],
)
def test_a_hundred_thousand_of_anything_is_judged(piece: str, rule: str | None) -> None:
    verdict = check_limits(piece * 90_000, LIMITS)
    assert (verdict and verdict.rule) == (rule and f"extraction.{rule}")


@given(st.one_of(st.text(max_size=300), st.binary(max_size=300), st.text("<>/!- abdivscript\"'=", max_size=300)))
def test_check_limits_never_raises(html: str | bytes) -> None:
    check_limits(html, ExtractionLimits(max_depth=2, max_attributes=2, max_tag_chars=20))


def real_depth(html: str) -> int:
    """Elements within each other in the parser's tree; html, head and body aside."""
    deepest, below = 0, [(LexborHTMLParser(html).root, 0)]
    while below:
        node, outside = below.pop()
        while node is not None:
            element = (node.tag or "-")[0] != "-"
            inside = outside + (element and node.tag not in ("html", "head", "body"))
            deepest = max(deepest, inside)
            below.append((node.child, inside))
            node = node.next
    return deepest


_NAMES = (
    "p div b i a nobr font span table tr td th tbody thead caption colgroup li ul dd dt h1 h2 button form object "
    "marquee select option optgroup svg g foreignObject desc title math mi annotation-xml template textarea style "
    "script xmp iframe noembed noframes noscript x-y head body html frameset ruby rt rp rtc center pre details section "
    "address br plaintext"
)
_ALONE = (
    "<b a=1>|<font color=x>|<g/>|<div/>|<svg/>|<br>|<hr>|<img>|<image>|<input>|<col>|<mglyph>|<frame>|<!--|-->|--!>|"
    "<!-->|<!--->|<!x|<?x|</ x|>|<![CDATA[|]]>|<x-y a='>'>|<x-y a='|'>|\"|text| |\n|\0|<|</|</form >|<DIV>|"
    "<!doctype html>|<annotation-xml encoding=text/html>"
)
_PIECES = [tag.format(name) for name in _NAMES.split() for tag in ("<{}>", "</{}>")] + _ALONE.split("|")


@st.composite
def _markup(draw: st.DrawFn) -> str:
    """A few pieces, some often: what hides one level in each repetition adds up."""
    chosen = draw(st.lists(st.sampled_from(_PIECES), min_size=1, max_size=8))
    return "".join(draw(st.lists(st.sampled_from(chosen), max_size=20))) * draw(st.sampled_from([1, 2, 20]))


@settings(max_examples=1500)
@example("<math></template></br></br><address><span><address><marquee>" * 8)
@given(_markup())
def test_a_tree_is_never_deeper_than_was_counted(html: str) -> None:
    assert real_depth(html) <= nesting.measure(html.encode(), 10_000).depth


def test_real_pages_are_counted_as_they_are(real_data: Path) -> None:
    excess = []
    for page in read_pages(str(sorted((real_data / "warc").glob("*.warc.gz"))[-1])):
        if isinstance(page, Page) and "html" in page.content_type:
            html = decode(page.body, page.http_charset).text
            assert check_limits(html, LIMITS) is None
            excess.append(nesting.measure(html.encode("utf-8", "replace"), LIMITS.max_depth).depth - real_depth(html))
    assert min(excess) >= 0 and max(excess) < 50 and excess.count(0) > 0.9 * len(excess)
