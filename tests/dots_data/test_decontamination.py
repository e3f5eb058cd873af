"""Passages of evaluation sets are found wherever they stand, and nothing else is."""

from __future__ import annotations

import dataclasses
import gzip
import json
import random
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dots_data import cache, scan
from dots_data.crawl.sample import make_pages
from dots_data.explain import explain_record
from dots_data.recipe import Recipe
from dots_data.rules import RulesConfig, clean_and_measure, decide
from dots_data.rules import evaluations as sets
from dots_data.rules.apply import _judged
from dots_data.rules.decontamination import Decontamination, detail, measure
from dots_data.rules.evaluations import Evaluations, Settings, compile_sets, files_of, opened
from dots_data.schema import DOCUMENT, MEASURES
from dots_data.text import Document
from dots_data.typed_yaml import ConfigError, build, to_mapping
from dots_data.what_if import changes_that_need_a_run, judge_measures

TRAIN = (
    "A freight train leaves the harbour at noon and travels at sixty miles an hour; how far has it gone when the "
    "passenger train, which left two hours later, catches up with it?"
)
PEAK = "What is the tallest mountain in the whole of Wales?"
SHORT = "Name the capital of France."
APPLES = "小明有三个苹果，小红比小明多五个苹果，他们把苹果放在一起后又吃掉了两个，请问现在还剩下几个苹果？"
CAFE = "Über die Brücke am Café Zoë führte früher die schmale Straße, welche später für den Verkehr gesperrt wurde."
TONES = "นักเรียนคนหนึ่งมีหนังสือสามเล่มและดินสอห้าแท่งเขาให้เพื่อนไปสองแท่งเหลือกี่แท่ง"
ITEMS = (TRAIN, PEAK, SHORT, APPLES, CAFE, TONES)
FILLER = "The weather of the week was mild and the market square filled early with people from the villages. " * 20


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path / "cache"))


@pytest.fixture
def config(tmp_path: Path) -> Decontamination:
    return of(tmp_path, [{"question": item, "answer": "forty two", "id": n} for n, item in enumerate(ITEMS)])


def of(folder: Path, rows: list[Any], **thresholds: Any) -> Decontamination:
    """A rule set with these rows as its one evaluation set."""
    path = folder / "exam.jsonl"
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return Decontamination((str(path),), **thresholds)


def measured(text: str, config: Decontamination) -> dict[str, float]:
    found = measure(Document(text, "en"), config)
    return {name.removeprefix("decontamination."): value for name, value in found.items()}


@pytest.mark.parametrize(
    ("text", "item"),
    [
        (TRAIN, 0),
        (FILLER + TRAIN + " " + FILLER, 0),
        (TRAIN.upper().replace(";", " -- ").replace(",", ""), 0),
        (TRAIN.replace(" ", "\n"), 0),
        (f"**{TRAIN.replace(' ', '_')}**", 0),
        (PEAK, 1),
        (FILLER + "the TALLEST, then. What is “the tallest mountain” in the whole of Wales -- asked she", 1),
        (APPLES, 3),
        ("问题如下：" + APPLES.replace("，", " ").replace("？", "") + "答案是九个。", 3),
        (APPLES.replace("，", "，\u200b"), 3),
        (CAFE.replace("ü", "u\u0308").replace("é", "e\u0301"), 4),
        (CAFE.replace("Ü", "U").replace("ü", "u").replace("é", "e").replace("ë", "e"), 4),
        (TONES, 5),
        (FILLER + TONES + FILLER, 5),
    ],
)
def test_a_whole_item_is_found_wherever_it_stands(text: str, item: int, config: Decontamination) -> None:
    found = measured(text, config)
    assert (found["item"], found["coverage"]) == (item, 1.0)
    assert found["ngrams"] >= 1 and 0 < found["share"] <= 1


@pytest.mark.parametrize(
    "text",
    [
        FILLER,
        "",
        "?!",
        # A paraphrase, a beginning, a text below the minimum, and one that only begins like a short item.
        "At noon a freight train sets out from the port at 60 mph. A second one follows two hours later: when it draws "
        "level with the first, what distance has that one covered?",
        "A freight train leaves the harbour at noon and travels at",
        FILLER + SHORT,
        "What is the tallest mountain in the whole of Scotland?",
        "小明有三个苹果，小红也有。后来他们一起去了学校，老师请他们吃饭。",
        "forty two",
    ],
)
def test_nothing_else_is_found(text: str, config: Decontamination) -> None:
    assert measured(text, config) == {"ngrams": 0, "longest": 0, "share": 0, "coverage": 0}


