"""A text as an array of code points, and the compiled loops that read it: words, lines, phrases, repeated n-grams.

Every loop reads the text once, in linear time for any content, and compares what it counts as equal character by
character: no result rests on a hash alone. Without the compiler (numba) nothing here runs; there is no slow twin.
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterable, Mapping
from functools import cache
from typing import NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from dots_data import automaton

Codes = NDArray[np.uint32]
Classes = NDArray[np.uint32]
Ints = NDArray[np.int64]
Lines = NDArray[np.int32]

# What a character is, as bits.
SPACE, LETTER, HAN, HIRAGANA, KATAKANA, SOUTHEAST, MARK, RULER = (1 << bit for bit in range(8))
JOINER, ALPHA, ALNUM, BREAK, TERMINAL, TERMINAL_UNSPACED, CLOSING, TRAILING = (1 << bit for bit in range(8, 16))
UPPER, SYMBOL, BROKEN, INNER = (1 << bit for bit in range(16, 20))
UNSPACED = HAN | HIRAGANA | KATAKANA | SOUTHEAST

# Columns of `lines`.
START, END, FIRST, LAST, CHARACTERS, WORDS, LONGEST, FINISHED, TERMINATED, LETTERS, CAPITALS, NUMBERS = range(12)

# Equal strings are found through hashes with this seed, so that no page can be made to collide; no result shows it.
_SEED = np.uint64(int.from_bytes(os.urandom(8), "little") | 1)

# Beyond these planes no letter, digit, mark or punctuation is assigned.
_PLANES = (range(0x34000), range(0xE0000, 0xE0200))


def codes(text: str) -> Codes:
    """The code points of a text, uint32 [characters]; lone surrogates too."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)


def text(codes: Codes) -> str:
    """The text of code points: what `codes` was made of."""
    return codes.tobytes().decode("utf-32-le", "surrogatepass")


def classes(bits: Mapping[int, Iterable[range]]) -> Classes:
    """The class of every code point, uint32 [0x110000]: Unicode's properties, and `bits` as they are given.

    LETTER is what a word is made of (letters, numbers, marks, `_`), unless the character is of an UNSPACED script.
    SYMBOL: punctuation and symbols. BROKEN: controls that are no white space, surrogates, private use, U+FFFD.
    """
    table = np.zeros(0x110000, np.uint32)
    table[0xF0000:] = BROKEN
    for plane in _PLANES:
        for code in plane:
            category = unicodedata.category(chr(code))
            if category[0] == "L":
                table[code] = LETTER | ALPHA | ALNUM | (UPPER if category == "Lu" else 0)
            elif category[0] == "N":
                table[code] = LETTER | ALNUM
            elif category[0] == "M":
                table[code] = LETTER | MARK
            elif category[0] in "PS":
                table[code] = BROKEN if code == 0xFFFD else SYMBOL
            elif category in ("Cc", "Cs", "Co"):
                table[code] = BROKEN
    table[ord("_")] = LETTER | SYMBOL
    for code in range(0x3001):
        if chr(code).isspace():
            table[code] = SPACE
            if len(f"a{chr(code)}a".splitlines()) > 1:
                table[code] |= BREAK
    for bit, spans in bits.items():
        for span in spans:
            table[span.start : span.stop] |= np.uint32(bit)
    table[(table & UNSPACED) > 0] &= np.uint32(0xFFFFFFFF ^ LETTER)
    return table


