"""Gopher's rules, repetition and quality (Rae et al. 2021, appendix A.1.1 and table A1).

The measures follow datatrove's filters, through which FineWeb was made: the words of the share of alphabetic
words are all words, punctuation marks too; a repeated n-gram adds the characters of its words. Deliberate
differences:

- n-grams are equal if their words are; datatrove compares the words joined, so that `ab c` equals `a bc`.
- A word is a symbol if it holds no letter or digit; datatrove uses a list of punctuation, so that an emoji or
  `€` is a word there.
- Stop words are found in any case; there are lists for many languages, and in a language without one the
  measure is not taken and nobody dropped for it.
- A text without words has measures (0); datatrove divides by zero.

Thresholds by language are those that FineWeb-2 published for Chinese, German, French, Russian, Thai, Lao, Khmer and
Burmese (huggingface/fineweb-2, configs/), with some of this project's own: 0.65 instead of 0.735 for alphabetic
words in Chinese, since prose with numbers, Latin names and much punctuation, such as most technical
articles, lies between the two; 0.8, as in English, instead of 0.85 to 0.9 in Thai, Lao and Khmer, since punctuation
is words here; Thai's n-grams for Khmer and Burmese, where the published ones rest on other words. Thresholds of
n-grams and word lengths are off where words are not found (dots_data.text).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from dots_data import scan
from dots_data.judge import Rule
from dots_data.rules.ngrams import top_and_duplicated
from dots_data.rules.ruleset import Overrides, RuleSet
from dots_data.rules.stop_words import STOP_WORDS
from dots_data.text import WITHOUT_SEGMENTER, Document, base_language

TOP_SIZES = (2, 3, 4)
DUPLICATE_SIZES = (5, 6, 7, 8, 9, 10)
# No n-grams are taken of a longer text: it has ten times `max_words`, and would cost seconds.
MOST_WORDS = 1_000_000


def _n_grams(top: tuple[float | None, ...], duplicated: tuple[float | None, ...]) -> dict[str, float | None]:
    names = [f"top_{n}_gram" for n in TOP_SIZES] + [f"dup_{n}_gram" for n in DUPLICATE_SIZES]
    return dict(zip(names, (*top, *duplicated), strict=True))


_NO_N_GRAMS = _n_grams((None,) * 3, (None,) * 6)
_THAI_N_GRAMS = _n_grams((0.221, 0.197, 0.162), (0.185, 0.168, 0.152, 0.137, 0.124, 0.111))


@dataclass(frozen=True)
class GopherRepetition(RuleSet):
    """The largest shares of a text that may be repeated; all from table A1.

    dup_para_frac, dup_line_frac: share of paragraphs (lines) that occurred before in the text.
    dup_para_char_frac, dup_line_char_frac: share of characters in them.
    top_2_gram ... top_4_gram: share of characters in the most frequent n-gram.
    dup_5_gram ... dup_10_gram: share of characters in n-grams that occurred before.
    """

    LANGUAGE_DEFAULTS: ClassVar[Overrides] = {
        "zh": {
            "dup_line_frac": 0.287,
            **_n_grams((0.256, 0.201, 0.171), (0.198, 0.182, 0.167, 0.154, 0.14, 0.127)),
        },
        "de": {
            "dup_line_frac": 0.263,
            **_n_grams((0.169, 0.153, 0.137), (0.141, 0.134, 0.126, 0.117, 0.108, 0.098)),
        },
        "fr": {
            "dup_line_frac": 0.264,
            **_n_grams((0.161, 0.149, 0.134), (0.15, 0.141, 0.131, 0.121, 0.111, 0.1)),
        },
        "ru": {
            "dup_line_frac": 0.322,
            **_n_grams((0.184, 0.164, 0.146), (0.168, 0.156, 0.145, 0.133, 0.121, 0.109)),
        },
        "ja": {"dup_line_frac": 0.375, **_NO_N_GRAMS},
        "th": {"dup_line_frac": 0.349, **_THAI_N_GRAMS},
        "lo": {
            "dup_line_frac": 0.327,
            **_n_grams((0.198, 0.175, 0.143), (0.187, 0.175, 0.163, 0.149, 0.135, 0.123)),
        },
        "km": _THAI_N_GRAMS,
        "my": _THAI_N_GRAMS,
        **dict.fromkeys(sorted(WITHOUT_SEGMENTER), _NO_N_GRAMS),
    }

    dup_para_frac: float | None = 0.3
    dup_para_char_frac: float | None = 0.2
    dup_line_frac: float | None = 0.3
    dup_line_char_frac: float | None = 0.2
    top_2_gram: float | None = 0.2
    top_3_gram: float | None = 0.18
    top_4_gram: float | None = 0.16
    dup_5_gram: float | None = 0.15
    dup_6_gram: float | None = 0.14
    dup_7_gram: float | None = 0.13
    dup_8_gram: float | None = 0.12
    dup_9_gram: float | None = 0.11
    dup_10_gram: float | None = 0.1
    by_language: dict[str, dict[str, float | None]] = field(default_factory=dict)


@dataclass(frozen=True)
class GopherQuality(RuleSet):
    """Bounds of what prose looks like; all from appendix A.1.1.

    min_words, max_words: words that are not symbols.
    min_mean_word_length, max_mean_word_length: characters, of the same words.
    max_hash_ratio, max_ellipsis_ratio: `#`, and `...` or `…`, to words.
    max_bullet_lines, max_ellipsis_lines: share of lines that begin with a bullet, that end with an ellipsis.
    min_alpha_words: share of words with a letter in them.
    min_stop_words: different stop words that occur.
    """

    LANGUAGE_DEFAULTS: ClassVar[Overrides] = {
        "zh": {"min_mean_word_length": 1, "max_mean_word_length": 5, "min_alpha_words": 0.65},
        "ja": {"min_mean_word_length": 1, "max_mean_word_length": 5, "min_alpha_words": 0.65},
        "de": {"min_mean_word_length": None, "max_mean_word_length": 15, "min_alpha_words": 0.774},
        "fr": {"min_mean_word_length": 2, "max_mean_word_length": 11},
        "ru": {"max_mean_word_length": 11, "min_alpha_words": 0.713},
        "ko": {"min_mean_word_length": 1},
        "th": {"min_mean_word_length": 2},
        "lo": {"min_mean_word_length": 2, "max_mean_word_length": 9},
        "km": {"min_mean_word_length": 2, "max_mean_word_length": 13},
        "my": {"min_mean_word_length": 2, "max_mean_word_length": 21, "min_alpha_words": 0.75},
        **{
            language: {"min_mean_word_length": None, "max_mean_word_length": None}
            for language in sorted(WITHOUT_SEGMENTER)
        },
    }

    min_words: int | None = 50
    max_words: int | None = 100_000
    min_mean_word_length: float | None = 3.0
    max_mean_word_length: float | None = 10.0
    max_hash_ratio: float | None = 0.1
    max_ellipsis_ratio: float | None = 0.1
    max_bullet_lines: float | None = 0.9
    max_ellipsis_lines: float | None = 0.3
    min_alpha_words: float | None = 0.8
    min_stop_words: int | None = 2
    by_language: dict[str, dict[str, float | None]] = field(default_factory=dict)


_REPETITION_NAMES = (
    "dup_para_frac",
    "dup_para_char_frac",
    "dup_line_frac",
    "dup_line_char_frac",
    *(f"top_{n}_gram" for n in TOP_SIZES),
    *(f"dup_{n}_gram" for n in DUPLICATE_SIZES),
)
REPETITION_RULES = tuple(Rule(f"gopher.{name}", f"gopher.{name}", "<=", name) for name in _REPETITION_NAMES)

QUALITY_RULES = (
    Rule("gopher.min_words", "gopher.words", ">=", "min_words"),
    Rule("gopher.max_words", "gopher.words", "<=", "max_words"),
    Rule("gopher.min_mean_word_length", "gopher.mean_word_length", ">=", "min_mean_word_length"),
    Rule("gopher.max_mean_word_length", "gopher.mean_word_length", "<=", "max_mean_word_length"),
    Rule("gopher.max_hash_ratio", "gopher.hash_ratio", "<=", "max_hash_ratio"),
    Rule("gopher.max_ellipsis_ratio", "gopher.ellipsis_ratio", "<=", "max_ellipsis_ratio"),
    Rule("gopher.max_bullet_lines", "gopher.bullet_lines", "<=", "max_bullet_lines"),
    Rule("gopher.max_ellipsis_lines", "gopher.ellipsis_lines", "<=", "max_ellipsis_lines"),
    Rule("gopher.min_alpha_words", "gopher.alpha_words", ">=", "min_alpha_words"),
    Rule("gopher.min_stop_words", "gopher.stop_words", ">=", "min_stop_words"),
)

_BULLETS = scan.codes("•-")


def measure_repetition(document: Document, config: GopherRepetition) -> dict[str, float]:
    """Shares of the text (0 to 1, `top` more where n-grams overlap), keyed `gopher.<threshold>`."""
    characters = max(1, len(document.text))
    paragraphs = document.paragraphs
    again, paragraph_characters = scan.repeats(document.codes, *paragraphs)
    filled = document.filled_lines
    lines, line_characters = document.repeated(filled)
    # At either end of the text a line feed leaves an empty line, as the published code divides it.
    empty = document.text.startswith("\n") + document.text.endswith("\n")
    tops: dict[int, int] = {}
    duplicated: dict[int, int] = {}
    if document.word_count <= MOST_WORDS:
        ids, lengths = document.word_ids, document.word_lengths
        tops, duplicated = top_and_duplicated(ids, lengths, TOP_SIZES, DUPLICATE_SIZES)
    return {
        "gopher.dup_para_frac": again / len(paragraphs[0]),
        "gopher.dup_para_char_frac": paragraph_characters / characters,
        "gopher.dup_line_frac": (lines + (empty == 2)) / max(1, len(filled) + empty),
        "gopher.dup_line_char_frac": line_characters / characters,
        **{f"gopher.top_{n}_gram": top / characters for n, top in tops.items()},
        **{f"gopher.dup_{n}_gram": count / characters for n, count in duplicated.items()},
    }


def measure_quality(document: Document, config: GopherQuality) -> dict[str, float]:
    """Counts, characters and ratios, keyed as `QUALITY_RULES` names them."""
    text, words = document.text, max(1, document.word_count)
    proper, characters, alphabetic = document.word_totals
    bullets, ellipses = scan.bullets_and_ellipses(document.codes, document.split_lines, _BULLETS)
    lines = max(1, len(document.split_lines))
    measures = {
        "gopher.words": float(proper),
        "gopher.mean_word_length": characters / max(1, proper),
        "gopher.hash_ratio": text.count("#") / words,
        "gopher.ellipsis_ratio": (text.count("...") + text.count("…")) / words,
        "gopher.bullet_lines": bullets / lines,
        "gopher.ellipsis_lines": ellipses / lines,
        "gopher.alpha_words": alphabetic / words,
    }
    stop_words = STOP_WORDS.get(base_language(document.language))
    if stop_words is not None:
        measures["gopher.stop_words"] = float(document.words_among(stop_words))
    return measures
