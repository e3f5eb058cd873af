"""A document's text, taken apart once: lines, paragraphs, sentences, words, for every rule and for dedup.

Words are what the published rule sets count: a punctuation mark is a word of its own, as in the word
tokenizers those sets were tuned with. How a text is cut depends on its script:

- Scripts with spaces: runs of letters, digits and marks, held together by an inner apostrophe, dot or hyphen
  (`don't`, `3.14`, `well-known`); a URL is one word; a ruler (`=====`) is one word.
- Chinese: jieba's dictionary and model in its Rust build, rjieba: the same words as jieba's at 25 times its
  speed, and the same for a line alone as for the line in its text.
- Japanese, and Han or kana inside another language: a run of one script, up to four characters, is a word.
- Thai, Lao, Khmer, Burmese: ICU's dictionaries, in the release that icu4py brings; a zero-width space parts words and
  is none. The same for a line alone as for the line in its text.
- Tibetan, and these scripts inside another language: a base character with its marks is a word. That is no
  segmentation, so the rule sets judge no word lengths and no n-grams in Tibetan and Dzongkha.

Hostile text costs bounded work: every pattern is linear, and the segmenter never sees a piece of more than
`PIECE` characters.
"""

from __future__ import annotations

import re
import unicodedata
from functools import cache, cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

from dots_data import scan

CHINESE = frozenset({"zh", "yue", "wuu", "lzh"})
# Languages whose words this module does not find; see the module docstring.
WITHOUT_SEGMENTER = frozenset({"bo", "dz"})
# Those whose words ICU's dictionaries find.
SOUTHEAST_ASIAN = frozenset({"th", "lo", "km", "my"})

PIECE = 16_384

_HAN = "\u2e80-\u2fdf\u3005\u3007\u3021-\u3029\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_HIRAGANA = "\u3041-\u309f"
_KATAKANA = "\u30a1-\u30fa\u30fc-\u30ff\u31f0-\u31ff\uff66-\uff9f"
_SOUTHEAST = (
    "\u0e01-\u0e3a\u0e40-\u0e4e\u0e80-\u0ece\u0f40-\u0fbc\u1000-\u1049\u1050-\u109f\u1780-\u17d3"
    "\ua9e0-\ua9ff\uaa60-\uaa7f"
)
UNSPACED = _HAN + _HIRAGANA + _KATAKANA + _SOUTHEAST

# Characters that end a sentence: Unicode's property Sentence_Terminal, and the half-width Japanese full stop.
_TERMINAL = (
    "!.?\u0589\u061d-\u061f\u06d4\u0700-\u0702\u07f9\u0837\u0839\u083d\u083e\u0964\u0965\u104a\u104b\u1362\u1367"
    "\u1368\u166e\u1735\u1736\u17d4\u17d5\u1803\u1809\u1944\u1945\u1aa8-\u1aab\u1b4e\u1b4f\u1b5a\u1b5b\u1b5e\u1b5f"
    "\u1b7d-\u1b7f\u1c3b\u1c3c\u1c7e\u1c7f\u2024\u203c\u203d\u2047-\u2049\u2cf9-\u2cfb\u2e2e\u2e3c\u2e53\u2e54\u3002"
    "\ua4ff\ua60e\ua60f\ua6f3\ua6f7\ua876\ua877\ua8ce\ua8cf\ua92f\ua9c8\ua9c9\uaa5d-\uaa5f\uaaf0\uaaf1\uabeb"
    "\ufe12\ufe15\ufe16\ufe52\ufe56\ufe57\uff01\uff0e\uff1f\uff61"
    "\u17d6\u17d9\u17da\U00010a56\U00010a57\U00010f55-\U00010f59\U00010f86-\U00010f89\U00011047\U00011048"
    "\U000110be-\U000110c1\U00011141-\U00011143\U000111c5\U000111c6\U000111cd\U000111de\U000111df"
    "\U00011238\U00011239\U0001123b\U0001123c\U000112a9\U0001144b\U0001144c\U000115c2\U000115c3"
    "\U000115c9-\U000115d7\U00011641\U00011642\U0001173c-\U0001173e\U00011944\U00011946\U00011a42\U00011a43"
    "\U00011a9b\U00011a9c\U00011c41\U00011c42\U00011ef7\U00011ef8\U00011f43\U00011f44\U00016a6e\U00016a6f"
    "\U00016af5\U00016b37\U00016b38\U00016b44\U00016e98\U0001bc9f\U0001da88"
)
_TERMINAL_UNSPACED = "\u3002\uff01\uff0e\uff1f\uff61"
# What may stand between the end of a sentence and the end of its line.
_CLOSING = "\"')]\u00bb\u2019\u201d\u203a\u300b\u300d\u300f\u3011\uff02\uff09"
CLOSING_OR_SPACE = _CLOSING + " \t\r\f\v\u00a0\u3000"

