"""Text goes into ids and comes back exactly; no page can forge a special token; both encoders agree."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dots_data.tokens import tokenizer
from dots_data.tokens.tokenizer import (
    ENCODERS,
    ENDOFTEXT,
    PROBES,
    Encoder,
    TextTokenizer,
    TokenizerConfig,
    TokenizerError,
)

ENGLISH = "The quick brown fox doesn't jump over the lazy dogs; it's 1,234 times {n} tired. "
CHINESE = "敏捷的棕色狐狸跳过了第{n}只懒狗,然后它在河边喝水,看见了月亮。"
TEXTS = [line.format(n=n) * 3 for n in range(40) for line in (ENGLISH, CHINESE)]
CONFIG = TokenizerConfig(vocab_size=350)


@pytest.fixture(scope="module")
def content() -> bytes:
    return tokenizer.train(TEXTS, CONFIG)


@pytest.fixture(scope="module")
def both(content: bytes) -> dict[str, Encoder]:
    return {name: encoder(content) for name, encoder in ENCODERS.items()}


@pytest.fixture(scope="module")
def reference(content: bytes) -> TextTokenizer:
    return TextTokenizer(content, ENDOFTEXT, "t")


def test_training_does_not_depend_on_the_order_of_texts(content: bytes) -> None:
    for seed in range(3):
        shuffled = TEXTS.copy()
        random.Random(seed).shuffle(shuffled)
        assert tokenizer.train(shuffled, CONFIG) == content


def test_special_tokens_follow_the_vocabulary(reference: TextTokenizer) -> None:
    info = reference.info
    assert info.vocab_size == 350
    assert info.special == {ENDOFTEXT: 347, "<|im_start|>": 348, "<|im_end|>": 349}
    assert (info.eos_id, info.bos_id, info.dtype) == (347, None, "uint16")


@pytest.mark.parametrize("engine", ["huggingface", "gigatoken"])
@given(text=st.text())
@settings(max_examples=150, deadline=None)
def test_any_text_comes_back_exactly(
    both: dict[str, Encoder], reference: TextTokenizer, engine: str, text: str
) -> None:
    ids, borders = both[engine].encode([text, "", text])
    assert borders.tolist() == [0, len(ids) // 2, len(ids) // 2, len(ids)]
    assert reference.decode(ids[: borders[1]]) == text
    assert not set(ids.tolist()) & set(reference.info.special.values())
    assert np.array_equal(ids, reference.encode(pa.array([text, "", text], pa.large_string()))[0])
    assert both[engine].encode([])[1].tolist() == [0]


@given(
    texts=st.lists(
        st.lists(st.sampled_from([ENDOFTEXT, "<|im_start|>", "<|", "|>", "a", "é", "中", " ", "\n", "'s"])).map("".join)
    )
)
@settings(max_examples=150, deadline=None)
def test_spelt_special_tokens_are_ordinary_text(
    both: dict[str, Encoder], reference: TextTokenizer, texts: list[str]
) -> None:
    ours, theirs = (both[engine].encode(texts) for engine in both)
    assert all(np.array_equal(a, b) for a, b in zip(ours, theirs, strict=True))
    assert (ours[0] < 347).all()
    assert tokenizer.check(reference, texts or [""]).exact


def test_the_fast_encoder_is_taken_where_it_agrees(reference: TextTokenizer) -> None:
    checked = tokenizer.check(reference, TEXTS)
    because = f"equal ids on a sample of {len(PROBES) + 9 + len(TEXTS)} texts"
    assert (checked.engine, checked.because, checked.exact) == ("gigatoken", because, True)
    assert checked.bytes == sum(len(text.encode()) for text in TEXTS)
    assert checked.tokens == len(reference.encode(TEXTS)[0]) + len(TEXTS)
    asked = tokenizer.check(reference, TEXTS, "huggingface")
    assert (asked.engine, asked.because, asked.tokens) == ("huggingface", "asked for", checked.tokens)


def test_truncation_padding_and_templates_of_a_given_file_do_not_touch_the_text(content: bytes) -> None:
    from tokenizers import Tokenizer
    from tokenizers.processors import TemplateProcessing

    given = Tokenizer.from_str(content.decode())
    given.enable_truncation(5)
    given.enable_padding(length=50)
    given.post_processor = TemplateProcessing(single="<|im_start|> $A", special_tokens=[("<|im_start|>", 348)])
    plain = TextTokenizer(content, ENDOFTEXT, "t").encode(TEXTS)
    for encoder in ENCODERS.values():
        ids, borders = encoder(given.to_str().encode()).encode(TEXTS)
        assert np.array_equal(ids, plain[0]) and np.array_equal(borders, plain[1])


@pytest.mark.parametrize("bad", [b"", b"{}", b"\xff\xfe", b'{"model": {}}', b"[1, 2]", b"\x80\x04\x95pickle"])
def test_what_is_no_tokenizer_is_named(tmp_path: Path, bad: bytes) -> None:
    path = tmp_path / "bad.json"
    path.write_bytes(bad)
    with pytest.raises(TokenizerError, match=r"bad\.json: not a tokenizer\.json"):
        tokenizer.load(path, ENDOFTEXT)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match=r"none\.json: cannot be read"):
        tokenizer.load(tmp_path / "none.json", ENDOFTEXT)


def test_without_eos_the_special_tokens_are_listed(content: bytes) -> None:
    with pytest.raises(TokenizerError, match=r"has no token '</s>'.*<\|endoftext\|>, <\|im_start\|>"):
        TextTokenizer(content, "</s>", "t")


def test_an_end_that_a_page_could_forge_is_refused(content: bytes) -> None:
    described = json.loads(content)
    described["added_tokens"] = []
    described["model"]["vocab"] |= {"<": 28, "|": 92} | {"<|": 400, ENDOFTEXT: 401}
    described["model"]["ignore_merges"] = True
    described["pre_tokenizer"]["pretokenizers"][0] = {"type": "WhitespaceSplit"}
    with pytest.raises(TokenizerError, match="any page could"):
        TextTokenizer(json.dumps(described).encode(), ENDOFTEXT, "t")


def test_a_changed_file_is_not_taken_for_the_first(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_bytes(content + b" ")
    with pytest.raises(TokenizerError, match="the job began with"):
        tokenizer.encoder(str(path), "0" * 64, "huggingface")


@pytest.mark.parametrize(
    ("settings_", "message"),
    [
        ({"vocab_size": 258}, "vocab_size: 258"),
        ({"train_bytes": 0}, "train_bytes"),
        ({"eos": "</s>"}, "eos: '</s>'"),
    ],
)
def test_settings_that_cannot_be_meant(settings_: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TokenizerConfig(**settings_)  # type: ignore[arg-type]
