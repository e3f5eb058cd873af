"""From a text's bytes to its shingles and MinHash bands in compiled passes, without a Python string per word.

Each pass stands for a few lines of Python, and is equal to them for any text:

    words     dots_data.text.shingle_words: normalised (NFD, lower case, punctuation gone), then divided into words
    grams     a hash for each n words in a row
    minima    the least of a * x + b mod 2^32 over the shingles x, for each (a, b)
    bands     a hash for each `rows` of the minima

The normalisation is not written a second time: its effect on each character comes from `dots_data.text.normalise`
itself, when a worker first asks. What depends on neighbours is done here, as Unicode has it: the canonical order of
marks, and the sigma at the end of a word.

Each pass is linear in the text, whatever it holds, and besides the text takes 8 bytes for each of its words and 4 for
each character between two spaces; for Chinese 8 and 4 for each character.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from functools import cache
from typing import NamedTuple

import numba
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dots_data import scan
from dots_data.text import CHINESE, PIECE, UNSPACED, base_language, normalise

Bytes = NDArray[np.uint8]
U32 = NDArray[np.uint32]
U64 = NDArray[np.uint64]
Ints = NDArray[np.int64]

# An entry of `Normalisation.table`: the character that stands for this one, its combining class, whether it is a word
# by itself, and what becomes of it.
_CODE, _CLASS, _ALONE = (np.uint32(bits) for bits in (0x1FFFFF, 0xFF << 21, 1 << 29))
_KIND = np.uint32(30)
_ONE, _NONE, _SPACE, _SEVERAL = range(4)
_BLANK = np.uint32(_SPACE << 30 | 32)

# What a character is to a capital sigma beside it.
_CASED, _IGNORABLE = 1, 2
_SIGMA, _SMALL_SIGMA, _FINAL_SIGMA = 0x3A3, 0x3C3, 0x3C2

# A character that no normalisation touches and that touches no neighbour.
_SEPARATOR = "\ue000"
# Beyond these planes no character could change or be a word by itself.
_PLANES = (range(0x40000), range(0xE0000, 0xE0200))

_K1, _K2, _K3 = (np.uint64(k) for k in (0x9E3779B97F4A7C15, 0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53))
# Bytes that are normalised at once: their entries fit a processor's second cache.
_BLOCK = 1 << 15
_MOST = np.uint32(0xFFFFFFFF)


class Normalisation(NamedTuple):
    """What `normalise` makes of each character, as packed entries.

    table: uint32 [0x110000]. longer: the entries of the characters that become several, uint32; there the character's
    own entry says where they start, and before them stands how many there are. case: uint8 [0x110000].
    """

    table: U32
    longer: U32
    case: NDArray[np.uint8]


@cache
def normalisation() -> Normalisation:
    """The tables, made once in each worker."""
    characters = [chr(code) for plane in _PLANES for code in plane if chr(code) != _SEPARATOR]
    alone = frozenset(re.findall(f"[{UNSPACED}]", "".join(characters)))

    def entry(character: str) -> int:
        return ord(character) | unicodedata.combining(character) << 21 | (character in alone) << 29

    table = np.arange(0x110000, dtype=np.uint32)
    longer: list[int] = []
    case = np.zeros(0x110000, np.uint8)
    for character, becomes in zip(characters, normalise(_SEPARATOR.join(characters)).split(_SEPARATOR), strict=True):
        code = ord(character)
        if not becomes:
            table[code] = _NONE << 30
        elif becomes == " ":
            table[code] = _BLANK
        elif len(becomes) == 1:
            table[code] = entry(becomes)
        else:
            table[code] = _SEVERAL << 30 | len(longer)
            longer += [len(becomes), *map(entry, becomes)]
        if (character + "Σ").lower()[-1] == "ς":
            case[code] = _CASED
        elif ("a" + character + "Σ").lower()[-1] == "ς":
            case[code] = _IGNORABLE
    table[_SIGMA] = entry("Σ")
    return Normalisation(table, np.array(longer, np.uint32), case)


@numba.njit(cache=True, nogil=True)
def _decoded(text: Bytes, i: int) -> tuple[np.int64, int]:  # pragma: no cover (compiled)
    """The character that begins at `i` and is not ASCII, and where the next begins. Broken UTF-8 gives some other
    character, and never one beyond the tables."""
    lead = np.int64(text[i])
    following = 1 if lead < 0xE0 else 2 if lead < 0xF0 else 3
    code, i = lead & (0x3F >> following), i + 1
    for _ in range(following):
        if i < len(text):
            code = code << 6 | np.int64(text[i]) & 0x3F
            i += 1
    return min(code, np.int64(0x10FFFF)), i


@numba.njit(cache=True, nogil=True)
def _entries(text: Bytes, table: U32, longer: U32, case: NDArray[np.uint8]) -> U32:  # pragma: no cover (compiled)
    """The entries of the characters of `normalise(text)`, uint32 [characters]; a space may stand at the end."""
    # No text has so many characters when it is normalised; what is not written to takes no memory.
    entries = np.empty(2 * len(text) + 1, np.uint32)
    size, i, blank = 0, 0, True
    before, unordered, sigmas = np.uint32(0), False, False
    while i < len(text):
        if text[i] < 128:
            entry = table[text[i]]
            i += 1
            # No branches here: nobody could foresee where words end.
            entries[size] = entry & _CODE
            kept, space = entry < 128, entry == _BLANK
            size += kept | (space & (not blank))
            blank = space | (blank & (not kept))
            before = np.uint32(0) if kept | space else before
            continue
        code, i = _decoded(text, i)
        entry = table[code]
        kind = entry >> _KIND
        if kind == _SPACE:
            entries[size] = 32
            size += not blank
            blank = True
            before = np.uint32(0)
        elif kind != _NONE:
            sigmas |= code == _SIGMA
            first = np.int64(entry & _CODE)
            for j in range(np.int64(longer[first]) if kind == _SEVERAL else 1):
                if kind == _SEVERAL:
                    entry = longer[first + 1 + j]
                unordered |= np.uint32(0) < entry & _CLASS < before
                before = entry & _CLASS
                entries[size] = entry
                size += 1
            blank = False
    if unordered:
        _order_marks(entries[:size])
    if sigmas:
        _lower_sigmas(entries[:size], case)
    return entries[:size]


@numba.njit(cache=True, nogil=True)
def _order_marks(entries: U32) -> None:  # pragma: no cover (compiled)
    """Put each run of marks into canonical order: by combining class, those of one class as they stood."""
    held, places = np.empty_like(entries), np.empty(257, np.int64)
    start = 0
    while start < len(entries):
        end = start
        while end < len(entries) and entries[end] & _CLASS:
            end += 1
        ordered = True
        for i in range(start + 1, end):
            ordered &= entries[i - 1] & _CLASS <= entries[i] & _CLASS
        if not ordered:
            places[:] = 0
            for i in range(start, end):
                held[i] = entries[i]
                places[(entries[i] >> np.uint32(21) & np.uint32(0xFF)) + 1] += 1
            for i in range(256):
                places[i + 1] += places[i]
            for i in range(start, end):
                group = held[i] >> np.uint32(21) & np.uint32(0xFF)
                entries[start + places[group]] = held[i]
                places[group] += 1
        start = end + 1


@numba.njit(cache=True, nogil=True)
def _lower_sigmas(entries: U32, case: NDArray[np.uint8]) -> None:  # pragma: no cover (compiled)
    """Capital sigmas in lower case: the final one behind a cased letter and not before one, ignorable marks aside."""
    for i in range(len(entries)):
        if entries[i] & _CODE != _SIGMA:
            continue
        left, right = i - 1, i + 1
        while left >= 0 and case[entries[left] & _CODE] == _IGNORABLE:
            left -= 1
        while right < len(entries) and case[entries[right] & _CODE] == _IGNORABLE:
            right += 1
        final = left >= 0 and case[entries[left] & _CODE] == _CASED
        final &= right == len(entries) or case[entries[right] & _CODE] != _CASED
        entries[i] = _FINAL_SIGMA if final else _SMALL_SIGMA


@numba.njit(cache=True, nogil=True)
def _mix(value: np.uint64) -> np.uint64:  # pragma: no cover (compiled)
    """MurmurHash3's finaliser: every bit goes into every bit, and no two values into one."""
    value = (value ^ value >> np.uint64(33)) * _K2
    value = (value ^ value >> np.uint64(33)) * _K3
    return value ^ value >> np.uint64(33)