@numba.njit(cache=True, nogil=True)
def word_spans(
    codes: Codes, classes: Classes, begins: NDArray[np.bool_]
) -> tuple[Ints, Ints]:  # pragma: no cover (compiled)
    """Where each word starts and ends: the words that the docstring of dots_data.text describes.

    begins: which characters begin a word in the scripts of SOUTHEAST, bool [characters], or empty: there each base
    character does. Where it is given, a zero-width space parts words too.
    """
    size, known = len(codes), len(begins) > 0
    starts, ends = np.empty(size, np.int64), np.empty(size, np.int64)
    count, i = 0, 0
    while i < size:
        kind = classes[codes[i]]
        if kind & SPACE or (known and codes[i] == 0x200B):
            i += 1
            continue
        j = i + 1
        if kind & (HAN | HIRAGANA | KATAKANA):
            script = kind & (HAN | HIRAGANA | KATAKANA)
            while j < size and j < i + 4 and classes[codes[j]] & script:
                j += 1
        elif kind & SOUTHEAST:
            while j < size and (
                classes[codes[j]] & MARK or (known and not begins[j] and classes[codes[j]] & SOUTHEAST)
            ):
                j += 1
        elif _is_url(codes, classes, i):
            while j < size and not classes[codes[j]] & SPACE:
                j += 1
        elif kind & LETTER:
            while True:
                while j < size and classes[codes[j]] & LETTER:
                    j += 1
                if j + 1 < size and classes[codes[j]] & JOINER and classes[codes[j + 1]] & LETTER:
                    j += 2
                else:
                    break
        elif kind & RULER:
            while j < size and classes[codes[j]] & RULER:
                j += 1
        starts[count], ends[count] = i, j
        count += 1
        i = j
    return starts[:count].copy(), ends[:count].copy()


@numba.njit(cache=True, nogil=True)
def _is_url(codes: Codes, classes: Classes, i: int) -> bool:  # pragma: no cover (compiled)
    """Whether `http://`, `https://` or `www.`, and a character that is no space, stand at `i`."""
    end = _scheme_end(codes, i)
    return i < end < len(codes) and not classes[codes[end]] & SPACE


@numba.njit(cache=True, nogil=True)
def _scheme_end(codes: Codes, i: int) -> int:  # pragma: no cover (compiled)
    """Where `http://`, `https://` or `www.` that stands at `i` ends; `i` if none does."""
    left = len(codes) - i
    if left >= 4 and codes[i] == 119 and codes[i + 1] == 119 and codes[i + 2] == 119 and codes[i + 3] == 46:
        return i + 4
    if left < 7 or not (codes[i] == 104 and codes[i + 1] == 116 and codes[i + 2] == 116 and codes[i + 3] == 112):
        return i
    j = i + (5 if codes[i + 4] == 115 else 4)
    if len(codes) - j < 3 or not (codes[j] == 58 and codes[j + 1] == 47 and codes[j + 2] == 47):
        return i
    return j + 3


@numba.njit(cache=True, nogil=True)
def _whole_end(codes: Codes, classes: Classes, i: int) -> int:  # pragma: no cover (compiled)
    """Where a URL, or a ruler of three characters or more, that begins at `i` ends; `i` if none does."""
    code = codes[i]
    if not classes[code] & RULER and code != 95 and code != 104 and code != 119:
        return i
    url = _scheme_end(codes, i)
    j = url
    while url > i and j < len(codes) and 32 < codes[j] < 127:
        j += 1
    if j > url:
        return j
    j = i
    while j < len(codes) and (classes[codes[j]] & RULER or codes[j] == 95):
        j += 1
    return j if j >= i + 3 else i


@numba.njit(cache=True, nogil=True)
def runs(codes: Codes, classes: Classes) -> tuple[Codes, Ints, Ints, NDArray[np.bool_]]:  # pragma: no cover (compiled)
    """What of a Chinese text takes a segmenter, and what are words without one.

    Returns the runs that take one, a space behind each, with U+FFFD for NUL and lone surrogates, uint32 [characters];
    and where each run and each word that is none starts and ends, int64 [runs and words] each, and whether it is a
    run, bool [runs and words]. Words are URLs, rulers, marks, single characters, and runs of ASCII letters and digits
    alone: no word of jieba's goes on over a mark, nor has its dictionary a word of ASCII letters and digits.
    """
    size, total = 0, len(codes)
    text, is_run = np.empty(2 * total, np.uint32), np.empty(total, np.bool_)
    starts, ends = np.empty(total, np.int64), np.empty(total, np.int64)
    count, i = 0, 0
    while i < total:
        if classes[codes[i]] & SPACE:
            i += 1
            continue
        starts[count], j, simple, begin = i, _whole_end(codes, classes, i), True, size
        if j == i and _parts_chinese(classes[codes[i]]):
            j += 1
        elif j == i:
            while True:
                code = codes[j]
                simple &= code < 128 and classes[code] & ALNUM > 0
                text[size] = 0xFFFD if code == 0 or 0xD800 <= code < 0xE000 else code
                size, j = size + 1, j + 1
                if j == total or _parts_chinese(classes[codes[j]]) or _whole_end(codes, classes, j) > j:
                    break
            simple |= j == i + 1
            text[size] = 32
            size = begin if simple else size + 1
        ends[count], is_run[count] = j, not simple
        count, i = count + 1, j
    return text[:size].copy(), starts[:count].copy(), ends[:count].copy(), is_run[:count].copy()


