"""Alarms: implausible losses are told of, worst first, and plausible ones are not."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest

from dots_data.dedup import alarms
from dots_data.dedup.alarms import AlarmsConfig, find_alarms
from dots_data.engines import spark as engine
from dots_data.schema import LEDGER, NEAR

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

pytestmark = pytest.mark.engine

CONFIG = AlarmsConfig(cluster_documents=6, host_documents=10, host_share=0.8, most=2)


def row(doc_id: str, host: str, **changes: Any) -> dict[str, Any]:
    return {
        **dict.fromkeys(LEDGER.names),
        **{"doc_id": doc_id, "record_id": doc_id, "url": f"https://{host}/{doc_id}", "warc_file": "a.warc"},
        **{
            "warc_offset": 0,
            "warc_index": 0,
            "date": "",
            "dump": "",
            "site_rank": 0,
            "decision": "kept",
            "text_md5": f"md5 of {doc_id}",
        },
        **changes,
    }


def copies(name: str, count: int, host: str) -> list[dict[str, Any]]:
    kept = row(f"{name}000", host, text_md5=name)
    gone = {"decision": "dropped", "stage": "identity", "duplicate_of": kept["doc_id"], "copy_of": kept["doc_id"]}
    return [kept, *(row(f"{name}{n:03d}", host, text_md5=name, **gone) for n in range(1, count))]


def chain(name: str, count: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Each near to the one before: every other one is dropped."""
    rows = [
        row(f"{name}{n:03d}", f"{name}{n}.example")
        | ({"decision": "dropped", "stage": "fuzzy", "duplicate_of": f"{name}{n - 1:03d}"} if n % 2 else {})
        for n in range(count)
    ]
    pairs = [{"doc_id": f"{name}{n:03d}", "near_to": f"{name}{n - 1:03d}", "similarity": 0.9} for n in range(1, count)]
    return rows, pairs


def found(
    spark: SparkSession, folder: Path, rows: list[dict[str, Any]], pairs: list[dict[str, Any]], **changes: Any
) -> list[dict[str, Any]]:
    ledger = spark.createDataFrame(pa.Table.from_pylist(rows, schema=LEDGER)).repartition(3)
    near = spark.createDataFrame(pa.Table.from_pylist(pairs, schema=NEAR))
    config = AlarmsConfig(**{**CONFIG.__dict__, **changes})
    return find_alarms(ledger, near, engine.Stages(spark, folder, "test").inside("alarms"), config)


def test_what_is_implausible_is_told_worst_first(spark: SparkSession, tmp_path: Path) -> None:
    long, long_pairs = chain("long", 9)
    short, short_pairs = chain("short", 4)
    by_rules = [row(f"ruled{n}", "ruled.example", decision="dropped", stage="rules") for n in range(8)]
    # Pairs of what the rules dropped are there for `dots judge` alone.
    ruled_pairs = [{"doc_id": f"ruled{n}", "near_to": "ruled0", "similarity": 0.9} for n in range(1, 8)]
    rows = [
        *copies("many", 12, "copier.example"),
        *copies("some", 8, "www.other.example"),
        *copies("third", 7, "third.example"),
        *copies("few", 6, "few.example"),
        *[row(f"own{n}", "www.other.example") for n in range(4)],
        *[row(f"early{n}", "few.example", text_md5=None, decision="dropped", stage="url") for n in range(9)],
        *[*long, *short, *by_rules],
    ]
    told = found(spark, tmp_path, rows, [*long_pairs, *short_pairs, *ruled_pairs])
    documents = len(rows) - 9
    of_cluster = {"limit": 6}
    assert told == [
        {"kind": "copies", "survivor": "many000", "url": "https://copier.example/many000", "documents": 12, "lost": 11}
        | {"share": 12 / documents, **of_cluster},
        {"kind": "copies", "survivor": "some000", "url": "https://www.other.example/some000", "documents": 8, "lost": 7}
        | {"share": 8 / documents, **of_cluster},
        {"kind": "near-duplicates", "survivor": "long000", "url": "https://long0.example/long000"}
        | {"documents": 9, "lost": 4, "share": 9 / documents, **of_cluster},
        {"kind": "host", "host": "copier.example", "documents": 12, "lost": 11, "share": 11 / 12, "limit": 0.8},
    ]


def test_the_limit_grows_with_the_crawl(spark: SparkSession, tmp_path: Path) -> None:
    rows = [*copies("many", 12, "a.example"), *[row(f"own{n}", "b.example") for n in range(28)]]
    assert len(found(spark, tmp_path / "one", rows, [], cluster_share=0.25, host_share=0.95)) == 1
    assert not found(spark, tmp_path / "two", rows, [], cluster_share=0.3, host_share=0.95)


def test_nothing_to_tell(spark: SparkSession, tmp_path: Path) -> None:
    assert found(spark, tmp_path, [], []) == []
    # Without pairs enough for a cluster that large, no components are looked for.
    assert not list(tmp_path.glob("alarms.*"))


def test_an_alarm_is_one_line_fit_for_a_terminal() -> None:
    hostile = {"kind": "host", "host": "[red]x\x1b[2J\n", "documents": 1000, "lost": 990, "share": 0.99, "limit": 0.95}
    words = alarms.words(hostile)
    assert "lost 990 of 1,000 documents" in words and "(99.0%, over 95%)" in words
    assert "\x1b" not in words and "\n" not in words and "\\[red]" in words
    cluster = {"kind": "copies", "documents": 2000, "lost": 1999, "share": 0.02, "limit": 1000, "survivor": "a1"}
    assert "https://x.example/\N{REPLACEMENT CHARACTER} (a1) is kept" in alarms.words(
        {**cluster, "url": "https://x.example/\x07"}
    )
    assert "kept" not in alarms.words({**cluster, "survivor": None, "url": None})