@numba.njit(cache=True, nogil=True)
def _hash_words(entries: U32, hashes: U64, count: int) -> int:  # pragma: no cover (compiled)
    """Put the hash of each word behind the first `count` of `hashes`, and return how many there are now. Words end at a
    space; three characters go into a hash at once, so that words of so many never collide."""
    value, three, shift = np.uint64(0), np.uint64(0), np.uint64(0)
    for i in range(len(entries) + 1):
        entry = entries[i] if i < len(entries) else np.uint32(32)
        alone = entry & _ALONE
        if entry != 32 and not alone:
            three |= np.uint64(entry & _CODE) << shift
            shift += np.uint64(21)
            if shift == 63:
                value = _mix(value ^ three) + _K1
                three, shift = np.uint64(0), np.uint64(0)
            continue
        if shift:
            value = _mix(value ^ three) + _K1
        if value:
            hashes[count] = value
            count += 1
        if alone:
            hashes[count] = _mix(np.uint64(entry & _CODE)) + _K1
            count += 1
        value, three, shift = np.uint64(0), np.uint64(0), np.uint64(0)
    return count


@numba.njit(cache=True, nogil=True)
def _text_words(text: Bytes, table: U32, longer: U32, case: NDArray[np.uint8]) -> U64:  # pragma: no cover (compiled)
    """The hash of each word of a text that no segmenter reads, uint64 [words]."""
    hashes = np.empty(len(text) + 1, np.uint64)
    count, start = 0, 0
    while start < len(text):
        # A block ends behind a space, and so no word spans two.
        end = min(start + _BLOCK, len(text))
        while end < len(text) and text[end - 1] != 32 and text[end - 1] != 10:
            end += 1
        count = _hash_words(_entries(text[start:end], table, longer, case), hashes, count)
        start = end
    return hashes[:count]