def test_what_is_measured(tmp_path: Path) -> None:
    words = [f"w{n}" for n in range(40)]
    rows = [" ".join(words[:30]), " ".join(words[20:40])]
    config = of(tmp_path, rows)
    # Of the first item words 0 to 14 (three 13-grams of 18) and 5 to 17 again, of the second nothing whole.
    text = " ".join(["a", "b", *words[:15], "c", *words[5:18], "d"])
    assert measured(text, config) == {
        "ngrams": 4.0,
        "longest": 15.0,
        "share": 28 / 32,
        "coverage": 4 / 18,
        "item": 0.0,
    }
    # One 13-gram of both, 30 - 13 + 1 and 20 - 13 + 1 of them in all: the second is hit more.
    shared = of(tmp_path / "..", [" ".join(words[:30]), " ".join(words[10:30])])
    found = measured(" ".join(words[12:25]), shared)
    assert (found["ngrams"], found["item"], found["coverage"]) == (1, 1, 1 / 8)


def naive(text: str, items: list[str], n: int, least: int) -> tuple[int, set[int]]:
    """Where n-grams of the items begin in a text, and which items these are, by the definition."""
    words, looked_for = text.split(), {}
    for number, item in enumerate(items):
        parts = item.split()
        size = min(n, len(parts))
        for at in range(len(parts) - size + 1 if size >= least else 0):
            looked_for.setdefault(tuple(parts[at : at + size]), set()).add(number)
    places, hit = set(), set()
    for at in range(len(words)):
        for size in range(least, n + 1):
            if numbers := looked_for.get(tuple(words[at : at + size])):
                places.add(at)
                hit |= numbers
    return len(places), hit


letters = st.lists(st.sampled_from("abc"), max_size=12).map(" ".join)


@settings(max_examples=60)
@given(st.lists(letters, min_size=1, max_size=4), letters, st.integers(1, 3), st.integers(0, 2))
def test_as_the_definition_has_it(items: list[str], text: str, least: int, more: int) -> None:
    n = least + more
    expected, hit = naive(text, items, n, least)
    table = _table(items, n, least, most=1000)
    if table is None:
        assert not hit
        return
    found = table.overlap(scan.codes(text))
    # Of equal texts the first item has them all.
    assert found.ngrams == expected and (found.item in hit if hit else found.item == -1)


def _table(items: list[str], n: int, least: int, most: int) -> Evaluations | None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "items.jsonl"
        path.write_text("".join(json.dumps(item) + "\n" for item in items))
        try:
            compile_sets(Path(folder) / "table", files_of(path), Settings((str(path),), None, n, least, most))
        except ConfigError:
            return None
        return Evaluations(Path(folder) / "table")


def test_equal_hashes_are_no_equal_texts(config: Decontamination, monkeypatch: pytest.MonkeyPatch) -> None:
    table = config.opened()
    units = sets.overlap.units(scan.codes(TRAIN))
    # Every n-gram of a page is given the hash of one in the table, and a filter that lets all pass.
    fooled = table.table._replace(filter=np.full(1, 2**64 - 1, np.uint64))
    zeros = units._replace(hashes=np.zeros_like(units.hashes))
    key = sets.overlap._key(zeros.hashes, sets.overlap.powers(52), 0, 13)
    fooled = fooled._replace(keys=np.full(len(table), key))
    assert len(sets.overlap.find(zeros, fooled)) > 0
    other = sets.overlap.units(scan.codes(FILLER))
    assert len(sets.overlap.find(other._replace(hashes=np.zeros_like(other.hashes)), fooled)) == 0


def test_a_template_of_the_sets_is_no_passage(tmp_path: Path) -> None:
    template = "The following is a multiple choice question about one of many subjects, think before you answer it: "
    names = [f"{word}{n}" for word in ("red", "green", "blue", "grey") for n in range(10)]
    rows = [template + " ".join(random.Random(n).sample(names, 14)) for n in range(12)]
    assert measured(template, of(tmp_path, rows))["ngrams"] == 0
    assert measured(rows[7], of(tmp_path, rows))["coverage"] == 1
    assert measured(template, of(tmp_path / "..", rows, max_items=12))["ngrams"] > 0


