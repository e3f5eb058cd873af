"""Text that a page carries beside its markup: schema.org's `articleBody` in JSON-LD.

Pages that scripts draw often hold their article nowhere else. Where this text is at least `TIMES` as long as what was
found in the markup, it is the page's text.
"""

from __future__ import annotations

import html as entities
import json
import re
from collections.abc import Iterator
from typing import Any

TIMES = 2.0
_MARK = "articleBody"
_SCRIPT = re.compile(r"<script\b[^>]{0,500}ld\+json[^>]{0,500}>", re.IGNORECASE)
_BREAK = re.compile(r"</?(?:p|div|br|li|ul|ol|h[1-6]|blockquote|tr|table|section)\b[^<>]*>", re.IGNORECASE)
_TAG = re.compile(r"</?[A-Za-z!][^<>]*>")
# Of one page: more blocks, or longer ones, are no description of an article.
_MOST_BLOCKS, _LONGEST_BLOCK = 20, 1_000_000


def longer_of(text: str, html: str) -> str:
    """`text`, what was found in the page's markup, or the longest article body beside it if that is far longer."""
    if _MARK not in html:
        return text
    body = max(article_bodies(html), key=lambda body: (len(body), body), default="")
    return body if len(body) >= TIMES * max(1, len(text)) else text


def article_bodies(html: str) -> Iterator[str]:
    """Every `articleBody` of a page, as plain text of a line a paragraph."""
    for number, script in enumerate(_SCRIPT.finditer(html)):
        if number == _MOST_BLOCKS:
            return
        block = html[script.end() : script.end() + _LONGEST_BLOCK].partition("</script")[0]
        if _MARK in block:
            yield from map(_plain, _bodies(block))


def _bodies(block: str) -> Iterator[str]:
    try:
        waiting: list[Any] = [json.loads(block, strict=False)]
    except (ValueError, RecursionError):
        return
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            if isinstance(value.get(_MARK), str):
                yield value[_MARK]
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value


def _plain(body: str) -> str:
    """Without markup and entities, each of which some sites write once and some twice."""
    body = _TAG.sub(" ", _BREAK.sub("\n", entities.unescape(body)))
    lines = (" ".join(line.split()) for line in entities.unescape(body).split("\n"))
    return "\n".join(line for line in lines if line)