@numba.njit(cache=True, nogil=True)
def _grams(words: U64, ngram: int) -> U64:  # pragma: no cover (compiled)
    """The hash of each `ngram` words in a row, in order and as often as they stand there; it takes the place of the
    words. Fewer words are one gram, none are none."""
    size = min(ngram, len(words))
    oldest, value = np.uint64(1), np.uint64(0)
    for i in range(size):
        oldest *= _K1
        value = value * _K1 + words[i]
    count = len(words) - size + 1 if size else 0
    for i in range(count):
        first = words[i]
        words[i] = _mix(value)
        if i + size < len(words):
            value = value * _K1 + words[i + size] - oldest * first
    return words[:count]


@numba.njit(cache=True, nogil=True)
def _thinned(grams: U64) -> U32:  # pragma: no cover (compiled)
    """What the hash family is given of each shingle, uint32: its low 32 bits by MurmurHash3's finaliser. Most of those
    that are there already are left out."""
    size = 64
    while size < min(2 * len(grams), 1 << 15):
        size *= 2
    seen, values = np.zeros(size, np.uint32), np.empty(len(grams), np.uint32)
    # A zero was not seen yet: what stands in its place is no value of that place.
    seen[0] = 1
    count = 0
    for gram in grams:
        value = np.uint32(gram)
        place = value & np.uint32(size - 1)
        if seen[place] == value:
            continue
        seen[place] = value
        # The compiler takes the product of two of 32 bits to be of 64.
        value = np.uint32((value ^ value >> np.uint32(16)) * np.uint32(0x85EBCA6B))
        value = np.uint32((value ^ value >> np.uint32(13)) * np.uint32(0xC2B2AE35))
        values[count] = value ^ value >> np.uint32(16)
        count += 1
    return values[:count]


