"""Texts cut at safe places give the ids of the whole, with every tokenizer that is cut at all."""

from __future__ import annotations

import itertools
import json
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dots_data.tokens import cuts, tokenizer
from dots_data.tokens.cuts import GPT2_PATTERN, LLAMA3_PATTERN, O200K_PATTERN, QWEN_PATTERN, can_cut, cut
from dots_data.tokens.tokenizer import ENCODERS, Encoder, HuggingFace, TokenizerConfig

LINES = (
    "The quick brown fox doesn't jump over\n\n  the lazy dogs; it's 1,234 times tired.\r\n",
    "敏捷的棕色狐狸跳过了懒狗。\n然后它在河边 喝水,看见了月亮！\n\tWe'Ll see: x = y\n",
)
BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}


def split(pattern: str, **changes: Any) -> dict[str, Any]:
    one = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False, **changes}
    return {"type": "Sequence", "pretokenizers": [one, BYTE_LEVEL]}


FAMILY = {
    "qwen": split(QWEN_PATTERN),
    "llama3": split(LLAMA3_PATTERN),
    "o200k": split(O200K_PATTERN),
    "gpt2": {**BYTE_LEVEL, "use_regex": True},
    "gpt2 spelt out": split(GPT2_PATTERN),
}


@pytest.fixture(scope="module")
def trained() -> dict[str, Any]:
    described: dict[str, Any] = json.loads(tokenizer.train(LINES * 30, TokenizerConfig(vocab_size=400)))
    return described


@pytest.fixture(scope="module")
def family(trained: dict[str, Any]) -> dict[str, Encoder]:
    """Each pattern with NFC, as Qwen has it."""
    nfc = {"type": "NFC"}
    described = {name: {**trained, "pre_tokenizer": one, "normalizer": nfc} for name, one in FAMILY.items()}
    assert all(map(can_cut, described.values()))
    return {name: HuggingFace(json.dumps(one).encode()) for name, one in described.items()}


# What the patterns, NFC and the cuts look at: letters of several kinds, marks that combine, all sorts of spaces.
PARTS = (
    *(
        "a",
        "Ab",
        "z",
        "中",
        "文",
        "\u8fff",
        "\u9000",
        "\ua000",
        "é",
        "e\u0301",
        "\u0301",
        "\u1100",
        "\u1161",
        "ʰ",
        "\ufb01",
    ),
    *(" ", "  ", "\n", "\n\n", "\r\n", "\r", "\t", "\u3000", "\u00a0", "\u2028", "\v", "\x85", "\u200b"),
    *(
        "'",
        "'s",
        "'LL",
        "’s",
        ".",
        "。",
        "！",
        "〟",
        "/",
        "_",
        "-",
        "(",
        "1",
        "23",
        "٣",
        "²",
        "👩\u200d🚀",
        "\x00",
        "\ufeff",
    ),
)
texts_of_parts = st.lists(st.sampled_from(PARTS), max_size=60).map("".join)


@pytest.mark.parametrize("name", FAMILY)
@given(texts=st.lists(texts_of_parts, min_size=1, max_size=3), most=st.integers(1, 40))
@settings(max_examples=300, deadline=None)
def test_parts_give_the_ids_of_the_whole(family: dict[str, Encoder], name: str, texts: list[str], most: int) -> None:
    strings = pa.array(texts, pa.large_string())
    parts, firsts = cut(strings, most)
    assert ["".join(parts[a:b].to_pylist()) for a, b in itertools.pairwise(firsts)] == texts
    whole, cut_up = family[name]._encode(strings), family[name]._encode(parts)
    assert np.array_equal(whole[0], cut_up[0]) and np.array_equal(whole[1], cut_up[1][firsts])


@given(before=st.sampled_from(PARTS), after=st.sampled_from(PARTS))
@settings(max_examples=400, deadline=None)
def test_every_pair_of_neighbours(family: dict[str, Encoder], before: str, after: str) -> None:
    """Around each kind of cut, whatever stands before it and behind it."""
    texts = [
        f"{before}{one}{after}" for one in ("x ", "x\n", "中 ", "中\n", "x\ny", ".\nx", "。\n中", "！\nx", "x\n中")
    ]
    strings = pa.array(texts, pa.large_string())
    parts, firsts = cut(strings, 1)
    assert len(parts) > len(texts)
    for encoder in family.values():
        whole, cut_up = encoder._encode(strings), encoder._encode(parts)
        assert np.array_equal(whole[0], cut_up[0]) and np.array_equal(whole[1], cut_up[1][firsts])


def test_a_part_ends_soon_behind_its_size_and_slices_are_read_as_they_are() -> None:
    texts = pa.array(["x" * 50, *LINES * 40, "", "short", "no cut" + "!" * 3000], pa.large_string())
    for some in (texts, texts.slice(3), texts.slice(1, 60)):
        parts, firsts = cut(some, 100)
        assert parts.equals(some) is False or len(firsts) == len(some) + 1
        assert "".join(parts.to_pylist()) == "".join(some.to_pylist()) and len(firsts) == len(some) + 1
    long = pa.array(["word " * 10_000], pa.large_string())
    sizes = [len(part) for part in cut(long, 1000)[0].to_pylist()]
    assert len(sizes) == 50 and max(sizes) < 1010


@pytest.mark.parametrize("engine", ENCODERS)
def test_a_document_of_megabytes_has_the_ids_of_its_parts(trained: dict[str, Any], engine: str) -> None:
    encoder = ENCODERS[engine](json.dumps(trained).encode())  # type: ignore[index]
    line = "".join(LINES)
    texts = ["first", line * (2 * cuts.PART_BYTES // len(line.encode())), "last"]
    assert len(cut(pa.array(texts, pa.large_string()))[0]) > len(texts)
    ids, borders = encoder.encode(texts)
    # Each repetition begins behind a line end, before a letter: its ids are those of the line.
    expected = encoder.encode([line])[0]
    found = ids[borders[1] : borders[2]].reshape(-1, len(expected))
    assert (found == expected).all() and len(found) == len(texts[1]) // len(line)
    assert np.array_equal(ids[borders[2] :], encoder.encode(["last"])[0])


WRONG: dict[str, dict[str, Any]] = {
    "another pattern": {"pre_tokenizer": split(r"\p{L}+|\P{L}+")},
    "matches are thrown away": {"pre_tokenizer": split(QWEN_PATTERN, behavior="Removed")},
    "inverted": {"pre_tokenizer": split(QWEN_PATTERN, invert=True)},
    "two patterns": {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [{**BYTE_LEVEL, "use_regex": True}] * 2}},
    "a space is put before": {"pre_tokenizer": {**BYTE_LEVEL, "use_regex": True, "add_prefix_space": True}},
    "none": {"pre_tokenizer": None},
    "another normaliser": {"normalizer": {"type": "NFKC"}},
    "white space in an added token": {"added_tokens": [{"id": 400, "content": "x y", "special": False}]},
    "an added token of whole words": {"added_tokens": [{"id": 400, "content": "x", "single_word": True}]},
    "an added token that takes space": {"added_tokens": [{"id": 400, "content": "x", "lstrip": True}]},
    "another model": {"model": {"type": "Unigram"}},
    "bytes are a way out": {"model": {"type": "BPE", "byte_fallback": True}},
}


@pytest.mark.parametrize("change", WRONG.values(), ids=WRONG)
def test_a_tokenizer_of_another_kind_is_not_cut(trained: dict[str, Any], change: dict[str, Any]) -> None:
    assert can_cut(trained) and not can_cut({**trained, **change})