@numba.njit(cache=True, nogil=True)
def _parts_chinese(kind: int) -> bool:  # pragma: no cover (compiled)
    """Whether a character is white space, or a mark that jieba takes for a word by itself."""
    return kind & (SPACE | SYMBOL) > 0 and not kind & INNER


@numba.njit(cache=True, nogil=True)
def divided(
    joined: Codes, starts: Ints, ends: Ints, is_run: NDArray[np.bool_]
) -> tuple[Ints, Ints]:  # pragma: no cover (compiled)
    """Where each word starts and ends: what `runs` returned, each run divided into its words; int64 [words] each.

    joined: the words of the text of `runs` in order, the spaces among them, a NUL between two.
    """
    most = len(starts) + len(joined)
    word_starts, word_ends = np.empty(most, np.int64), np.empty(most, np.int64)
    count, i = 0, 0
    for k in range(len(starts)):
        if not is_run[k]:
            word_starts[count], word_ends[count] = starts[k], ends[k]
            count += 1
            continue
        place = starts[k]
        while i < len(joined) and joined[i] != 32:
            word_starts[count] = place
            while i < len(joined) and joined[i] != 0:
                place, i = place + 1, i + 1
            word_ends[count] = place
            count, i = count + 1, i + 1
        # Behind the space and the NUL after it.
        i += 2
    return word_starts[:count].copy(), word_ends[:count].copy()


@numba.njit(cache=True, nogil=True)
def _hash(codes: Codes, start: int, end: int, seed: np.uint64) -> np.uint64:  # pragma: no cover (compiled)
    value = seed
    for i in range(start, end):
        value = (value ^ np.uint64(codes[i])) * np.uint64(0x9E3779B97F4A7C15)
        value ^= value >> np.uint64(32)
    return value


@numba.njit(cache=True, nogil=True)
def _number(
    codes: Codes, starts: Ints | Lines, ends: Ints | Lines, seed: np.uint64
) -> tuple[Ints, Ints]:  # pragma: no cover (compiled)
    total, size = len(starts), 16
    while size < 2 * total:
        size *= 2
    slots, hashes = np.full(size, -1, np.int32), np.empty(total, np.uint64)
    ids, firsts = np.empty(total, np.int64), np.empty(total, np.int64)
    count = 0
    for i in range(total):
        value = _hash(codes, starts[i], ends[i], seed)
        slot = value & np.uint64(size - 1)
        while True:
            known = slots[slot]
            if known < 0:
                slots[slot], hashes[count], firsts[count] = count, value, i
                ids[i] = count
                count += 1
                break
            if hashes[known] == value and _equal(codes, starts[i], ends[i], starts[firsts[known]], ends[firsts[known]]):
                ids[i] = known
                break
            slot = (slot + np.uint64(1)) & np.uint64(size - 1)
    return ids, firsts[:count].copy()


@numba.njit(cache=True, nogil=True)
def _equal(codes: Codes, start: int, end: int, other: int, other_end: int) -> bool:  # pragma: no cover (compiled)
    if end - start != other_end - other:
        return False
    for i in range(end - start):  # noqa: SIM110 (the compiler knows no all())
        if codes[start + i] != codes[other + i]:
            return False
    return True


def number(codes: Codes, starts: Ints | Lines, ends: Ints | Lines) -> tuple[Ints, Ints]:
    """Each span's number among the different spans, dense from 0 in order of first occurrence, int64 [spans], and
    the first span of each, int64 [different spans]."""
    ids, firsts = _number(codes, starts, ends, _SEED)
    return ids, firsts


