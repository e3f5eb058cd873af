"""Fuzzy deduplication against datasketch (the reference) and against definitions."""

from __future__ import annotations

import gzip
import json
import random
import sys
import unicodedata
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from datasketch import MinHash
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dots_data.dedup import minhash, signature
from dots_data.dedup.minhash import FuzzyConfig
from dots_data.text import PIECE, normalise, shingle_words

WORDS = [f"{a}{b}" for a in "bcdfghjklmnpqrstvwz" for b in ("ana", "ero", "iki", "olu", "une", "atri", "elon")]


def sentence(rng: random.Random, words: int) -> list[str]:
    return [rng.choice(WORDS) for _ in range(words)]


def shingle_set(words: list[str], size: int = 5) -> set[tuple[str, ...]]:
    return {tuple(words[i : i + size]) for i in range(len(words) - size + 1)}


def exact_jaccard(left: list[str], right: list[str]) -> float:
    a, b = shingle_set(left), shingle_set(right)
    return len(a & b) / len(a | b)


BITS = (1 << 64) - 1
ODD = 0x9E3779B97F4A7C15
# Characters whose normalisation depends on what stands beside them, or that become several or none.
DIFFICULT = (
    "Σσ\u0345\u0301\u0316\u0323\u0327\u3099\u0e38\u0e49\u0651\u064e\u1ab0'’.-_ \n\x1c\x85\u3000\u200b\x00"
    "éÅİßﬁ가각がゞ東京กⅣ\ufffd\ue000\U0001d5a0\U0002f800"
)
difficult_texts = st.text(st.sampled_from(DIFFICULT + "aA") | st.characters(exclude_categories=()), max_size=60)


def mixed(value: int) -> int:
    """MurmurHash3's 64-bit finaliser."""
    value = (value ^ value >> 33) * 0xFF51AFD7ED558CCD & BITS
    value = (value ^ value >> 33) * 0xC4CEB9FE1A85EC53 & BITS
    return value ^ value >> 33


def slow_shingles(text: str, language: str, ngram: int) -> list[int]:
    """What `shingles` is to give, from the words of dots_data.text, in plain Python."""
    hashes = []
    for word in shingle_words(text, language):
        value = 0
        for start in range(0, len(word), 3):
            three = sum(ord(character) << 21 * place for place, character in enumerate(word[start : start + 3]))
            value = mixed(value ^ three) + ODD & BITS
        hashes.append(value)
    size = min(ngram, len(hashes))
    windows = [hashes[i : i + size] for i in range(len(hashes) - size + 1)] if hashes else []
    grams = (sum(value * pow(ODD, size - 1 - place, 1 << 64) for place, value in enumerate(one)) for one in windows)
    return sorted({mixed(gram & BITS) for gram in grams})


def compiled_normalise(text: str) -> str:
    found = np.frombuffer(text.encode("utf-8", "surrogatepass"), np.uint8)
    codes = signature._entries(found, *signature.normalisation()) & signature._CODE
    return codes.tobytes().decode("utf-32-le").rstrip(" ")


@given(difficult_texts)
@example("a\u0301-\u0316")
@example("a\u0301\u200b\u0316")
@settings(max_examples=500)
def test_the_compiled_normalisation_is_that_of_the_text_module(text: str) -> None:
    assert compiled_normalise(text) == normalise(text)


def test_every_character_is_normalised_alone_and_between_others() -> None:
    """Each between letters, marks and capital sigmas; and no character becomes more than there is room for."""
    for first in range(0, sys.maxunicode + 1, 4096):
        characters = [chr(code) for code in range(first, first + 4096)]
        for left, right in (
            ("", ""),
            ("a", "b"),
            ("e\u0323\u0301", "\u0327\u0316"),
            ("aΣ", "b"),
            ("aΣ", ""),
            ("", "Σ"),
        ):
            text = "\n".join(f"{left}{character}{right}" for character in characters)
            assert compiled_normalise(text) == normalise(text), hex(first)
        for character in characters:
            size = len(character.encode("utf-8", "surrogatepass"))
            assert len(unicodedata.normalize("NFD", character)) <= min(2 * size, 4)


@given(difficult_texts, st.sampled_from(["en", "ja", "th", "zh-Hant", "el"]), st.integers(1, 7))
@example("0\U00034000", "en", 1)
@settings(max_examples=200)
def test_shingles_are_those_of_the_words(text: str, language: str, ngram: int) -> None:
    assert minhash.shingles(text, language, ngram).tolist() == slow_shingles(text, language, ngram)


def test_shingles_of_real_texts(real_data: Path) -> None:
    for file in sorted((real_data / "text").glob("*.jsonl.gz")):
        with gzip.open(file, "rt", encoding="utf-8") as lines:
            for line in islice(lines, 0, 200, 20):
                row = json.loads(line)
                text = row["text"][:20_000]
                assert minhash.shingles(text, row["lang"], 5).tolist() == slow_shingles(text, row["lang"], 5)


