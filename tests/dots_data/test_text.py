"""Text taken apart: words by script, lines and sentences, and the normal form that dedup compares."""

from __future__ import annotations

import hashlib
import re
import unicodedata

import pytest
import rjieba
from hypothesis import given
from hypothesis import strategies as st

from dots_data import scan
from dots_data.text import (
    PIECE,
    SOUTHEAST_ASIAN,
    Document,
    base_language,
    character_classes,
    finished_share,
    normalise,
    shingle_words,
    split_words,
)

# Surrogates and controls too: crawled text holds them.
ANY_TEXT = st.text(alphabet=st.characters(codec=None, categories=None), max_size=200)


@pytest.mark.parametrize(
    ("language", "text", "words"),
    [
        ("en", "Don't stop, now!", ["Don't", "stop", ",", "now", "!"]),
        ("en", "a well-known 3.14 (e.g. this)", ["a", "well-known", "3.14", "(", "e.g", ".", "this", ")"]),
        ("en", "see https://example.org/a-b?c=1 there", ["see", "https://example.org/a-b?c=1", "there"]),
        ("en", "Title\n=====\n\nText...", ["Title", "=====", "Text", "..."]),
        ("fr", "cafe\u0301 noir", ["cafe\u0301", "noir"]),
        ("hi", "हिन्दी भाषा है।", ["हिन्दी", "भाषा", "है", "।"]),
        ("ru", "Привет, мир", ["Привет", ",", "мир"]),
        ("ar", "مرحبا، عالم", ["مرحبا", "،", "عالم"]),
        ("ko", "안녕 세계", ["안녕", "세계"]),
        ("zh", "我们今天去北京。", ["我们", "今天", "去", "北京", "。"]),
        ("zh-hant", "我們 喜歡 Ubuntu", ["我們", "喜歡", "Ubuntu"]),
        ("zh", "见https://a.cn/x-y，好", ["见", "https://a.cn/x-y", "，", "好"]),
        ("zh", "标题\n=====", ["标题", "====="]),
        ("ja", "東京タワーへ行く", ["東京", "タワー", "へ", "行", "く"]),
        ("en", "the word 中文 here", ["the", "word", "中文", "here"]),
        ("th", "เขากินข้าวที่บ้าน 3.5 ครั้ง", ["เขา", "กิน", "ข้าว", "ที่", "บ้าน", "3.5", "ครั้ง"]),
        ("th", "กิน😀ข้าว\ud800\u200bบ้าน", ["กิน", "😀", "ข้าว", "\ud800", "บ้าน"]),
        ("lo", "ພາສາລາວເປັນພາສາທາງການ", ["ພາສາ", "ລາວ", "ເປັນ", "ພາສາ", "ທາງການ"]),
        ("km", "ភាសា\u200bខ្មែរ\u200bជាភាសា", ["ភាសា", "ខ្មែរ", "ជា", "ភាសា"]),
        ("my", "မြန်မာနိုင်ငံ၏ စကား", ["မြန်မာနိုင်ငံ", "၏", "စကား"]),
        ("bo", "བོད་ཡིག", ["བོ", "ད", "་", "ཡི", "ག"]),
        ("en", "กินข้าว", ["กิ", "น", "ข้", "า", "ว"]),
        ("en", "", []),
        ("zh", " \n\t ", []),
    ],
)
def test_words_follow_the_script(language: str, text: str, words: list[str]) -> None:
    assert split_words(text, language) == words


@given(ANY_TEXT, st.sampled_from(["en", "zh", "ja", "th", "km", "hi", ""]))
def test_words_hold_every_character_but_white_space(text: str, language: str) -> None:
    kept = "".join(split_words(text, language)).replace("\ufffd", "")
    wanted = "".join(text.split()).replace("\ufffd", "")
    if base_language(language) == "zh":  # the Chinese segmenter takes no lone surrogates
        wanted = "".join(c for c in wanted if not "\ud800" <= c <= "\udfff")
    if base_language(language) in SOUTHEAST_ASIAN:
        wanted = wanted.replace("\u200b", "")
    assert kept == wanted


@given(
    st.lists(
        st.sampled_from([*"กินข้าวที่บ้าน", "ခရီး", "ភាសា", "ລາວ", "😀", "\ud800", "x", " ", "\n", "\u200b"]), max_size=60
    )
)
def test_a_line_has_the_same_words_alone_as_in_its_text(pieces: list[str]) -> None:
    text = "".join(pieces)
    assert split_words(text, "th") == [word for line in text.split("\n") for word in split_words(line, "th")]