@numba.njit(cache=True, nogil=True)
def _lower(least: U32, values: U32, a: U32, b: U32) -> None:  # pragma: no cover (compiled)
    """Lower each of `least` to the least of a * x + b mod 2^32 over the values x.

    Eight values go through all the functions together: a processor has one function in each lane of a vector, and
    loads and stores once for eight multiplications. It is bound by its multipliers and not by memory, for two
    shingles as for two million.
    """
    i = 0
    while i + 8 <= len(values):
        x0, x1, x2, x3 = values[i], values[i + 1], values[i + 2], values[i + 3]
        x4, x5, x6, x7 = values[i + 4], values[i + 5], values[i + 6], values[i + 7]
        for k in range(len(least)):
            scale, shift = a[k], b[k]
            y0 = min(np.uint32(x0 * scale + shift), np.uint32(x1 * scale + shift))
            y1 = min(np.uint32(x2 * scale + shift), np.uint32(x3 * scale + shift))
            y2 = min(np.uint32(x4 * scale + shift), np.uint32(x5 * scale + shift))
            y3 = min(np.uint32(x6 * scale + shift), np.uint32(x7 * scale + shift))
            least[k] = min(least[k], min(min(y0, y1), min(y2, y3)))
        i += 8
    for j in range(i, len(values)):
        x = values[j]
        for k in range(len(least)):
            least[k] = min(least[k], np.uint32(x * a[k] + b[k]))


@numba.njit(cache=True, nogil=True)
def _hash_bands(least: U32, keys: Ints) -> None:  # pragma: no cover (compiled)
    """A key for each band of `least`, into int64 [bands]: a hash of its values and of its number."""
    rows = len(least) // len(keys)
    for band in range(len(keys)):
        value = _mix(np.uint64(band) + _K1)
        for i in range(band * rows, (band + 1) * rows):
            value = _mix(value ^ np.uint64(least[i])) + _K1
        keys[band] = np.int64(value)


@numba.njit(cache=True, nogil=True)
def _sign(words: U64, ngram: int, a: U32, b: U32, least: U32, keys: Ints) -> bool:  # pragma: no cover (compiled)
    """The keys of a text's bands, from its words; whether it has any."""
    least[:] = _MOST
    _lower(least, _thinned(_grams(words, ngram)), a, b)
    _hash_bands(least, keys)
    return len(words) > 0


@numba.njit(cache=True, nogil=True)
def _sign_all(
    texts: Bytes,
    ends: Ints,
    wanted: NDArray[np.bool_],
    ngram: int,
    a: U32,
    b: U32,
    table: U32,
    longer: U32,
    case: NDArray[np.uint8],
    keys: Ints,
    signed: NDArray[np.bool_],
) -> None:  # pragma: no cover (compiled)
    """`_sign` for each of the wanted texts, which stand one behind the other."""
    least = np.empty(len(a), np.uint32)
    for i in range(len(wanted)):
        if wanted[i]:
            words = _text_words(texts[ends[i] : ends[i + 1]], table, longer, case)
            signed[i] = _sign(words, ngram, a, b, least, keys[i])


def word_hashes(text: Bytes, language: str) -> U64:
    """The hashes of a text's words, those of `dots_data.text.shingle_words`; uint64 [words], the text in UTF-8."""
    if base_language(language) not in CHINESE:
        hashes: U64 = _text_words(text, *normalisation())
        return hashes
    return _chinese_words((_entries(text, *normalisation()) & _CODE).tobytes().decode("utf-32-le"))