@numba.njit(cache=True, nogil=True)
def _repeats(
    codes: Codes, starts: Ints | Lines, ends: Ints | Lines, seed: np.uint64
) -> tuple[int, int]:  # pragma: no cover (compiled)
    firsts = _number(codes, starts, ends, seed)[1]
    characters = 0
    for i in range(len(starts)):
        characters += ends[i] - starts[i]
    for first in firsts:
        characters -= ends[first] - starts[first]
    return len(starts) - len(firsts), characters


def repeats(codes: Codes, starts: Ints | Lines, ends: Ints | Lines) -> tuple[int, int]:
    """How many spans are equal to one before them, and the characters in these."""
    count, characters = _repeats(codes, starts, ends, _SEED)
    return int(count), int(characters)


@numba.njit(cache=True, nogil=True)
def paragraphs(codes: Codes, classes: Classes) -> tuple[Ints, Ints]:  # pragma: no cover (compiled)
    """Where the stretches between two line feeds or more start and end, white space around the text left out; int64
    [paragraphs] each. A text of white space alone has an empty one."""
    first, last = 0, len(codes)
    while first < last and classes[codes[first]] & SPACE:
        first += 1
    while last > first and classes[codes[last - 1]] & SPACE:
        last -= 1
    starts, ends = np.empty(last - first + 1, np.int64), np.empty(last - first + 1, np.int64)
    count, i = 1, first
    starts[0] = first
    while i + 1 < last:
        if codes[i] == 10 and codes[i + 1] == 10:
            ends[count - 1] = i
            while codes[i] == 10:
                i += 1
            starts[count] = i
            count += 1
        i += 1
    ends[count - 1] = last
    return starts[:count].copy(), ends[:count].copy()


@numba.njit(cache=True, nogil=True)
def words_by_line(table: Lines, starts: Ints) -> Ints:  # pragma: no cover (compiled)
    """How many of the words that start at `starts`, in order, each of `lines` holds; int64 [lines]."""
    counts, line = np.zeros(len(table), np.int64), 0
    for start in starts:
        while line + 1 < len(table) and table[line + 1, START] <= start:
            line += 1
        counts[line] += 1
    return counts


@numba.njit(cache=True, nogil=True)
def words_cut(
    codes: Codes, classes: Classes, starts: Ints, ends: Ints, table: Lines, cuts: Ints
) -> Ints:  # pragma: no cover (compiled)
    """How many words each of `lines` loses by `cuts`, spans in order inside of lines, int64 [cuts, 2]; -1 where other
    words may change; int64 [lines].

    They stay as they are if no word goes on over an end of the cut, and a character that always parts words is on one
    side of it.
    """
    gone, line, first = np.zeros(len(table), np.int64), 0, 0
    while first < len(cuts):
        start, end = cuts[first]
        first += 1
        # Cuts with nothing between them are one.
        while first < len(cuts) and cuts[first, 0] == end:
            end = cuts[first, 1]
            first += 1
        while table[line, END] < end:
            line += 1
        begin, behind = np.searchsorted(starts, start), np.searchsorted(starts, end)
        split = (begin > 0 and ends[begin - 1] > start) or (behind > 0 and ends[behind - 1] > end)
        parted = start == 0 or _parts(codes[start - 1], classes) or end == len(codes) or _parts(codes[end], classes)
        if split or not parted or gone[line] < 0:
            gone[line] = -1
        else:
            gone[line] += behind - begin
    return gone


@numba.njit(cache=True, nogil=True)
def _parts(code: int, classes: Classes) -> bool:  # pragma: no cover (compiled)
    """Whether the character is white space, or a mark that is a word by itself in any language and begins no URL."""
    kind = classes[code]
    inside = kind & (RULER | JOINER | UNSPACED) or code in (37, 38, 47, 58, 95)
    return kind & SPACE > 0 or (kind & SYMBOL > 0 and not inside)


