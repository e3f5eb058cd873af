"""The n-grams of a text that stand in a table of n-grams: compiled loops, linear in the text.

A text is read as units. A run of letters and digits is a word, whatever its case and accents; apostrophes and invisible
characters inside do not part it, every other mark does. A character of a script without spaces is a unit of its own
and weighs less than a word, since words of several characters are what it makes up. Weights are in quarters of a word.

An n-gram of weight w is the shortest run of units from some unit on that weighs w or more: what it is depends on the
text from there on alone, so a passage has the same n-grams wherever it stands.
"""

from __future__ import annotations

import unicodedata
from functools import cache
from typing import NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from dots_data import scan
from dots_data.text import character_classes

Codes = NDArray[np.uint32]
Ints = NDArray[np.int64]
Hashes = NDArray[np.uint64]

# Two Han characters or kana, or four characters of Thai and its like, are about as much as an English word.
WORD, IDEOGRAPH, SOUTHEAST = 4, 2, 1

_APART, _NOTHING = 0, 1
_APOSTROPHES = "'\u2018\u2019\u02bc\uff07"
# Accents, and marks that choose a glyph.
_MARKS = (range(0x300, 0x370), range(0xFE00, 0xFE10), range(0xE0100, 0xE01F0))
_DECOMPOSED = range(0x34000)

_BASE = np.uint64(0x9E3779B97F4A7C15)


class Units(NamedTuple):
    """A text as units.

    text: the units, each followed by a 0; uint32. starts: where each begins in `text`, and its end; int64 [units + 1].
    weights: what the units before each weigh; int64 [units + 1]. hashes: of the units before each; uint64 [units + 1].
    """

    text: Codes
    starts: Ints
    weights: Ints
    hashes: Hashes


def units(codes: Codes) -> Units:
    """The units of a text given by its code points (scan.codes)."""
    return Units(*_units(codes, *_tables()))


@cache
def _tables() -> tuple[Codes, NDArray[np.uint8]]:
    """What each code point is read as (_APART: parts words, _NOTHING: is left out), uint32 [0x110000], and what that
    weighs, uint8 [0x110000]."""
    classes = character_classes()
    weights = np.where(classes & scan.LETTER > 0, WORD, 0).astype(np.uint8)
    weights[classes & (scan.HAN | scan.HIRAGANA | scan.KATAKANA) > 0] = IDEOGRAPH
    weights[classes & scan.SOUTHEAST > 0] = SOUTHEAST
    weights[ord("_")] = 0
    bases = np.arange(0x110000, dtype=np.uint32)
    for code in _DECOMPOSED:
        bases[code] = _base(code)
    folds = scan.folds()[bases]
    folds[weights[folds] == 0] = _APART
    for code in _DECOMPOSED:
        if unicodedata.category(chr(code)) == "Cf":
            folds[code] = _NOTHING
    for marks in _MARKS:
        folds[marks.start : marks.stop] = _NOTHING
    folds[list(map(ord, _APOSTROPHES))] = _NOTHING
    return folds, weights


def _base(code: int) -> int:
    """The one character that is left of a character without its accents, its width and its style; else itself."""
    parts = list(map(ord, unicodedata.normalize("NFKD", chr(code))))
    return code if any(mark not in _MARKS[0] for mark in parts[1:]) else parts[0]


@numba.njit(cache=True, nogil=True)
def _units(
    codes: Codes, folds: Codes, weights: NDArray[np.uint8]
) -> tuple[Codes, Ints, Ints, Hashes]:  # pragma: no cover (compiled)
    total = len(codes)
    text, starts = np.empty(2 * total, np.uint32), np.empty(total + 1, np.int64)
    before, hashes = np.zeros(total + 1, np.int64), np.zeros(total + 1, np.uint64)
    size, count, i = 0, 0, 0
    while i < total:
        code = folds[codes[i]]
        if code <= _NOTHING:
            i += 1
            continue
        starts[count], weight, value = size, weights[code], np.uint64(0)
        while True:
            if code != _NOTHING:
                text[size] = code
                size += 1
                value = (value ^ np.uint64(code)) * _BASE
                value ^= value >> np.uint64(29)
            i += 1
            if i == total or weight != WORD:
                break
            code = folds[codes[i]]
            if code != _NOTHING and (code == _APART or weights[code] != WORD):
                break
        text[size] = 0
        size += 1
        before[count + 1] = before[count] + weight
        hashes[count + 1] = hashes[count] * _BASE + value
        count += 1
    starts[count] = size
    return text[:size].copy(), starts[: count + 1].copy(), before[: count + 1].copy(), hashes[: count + 1].copy()


@numba.njit(cache=True, nogil=True)
def _key(hashes: Hashes, powers: Hashes, first: int, end: int) -> np.uint64:  # pragma: no cover (compiled)
    """The hash of the units from `first` to before `end`."""
    value = hashes[end] - hashes[first] * powers[end - first]
    value = (value ^ (value >> np.uint64(32))) * np.uint64(0xD6E8FEB86659FD93)
    mixed: np.uint64 = value ^ (value >> np.uint64(32))
    return mixed


