"""Article bodies in JSON-LD."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dots_data.extraction import fast_engine
from dots_data.extraction.structured import article_bodies, longer_of

BODY = "The harbour was rebuilt after the storm, and its walls have kept the town dry since. " * 5


def page(block: str, kind: str = "application/ld+json") -> str:
    return f'<html><head><script type="{kind}">{block}</script></head><body><div id=app></div></body></html>'


@pytest.mark.parametrize(
    ("block", "bodies"),
    [
        (json.dumps({"@type": "NewsArticle", "articleBody": "One.\n Two."}), ["One.\nTwo."]),
        (json.dumps([{"@graph": [{"articleBody": "<p>One &amp; two.</p><p>Three.</p>"}]}]), ["One & two.\nThree."]),
        (json.dumps({"articleBody": "&lt;p&gt;a &amp;lt; b&lt;/p&gt;"}), ["a < b"]),
        ('{"articleBody": "a line\nand a tab\t"}', ["a line\nand a tab"]),
        (json.dumps({"articleBody": 3}), []),
        ('{"articleBody": "cut', []),
        ('{"articleBody": "' + "[" * 100_000, []),
        ("[" * 100_000 + '"articleBody"', []),
        ("", []),
    ],
)
def test_bodies(block: str, bodies: list[str]) -> None:
    assert list(article_bodies(page(block))) == bodies


def test_other_scripts_are_not_read() -> None:
    assert not list(article_bodies(page(json.dumps({"articleBody": "x"}), "text/javascript")))


def test_a_body_stands_in_for_a_text_that_is_far_shorter() -> None:
    html = page(json.dumps({"articleBody": BODY}))
    assert longer_of("Menu", html) == longer_of("", html) == BODY.strip()
    assert longer_of(BODY[:300], html) == BODY[:300]
    assert longer_of("x", page("")) == "x"
    assert fast_engine.extract(html) == BODY.strip()


@given(st.text(alphabet='<script type="ld+jon>{}[]:,aricleBdy\\\\', max_size=300))
def test_any_markup_ends(text: str) -> None:
    list(article_bodies(f'<script type="application/ld+json">{text}"articleBody"'))


def test_many_blocks_and_long_ones_are_bounded() -> None:
    long = page(json.dumps({"articleBody": "<" * 900_000}))
    assert len(list(article_bodies(long * 30 + "<script " * 200_000))) == 20
