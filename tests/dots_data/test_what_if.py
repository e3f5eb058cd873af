"""Judging again: the same verdicts as the judge's own, and a refusal where the ledger cannot know."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dots_data import cli
from dots_data.recipe import Recipe
from dots_data.rules import RULES, RulesConfig, decide
from dots_data.schema import LEDGER, MEASURES, NEAR
from dots_data.typed_yaml import ConfigError, build, to_mapping
from dots_data.what_if import changes_that_need_a_run, judge_again, judge_measures, overlaid

MEASURED = sorted({rule.measure for rule in RULES.values()})
VALUES = st.dictionaries(st.sampled_from(MEASURED), st.floats(0, 200_000, width=32) | st.floats(0, 1), max_size=40)


@given(st.lists(st.tuples(VALUES, st.sampled_from(["en", "zh", "de", "th", "", None])), max_size=12))
def test_verdicts_are_those_of_the_judge(rows: list[tuple[dict[str, float], str | None]]) -> None:
    config = build(RulesConfig, {"gopher_quality": {"by_language": {"zh": {"min_words": None}}}}, "recipe")
    measures = pa.array([list(values.items()) for values, _ in rows], MEASURES)
    # Of a slice, too: its offsets do not begin at 0.
    for first in (0, min(2, len(rows))):
        judged = judge_measures(measures[first:], [language for _, language in rows[first:]], config)
        for place, (values, language) in enumerate(rows[first:]):
            verdict = decide(values, language or "", config)
            failed = judged.failed[place]
            assert (judged.names[failed] if failed >= 0 else None) == (verdict.rule if verdict else None)
            if verdict:
                assert (judged.values[place], judged.thresholds[place]) == (verdict.value, verdict.threshold)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"rules": {"gopher_quality": {"min_words": 10}, "c4": {"min_sentences": None}}}, ""),
        ({"rules": {"fineweb": None, "gopher_repetition": {"by_language": {"nl": {"top_2_gram": 0.3}}}}}, ""),
        ({"fuzzy": {"threshold": 0.9}}, ""),
        ({"fuzzy": {"threshold": 0.7}}, "fuzzy.threshold"),
        ({"fuzzy": {"bands": 64}}, "fuzzy"),
        ({"language": {"min_score": 0.7}}, "language"),
        ({"rules": {"c4": None}}, "rules.c4"),
        ({"rules": {"c4": {"remove_policies": False}}}, "rules.c4.remove_policies"),
        ({"rules": {"c4": {"by_language": {"de": {"min_line_words": 2}}}}}, "rules.c4.by_language"),
    ],
)
def test_what_the_ledger_cannot_answer_for_is_named(change: dict[str, Any], named: str, tmp_path: Path) -> None:
    job = tmp_path / "new.yaml"
    job.write_text(repr({"recipe": change}).replace("None", "null").replace("False", "false"))
    needed = changes_that_need_a_run(Recipe(), overlaid(Recipe(), job))
    assert bool(needed) == bool(named) and all(one.startswith(named) for one in needed)


def test_a_set_that_was_off_was_not_measured() -> None:
    off = dataclasses.replace(Recipe(), rules=RulesConfig(fineweb=None))
    assert changes_that_need_a_run(off, Recipe()) == ["rules.fineweb (was off: not measured)"]


def row(doc_id: str, words: float, **values: Any) -> dict[str, Any]:
    kept: dict[str, Any] = dict.fromkeys(LEDGER.names)
    where = {
        "record_id": doc_id,
        "url": f"https://a/{doc_id}",
        "warc_file": "f",
        "warc_offset": 0,
        "warc_index": 0,
        "dump": "",
        "site_rank": 0,
    }
    measures = {"gopher.words": words} if words else {}
    return {
        **kept,
        **where,
        "doc_id": doc_id,
        "date": "",
        "decision": "kept",
        "language": "en",
        "measures": list(measures.items()),
        **values,
    }


DROPPED = {"decision": "dropped", "stage": "rules", "rule": "gopher.min_words", "value": 40.0, "threshold": 50.0}
NEAR_TO_A = {"decision": "dropped", "stage": "fuzzy", "rule": "fuzzy.jaccard", "value": 0.9, "threshold": 0.8}


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """A run of seven records: a kept, b near to a, c near to b, d dropped by a rule with a copy, e ended early."""
    rows = [
        row("a", 100.0),
        row("b", 200.0, **NEAR_TO_A, duplicate_of="a", similarity=0.9),
        row("c", 200.0),
        row("d", 40.0, **DROPPED),
        row("e", 0.0, decision="quarantined", stage="extraction", rule="x", value=1.0, threshold=0.0),
        row("f", 0.0, **DROPPED, copy_of="d"),
        row("g", 0.0, decision="dropped", stage="identity", rule="identity.copies", copy_of="a"),
    ]
    for folder, table in (
        ("ledger", pa.Table.from_pylist(rows, LEDGER)),
        (
            "near",
            pa.Table.from_pylist(
                [
                    {"doc_id": "b", "near_to": "a", "similarity": 0.9},
                    {"doc_id": "c", "near_to": "b", "similarity": 0.85},
                ],
                NEAR,
            ),
        ),
        ("documents", pa.table({"doc_id": ["a", "c"], "text": ["The text of a.", "The text of c."]})),
    ):
        (tmp_path / folder).mkdir()
        pq.write_table(table, tmp_path / folder / "part-00000.parquet")
    return tmp_path


def fates(output: Path, **rules: Any) -> dict[tuple[str, str, str], int]:
    new = build(Recipe, {"rules": {"gopher_quality": rules}}, "recipe")
    return dict(judge_again(output, Recipe(), new).after)


EARLY = ("quarantined", "extraction", "x")
KEPT, WORDS = ("kept", "", ""), ("dropped", "rules", "gopher.min_words")
COPY, NEARBY = ("dropped", "identity", "identity.copies"), ("dropped", "fuzzy", "fuzzy.jaccard")


@pytest.mark.parametrize(
    ("min_words", "expected"),
    [
        (50, {KEPT: 2, NEARBY: 1, WORDS: 2, EARLY: 1, COPY: 1}),
        # The dropped text is kept, and its copy a copy; a still drops b, and so b drops no one.
        (40, {KEPT: 3, NEARBY: 1, EARLY: 1, COPY: 2}),
        # Without a, its copy goes as well; b stays, and c is near to it.
        (101, {KEPT: 1, NEARBY: 1, WORDS: 4, EARLY: 1}),
        (None, {KEPT: 3, NEARBY: 1, EARLY: 1, COPY: 2}),
    ],
)
def test_fates(output: Path, min_words: int | None, expected: dict[tuple[str, str, str], int]) -> None:
    assert fates(output, min_words=min_words) == expected


def test_documents_gained_and_lost(output: Path) -> None:
    looser = build(Recipe, {"rules": {"gopher_quality": {"min_words": 40}}}, "recipe")
    answer = judge_again(output, Recipe(), looser)
    assert [(c.doc_id, c.rule, c.value, c.threshold) for c in answer.gained] == [("d", "gopher.min_words", 40, 50)]
    assert (answer.lost, answer.uncompared) == ([], 1)
    stricter = build(Recipe, {"rules": {"gopher_quality": {"min_words": 101}}}, "recipe")
    answer = judge_again(output, Recipe(), stricter)
    assert [(c.doc_id, c.rule) for c in answer.gained] == [("b", "fuzzy.jaccard")]
    assert [(c.doc_id, c.rule, c.value) for c in answer.lost] == [
        ("a", "gopher.min_words", 100),
        ("c", "fuzzy.jaccard", 0.85),
    ]
    assert answer.uncompared == 0


def test_the_command(output: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (output / "summary.json").write_text('{"recipe": {}}')
    job, saved = tmp_path / "new.yaml", tmp_path / "saved.yaml"
    job.write_text("recipe: {rules: {gopher_quality: {min_words: 101}}}")
    asked = ["judge", "--ledger", str(output), "--recipe", str(job)]
    assert cli.main([*asked, "--save", str(saved)]) == 0
    shown = capsys.readouterr().out
    assert "gained: 1 documents" in shown and "lost: 2 documents" in shown and "The text of a." in shown
    assert overlaid(Recipe(), saved) == overlaid(Recipe(), job)
    job.write_text("recipe: {language: {min_score: 0.9}}")
    assert cli.main(asked) == 2
    job.write_text("rules: {}")
    assert cli.main(asked) == 2


def test_an_older_output_is_refused(output: Path) -> None:
    (output / "near" / "part-00000.parquet").unlink()
    (output / "near").rmdir()
    with pytest.raises(ConfigError, match="near/"):
        judge_again(output, Recipe(), Recipe())
    assert to_mapping(Recipe())["fuzzy"]["compare_dropped"] is False
