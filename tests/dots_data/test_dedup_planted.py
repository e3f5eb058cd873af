"""Pairs of texts whose shingle sets have exactly a chosen Jaccard similarity, from text to verdict.

A text of n + 4 different words has n five-grams. A copy with c of its words replaced, none within five words of
another or of an end, shares n - 5c of them: the Jaccard similarity is (n - 5c) / (n + 5c), and .70, .75, .80, .85 and
.90 for the numbers below. Whether it is so is told by the texts, with the words that the pipeline finds in them.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from fractions import Fraction

import jieba
import numpy as np
import pyarrow as pa
import pytest

from dots_data.dedup import minhash
from dots_data.dedup.minhash import FuzzyConfig
from dots_data.text import shingle_words

PAIRS = 2000
# Jaccard similarity: five-grams of a text, and words that its copy has replaced.
SHAPES = {
    Fraction(70, 100): (170, 6),
    Fraction(75, 100): (175, 5),
    Fraction(80, 100): (180, 4),
    Fraction(85, 100): (185, 3),
    Fraction(90, 100): (190, 2),
}
SYLLABLES = [f"{a}{b}" for a in ("b", "d", "gr", "k", "l", "m", "pr", "s", "t", "v") for b in ("a", "e", "in", "or")]
CONFIG = FuzzyConfig()


def english_words() -> list[str]:
    return [a + b + c for a in SYLLABLES for b in SYLLABLES[::2] for c in SYLLABLES[::3]]


def chinese_words() -> list[str]:
    """Idioms of four characters from jieba's dictionary."""
    with jieba.get_dict_file() as lines:
        rows = [line.decode().split() for line in lines]
    return sorted(row[0] for row in rows if row[2:] == ["i"] and len(row[0]) == 4)[::3]


def planted(rng: random.Random, words: Sequence[str], grams: int, replaced: int) -> tuple[list[str], list[str]]:
    """The words of a text and of its copy."""
    left = rng.sample(words, grams + 4)
    right = list(left)
    # Places at least five apart: chosen without gaps, and moved apart afterwards.
    places = sorted(rng.sample(range(4, grams - 4 * (replaced - 1)), replaced))
    for number, place in enumerate(places):
        right[place + 4 * number] = rng.choice(words)
    return left, right


def five_grams(text: str, language: str) -> set[tuple[str, ...]]:
    words = shingle_words(text, language)
    return {tuple(words[i : i + 5]) for i in range(len(words) - 4)}


def similarity(left: str, right: str, language: str) -> Fraction:
    sets = five_grams(left, language), five_grams(right, language)
    return Fraction(len(sets[0] & sets[1]), len(sets[0] | sets[1]))


def pairs_of(wanted: Fraction, language: str) -> list[tuple[str, str]]:
    """PAIRS pairs of texts with that similarity. Now and then the segmenter finds other Chinese words across the
    borders of ours, or a word is replaced by itself: then another pair is drawn."""
    rng = random.Random(f"{wanted} {language}")
    words, between = (chinese_words(), "") if language == "zh" else (english_words(), " ")
    found: list[tuple[str, str]] = []
    for _ in range(2 * PAIRS):
        left, right = (between.join(one) for one in planted(rng, words, *SHAPES[wanted]))
        if similarity(left, right, language) == wanted:
            found.append((left, right))
        if len(found) == PAIRS:
            return found
    raise AssertionError(f"{len(found)} pairs of {2 * PAIRS} came out as planned")


def shares_band(pairs: list[tuple[str, str]], language: str) -> np.ndarray:
    """Which pairs share a band, bool [pairs]."""
    texts = pa.array([text for pair in pairs for text in pair])
    bands = minhash.signatures(texts, [language] * len(texts), CONFIG)
    keys = bands.flatten().to_numpy().reshape(len(pairs), 2, CONFIG.bands)
    # A band's number is in its key, so that keys are only equal where they stand in one place.
    shared: np.ndarray = (keys[:, 0] == keys[:, 1]).any(axis=1)
    return shared


def shingle_arrays(texts: Sequence[str], language: str) -> pa.Array:
    return pa.array([minhash.shingles(text, language, CONFIG.ngram).tobytes() for text in texts], pa.binary())


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("wanted", SHAPES, ids=str)
def test_planted_pairs_meet_as_often_as_they_should_and_are_judged_right(wanted: Fraction, language: str) -> None:
    pairs = pairs_of(wanted, language)
    shared = shares_band(pairs, language)
    expected = 1 - (1 - float(wanted) ** CONFIG.rows) ** CONFIG.bands
    error = (expected * (1 - expected) / len(pairs)) ** 0.5
    assert abs(shared.mean() - expected) <= 3 * error

    met = [pair for pair, is_shared in zip(pairs, shared, strict=True) if is_shared]
    names = [str(number) for number in range(len(met))]
    sides = [shingle_arrays([pair[side] for pair in met], language) for side in (0, 1)]
    candidates = pa.RecordBatch.from_arrays(
        [pa.array(names), pa.array(names), *sides], names=["loser", "winner", "loser_shingles", "winner_shingles"]
    )
    near = minhash.near_enough(candidates, CONFIG.threshold)
    assert len(near) == (len(met) if wanted >= Fraction(CONFIG.threshold).limit_denominator(100) else 0)
    assert set(near.column("similarity").to_pylist()) <= {float(wanted)}
