"""The compiled loops find what plain patterns and string methods find, in any text."""

from __future__ import annotations

import re
import unicodedata
from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dots_data import scan, text
from dots_data.text import CLOSING_OR_SPACE, UNSPACED, Document

# Surrogates and controls too, and what the loops look for more often than chance would bring it.
MARKS = [
    *"\n\r\v\x85\u2028 \t\u3000.!?。！…\"')»」-='’_",
    "http://",
    "https://",
    "www.",
    "e\u0301",
    "中文",
    "カナ",
    "กิน",
]
ANY_TEXT = st.lists(
    st.one_of(st.sampled_from(MARKS), st.text(st.characters(codec=None, categories=None), max_size=4)), max_size=60
).map("".join)


@cache
def word_pattern() -> re.Pattern[str]:
    """What the docstring of dots_data.text says of languages without a segmenter."""
    unspaced = re.compile(f"[{UNSPACED}]")
    every = [chr(code) for code in range(0x110000)]
    marks = "".join(c for c in every if unicodedata.category(c)[0] == "M")
    letters = "_" + "".join(c for c in every if unicodedata.category(c)[0] in "LNM" and not unspaced.match(c))
    return re.compile(
        f"[{text._HAN}]{{1,4}}|[{text._HIRAGANA}]{{1,4}}|[{text._KATAKANA}]{{1,4}}|[{text._SOUTHEAST}][{marks}]*"
        rf"|(?:https?://|www\.)\S+|[{letters}]+(?:['’.\-][{letters}]+)*|[-=*.~#+]+|[^\s{letters}]"
    )


@given(ANY_TEXT)
def test_words(content: str) -> None:
    assert Document(content, "en").words == word_pattern().findall(content)


@given(ANY_TEXT, st.lists(st.sampled_from(["a.b", ".", "\u3000", " ", "x", "\n"])).map("".join))
def test_dotted(content: str, dots: str) -> None:
    text = content + dots
    stretches = [text[start:end] for start, end in Document(text, "en").dotted]
    assert stretches == [word for word in text.split() if "." in word[1:-1]]


@given(ANY_TEXT)
def test_counts(content: str) -> None:
    broken = sum(c == "\ufffd" or (unicodedata.category(c) in ("Cc", "Cs", "Co") and not c.isspace()) for c in content)
    symbols = [c for c in content if unicodedata.category(c)[0] in "PS" and c != "\ufffd"]
    document = Document(content, "en")
    assert document.characters_of(scan.BROKEN) == broken
    assert document.characters_of(scan.SYMBOL) == len(symbols)
    runs = re.sub(r"(?s)(.)\1+", r"\1", content)
    assert document.characters_of(scan.SYMBOL, runs=True) == Document(runs, "en").characters_of(scan.SYMBOL)


@given(ANY_TEXT)
def test_lines(content: str) -> None:
    table = Document(content, "en").split_lines
    lines = content.splitlines()
    assert [content[row[scan.START] : row[scan.END]] for row in table] == lines
    assert [content[row[scan.FIRST] : row[scan.LAST]] for row in table] == [line.strip() for line in lines]
    assert table[:, scan.CHARACTERS].tolist() == [len("".join(line.split())) for line in lines]
    words = [[word for word in re.split(rf"\s|([{UNSPACED}])", line) if word] for line in lines]
    assert table[:, scan.WORDS].tolist() == list(map(len, words))
    assert table[:, scan.LONGEST].tolist() == [max(map(len, some), default=0) for some in words]


@given(ANY_TEXT)
def test_line_feeds_alone(content: str) -> None:
    document = Document(content, "en")
    lines = [line for line in content.split("\n") if line.strip()]
    assert document.lines == lines
    ends = re.compile(f"[{text._TERMINAL}]")
    assert document.finished_lines == sum(bool(ends.match(line.rstrip(CLOSING_OR_SPACE)[-1:])) for line in lines)
    assert document.line_table[:, scan.TERMINATED].tolist() == [bool(ends.match(line[-1])) for line in lines]
    repeated = (len(lines) - len(set(lines)), sum(map(len, lines)) - sum(map(len, set(lines))))
    assert document.repeated(document.line_table) == repeated
    filled = [content[row[scan.START] : row[scan.END]] for row in document.filled_lines]
    assert filled == [line for line in content.split("\n") if line]
    paragraphs = [content[start:end] for start, end in zip(*document.paragraphs, strict=True)]
    assert paragraphs == re.split(r"\n{2,}", content.strip())


@given(ANY_TEXT)
def test_sentences(content: str) -> None:
    document = Document(content, "en")
    closing, ends, unspaced = (re.escape(text._CLOSING), text._TERMINAL, text._TERMINAL_UNSPACED)
    pattern = re.compile(rf"[{unspaced}]+[{closing}]*|[{ends}][{closing}]*(?=\s|\Z)")
    expected = len(pattern.findall(content)) + len(document.lines) - document.finished_lines
    assert document.sentences == expected


@given(st.lists(st.text("aAbBéÉ中\u212aσΣς", max_size=3), max_size=30), st.sets(st.text("abé中kσ", min_size=1)))
def test_numbers_and_wanted_words(words: list[str], wanted: set[str]) -> None:
    words = [word for word in words if word]
    document = Document("", "en", words=words)
    different = list(dict.fromkeys(words))
    assert document.distinct_words == different
    assert document.word_ids.tolist() == [different.index(word) for word in words]
    found = {"".join(map(scan._fold, word)) for word in words}
    assert document.words_among(frozenset(wanted)) == len(found & wanted)


@given(
    st.lists(st.lists(st.text("ab c", min_size=1, max_size=4), max_size=3), min_size=1, max_size=3),
    st.text("aAbB cC\n", max_size=60),
)
def test_phrases(kinds: list[list[str]], content: str) -> None:
    document = Document(content, "en")
    found = scan.kinds_in(document.codes, document.split_lines, scan.phrases(kinds)).tolist()
    lines = [line.strip().lower() for line in content.splitlines()]
    assert found == [
        sum(1 << bit for bit, phrases in enumerate(kinds) if any(phrase in line for phrase in phrases))
        for line in lines
    ]


def test_classes_are_those_of_str() -> None:
    classes = text.character_classes()
    every = [chr(code) for code in range(0x110000)]
    for bit, method in ((scan.SPACE, str.isspace), (scan.ALPHA, str.isalpha), (scan.ALNUM, str.isalnum)):
        assert np.array_equal(classes & bit > 0, np.array(list(map(method, every)))), method


@pytest.mark.parametrize("content", ["http://", "www.", "https:// a", "http:/a", "see www.a", "httpx://a"])
def test_what_a_url_is(content: str) -> None:
    assert Document(content, "en").words == word_pattern().findall(content)