def test_a_passage_of_many_questions_is_looked_for(tmp_path: Path) -> None:
    config = of(tmp_path, [{"context": TRAIN, "question": f"What of number {n}?"} for n in range(30)])
    assert measured(TRAIN, config)["coverage"] == 1


WRITTEN = {
    "a.jsonl": lambda path: path.write_text(f"{json.dumps({'q': PEAK})}\n\n{json.dumps([{'deep': TRAIN}])}\n"),
    "b.jsonl.gz": lambda path: path.write_bytes(gzip.compress(json.dumps(TRAIN).encode())),
    "c.json": lambda path: path.write_text(json.dumps([{"q": PEAK}, {"q": TRAIN}])),
    "d.parquet": lambda path: pq.write_table(pa.table({"q": [PEAK, TRAIN], "n": [1, 2]}), path),
    "e.txt": lambda path: path.write_bytes(f"\ufeff{PEAK}\r\n\r\n\r\n{TRAIN.replace('; ', ';' + chr(10))}".encode()),
    "inner/f.ndjson": lambda path: path.write_text(json.dumps({"q": TRAIN})),
}


@pytest.mark.parametrize(
    ("name", "item"),
    [("a.jsonl", 3), ("b.jsonl.gz", 1), ("c.json", 2), ("d.parquet", 2), ("e.txt", 2), ("inner/f.ndjson", 1)],
)
def test_kinds_of_files(tmp_path: Path, name: str, item: int) -> None:
    folder = tmp_path / "sets"
    (folder / name).parent.mkdir(parents=True)
    WRITTEN[name](folder / name)
    (folder / "README.md").write_text(FILLER)
    for path in (folder, folder / name):
        config = Decontamination((str(path),))
        found = measured(TRAIN, config)
        assert found["coverage"] == 1
        told = config.opened().item_name(int(found["item"]))
        assert told == f"{name if path == folder else (folder / name).name}:{item}"


def test_fields(tmp_path: Path) -> None:
    rows = [{"question": PEAK, "context": TRAIN}, {"question": APPLES}]
    asked = of(tmp_path, rows, fields=("question",))
    assert measured(TRAIN, asked)["ngrams"] == 0 and measured(APPLES, asked)["item"] == 1
    with pytest.raises(ConfigError, match=r"exam\.jsonl: none of its rows has the field 'qestion'"):
        of(tmp_path, rows, fields=("qestion",)).opened()


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("gone.jsonl", None, "no such file"),
        ("notes.md", b"x", "holds no evaluation set"),
        ("a.jsonl", b'{"a": "b"}\n{"a": ', "line 2: not JSON"),
        ("a.parquet", b"PAR1", "a.parquet"),
        ("a.txt", b"\xff\xfe", "utf-8"),
        ("a.jsonl.gz", b"\x1f\x8b\x08half", "a.jsonl.gz"),
        ("a.jsonl", b'{"a": "too short"}', "no text of 8 words"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path: Path, name: str, content: bytes | None, says: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigError, match=re.escape(says)) as raised:
        Decontamination((str(tmp_path / name),)).opened()
    assert name in str(raised.value)


@pytest.mark.parametrize("wrong", [{"words": 7}, {"min_words": 0}, {"words": 65}, {"max_items": 0}])
def test_wrong_numbers_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        build(Decontamination, wrong, "here")


def test_the_table_does_not_depend_on_the_order_of_its_making(tmp_path: Path, config: Decontamination) -> None:
    first = config.opened()
    (made,) = cache.folder().glob("evaluations-*.bin")
    before = made.read_bytes()
    made.write_bytes(before[:-1])
    with pytest.raises(ConfigError, match="not all of them"):
        Evaluations(made)
    opened.cache_clear()
    assert len(config.opened()) == len(first) and made.read_bytes() == before


def test_it_is_off_without_sets() -> None:
    config = RulesConfig()
    measures = clean_and_measure(FILLER, "en", config).measures
    assert not [name for name in measures if name.startswith("decontamination")]
    assert decide(measures, "en", RulesConfig(*[None] * 6)) is None