@cache
def powers(weight: int) -> Hashes:
    """What `_key` needs for n-grams up to a weight; uint64 [weight + WORD + 1]."""
    factors = np.full(weight + WORD + 1, _BASE, np.uint64)
    factors[0] = 1
    return np.cumprod(factors)


@numba.njit(cache=True, nogil=True)
def grams(
    weights: Ints, hashes: Hashes, powers: Hashes, least: int, whole: int
) -> tuple[Ints, Hashes, Hashes]:  # pragma: no cover (compiled)
    """The n-grams of weight `whole` of a text, or of a shorter one that weighs `least` or more the whole of it: the
    unit that each begins with, int64; its hash, uint64; the hash of the n-gram of weight `least` there, uint64."""
    units = len(weights) - 1
    firsts = np.empty(units, np.int64)
    keys, begins = np.empty(units, np.uint64), np.empty(units, np.uint64)
    wanted = min(whole, weights[units])
    count, end, short = 0, 0, 0
    if wanted < least:
        return firsts[:0], keys[:0], begins[:0]
    for i in range(units):
        if weights[units] - weights[i] < wanted:
            break
        while weights[end] - weights[i] < wanted:
            end += 1
        while weights[short] - weights[i] < least:
            short += 1
        firsts[count], keys[count] = i, _key(hashes, powers, i, end)
        begins[count] = _key(hashes, powers, i, short)
        count += 1
    return firsts[:count].copy(), keys[:count].copy(), begins[:count].copy()


class Table(NamedTuple):
    """N-grams to look for.

    lengths: their weights, ascending; int64. filter: a Bloom filter of their beginnings of weight `lengths[0]`, each
    of which sets three bits of one word; uint64 [a power of two]. keys: their hashes, ascending; uint64 [n-grams].
    places: where each begins in `text`; int64 [n-grams]. text: units, as Units.text; uint32.
    """

    lengths: Ints
    filter: Hashes
    keys: Hashes
    places: Ints
    text: Codes


@numba.njit(cache=True, nogil=True)
def _bits(key: np.uint64) -> np.uint64:  # pragma: no cover (compiled)
    """The bits that a beginning sets in its word of the filter, which the other end of the hash chooses."""
    one = np.uint64(1)
    return (
        one << (key >> np.uint64(58))
        | one << (key >> np.uint64(52) & np.uint64(63))
        | one << (key >> np.uint64(46) & np.uint64(63))
    )


@numba.njit(cache=True, nogil=True)
def fill(filter: Hashes, begins: Hashes) -> None:  # pragma: no cover (compiled)
    """Put beginnings, by their hashes, into a filter."""
    for key in begins:
        filter[key & np.uint64(len(filter) - 1)] |= _bits(key)


def find(document: Units, table: Table) -> Ints:
    """Which of a document's n-grams stand in the table, compared character by character: the first unit of each, the
    one after its last, and the n-gram's number in the table; int64 [found, 3], in the order of the text."""
    longest = powers(int(table.lengths[-1]))
    lengths, words, keys, places, text = table
    found: Ints = _find(*document, longest, lengths, words, keys, places, text)
    return found


@numba.njit(cache=True, nogil=True)
def _find(
    text: Codes,
    starts: Ints,
    weights: Ints,
    hashes: Hashes,
    powers: Hashes,
    lengths: Ints,
    filter: Hashes,
    keys: Hashes,
    places: Ints,
    stored: Codes,
) -> Ints:  # pragma: no cover (compiled)
    units, mask = len(weights) - 1, np.uint64(len(filter) - 1)
    found, count = np.empty((16, 3), np.int64), 0
    ends = np.zeros(len(lengths), np.int64)
    short = 0
    for i in range(units):
        left = weights[units] - weights[i]
        if left < lengths[0]:
            break
        while weights[short] - weights[i] < lengths[0]:
            short += 1
        begin = _key(hashes, powers, i, short)
        bits = _bits(begin)
        if filter[begin & mask] & bits != bits:
            continue
        before = i
        for k in range(len(lengths)):
            if left < lengths[k]:
                break
            end = max(ends[k], i)
            while weights[end] - weights[i] < lengths[k]:
                end += 1
            ends[k] = end
            if end == before:
                continue
            before = end
            key = _key(hashes, powers, i, end)
            entry = np.searchsorted(keys, key)
            while entry < len(keys) and keys[entry] == key:
                if _stands(text, starts[i], starts[end], stored, places[entry]):
                    if count == len(found):
                        more = np.empty((2 * count, 3), np.int64)
                        more[:count] = found
                        found = more
                    found[count, 0], found[count, 1], found[count, 2] = i, end, entry
                    count += 1
                entry += 1
    return found[:count].copy()


@numba.njit(cache=True, nogil=True)
def _stands(text: Codes, start: int, end: int, stored: Codes, place: int) -> bool:  # pragma: no cover (compiled)
    """Whether text[start:end] stands in `stored` at `place`."""
    if place + end - start > len(stored):
        return False
    for i in range(end - start):  # noqa: SIM110 (the compiler knows no all())
        if text[start + i] != stored[place + i]:
            return False
    return True