@numba.njit(cache=True, nogil=True)
def bullets_and_ellipses(codes: Codes, table: Lines, marks: Codes) -> tuple[int, int]:  # pragma: no cover (compiled)
    """How many lines begin with one of `marks`, and how many end with an ellipsis, white space aside."""
    bullets, ellipses = 0, 0
    for line in range(len(table)):
        first, last = table[line, FIRST], table[line, LAST]
        if first == last:
            continue
        for mark in marks:
            bullets += codes[first] == mark
        three = last - first >= 3 and codes[last - 1] == 46 and codes[last - 2] == 46 and codes[last - 3] == 46
        ellipses += three or codes[last - 1] == 0x2026
    return bullets, ellipses


@numba.njit(cache=True, nogil=True)
def fed_alone(codes: Codes, table: Lines) -> bool:  # pragma: no cover (compiled)
    """Whether nothing but a line feed ends any of `lines`, the end of the text aside."""
    other = 0
    for line in range(len(table)):
        other += table[line, END] < len(codes) and codes[table[line, END]] != 10
    return other == 0


@numba.njit(cache=True, nogil=True)
def word_totals(
    codes: Codes, starts: Ints, ends: Ints, counts: Ints, classes: Classes
) -> tuple[int, int, int]:  # pragma: no cover (compiled)
    """Of spans that occur `counts` times: how many hold a letter or digit, the characters of these, and how many
    hold a letter."""
    words, characters, alphabetic = 0, 0, 0
    for i in range(len(starts)):
        kinds = np.uint32(0)
        for j in range(starts[i], ends[i]):
            kinds |= classes[codes[j]]
        if kinds & ALNUM:
            words += counts[i]
            characters += counts[i] * (ends[i] - starts[i])
        if kinds & ALPHA:
            alphabetic += counts[i]
    return words, characters, alphabetic


@numba.njit(cache=True, nogil=True)
def cut(codes: Codes, table: Lines, cuts: Ints) -> tuple[Codes, Lines]:  # pragma: no cover (compiled)
    """The text without `cuts`, spans in order inside of lines, uint32 [characters], and the START, END, FIRST and LAST
    of each of `lines` in it, int32 [lines, 4]."""
    left, moved = np.empty(len(codes), np.uint32), table[:, : LAST + 1].copy()
    size, place, k = 0, 0, 0
    for line in range(len(table)):
        moved[line, START] -= place - size
        moved[line, FIRST] -= place - size
        while k < len(cuts) and cuts[k, 0] < table[line, END]:
            length = cuts[k, 0] - place
            left[size : size + length] = codes[place : cuts[k, 0]]
            size, place, k = size + length, cuts[k, 1], k + 1
        moved[line, LAST] -= place - size
        moved[line, END] -= place - size
    left[size : size + len(codes) - place] = codes[place:]
    return left[: size + len(codes) - place].copy(), moved


@numba.njit(cache=True, nogil=True)
def without_lines(
    codes: Codes, table: Lines, blank: NDArray[np.bool_], gone: NDArray[np.bool_]
) -> tuple[Codes, Codes]:  # pragma: no cover (compiled)
    """The lines that are neither `gone` nor `blank`, white space around them off, a line feed between two; once with
    an empty line where blank ones were, and once without any empty line; uint32 [characters] each."""
    apart, close = np.empty(len(codes) + len(table), np.uint32), np.empty(len(codes) + len(table), np.uint32)
    size, close_size, first, empty = 0, 0, True, True
    for line in range(len(table)):
        # Of blank lines one is kept, and none before the first that is not.
        if (blank[line] and empty) or (gone[line] and not blank[line]):
            continue
        if not first:
            apart[size] = 10
            size += 1
        first, empty = False, blank[line] or table[line, FIRST] == table[line, LAST]
        if empty:
            continue
        if close_size:
            close[close_size] = 10
            close_size += 1
        length = table[line, LAST] - table[line, FIRST]
        apart[size : size + length] = codes[table[line, FIRST] : table[line, LAST]]
        close[close_size : close_size + length] = codes[table[line, FIRST] : table[line, LAST]]
        size, close_size = size + length, close_size + length
    return apart[:size].copy(), close[:close_size].copy()


