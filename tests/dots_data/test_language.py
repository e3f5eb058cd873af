"""Language identification."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dots_data.language import (
    MODEL_VARIABLE,
    SAMPLE_CHARS,
    Language,
    LanguageConfig,
    LanguageIdentifier,
    check,
    find_model,
    look,
    raw_text,
    sample,
    scripts,
)
from dots_data.typed_yaml import ConfigError

TEXTS = {
    "en": "The harbour was rebuilt after the storm, and its walls have kept the town dry.\nIt is not tall.",
    "de": "Der Hafen wurde nach dem Sturm wieder aufgebaut, und seine Mauern halten die Stadt trocken.",
    "zh": "风暴过后，港口重建了，新的堤墙一直保护着这座城市，使它免受海水的侵袭。",
    "fr": "Le port a été reconstruit après la tempête et ses murs protègent la ville depuis lors.",
    "ru": "После шторма порт был восстановлен, и его стены с тех пор защищают город.",
}


@pytest.fixture(scope="module")
def identifier() -> LanguageIdentifier:
    try:
        find_model()
    except ConfigError as error:
        pytest.skip(str(error))
    return LanguageIdentifier()


@pytest.mark.parametrize("code", sorted(TEXTS))
def test_languages(identifier: LanguageIdentifier, code: str) -> None:
    language = identifier.identify(TEXTS[code])
    assert language.code == code and 0.65 < language.score <= 1.0
    assert identifier.identify(TEXTS[code] * 1000).code == code


@pytest.mark.parametrize(
    ("text", "tag"),
    [
        ("风暴过后，港口重建了，新的堤墙一直保护着这座城市，使它免受海水的侵袭。", "zh-Hans"),
        ("風暴過後，港口重建了，新的堤牆一直保護著這座城市，使它免受海水的侵襲。", "zh-Hant"),
        ("山水有清音", "zh"),
        ("风風", "zh"),
        ("", "zh"),
        ("one 两 two", "zh-Hans"),
    ],
)
def test_scripts(text: str, tag: str) -> None:
    assert Language("zh", 1.0, *scripts(text)).tag == tag


def test_scripts_of_real_texts(real_data: Path, identifier: LanguageIdentifier) -> None:
    for name, script in (("lctt", "zh-Hans"), ("chinese-poetry", "zh-Hant")):
        with gzip.open(real_data / "text" / f"{name}.jsonl.gz", "rt", encoding="utf-8") as lines:
            texts = [json.loads(line)["text"] for _, line in zip(range(200), lines, strict=False)]
        tags = [Language("zh", 1.0, *scripts(text)).tag for text in texts if len(text) > 60]
        assert tags.count(script) >= 0.95 * len(tags), name
    assert set(identifier.identify(TEXTS["zh"]).measures) == {
        "language.score",
        "language.simplified",
        "language.traditional",
    }
    assert set(identifier.identify(TEXTS["en"]).measures) == {"language.score"}


def test_line_ends_do_not_matter(identifier: LanguageIdentifier) -> None:
    assert identifier.identify("one\ntwo\r\nthree") == identifier.identify("one two three")


@pytest.mark.parametrize("text", ["", " \n ", "\0"])
def test_nothing_has_no_language(identifier: LanguageIdentifier, text: str) -> None:
    assert identifier.identify(text) == Language("", 0.0)


def test_any_text_gets_the_same_answer_twice(identifier: LanguageIdentifier) -> None:
    @given(st.text(max_size=200))
    def same(text: str) -> None:
        first = identifier.identify(text)
        assert first == identifier.identify(text) and 0.0 <= first.score <= 1.0

    same()


def test_standard_error_stays_clean(identifier: LanguageIdentifier, capfd: pytest.CaptureFixture[str]) -> None:
    LanguageIdentifier().identify(TEXTS["en"])
    assert capfd.readouterr().err == ""


@given(st.text(max_size=40), st.integers(1, 2000))
def test_the_sample_is_one_bounded_line(text: str, times: int) -> None:
    line = sample(text * times)
    assert len(line) <= SAMPLE_CHARS + 1 and "\n" not in line and "\0" not in line


@pytest.mark.parametrize(
    ("language", "config", "rule", "value", "threshold"),
    [
        (Language("de", 0.65), LanguageConfig(), None, 0, 0),
        (Language("de", 0.64), LanguageConfig(), "language.min_score", 0.64, 0.65),
        (Language("", 0.0), LanguageConfig(), "language.min_score", 0.0, 0.65),
        (Language("de", 0.9), LanguageConfig(keep=("en", "zh")), "language.keep", 0.0, 1.0),
        (Language("zh", 0.9), LanguageConfig(keep=("en", "zh")), None, 0, 0),
        (Language("zh", 0.9, 0.0, 0.3), LanguageConfig(keep=("en", "zh")), None, 0, 0),
        (Language("zh", 0.9, 0.0, 0.3), LanguageConfig(keep=("zh-Hant",)), None, 0, 0),
        (Language("zh", 0.9, 0.3, 0.0), LanguageConfig(keep=("zh-Hant",)), "language.keep", 0.0, 1.0),
    ],
)
def test_verdicts(language: Language, config: LanguageConfig, rule: str | None, value: float, threshold: float) -> None:
    verdict = check(language, config)
    assert (verdict and verdict.rule) == rule
    if verdict:
        assert (verdict.stage, verdict.value, verdict.threshold, verdict.detail, verdict.decision) == (
            *("language", value, threshold, language.tag if rule == "language.keep" else language.code),
            "dropped",
        )


def test_models_that_are_missing_or_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"gone.ftz: no such language model"):
        find_model(str(tmp_path / "gone.ftz"))
    monkeypatch.setenv(MODEL_VARIABLE, str(tmp_path / "other.ftz"))
    with pytest.raises(ConfigError, match="no such language model"):
        find_model()
    (tmp_path / "other.ftz").write_bytes(b"no model")
    with pytest.raises(ConfigError, match="not a fastText model"):
        LanguageIdentifier()
    monkeypatch.delenv(MODEL_VARIABLE)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="run `make setup`"):
        find_model()


def _page(named: str, text: str) -> str:
    return f"<html {named}><head><style>p {{ color: red }}</style></head><body><script>var a = 1;</script><p>{text}</p>"


@pytest.mark.parametrize(
    ("named", "spoken", "keep", "early_score", "ends"),
    [
        ('lang="de-CH"', "de", ("en", "zh"), 0.65, True),
        ("class=x lang=fr", "de", ("en",), 0.65, True),
        # The page says one thing, its text another: neither is trusted alone.
        ('lang="en"', "de", ("en",), 0.65, False),
        ('lang="de"', "en", ("en",), 0.65, False),
        ("", "de", ("en",), 0.65, False),
        ('lang="zh-TW"', "zh", ("zh-Hans",), 0.65, False),
        ('lang="de"', "de", None, 0.65, False),
        ('lang="de"', "de", ("en",), None, False),
        ('lang="de"', "de", ("en",), 1.0, False),
    ],
)
def test_a_page_ends_early_where_name_and_text_agree(
    identifier: LanguageIdentifier,
    named: str,
    spoken: str,
    keep: tuple[str, ...] | None,
    early_score: float | None,
    ends: bool,
) -> None:
    verdict = look(_page(named, TEXTS[spoken]), identifier, LanguageConfig(keep=keep, early_score=early_score))
    assert (verdict is not None) == ends
    if verdict:
        assert verdict.rule == "language.early" and verdict.value >= verdict.threshold == early_score
        assert verdict.detail.startswith("de, the page says")


def test_raw_text_is_what_stands_outside_of_tags() -> None:
    assert raw_text(_page("lang=en", "One <b>two</b>\n three")) == "One two three"


@given(st.text(alphabet="<>/ab \"'-!scriptyle", max_size=200))
def test_raw_text_takes_any_markup(html: str) -> None:
    assert "<" not in raw_text(html)