# What is more, or less, than one character where ICU counts in units of UTF-16.
_NO_SINGLE_UNIT = re.compile("[\ud800-\udfff\U00010000-\U0010ffff]")
# A piece ends after white space or a full-width mark if one is in reach: words never span those.
_PIECES = re.compile(rf"(?s).{{1,{PIECE}}}(?:(?<=[\s，。！？；、：])|\Z)|.{{1,{PIECE}}}")
_UNSPACED_CHARACTER = re.compile(f"[{UNSPACED}]")
_CHARACTER_OR_RUN = re.compile(f"[{UNSPACED}]|[^\\s{UNSPACED}]+")


def base_language(language: str) -> str:
    """The primary subtag in lower case: `zh-Hant` and `zh_TW` give `zh`."""
    return language.replace("_", "-").partition("-")[0].lower()


class Document:
    """A text and what the rules ask of it, each taken at first use and only once.

    `words` may be given where another segmentation shall be judged (a comparison with another tool's), `word_count`
    where it is known already.
    """

    def __init__(self, text: str, language: str, words: list[str] | None = None, word_count: int | None = None) -> None:
        self.text = text
        self.language = language
        self._given = words
        self._word_count = word_count

    @cached_property
    def codes(self) -> NDArray[np.uint32]:
        """The code points, uint32 [characters]."""
        return scan.codes(self.text)

    def characters_of(self, bits: int, runs: bool = False) -> int:
        """How many characters are of one of the classes (scan.SYMBOL, ...); with `runs`, the same one again and again
        (a ruler) counted once."""
        return int(scan.count(self.codes, character_classes(), bits, runs))

    @property
    def folded_letters(self) -> NDArray[np.uint32]:
        """The letters alone, in lower case as scan.folds has it; uint32 [letters]."""
        letters: NDArray[np.uint32] = scan.folded_letters(self.codes, character_classes(), scan.folds())
        return letters

    @property
    def dotted(self) -> NDArray[np.int64]:
        """Where the stretches without white space that hold a dot inside start and end; int64 [stretches, 2]."""
        spans: NDArray[np.int64] = scan.dotted(self.codes, character_classes())
        return spans

    @cached_property
    def split_lines(self) -> scan.Lines:
        """All lines, blank ones too, as str.splitlines divides the text, measured by scan.lines; int32 [lines, 12]."""
        return scan.lines(self.codes, character_classes(), True)

    @cached_property
    def line_table(self) -> scan.Lines:
        """The lines between line feeds that are not blank, measured by scan.lines; int32 [lines, 12]."""
        lines = self._fed_lines
        return lines[lines[:, scan.FIRST] < lines[:, scan.LAST]]

    @property
    def lines(self) -> list[str]:
        """The lines that are not blank, unstripped, in order."""
        return [self.text[start:end] for start, end in self.line_table[:, : scan.END + 1].tolist()]

    @cached_property
    def _fed_lines(self) -> scan.Lines:
        """The lines between line feeds, blank ones too, measured by scan.lines; int32 [lines, 12]."""
        if scan.fed_alone(self.codes, self.split_lines):
            return self.split_lines
        return scan.lines(self.codes, character_classes(), False)

    def repeated(self, lines: scan.Lines) -> tuple[int, int]:
        """How many of `lines` (rows of a table) occurred before in the text, and the characters in them."""
        return scan.repeats(self.codes, lines[:, scan.START], lines[:, scan.END])

    @property
    def filled_lines(self) -> scan.Lines:
        """The lines between line feeds that are not empty; those of white space alone are; int32 [lines, 12]."""
        lines = self._fed_lines
        return lines[lines[:, scan.START] < lines[:, scan.END]]

    @property
    def paragraphs(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Where the stretches of text between blank lines start and end; int64 [paragraphs] each, at least one."""
        spans: tuple[NDArray[np.int64], NDArray[np.int64]] = scan.paragraphs(self.codes, character_classes())
        return spans

    @cached_property
    def finished_lines(self) -> int:
        """How many lines end as a sentence does, closing quotes and brackets aside."""
        return int(self.line_table[:, scan.FINISHED].sum())

    @cached_property
    def sentences(self) -> int:
        """How many sentences there are; a line that does not end as a sentence does counts for one more."""
        return scan.sentence_ends(self.codes, character_classes()) + len(self.line_table) - self.finished_lines

    @cached_property
    def _spans(self) -> tuple[NDArray[np.uint32], NDArray[np.int64], NDArray[np.int64]]:
        """Code points, and where in them each word starts and ends."""
        if self._given is not None:
            ends = np.cumsum([0, *map(len, self._given)])
            return scan.codes("".join(self._given)), ends[:-1], ends[1:]
        language = base_language(self.language)
        if language in CHINESE:
            return self.codes, *_chinese_spans(self.codes)
        starts = _dictionary_starts(self.text) if language in SOUTHEAST_ASIAN else np.empty(0, np.bool_)
        return self.codes, *scan.word_spans(self.codes, character_classes(), starts)

    @property
    def words(self) -> list[str]:
        """The words in order, punctuation marks among them, white space not."""
        if self._given is not None:
            return self._given
        _, starts, ends = self._spans
        return [self.text[start:end] for start, end in zip(starts.tolist(), ends.tolist(), strict=True)]

    @property
    def word_count(self) -> int:
        """How many `words` there are."""
        return len(self._spans[1]) if self._word_count is None else self._word_count

    @property
    def words_by_line(self) -> NDArray[np.int64]:
        """How many words each of `split_lines` holds; int64 [lines]. No word spans two."""
        counts: NDArray[np.int64] = scan.words_by_line(self.split_lines, self._spans[1])
        return counts

    def words_cut(self, cuts: NDArray[np.int64]) -> NDArray[np.int64]:
        """How many words each of `split_lines` loses if `cuts` (spans in order, int64 [cuts, 2]) are cut out, -1 if
        that may change other words of the line; int64 [lines]."""
        gone: NDArray[np.int64] = scan.words_cut(
            self.codes, character_classes(), *self._spans[1:], self.split_lines, cuts
        )
        return gone

    @cached_property
    def _numbered(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        return scan.number(*self._spans)

    @property
    def word_ids(self) -> NDArray[np.int64]:
        """Each word's index in `distinct_words`; int64 [words]."""
        return self._numbered[0]

    @cached_property
    def _distinct(self) -> tuple[NDArray[np.uint32], NDArray[np.int64], NDArray[np.int64]]:
        codes, starts, ends = self._spans
        firsts = self._numbered[1]
        return codes, starts[firsts], ends[firsts]

    @property
    def distinct_words(self) -> list[str]:
        """Each word once, in order of its first occurrence."""
        return list(dict.fromkeys(self.words))

    @cached_property
    def word_counts(self) -> NDArray[np.int64]:
        """How often each of `distinct_words` occurs; int64 [distinct words]."""
        return np.bincount(self.word_ids, minlength=len(self._numbered[1]))

    @cached_property
    def word_lengths(self) -> NDArray[np.int64]:
        """The characters of each of `distinct_words`; int64 [distinct words]."""
        _, starts, ends = self._distinct
        return ends - starts

    @property
    def word_totals(self) -> tuple[int, int, int]:
        """How many words hold a letter or digit, how many characters these have, and how many words hold a letter."""
        totals: tuple[int, int, int] = scan.word_totals(*self._distinct, self.word_counts, character_classes())
        return totals

    def words_among(self, wanted: frozenset[str]) -> int:
        """How many of `wanted` are among the words, in any case."""
        return scan.wanted_words(*self._distinct, wanted)


def split_words(text: str, language: str) -> list[str]:
    """The words of `text` as the module docstring defines them, white space left out."""
    return Document(text, language).words


@cache
def character_classes() -> NDArray[np.uint32]:
    """The class of every character, uint32 [0x110000]; made once in each worker."""
    return scan.classes(
        {
            scan.HAN: _ranges_in(_HAN),
            scan.HIRAGANA: _ranges_in(_HIRAGANA),
            scan.KATAKANA: _ranges_in(_KATAKANA),
            scan.SOUTHEAST: _ranges_in(_SOUTHEAST),
            scan.RULER: _each("-=*.~#+"),
            scan.JOINER: _each("'’.-"),
            scan.INNER: _each("#%&+-._"),
            scan.TERMINAL: _ranges_in(_TERMINAL),
            scan.TERMINAL_UNSPACED: _each(_TERMINAL_UNSPACED),
            scan.CLOSING: _each(_CLOSING),
            scan.TRAILING: _each(CLOSING_OR_SPACE),
        }
    )


def _each(characters: str) -> list[range]:
    return [range(ord(character), ord(character) + 1) for character in characters]


def _ranges_in(inside: str) -> list[range]:
    """The inside of a regular expression's class (`a-z_`) as ranges of code points."""
    return [range(ord(part[0]), ord(part[-1]) + 1) for part in re.findall("(?s).-.|.", inside)]


def normalise(text: str) -> str:
    """The text as exact deduplication compares it (dots.llm1 report, step 4).

    Punctuation is deleted, then NFD, then lower case, then each run of white space is one space and none
    stands at the ends. "Punctuation" is the Unicode categories P and S: markup and list marks are of both
    kinds (`*` is P, `|` and `►` are S). Invisible characters go too (format characters, controls that are
    not white space), and lone surrogates, so that the result can always be encoded. Accents stay: the report
    says NFD and no more. Deleting, not blanking, makes `你好，世界` and `你好世界` one text, and `don't` and
    `dont`.
    """
    if text.isascii():
        text = text.translate(_ascii_deletions())
    else:
        codes = scan.codes(text)
        text = unicodedata.normalize("NFD", codes[_kept()[codes]].tobytes().decode("utf-32-le"))
    return " ".join(text.lower().split())


def finished_share(text: str) -> float:
    """The share of the characters, white space around lines aside, of lines that end as a sentence does; 0 for none."""
    lines = [line.strip() for line in text.split("\n")]
    ends = _terminal()
    finished = sum(len(line) for line in lines if line.rstrip(CLOSING_OR_SPACE)[-1:] in ends)
    return finished / max(1, sum(map(len, lines)))


@cache
def _terminal() -> frozenset[str]:
    return frozenset(chr(code) for codes in _ranges_in(_TERMINAL) for code in codes)


def shingle_words(text: str, language: str) -> list[str]:
    """The words from which fuzzy deduplication makes its 5-grams: those of `normalise(text)`.

    Chinese is segmented; in other scripts without spaces each character is a word; the rest splits at spaces.
    """
    text = normalise(text)
    if base_language(language) in CHINESE:
        return [word for word in _chinese_words(text) if not word.isspace()]
    if text.isascii() or not _UNSPACED_CHARACTER.search(text):
        return text.split()
    return _CHARACTER_OR_RUN.findall(text)


def _chinese_words(text: str) -> list[str]:
    """jieba's words of a text without lone surrogates, white space among them."""
    import rjieba

    words: list[str] = []
    for piece in [text] if len(text) <= PIECE else _PIECES.findall(text):
        words += rjieba.cut(piece)
    return words


def _chinese_spans(codes: scan.Codes) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Where jieba's words start and end, white space left out, URLs and rulers whole; int64 [words] each."""
    text, starts, ends, is_run = scan.runs(codes, character_classes())
    # One join takes less time than the lengths of many words.
    joined = scan.codes("\0".join(_chinese_words(scan.text(text))))
    spans: tuple[NDArray[np.int64], NDArray[np.int64]] = scan.divided(joined, starts, ends, is_run)
    return spans


def _dictionary_starts(text: str) -> NDArray[np.bool_]:
    """Which characters of a text begin a word for ICU; bool [characters]."""
    from icu4py.breakers import WordBreaker

    starts = np.zeros(len(text), np.bool_)
    # The dictionary goes by the script; the locale says nothing there.
    segments = WordBreaker(_NO_SINGLE_UNIT.sub("\ufffd", text), "th").segments()
    starts[np.fromiter((start for start, _ in segments), np.int64)] = True
    return starts


# The tables below are made from Python's Unicode data at first use; beyond these planes nothing is assigned
# to the categories they ask for.
_PLANES = (range(0x20000), range(0xE0000, 0xE0200))


def _ranges(*categories: str, but: str = "") -> str:
    """The characters of the given categories (`L`, `Mn`), as the inside of a regular expression's class."""
    left_out = re.compile(f"[{but}]") if but else None
    spans: list[list[int]] = []
    for code in (code for plane in _PLANES for code in plane):
        character = chr(code)
        if not unicodedata.category(character).startswith(categories) or (left_out and left_out.match(character)):
            continue
        if spans and spans[-1][1] == code - 1:
            spans[-1][1] = code
        else:
            spans.append([code, code])
    return "".join(f"{re.escape(chr(first))}-{re.escape(chr(last))}" for first, last in spans)


@lru_cache(maxsize=1)
def _stripped() -> re.Pattern[str]:
    return re.compile(f"[{_ranges('P', 'S', 'Cf', 'Cc', but=chr(92) + 's')}\ud800-\udfff]+")


@cache
def _kept() -> NDArray[np.bool_]:
    """Of every code point, whether `normalise` keeps it; bool [0x110000]."""
    kept = np.zeros(0x110000, np.bool_)
    kept[scan.codes(_stripped().sub("", "".join(map(chr, range(0x110000)))))] = True
    return kept


@lru_cache(maxsize=1)
def _ascii_deletions() -> dict[int, None]:
    return {code: None for code in range(128) if _stripped().match(chr(code))}