@numba.njit(cache=True, nogil=True)
def lines(codes: Codes, classes: Classes, every_break: bool) -> Lines:  # pragma: no cover (compiled)
    """The lines, as str.splitlines divides the text (`every_break`) or line feeds alone do; int32 [lines, 12].

    START, END: the line without its break. FIRST, LAST: without white space around it. CHARACTERS: those that are
    not white space. WORDS: what white space parts, and each character of a script without spaces. LONGEST: the
    characters of the longest of these. FINISHED: 1 if the line ends as a sentence does, closing marks and white
    space aside. TERMINATED: 1 if its last character is a mark that ends a sentence. LETTERS, CAPITALS, NUMBERS:
    characters of these kinds.
    """
    size, count = len(codes), 1
    for i in range(size):
        count += codes[i] == 10 or (every_break and classes[codes[i]] & BREAK > 0)
    table = np.empty((count, 12), np.int32)
    line, i = 0, 0
    while i < size:
        start, first, last, characters, words, longest, run = i, -1, i, 0, 0, 0, 0
        letters, capitals, numbers, kind = 0, 0, 0, np.uint32(0)
        while i < size:
            kind_here = classes[codes[i]]
            if codes[i] == 10 or (every_break and kind_here & BREAK):
                break
            kind = kind_here
            if kind & SPACE:
                run = 0
            else:
                if first < 0:
                    first = i
                last = i + 1
                characters += 1
                letters += kind & ALPHA > 0
                capitals += kind & UPPER > 0
                numbers += kind & (ALPHA | ALNUM) == ALNUM
                words += run == 0 or kind & UNSPACED > 0
                run = 0 if kind & UNSPACED else run + 1
                longest = max(longest, run, 1)
            i += 1
        if first < 0:
            first = last = i
        j = i - 1
        while j >= start and classes[codes[j]] & TRAILING:
            j -= 1
        row = table[line]
        row[START], row[END], row[FIRST], row[LAST] = start, i, first, last
        row[CHARACTERS], row[WORDS], row[LONGEST] = characters, words, longest
        row[FINISHED] = j >= start and classes[codes[j]] & TERMINAL > 0
        row[TERMINATED] = i > start and kind & TERMINAL > 0
        row[LETTERS], row[CAPITALS], row[NUMBERS] = letters, capitals, numbers
        line += 1
        # A carriage return and a line feed are one break.
        if every_break and i + 1 < size and codes[i] == 13 and codes[i + 1] == 10:
            i += 1
        i += 1
    return table[:line].copy()


@numba.njit(cache=True, nogil=True)
def occurrences(codes: Codes, phrase: Codes) -> int:  # pragma: no cover (compiled)
    """How often a phrase without capitals occurs, ASCII letters in any case; none counts inside another."""
    found, i = 0, 0
    while i + len(phrase) <= len(codes):
        j = 0
        while j < len(phrase) and (codes[i + j] + 32 if 64 < codes[i + j] < 91 else codes[i + j]) == phrase[j]:
            j += 1
        found += j == len(phrase)
        i += j if j == len(phrase) else 1
    return found


@numba.njit(cache=True, nogil=True)
def sentence_ends(codes: Codes, classes: Classes) -> int:  # pragma: no cover (compiled)
    """How often a sentence ends: after a mark of scripts without spaces, or after another and before a space."""
    size, count, i = len(codes), 0, 0
    while i < size:
        kind = classes[codes[i]]
        j = i + 1
        if kind & TERMINAL_UNSPACED:
            while j < size and classes[codes[j]] & TERMINAL_UNSPACED:
                j += 1
        if kind & TERMINAL:
            while j < size and classes[codes[j]] & CLOSING:
                j += 1
            if kind & TERMINAL_UNSPACED or j == size or classes[codes[j]] & SPACE:
                count += 1
                i = j
                continue
        i += 1
    return count


@numba.njit(cache=True, nogil=True)
def count(codes: Codes, classes: Classes, bits: int, runs: bool) -> int:  # pragma: no cover (compiled)
    """How many characters are of one of the classes `bits`; with `runs`, those that repeat the one before left out."""
    found, before = 0, np.uint32(0xFFFFFFFF)
    for code in codes:
        if classes[code] & bits and not (runs and code == before):
            found += 1
        before = code
    return found


