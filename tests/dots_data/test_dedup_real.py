"""Fuzzy deduplication of real pages: every verdict taken again from the texts, and what all pairs would have given."""

from __future__ import annotations

from collections import Counter, defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pytest

from dots_data.crawl.warc import Page, read_pages
from dots_data.dedup.identity import text_md5
from dots_data.dedup.index import Earlier
from dots_data.dedup.minhash import FuzzyConfig
from dots_data.engines import spark as engine
from dots_data.extraction import extract_text
from dots_data.language import LanguageIdentifier
from dots_data.text import shingle_words
from pipelines.crawl_clean import near_duplicates

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

pytestmark = pytest.mark.engine

FILES = ("dev-00003.warc.gz", "dev-00012.warc.gz")
CONFIG = FuzzyConfig()


def real_pages(folder: Path) -> dict[str, dict[str, str | None]]:
    """The pages that identity removal leaves, as the rules hand them on, by id."""
    languages = LanguageIdentifier()
    rows: dict[str, dict[str, str | None]] = {}
    for name in FILES:
        for page in read_pages(str(folder / "warc" / name)):
            if not isinstance(page, Page) or len(page.body) > 300_000:
                continue
            text = extract_text(page.body, page.url)
            doc_id = text_md5(text)
            facts = {"date": page.date, "text": text, "language": languages.identify(text).code}
            if text:
                rows[doc_id] = {"doc_id": doc_id, "dump": "", "decision": None, **facts}
    return rows


def five_grams(row: dict[str, str | None]) -> set[tuple[str, ...]]:
    words = shingle_words(row["text"] or "", row["language"] or "")
    return {tuple(words[i : i + 5]) for i in range(max(1, len(words) - 4))} - {()}


def jaccard(left: set[tuple[str, ...]], right: set[tuple[str, ...]]) -> float:
    return len(left & right) / len(left | right)


def near_pairs(sets: dict[str, set[tuple[str, ...]]]) -> set[frozenset[str]]:
    """All pairs at the threshold or over it, by way of the documents of each five-gram."""
    holders: defaultdict[tuple[str, ...], list[str]] = defaultdict(list)
    found = set()
    for doc_id, grams in sets.items():
        shared = Counter(other for gram in grams for other in holders[gram])
        for other, count in shared.items():
            if count / (len(grams) + len(sets[other]) - count) >= CONFIG.threshold:
                found.add(frozenset((doc_id, other)))
        for gram in grams:
            holders[gram].append(doc_id)
    return found


def test_real_pages_are_dropped_for_a_kept_one_that_is_as_near_as_was_said(
    spark: SparkSession, tmp_path: Path, real_data: Path
) -> None:
    rows = real_pages(real_data)
    sets = {doc_id: five_grams(row) for doc_id, row in rows.items()}
    stages = engine.Stages(spark, tmp_path / "stages", "test")
    schema = pa.schema([(name, pa.string()) for name in ("doc_id", "dump", "decision", "date", "text", "language")])
    judged = spark.createDataFrame(pa.Table.from_pylist(list(rows.values()), schema)).repartition(3)
    judged = judged.selectExpr("*", "0 AS site_rank", "0.0D AS quality")
    dropped = {row["doc_id"]: row for row in near_duplicates(judged, CONFIG, stages, Earlier()).collect()}

    assert len(dropped) >= 20
    for doc_id, row in dropped.items():
        survivor = row["duplicate_of"]
        assert survivor in rows
        assert survivor not in dropped
        assert row["similarity"] == jaccard(sets[doc_id], sets[survivor]) >= CONFIG.threshold

    pairs = near_pairs({doc_id: grams for doc_id, grams in sets.items() if grams})
    edges = {frozenset((edge["loser"], edge["winner"])) for edge in stages.read("fuzzy.edges").collect()}
    assert edges <= pairs
    assert len(edges) >= 0.97 * len(pairs)