def test_long_chinese_text_is_cut_where_no_word_is() -> None:
    sentence = "我们今天去北京大学参观计算机语言的展览，"
    text = sentence * (3 * PIECE // len(sentence))
    assert split_words(text, "zh") == split_words(sentence, "zh") * (3 * PIECE // len(sentence))


WHOLE = re.compile(r"((?:https?://|www\.)[!-~]+|[-=*.~#+_]{3,})")


def plain_chinese(text: str) -> list[str]:
    """jieba's words of the whole text but for its URLs and rulers."""
    words: list[str] = []
    for index, part in enumerate(WHOLE.split(re.sub("[\ud800-\udfff]", "\ufffd", text))):
        words += [part] if index % 2 else rjieba.cut(part)
    return [word for word in words if not word.isspace()]


CHINESE_PIECES = st.lists(
    st.one_of(
        st.sampled_from(
            [*"-=*.~#+_%&/:,'’\"()，。！·～\0\r\n \u3000\u200bé1２", "\ud800", "http://", "www.", "...", "C++", "AT&T"]
        ),
        st.sampled_from(
            [
                "我们",
                "今天",
                "去",
                "北京大学",
                "研究生命",
                "起源",
                "T恤",
                "U盘",
                "4S店",
                "iPhone15",
                "3.14%",
                "x_y",
                "の",
            ]
        ),
        st.text(st.characters(codec=None, categories=None), max_size=3),
    ),
    max_size=40,
).map("".join)


@given(CHINESE_PIECES)
def test_chinese_words_are_those_of_jieba(text: str) -> None:
    found = [re.sub("[\ud800-\udfff]", "\ufffd", word) for word in split_words(text, "zh")]
    assert found == plain_chinese(text)


def test_every_mark_is_a_word_to_jieba() -> None:
    parting = [chr(code) for code in range(0x110000) if scan._parts_chinese.py_func(int(character_classes()[code]))]
    assert len(parting) > 8000
    assert rjieba.cut("".join(f"北京{mark}a{mark}" for mark in parting)) == [
        word for mark in parting for word in ("北京", mark, "a", mark)
    ]


def test_words_can_be_given() -> None:
    document = Document("a b", "en", words=["a", "b", "a"])
    assert document.words == ["a", "b", "a"]
    assert document.distinct_words == ["a", "b"]
    assert document.word_ids.tolist() == [0, 1, 0]
    assert document.word_counts.tolist() == [2, 1]


@pytest.mark.parametrize(
    ("text", "lines", "paragraphs", "finished", "sentences"),
    [
        ("", 0, 1, 0, 0),
        ("\n \n", 0, 1, 0, 0),
        ("One. Two? Three!", 1, 1, 1, 3),
        ("A title\n\nOne. Two", 2, 2, 0, 3),
        ('He said "Go."\nVersion 3.14 (new.)  ', 2, 1, 2, 2),
        ("今天很好。明天呢？“是！”她说", 1, 1, 0, 4),
        ("これはペンです。\nそうですか？", 2, 1, 2, 2),
        ("यह एक वाक्य है। और दूसरा।", 1, 1, 1, 2),
    ],
)
def test_lines_paragraphs_and_sentences(text: str, lines: int, paragraphs: int, finished: int, sentences: int) -> None:
    document = Document(text, "en")
    found = (len(document.lines), len(document.paragraphs[0]), document.finished_lines, document.sentences)
    assert found == (lines, paragraphs, finished, sentences)


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("  Hello,\t\n World! ", "hello world"),
        ("don't", "dont"),
        ("你好，世界。", "你好世界"),
        ("Caf\u00e9", "cafe\u0301"),
        ("\u212bngstr\u00f6m", "a\u030angstro\u0308m"),
        ("| a | b |\n► c", "a b c"),
        ("zero\u200bwidth\ufeff soft\u00adhyphen", "zerowidth softhyphen"),
        ("\ud800x\x00y", "xy"),
        ("...!?", ""),
        ("", ""),
    ],
)
def test_normal_form(text: str, normal: str) -> None:
    assert normalise(text) == normal


@given(ANY_TEXT)
def test_normal_form_is_idempotent_and_can_be_encoded(text: str) -> None:
    normal = normalise(text)
    assert normalise(normal) == normal
    assert unicodedata.is_normalized("NFD", normal)
    hashlib.md5(normal.encode("utf-8"), usedforsecurity=False)


@given(st.lists(st.text(alphabet="abcXYZé日本語한я", min_size=1, max_size=8), max_size=20), st.data())
def test_normal_form_ignores_case_spacing_and_punctuation(words: list[str], data: st.DataObject) -> None:
    def dressed(word: str) -> str:
        marks = data.draw(st.sampled_from([",", "。", "", "—", "*", "\u200b"]))
        space = data.draw(st.sampled_from([" ", "\n", "\u3000", " \t "]))
        return data.draw(st.sampled_from([word, word.upper(), word.lower()])) + marks + space

    assert normalise("".join(map(dressed, words))) == normalise(" ".join(words))


@pytest.mark.parametrize(
    ("language", "text", "words"),
    [
        ("en", "The Quick, brown-fox!", ["the", "quick", "brownfox"]),
        ("zh", "我们今天去北京。", ["我们", "今天", "去", "北京"]),
        ("zh", "你好，Linux 世界", ["你好", "linux", "世界"]),
        ("ja", "東京へ go", ["東", "京", "へ", "go"]),
        ("th", "กิน", ["ก", "ิ", "น"]),
        ("de", "中文 und Deutsch", ["中", "文", "und", "deutsch"]),
        ("en", "!!!", []),
    ],
)
def test_shingle_words(language: str, text: str, words: list[str]) -> None:
    assert shingle_words(text, language) == words


@pytest.mark.parametrize("tag", ["zh", "zh-Hant", "zh_TW", "ZH-hans"])
def test_base_language(tag: str) -> None:
    assert base_language(tag) == "zh"


@pytest.mark.parametrize(
    ("text", "share"),
    [
        ("", 0.0),
        ("Menu\nHome", 0.0),
        ("Four.\nabcde", 0.5),
        ("  He said: \u201cGo!\u201d  \n\n", 1.0),
        ("\u4eca\u5929\u597d\u3002\nabcd", 0.5),
    ],
)
def test_the_share_of_finished_lines(text: str, share: float) -> None:
    assert finished_share(text) == share