@pytest.mark.parametrize("language", ["en", "ja", "zh"])
def test_long_texts_are_read_in_blocks_without_a_trace(language: str) -> None:
    rng = random.Random(5)
    words = ["word", "É\u0316\x01-\u0301", "ΟΔΟΣ", "が行く東京", "，", "\x02", "我们今天去北京", "中" * 20]
    parts = [rng.choice(words) + rng.choice(["", " ", "\n", "\t", "\u3000"]) for _ in range(15_000)]
    text = "".join([*parts[:9000], "x" * 40_000, *parts[9000:]])
    assert len(text) > 4 * PIECE
    assert minhash.shingles(text, language, 5).tolist() == slow_shingles(text, language, 5)


@pytest.mark.parametrize(
    "text", ["x" * 3_000_000, "a " * 1_000_000, "\u0301\u0316" * 300_000, "aΣ" + "\u0301" * 300_000 + "Σ" * 9]
)
def test_texts_of_one_kind_are_read_in_linear_time(text: str) -> None:
    """A word of millions, millions of words, marks that are all out of order: seconds if anything were quadratic."""
    assert len(minhash.shingles(text, "en", 5)) == 1


def test_words_do_not_collide() -> None:
    """All words of one or two letters of two scripts, numbers, and words that differ in one place of a long one."""
    letters = [chr(code) for code in (*range(0x61, 0x7B), *range(0x430, 0x450), *range(0xAC00, 0xAC80))]
    words = {*letters, *(a + b for a in letters for b in letters), *map(str, range(300_000))}
    words |= {"a" * i + b + "a" * (40 - i) for i in range(40) for b in letters}
    normal = {normalise(word) for word in words}
    found = np.frombuffer(" ".join(words).encode(), np.uint8)
    hashes = signature.word_hashes(found, "en")
    assert len(hashes) == len(words)
    assert len(np.unique(hashes)) == len(normal)
    # And the half that the hash family sees is spread: as many values as chance would have.
    low = len(np.unique(hashes.astype(np.uint32)))
    assert low == pytest.approx(len(normal) - len(normal) ** 2 / 2**33, abs=30)


@given(st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=300, unique=True), st.sampled_from([1, 16, 2048]))
@settings(max_examples=25, deadline=None)
def test_signature_equals_datasketch(values: list[int], count: int) -> None:
    ours = minhash.minhash(np.array(sorted(values), np.uint64), count, seed=1)
    theirs = MinHash(
        num_perm=count,
        permutations=minhash.permutations(count, 1),
        scheme="affine32",
        hashfunc=lambda value: int.from_bytes(value, "little") & 0xFFFFFFFF,
    )
    theirs.update_batch([value.to_bytes(8, "little") for value in values])
    assert np.array_equal(ours, theirs.hashvalues)


@pytest.mark.parametrize("edits", [0, 2, 6, 20, 60])
def test_jaccard_is_that_of_the_word_five_grams(edits: int) -> None:
    rng = random.Random(edits)
    left = sentence(rng, 400)
    right = list(left)
    for position in rng.sample(range(400), edits):
        right[position] = rng.choice(WORDS)
    ours = minhash.jaccard(*(minhash.shingles(" ".join(words), "en", 5) for words in (left, right)))
    assert ours == pytest.approx(exact_jaccard(left, right), abs=1e-12)


def test_shingles_ignore_case_punctuation_and_spacing() -> None:
    plain = minhash.shingles("the quick brown fox jumps over the lazy dog", "en", 5)
    noisy = minhash.shingles("The  quick, brown fox --\njumps over: the lazy DOG!", "en", 5)
    assert len(plain) == 5
    assert np.array_equal(plain, noisy)


@pytest.mark.parametrize(("text", "count"), [("", 0), ("...", 0), ("one", 1), ("one two three four", 1)])
def test_short_texts(text: str, count: int) -> None:
    assert len(minhash.shingles(text, "en", 5)) == count


def test_word_order_matters() -> None:
    one, other = (minhash.shingles(text, "en", 5) for text in ("a b c d e", "e d c b a"))
    assert minhash.jaccard(one, other) == 0.0


@pytest.mark.parametrize(("similarity", "expected"), [(0.7, 0.347), (0.8, 0.974), (0.9, 1.0)])
def test_share_of_pairs_that_meet_in_a_band(similarity: float, expected: float) -> None:
    """1 - (1 - J^16)^128 within three standard errors, over pairs with exactly that Jaccard similarity."""
    rng, pairs, met = np.random.default_rng(7), 150, 0
    size = 900
    shared = round(2 * size * similarity / (1 + similarity))
    for _ in range(pairs):
        pool = rng.integers(0, 2**64, 2 * size - shared, dtype=np.uint64)
        keys = [
            set(minhash.band_keys(minhash.minhash(part, 2048, seed=1), 128)) for part in (pool[:size], pool[-size:])
        ]
        met += bool(keys[0] & keys[1])
    error = (expected * (1 - expected) / pairs) ** 0.5
    assert abs(met / pairs - expected) <= 3 * error + 0.01


