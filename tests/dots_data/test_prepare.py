"""Preparation of a page: whatever a step does, the page has one row that says what became of it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dots_data import recipe as recipe_module
from dots_data.crawl.warc import Page
from dots_data.extraction import model
from dots_data.judge import Verdict
from dots_data.prepare import Outcome, Preparation, Remembered
from dots_data.recipe import Recipe, load_job
from dots_data.typed_yaml import ConfigError, build

BODY = b"<html><body><article><p>" + b"The river keeps its own time, and the village has learned to wait. " * 9


def page(**changes: Any) -> Page:
    facts = dict.fromkeys(set(Page._fields) - {"payload_digest"}, "") | {
        "record_id": "r", "url": "https://a.example/", "warc_file": "a.warc", "warc_offset": 0, "warc_index": 0,
        "status": 200, "content_type": "text/html", "http_charset": None, "body": BODY, "body_bytes": len(BODY),
    }  # fmt: skip
    facts |= changes
    return Page(**({"payload_digest": hashlib.md5(facts["body"]).hexdigest()} | facts | changes))


@pytest.fixture(scope="module")
def preparation() -> Iterator[Preparation]:
    with Preparation(Recipe()) as tools:
        yield tools


def test_a_page_goes_on_with_its_text(preparation: Preparation) -> None:
    row = preparation.row(page())
    assert row.get("decision") is None and row["language"] == "en"
    assert row["text"].startswith("The river keeps") and len(row["text_md5"]) == 32 and row["problem"] is None


def test_a_page_that_breaks_a_step_is_quarantined(preparation: Preparation, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(text: str) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(preparation.languages, "identify", fail)
    row = preparation.row(page(body=BODY + b"And so it ends."))
    assert (row["decision"], row["stage"], row["rule"]) == ("quarantined", "language", "language.error")
    assert row["detail"] == "ZeroDivisionError" and "text" not in row


def test_site_rules_act_in_the_sandbox(tmp_path: Path) -> None:
    (tmp_path / "sites.yaml").write_text("a.example: {remove: [nav, .ads], remove_lines: [^Share], rank: 2}")
    bomb = f"<div>{''.join(f'<b id={i}>' for i in range(300))}</div>{'<div>x</div>' * 4000}".encode()
    with Preparation(build(Recipe, {"sites": {"file": str(tmp_path / "sites.yaml")}}, "recipe")) as tools:
        row = tools.row(page(body=BODY + b"<nav>menu</nav><p class=ads>Buy this now, today only.</p><p>Share it.</p>"))
        assert row["text"].startswith("The river keeps") and "Buy" not in row["text"] and "Share" not in row["text"]
        assert dict(row["measures"])["sites.removed_elements"] == 2.0
        assert row["site_rank"] == 2 and 0.5 < row["quality"] <= 1
        other = tools.row(page(url="https://b.example/"))
        assert other["site_rank"] == 0
        assert other["text"] and "sites.removed_elements" not in dict(other["measures"])
        # Short as it comes, of 18 million characters as it is parsed.
        row = tools.row(page(body=bomb))
        assert (row["decision"], row["rule"], row["threshold"]) == ("quarantined", "extraction.max_chars", 8_000_000.0)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [({"problem": "bad chunk size"}, "bad chunk size"), ({"truncated": "length"}, "truncated: length"), ({}, None)],
)
def test_what_was_wrong_with_the_bytes_is_told(
    preparation: Preparation, changes: dict[str, str], problem: str | None
) -> None:
    assert preparation.row(page(**changes))["problem"] == problem


def test_what_decides_the_text_is_in_the_id(preparation: Preparation) -> None:
    changes: list[dict[str, Any]] = [
        {}, {"url": "https://b.example/"}, {"status": 203}, {"content_type": "text/plain"}, {"http_charset": "gbk"},
    ]  # fmt: skip
    assert len({preparation.row(page(**change))["doc_id"] for change in changes}) == len(changes)
    assert preparation.row(page(warc_offset=9, warc_index=3))["doc_id"] == preparation.row(page())["doc_id"]


def test_version_and_model_are_part_of_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = recipe_module.Recipe()
    hashes = [recipe.assets_hash(), recipe.assets_hash()]
    fitted = model.load()
    for threshold in (fitted.limits.threshold, fitted.limits.threshold + 0.1):
        model.save(
            tmp_path / "fast_model.npz", model.Model(fitted.weights, fitted.limits._replace(threshold=threshold))
        )
        monkeypatch.setattr(recipe_module, "FAST_MODEL", tmp_path / "fast_model.npz")
        hashes.append(recipe.assets_hash())
    monkeypatch.setattr(recipe_module, "__version__", "99.0")
    hashes.append(recipe.assets_hash())
    assert [hashes.index(one) for one in hashes] == [0, 0, 0, 3, 4]


def test_the_content_of_block_lists_is_part_of_a_run(tmp_path: Path) -> None:
    domains = tmp_path / "lists" / "adult" / "domains"
    domains.parent.mkdir(parents=True)
    job = tmp_path / "job.yaml"
    job.write_text(f"recipe: {{url: {{blocklists: ['{tmp_path / 'lists'}']}}}}")
    hashes = set()
    for content in ("a.example", "a.example", "b.example"):
        domains.write_text(content)
        hashes.add(load_job(job).recipe.assets_hash())
    assert len(hashes) == 2
    domains.unlink()
    domains.parent.rmdir()
    domains.parent.parent.rmdir()
    with pytest.raises(ConfigError, match="lists: no such block list"):
        load_job(job).recipe.assets_hash()


def test_a_body_that_came_before_costs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    with Preparation(Recipe()) as tools:
        first = tools.row(page(record_id="1", payload_digest="d"))
        other = tools.row(
            page(record_id="2", payload_digest="e", body=b"<p>" + b"Something else is written here. " * 9)
        )

        def fail(*_: object) -> None:
            raise AssertionError

        monkeypatch.setattr(tools.sandbox, "extract_pruned", fail)
        again = tools.row(page(record_id="3", payload_digest="d"))
        assert {**first, "record_id": "3", "doc_id": again["doc_id"]} == again != other
        # What else decides the text is looked at as well.
        for changes in ({"http_charset": "utf-16"}, {"payload_digest": "f"}):
            assert tools.row(page(**{"payload_digest": "d"} | changes))["rule"] == "extraction.error"


def test_what_is_remembered_is_bounded() -> None:
    remembered = Remembered(most_chars=10_000)
    outcomes = [Outcome({"text": "x" * 3_000}, {}, None) for _ in range(4)]
    for key in (0, 1):
        remembered.put(key, outcomes[key])
    assert remembered.get(0) is outcomes[0]
    remembered.put(2, outcomes[2])
    assert remembered.get(1) is None and remembered.get(0) is outcomes[0] and remembered.get(2) is outcomes[2]


def test_a_page_in_a_language_that_is_not_kept_is_not_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    body = "<html lang=de><p>" + "Der Hafen wurde nach dem Sturm wieder aufgebaut, und die Stadt blieb trocken. " * 9
    with Preparation(build(Recipe, {"language": {"keep": ["en"]}}, "recipe")) as tools:
        monkeypatch.setattr(tools.sandbox, "extract_pruned", lambda *_: (Verdict("extraction", "parsed", 1, 0), 0))
        row = tools.row(page(body=body.encode()))
        assert (row["decision"], row["stage"], row["rule"]) == ("dropped", "language", "language.early")
        assert tools.row(page())["rule"] == "parsed"
