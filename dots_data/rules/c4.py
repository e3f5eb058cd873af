"""C4's rules (Raffel et al. 2020, section 2.2) as FineWeb used them: terminal punctuation is not asked for.

`clean` takes out single lines; the measures are of what is left. As in datatrove's filter, with these
deliberate differences:

- One blank line between paragraphs is kept; there all blank lines go, and with them where a paragraph ends.
- In scripts without spaces each character is a word of its line, so that a Chinese line is not "one word", nor a
  Chinese paragraph a word of over 1,000 characters.
- Policy phrases of some other languages stand beside the published English ones.
- Sentences are counted by this project's own splitter (dots_data.text).
- The list of bad words is not applied (nor is it in FineWeb).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dots_data import scan
from dots_data.judge import Rule
from dots_data.rules.ruleset import Overrides, RuleSet
from dots_data.text import Document


@dataclass(frozen=True)
class C4(RuleSet):
    """What a page must be, and which lines `clean` takes out of it.

    min_sentences: sentences left after the removal of lines (C4: 5).
    max_lorem_ipsum, max_curly_brackets: occurrences of `lorem ipsum` and `{` (C4: none).
    remove_lines: whether lines are removed at all. The fields below say which.
    min_line_words: lines of fewer words go, words being what white space parts (C4: 3).
    max_word_length: lines with a longer word go, characters (C4's code: 1,000).
    remove_javascript: lines that mention `javascript` go (C4).
    remove_policies: lines that speak of cookies, terms of use or privacy policies go (C4's code).
    remove_citations: `[1]`, `[edit]`, `[citation needed]` are cut out of their line (C4's code).
    require_terminal_punctuation: lines that do not end in `.`, `?`, `!` or a quotation mark, or that end in
        an ellipsis, go (C4; FineWeb found that it removes too much).
    """

    LANGUAGE_DEFAULTS: ClassVar[Overrides] = {}

    min_sentences: int | None = 5
    max_lorem_ipsum: int | None = 0
    max_curly_brackets: int | None = 0
    remove_lines: bool = True
    min_line_words: int | None = 3
    max_word_length: int | None = 1000
    remove_javascript: bool = True
    remove_policies: bool = True
    remove_citations: bool = True
    require_terminal_punctuation: bool = False
    by_language: dict[str, dict[str, float | None]] = field(default_factory=dict)


RULES = (
    Rule("c4.lorem_ipsum", "c4.lorem_ipsum", "<=", "max_lorem_ipsum"),
    Rule("c4.curly_bracket", "c4.curly_brackets", "<=", "max_curly_brackets"),
    Rule("c4.min_sentences", "c4.sentences", ">=", "min_sentences"),
)

_CITATION = re.compile(r"\[(?:\d*|edit|citation needed)\]")
POLICIES = (
    *("terms of use", "privacy policy", "cookie policy", "uses cookies", "use of cookies", "use cookies"),
    *(
        "隐私政策",
        "隱私政策",
        "隐私权政策",
        "隱私權政策",
        "使用条款",
        "使用條款",
        "服务条款",
        "服務條款",
        "使用 cookie",
        "使用cookie",
    ),
    *("datenschutzerklärung", "verwendet cookies", "verwenden cookies", "verwendung von cookies"),
    *(
        "politique de confidentialité",
        "conditions d'utilisation",
        "utilise des cookies",
        "utilisation des cookies",
    ),
    *(
        "política de privacidad",
        "política de cookies",
        "uso de cookies",
        "utiliza cookies",
        "política de privacidade",
    ),
)
_TERMINAL = (".", "?", "!", '"', "'", "。", "？", "！", "”", "’", "」", "』")
_ELLIPSES = ("...", "…")

_LOREM_IPSUM = scan.codes("lorem ipsum")


@cache
def _phrases() -> scan.Phrases:
    return scan.phrases([["lorem ipsum"], ["{"], ["javascript"], POLICIES])


@cache
def _unwanted(javascript: bool, policies: bool) -> NDArray[np.bool_]:
    """Whether a line is removed, by the bits of the phrases that it holds; bool [16]."""
    bits = np.arange(16)
    lorem_ipsum, curly_bracket, script, policy = (bits & 1 << bit > 0 for bit in range(4))
    removed: NDArray[np.bool_] = ~lorem_ipsum & ((script & javascript) | (policy & ~curly_bracket & policies))
    return removed


def measure(document: Document, config: C4) -> dict[str, float]:
    """Counts in the document; `clean` comes before, where the configuration asks for it."""
    return {
        "c4.lorem_ipsum": float(scan.occurrences(document.codes, _LOREM_IPSUM)),
        "c4.curly_brackets": float(document.text.count("{")),
        "c4.sentences": float(document.sentences),
    }


class Kept(NamedTuple):
    """What `clean` keeps: the text with an empty line where a paragraph ends; without one, as in the published code;
    the words in it; how many lines went."""

    text: str
    lines: str
    words: int
    removed: int


def clean(document: Document, config: C4) -> Kept:
    """The text without the lines that C4 removes.

    A line for which the whole page is dropped (`lorem ipsum`, `{`) stays where the published order meets that
    rule first. Lines that were blank are not counted.
    """
    wanted = config.thresholds(document.language)
    codes = document.codes
    table = lines = document.split_lines
    words = document.words_by_line
    if wanted["remove_citations"] and (found := [match.span() for match in _CITATION.finditer(document.text)]):
        cuts = np.array(found)
        codes, lines = scan.cut(codes, table, cuts)
        taken = document.words_cut(cuts)
        words -= taken
        if len(again := np.flatnonzero(taken < 0)):
            words[again] = _words_of(lines[again], codes, document.language)
    gone = _unwanted(wanted["remove_javascript"], wanted["remove_policies"])[scan.kinds_in(codes, lines, _phrases())]
    gone |= table[:, scan.WORDS] < (wanted["min_line_words"] or 0)
    if wanted["max_word_length"] is not None:
        gone |= table[:, scan.LONGEST] > wanted["max_word_length"]
    if wanted["require_terminal_punctuation"]:
        gone |= ~np.array([_is_finished(line) for line in _texts_of(lines, codes)], np.bool_)
    blank = table[:, scan.FIRST] == table[:, scan.LAST]
    apart, close = map(scan.text, scan.without_lines(codes, lines, blank, gone))
    return Kept(apart.strip(), close, int(words[~gone].sum()), int(np.count_nonzero(gone & ~blank)))


def _words_of(lines: scan.Lines, codes: scan.Codes, language: str) -> NDArray[np.int64]:
    """How many words each line has, divided anew; int64 [lines]."""
    return Document("".join(f"{line}\n" for line in _texts_of(lines, codes)), language).words_by_line


def _texts_of(lines: scan.Lines, codes: scan.Codes) -> Iterator[str]:
    return (scan.text(codes[first:last]) for first, last in lines[:, scan.FIRST : scan.LAST + 1].tolist())


def _is_finished(line: str) -> bool:
    return line.endswith(_TERMINAL) and not line.endswith(_ELLIPSES)