def signed(texts: list[str], languages: list[str], config: FuzzyConfig) -> list[list[int]]:
    """The band keys by way of each text's shingle set."""
    sets = [minhash.shingles(text, language, config.ngram) for text, language in zip(texts, languages, strict=True)]
    count = config.bands * config.rows
    return [
        minhash.band_keys(minhash.minhash(one, count, config.seed), config.bands) if len(one) else [] for one in sets
    ]


@given(st.lists(st.tuples(difficult_texts | st.just("of the people " * 200), st.sampled_from(["en", "zh", "ja"]))))
@settings(max_examples=50)
def test_a_batch_is_signed_as_its_texts_are(rows: list[tuple[str, str]]) -> None:
    texts = [text.encode("utf-8", "ignore").decode() for text, _ in rows]
    languages = [language for _, language in rows]
    config = FuzzyConfig(bands=8, rows=3)
    expected = signed(texts, languages, config)
    for kind in (pa.string(), pa.large_string()):
        assert minhash.signatures(pa.array(texts, kind), languages, config).to_pylist() == expected
    part = pa.array(["before", *texts, "behind"]).slice(1, len(texts))
    assert minhash.signatures(part, languages, config).to_pylist() == expected


def test_missing_texts_have_no_bands() -> None:
    keys = minhash.signatures(pa.array([None, "one", None, ""], pa.string()), ["en"] * 4, FuzzyConfig())
    assert [len(one) for one in keys.to_pylist()] == [0, 128, 0, 0]


@given(st.binary(max_size=40), st.sampled_from(["en", "zh"]))
def test_broken_utf8_is_read_to_its_end(data: bytes, language: str) -> None:
    texts = pa.Array.from_buffers(
        pa.string(), 1, [None, pa.py_buffer(np.array([0, len(data)], np.int32)), pa.py_buffer(data)]
    )
    assert len(minhash.signatures(texts, [language], FuzzyConfig(bands=2, rows=2))) == 1


def test_whole_texts_equal_datasketch() -> None:
    """The MinHash values of texts, repetitive ones too, from tuples of words."""
    rng = random.Random(2)
    for text in (" ".join(sentence(rng, 700)), "to be or not to be " * 90, "我们今天去北京看一看故宫" * 9, "alone"):
        language = "zh" if text[0] == "我" else "en"
        theirs = MinHash(
            256, permutations=minhash.permutations(256, 1), scheme="affine32", hashfunc=lambda value: value
        )
        theirs.update_batch([value & 0xFFFFFFFF for value in slow_shingles(text, language, 5)])
        assert np.array_equal(minhash.minhash(minhash.shingles(text, language, 5), 256, 1), theirs.hashvalues)


def test_bands_with_equal_rows_have_different_keys() -> None:
    keys = minhash.band_keys(np.zeros(32, np.uint32), 4)
    assert len(set(keys)) == 4
    assert all(-(2**63) <= key < 2**63 for key in keys)


@given(st.integers(0, 60), st.integers(1, 20))
def test_bucket_pairs_are_linear_and_complete_when_small(size: int, limit: int) -> None:
    members = [f"{number:03d}" for number in range(size)]
    pairs = list(minhash.bucket_pairs(members, limit))
    assert len(set(pairs)) == len(pairs)
    assert all(winner < loser for loser, winner in pairs)
    if size <= limit:
        assert len(pairs) == size * (size - 1) // 2
    else:
        assert len(pairs) <= size * limit
        assert {loser for loser, _ in pairs} == set(members[1:])


def test_near_duplicates_name_a_kept_survivor_and_its_true_similarity() -> None:
    rng = random.Random(3)
    base = sentence(rng, 500)
    near = list(base)
    near[250] = "changed"
    far = sentence(rng, 500)
    texts = {"a": base, "b": near, "c": far}
    found = minhash.find_near_duplicates([(i, " ".join(words)) for i, words in texts.items()], FuzzyConfig())
    ((loser, (winner, similarity)),) = found.items()
    assert {loser, winner} == {"a", "b"}
    assert similarity == pytest.approx(exact_jaccard(base, near), abs=1e-12)


@pytest.mark.parametrize("values", [{"bands": 0}, {"threshold": 0.0}, {"threshold": 1.5}])
def test_impossible_configurations_are_refused(values: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(values))):
        FuzzyConfig(**values)  # type: ignore[arg-type]