def test_the_ledger_says_which_item(config: Decontamination, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = Recipe(rules=RulesConfig(*[None] * 6, decontamination=config))
    where = {"doc_id": "1", "record_id": "r", "url": "http://a.example/", "warc_file": "a.warc", "warc_offset": 0}
    page = where | {"warc_index": 0, "date": "", "dump": "", "language": "en", "language_score": 1.0}
    rows = [page | {"text": FILLER}, page | {"text": FILLER + TRAIN}]
    table = pa.Table.from_pylist(rows, schema=pa.schema([*DOCUMENT, pa.field("lines_removed", pa.int32())]))
    clean, dirty = _judged(table.to_batches()[0], recipe.rules, keep_texts=False)
    assert "decision" not in clean and clean["text"] == FILLER
    assert (dirty["stage"], dirty["rule"], dirty["threshold"]) == ("rules", "decontamination.ngrams", 0.0)
    assert dirty["detail"] == "100% of exam.jsonl:1" and dirty["text"] == ""
    ledger_row = {**dirty, "duplicate_of": None, "copy_of": None, "similarity": None}
    explain_record(ledger_row, {}, {"recipe": to_mapping(recipe)})
    said = capsys.readouterr().out
    assert "100% of exam.jsonl:1" in said and "decontamination.longest" in said


def test_other_thresholds_are_judged_from_the_ledger_and_other_sets_are_not(config: Decontamination) -> None:
    def recipe(**changes: Any) -> Recipe:
        return Recipe(rules=RulesConfig(*[None] * 6, decontamination=dataclasses.replace(config, **changes)))

    lenient = recipe(max_ngrams=None, max_coverage=0.5)
    assert changes_that_need_a_run(recipe(), lenient) == []
    for changes, key in (({"evaluations": ("others",)}, "evaluations"), ({"words": 12}, "words")):
        assert changes_that_need_a_run(recipe(), recipe(**changes)) == [f"rules.decontamination.{key}"]
    texts = [TRAIN, " ".join(TRAIN.split()[:14]), FILLER]
    measures = [list(measure(Document(text, "en"), config).items()) for text in texts]
    judged = judge_measures(pa.array(measures, MEASURES), ["en"] * 3, lenient.rules)
    rules = [judged.names[number] if number >= 0 else "" for number in judged.failed]
    assert rules == ["decontamination.coverage", "", ""]
    strict = judge_measures(pa.array(measures, MEASURES), ["en"] * 3, recipe().rules)
    assert (strict.failed >= 0).tolist() == [True, True, False]


def test_new_content_is_another_run(tmp_path: Path) -> None:
    def assets() -> str:
        return Recipe(rules=RulesConfig(decontamination=config)).assets_hash()

    config = of(tmp_path, [PEAK])
    before = assets()
    of(tmp_path, [TRAIN])
    assert assets() != before


QUESTIONS = (
    "Which of the following statements about the structure of the cell membrane of plants is true?",
    "A shop sells apples at three for a pound and pears at two for a pound; how much do nine apples cost?",
    "The author of the passage most probably mentions the invention of the printing press in order to show what?",
    "下列关于光合作用的说法中，正确的是哪一项？光合作用只在有光的条件下进行，释放氧气并储存能量。",
    "Write a function that takes a list of numbers and returns the sum of the squares of those that are even.",
    "If all roses are flowers and some flowers fade quickly, does it follow that some roses fade quickly?",
)


def test_no_page_of_the_sample_crawl_is_taken_for_contaminated(tmp_path: Path) -> None:
    config = of(tmp_path, [{"question": question} for question in (*QUESTIONS, *ITEMS)])
    bodies = (page.body for page in make_pages(400, seed=3) if page.expect in ("kept", "duplicate"))
    texts = [re.sub("<[^>]*>", " ", body.decode("utf-8", "replace")) for body in bodies]
    assert len(texts) > 300
    assert not [text for text in texts if measured(text, config)["ngrams"]]
    planted = [text + question for text, question in zip(texts, QUESTIONS, strict=False)]
    assert all(measured(text, config)["coverage"] == 1 for text in planted)


def test_a_verdict_without_the_sets_has_no_detail() -> None:
    """`dots judge` decides from measures; the sets may be gone, or the recipe may name none."""
    assert detail({"decontamination.ngrams": 1.0, "decontamination.coverage": 0.5}, Decontamination()) == ""