@numba.njit(cache=True, nogil=True)
def folded_letters(codes: Codes, classes: Classes, fold: Codes) -> Codes:  # pragma: no cover (compiled)
    """The letters alone, in lower case as `folds` has it; uint32 [letters]."""
    letters, count = np.empty(len(codes), np.uint32), 0
    for code in codes:
        if classes[code] & ALPHA:
            letters[count] = fold[code]
            count += 1
    return letters[:count]


@numba.njit(cache=True, nogil=True)
def dotted(codes: Codes, classes: Classes) -> Ints:  # pragma: no cover (compiled)
    """Where the stretches without white space that hold a dot inside start and end; int64 [stretches, 2]."""
    spans, count, i, last = np.empty((len(codes) // 3 + 1, 2), np.int64), 0, 1, 0
    while i + 1 < len(codes):
        if codes[i] != 46 or classes[codes[i - 1]] & SPACE or classes[codes[i + 1]] & SPACE:
            i += 1
            continue
        start, end = i - 1, i + 2
        while start > last and not classes[codes[start - 1]] & SPACE:
            start -= 1
        while end < len(codes) and not classes[codes[end]] & SPACE:
            end += 1
        spans[count, 0], spans[count, 1] = start, end
        count += 1
        i = last = end
    return spans[:count].copy()


@numba.njit(cache=True, nogil=True)
def lone(codes: Codes, openings: Codes, closings: Codes) -> int:  # pragma: no cover (compiled)
    """How many more there are of one half of a pair than of the other, over all pairs; uint32 [pairs] each."""
    balance = np.zeros(len(openings), np.int64)
    for code in codes:
        # No bracket is a letter of ASCII, which most characters are.
        if 64 < code < 91 or 96 < code < 123:
            continue
        for pair in range(len(openings)):
            balance[pair] += int(code == openings[pair]) - int(code == closings[pair])
    return int(np.abs(balance).sum())


@numba.njit(cache=True, nogil=True)
def _repeated(letters: Codes, width: int, seed: np.uint64) -> int:  # pragma: no cover (compiled)
    total, size = len(letters), 64
    while size < 8 * (total // width):
        size *= 2
    slots, hashes = np.full(size, -1, np.int64), np.empty(total // width + 1, np.uint64)
    oldest = np.uint64(1)
    for _ in range(width):
        oldest *= seed
    repeated, known, fresh, i = 0, 0, True, 0
    value = np.uint64(0)
    while i + width <= total:
        if fresh:
            value = np.uint64(0)
            for j in range(i, i + width):
                value = value * seed + np.uint64(letters[j])
        # Blocks that have come to lie before the window are known from here on; of equal ones the first stays.
        while (known + 1) * width <= i:
            start = known * width
            block = np.uint64(0)
            for j in range(start, start + width):
                block = block * seed + np.uint64(letters[j])
            hashes[known] = block
            slot = (block * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(32) & np.uint64(size - 1)
            while slots[slot] >= 0:
                other = slots[slot] * width
                if hashes[slots[slot]] == block and _equal(letters, start, start + width, other, other + width):
                    break
                slot = (slot + np.uint64(1)) & np.uint64(size - 1)
            if slots[slot] < 0:
                slots[slot] = known
            known += 1
        slot = (value * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(32) & np.uint64(size - 1)
        length = 0
        while slots[slot] >= 0:
            start = slots[slot] * width
            if hashes[slots[slot]] == value and _equal(letters, i, i + width, start, start + width):
                length = width
                while i + length < total and letters[i + length] == letters[start + length]:
                    length += 1
                break
            slot = (slot + np.uint64(1)) & np.uint64(size - 1)
        fresh = length > 0
        repeated += length
        if length:
            i += length
        else:
            if i + width < total:
                value = value * seed + np.uint64(letters[i + width]) - oldest * np.uint64(letters[i])
            i += 1
    return repeated


def repeated(letters: Codes, width: int) -> int:
    """How many characters stand in stretches that were read before.

    The text is divided into blocks of `width` characters. It is read from the left: where a block that lies before
    begins again, the stretch counts as far as it goes on as it did there, and reading goes on behind it. So every
    repetition of `2 * width - 1` characters is found, and no shorter one than `width`.
    """
    return int(_repeated(letters, width, _SEED))


class Phrases(NamedTuple):
    """Phrases to look for, as an automaton (Aho and Corasick 1975): made by `phrases`, read by `kinds_in`."""

    symbols: NDArray[np.uint8]
    steps: NDArray[np.int32]
    found: Ints


def phrases(kinds: Iterable[Iterable[str]]) -> Phrases:
    """An automaton that finds each phrase of each kind; case is ignored, character by character."""
    groups = [[_folded(phrase) for phrase in group] for group in kinds]
    alphabet = {c: index + 1 for index, c in enumerate(sorted(set("".join(map("".join, groups)))))}
    symbols = np.zeros(0x110000, np.uint8)
    symbols[list(map(ord, alphabet))] = list(alphabet.values())
    symbols = symbols[folds()]
    as_symbols = ([[alphabet[character] for character in phrase] for phrase in group] for group in groups)
    return Phrases(symbols, *automaton.build(as_symbols, len(alphabet) + 1))


def _folded(phrase: str) -> str:
    return "".join(map(_fold, phrase))


def _fold(character: str) -> str:
    """The character in lower case, if that is one character; a sigma is a sigma."""
    lower = character.lower()
    return "σ" if lower == "ς" else lower if len(lower) == 1 else character


@numba.njit(cache=True, nogil=True)
def _kinds_in(
    codes: Codes, table: Lines, symbols: NDArray[np.uint8], steps: NDArray[np.int32], found: Ints
) -> Ints:  # pragma: no cover (compiled)
    kinds = np.zeros(len(table), np.int64)
    for line in range(len(table)):
        state, seen = 0, 0
        for i in range(table[line, FIRST], table[line, LAST]):
            state = steps[state, symbols[codes[i]]]
            seen |= found[state]
        kinds[line] = seen
    return kinds


def kinds_in(codes: Codes, table: Lines, wanted: Phrases) -> Ints:
    """For each of `lines`, a bit for each kind of phrase that it holds; int64 [lines]."""
    kinds: Ints = _kinds_in(codes, table, wanted.symbols, wanted.steps, wanted.found)
    return kinds


@cache
def folds() -> Codes:
    """The folded code point of each, uint32 [0x110000]."""
    table = np.arange(0x110000, dtype=np.uint32)
    for code in _PLANES[0]:
        table[code] = ord(_fold(chr(code)))
    return table


@numba.njit(cache=True, nogil=True)
def _wanted_words(
    codes: Codes, starts: Ints, ends: Ints, fold: Codes, wanted: Codes, wanted_ends: Ints
) -> int:  # pragma: no cover (compiled)
    total, longest = len(wanted_ends), 0
    for k in range(total):
        longest = max(longest, wanted_ends[k] - (wanted_ends[k - 1] if k else 0))
    seen = np.zeros(total, np.bool_)
    for i in range(len(starts)):
        size = ends[i] - starts[i]
        if size > longest:
            continue
        first = fold[codes[starts[i]]]
        begin = 0
        for k in range(total):
            if wanted_ends[k] - begin == size and wanted[begin] == first and not seen[k]:
                j = 1
                while j < size and fold[codes[starts[i] + j]] == wanted[begin + j]:
                    j += 1
                seen[k] = j == size
            begin = wanted_ends[k]
    return int(seen.sum())


@cache
def _joined(words: frozenset[str]) -> tuple[Codes, Ints]:
    folded = sorted(map(_folded, words))
    return codes("".join(folded)), np.cumsum(np.array([len(word) for word in folded], np.int64))


def wanted_words(text: Codes, starts: Ints, ends: Ints, words: frozenset[str]) -> int:
    """How many of `words` are among the spans, case ignored."""
    return int(_wanted_words(text, starts, ends, folds(), *_joined(words)))