def _chinese_words(text: str) -> U64:
    """The hashes of jieba's words of a normalised text, uint64 [words]."""
    import rjieba

    hashes, count = np.empty(len(text), np.uint64), 0
    for piece in _pieces(text):
        # One join takes less time than a look at each word.
        count = _hash_words(scan.codes(" ".join(rjieba.cut(piece))), hashes, count)
    return hashes[:count]


def _pieces(text: str) -> Iterator[str]:
    """The text in pieces of at most PIECE characters, divided behind a space where one is in reach."""
    start = 0
    while start < len(text):
        end = start + PIECE
        end = text.rfind(" ", start, end) + 1 or end if end < len(text) else end
        yield text[start:end]
        start = end


def shingles(text: str, language: str, ngram: int) -> U64:
    """The sorted set of 64-bit hashes of a text's word n-grams; a shorter text is one shingle, an empty one none."""
    found = np.frombuffer(text.encode("utf-8", "surrogatepass"), np.uint8)
    grams: U64 = np.sort(_grams(word_hashes(found, language), ngram))
    return grams[np.concatenate(([True], grams[1:] != grams[:-1]))[: len(grams)]]


@numba.njit(cache=True, nogil=True)
def common(left: U64, right: U64) -> int:  # pragma: no cover (compiled)
    """How many values two sorted sets have in common."""
    i, j, count = 0, 0, 0
    while i < len(left) and j < len(right):
        # No branches here: nobody could foresee which is less.
        x, y = left[i], right[j]
        count += x == y
        i += x <= y
        j += y <= x
    return count


def minima(shingle_hashes: U64, a: U32, b: U32) -> U32:
    """The least of a * x + b mod 2^32 over a set of shingles, for each (a, b), uint32 [functions]; x is the low half of
    the shingle by MurmurHash3's finaliser."""
    least = np.full(len(a), _MOST)
    _lower(least, _thinned(shingle_hashes), a, b)
    return least


def band_keys(least: U32, bands: int) -> Ints:
    """A signed 64-bit key for each band; its number is hashed in, so that keys of two bands never meet."""
    keys = np.empty(bands, np.int64)
    _hash_bands(least, keys)
    return keys


@numba.njit(cache=True, nogil=True)
def mixed(values: Ints) -> U64:  # pragma: no cover (compiled)
    """A hash of each value, uint64 of the same shape."""
    hashes = np.empty(len(values), np.uint64)
    for i in range(len(values)):
        hashes[i] = _mix(np.uint64(values[i]))
    return hashes


def sign(texts: pa.Array, languages: Sequence[str], ngram: int, bands: int, a: U32, b: U32) -> pa.ListArray:
    """The keys of the bands of each text, int64; an empty list for a text without words.

    a, b: uint32 [bands x rows]. Texts that are null are empty.
    """
    if not len(texts):
        return pa.array([], pa.list_(pa.int64()))
    texts = texts.cast(pa.large_string())
    _, offsets, values = texts.buffers()
    ends = np.frombuffer(offsets, np.int64)[texts.offset :][: len(texts) + 1]
    found = np.frombuffer(values or b"", np.uint8)
    keys, signed = np.empty((len(texts), bands), np.int64), np.zeros(len(texts), np.bool_)
    chinese = np.array([base_language(language) in CHINESE for language in languages], np.bool_)
    _sign_all(found, ends, ~chinese, ngram, a, b, *normalisation(), keys, signed)
    least = np.empty(len(a), np.uint32)
    for i in np.flatnonzero(chinese):
        words = word_hashes(found[ends[i] : ends[i + 1]], "zh")
        signed[i] = _sign(words, ngram, a, b, least, keys[i])
    lists = np.concatenate(([0], np.cumsum(signed * bands))).astype(np.int32)
    return pa.ListArray.from_arrays(lists, keys[signed].ravel())
