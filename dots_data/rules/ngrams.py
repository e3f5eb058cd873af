"""How much of a text its repeated word n-grams take up (Rae et al. 2021, table A1).

Words are numbers here. The n-grams that occur more than once are found for n from those found for n - 1, so
the work after the first sizes is on the repeated part of a text alone, and no n-gram is ever built as a
string.
"""

from __future__ import annotations

import os
from collections.abc import Collection

import numba
import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]

# Where an n-gram is looked up depends on this, so that no page can be made to collide; no result shows it.
_SEED = np.uint64(int.from_bytes(os.urandom(8), "little"))


def top_and_duplicated(
    word_ids: Ints, word_lengths: Ints, top_sizes: Collection[int], duplicate_sizes: Collection[int]
) -> tuple[dict[int, int], dict[int, int]]:
    """Characters taken up by the most frequent n-gram, and by duplicated ones.

    Args:
        word_ids: int64 [words], dense from 0.
        word_lengths: int64 [distinct words], characters.
        top_sizes: the n whose most frequent n-gram counts: its occurrences times its characters, spaces
            between the words included; of equally frequent n-grams the one that occurs first, also where
            each occurs once (so the published code has it).
        duplicate_sizes: the n whose duplicates count. The text is read from the left: an n-gram that was
            read before adds the characters of its words, and reading goes on behind it; an n-gram that begins
            inside it is not read.

    Returns:
        For each n the text is long enough for, top n-gram characters, and for each n duplicated characters.
    """
    largest = max([*top_sizes, *duplicate_sizes, 1])
    tops, duplicated = _repeated(word_ids, word_lengths, largest, _SEED)
    return (
        {n: int(tops[n]) for n in top_sizes if len(word_ids) >= n},
        {n: int(duplicated[n]) for n in duplicate_sizes},
    )


@numba.njit(cache=True, nogil=True)
def _repeated(
    word_ids: Ints, word_lengths: Ints, largest: int, seed: np.uint64
) -> tuple[Ints, Ints]:  # pragma: no cover (compiled)
    """`top_and_duplicated` for every n up to `largest`, int64 [largest + 1] each.

    `starts` are the places where an n-gram that occurs more than once starts, `grams` their numbers, dense from 0
    in order of first occurrence.
    """
    tops, duplicated = np.zeros(largest + 1, np.int64), np.zeros(largest + 1, np.int64)
    total, vocabulary = len(word_ids), len(word_lengths)
    characters = np.zeros(total + 1, np.int64)
    for i in range(total):
        characters[i + 1] = characters[i] + word_lengths[word_ids[i]]
    size = 16
    while size < 2 * total:
        size *= 2
    slots, keys = np.empty(size, np.int32), np.empty(total, np.int64)
    starts, grams = np.arange(total), word_ids.copy()
    counts, numbers = np.zeros(total + 1, np.int64), np.empty(total + 1, np.int64)
    for i in range(total):
        counts[word_ids[i]] += 1
    different = vocabulary
    for n in range(1, largest + 1):
        if n > 1:
            # Number the n-grams by the (n-1)-gram and the word they end in: equal keys are equal n-grams.
            while size > 64 and size >= 4 * len(starts):
                size //= 2
            slots[:size] = -1
            fitting, different = 0, 0
            for i in range(len(starts)):
                start = starts[i]
                if start + n > total:
                    continue
                key = grams[i] * vocabulary + word_ids[start + n - 1]
                slot = _slot(key, size, seed)
                while slots[slot] >= 0 and keys[slots[slot]] != key:
                    slot = (slot + 1) & (size - 1)
                if slots[slot] < 0:
                    slots[slot], keys[different], counts[different] = different, key, 0
                    different += 1
                counts[slots[slot]] += 1
                starts[fitting], grams[fitting] = start, slots[slot]
                fitting += 1
            starts, grams = starts[:fitting], grams[:fitting]
        # Those that occur once begin no longer n-gram that occurs twice.
        left, best = 0, 1
        for number in range(different):
            if counts[number] > 1:
                numbers[number] = left
                best = max(best, counts[number])
                left += 1
            else:
                numbers[number] = -1
        kept, top = 0, -1
        for i in range(len(starts)):
            if numbers[grams[i]] >= 0:
                if top < 0 and counts[grams[i]] == best:
                    top = starts[i]
                starts[kept], grams[kept] = starts[i], numbers[grams[i]]
                kept += 1
        starts, grams = starts[:kept], grams[:kept]
        if kept == 0:
            for longer in range(n, min(largest, total) + 1):
                tops[longer] = characters[longer] + longer - 1
            break
        tops[n] = (characters[top + n] - characters[top] + n - 1) * best
        duplicated[n] = _read_again(n, starts, grams, left, characters)
    return tops, duplicated


@numba.njit(cache=True, nogil=True)
def _slot(key: int, size: int, seed: np.uint64) -> np.int64:  # pragma: no cover (compiled)
    mixed = (np.uint64(key) ^ seed) * np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(32))) * np.uint64(0xD6E8FEB86659FD93)
    return np.int64((mixed ^ (mixed >> np.uint64(32))) & np.uint64(size - 1))


@numba.njit(cache=True, nogil=True)
def _read_again(n: int, starts: Ints, grams: Ints, different: int, characters: Ints) -> np.int64:  # pragma: no cover
    read = np.zeros(different, np.bool_)
    again, behind = np.int64(0), np.int64(0)
    for i in range(len(starts)):
        start = starts[i]
        if start < behind:
            continue
        if read[grams[i]]:
            again += characters[start + n] - characters[start]
            behind = start + n
        else:
            read[grams[i]] = True
    return again
