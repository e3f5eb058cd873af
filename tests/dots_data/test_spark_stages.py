"""The deduplication steps on Spark give what their definitions say, whatever the partitioning."""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest

from dots_data import console
from dots_data.dedup import identity, lines, minhash, survivors
from dots_data.dedup.identity import IdentityConfig
from dots_data.dedup.lines import LinesConfig
from dots_data.dedup.minhash import FuzzyConfig
from dots_data.engines import spark as engine

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

pytestmark = pytest.mark.engine

WORDS = [f"{a}{b}" for a in "bcdfghjklmnpqrstvwz" for b in ("ana", "ero", "iki", "olu", "une", "atri")]


@pytest.fixture
def stages(spark: SparkSession, tmp_path: Path) -> engine.Stages:
    return engine.Stages(spark, tmp_path / "stages", "test")


def frame(spark: SparkSession, rows: list[dict[str, Any]], partitions: int = 3) -> DataFrame:
    return spark.createDataFrame(pa.Table.from_pylist(rows)).repartition(partitions)


def key_row(doc_id: str, text: str, date: str = "2024-01-01", index: int = 0) -> dict[str, Any]:
    md5 = identity.text_md5(text)
    place = {"warc_file": "a.warc", "warc_offset": 0, "warc_index": index, "dump": ""}
    standing = {"site_rank": 0, "quality": 0.0}
    return {"doc_id": doc_id, **place, "date": date, "length": len(text), **standing, "text_md5": md5}


def test_identity_keeps_one_by_the_rule_and_names_it(spark: SparkSession) -> None:
    rows = [
        key_row("a", "Hello world"),
        key_row("b", "hello, WORLD!!", date="2025-01-01"),
        key_row("c", "Hello  world", date="2023-01-01"),
        key_row("d", "another text"),
    ]
    for partitions in (1, 4):
        found = identity.find_copies(frame(spark, rows, partitions), IdentityConfig(("longest", "earliest"))).collect()
        assert {row["doc_id"]: (row["copy_of"], row["copies"]) for row in found} == {"a": ("b", 3), "c": ("b", 3)}


def test_a_record_delivered_twice_leaves_one(spark: SparkSession) -> None:
    rows = [key_row("a", "same", index=0), key_row("a", "same", index=1)]
    found = identity.find_copies(frame(spark, rows), IdentityConfig()).collect()
    assert [(row["doc_id"], row["warc_index"], row["copy_of"]) for row in found] == [("a", 1, "a")]


def test_frequent_lines_keep_their_first_occurrences(spark: SparkSession, stages: engine.Stages) -> None:
    shared = "Read more in our archive."
    rows = [{"doc_id": f"{n:03d}", "dump": "", "text": f"own text {n}\nmore of {n}\n{shared}"} for n in range(12)]
    rows.append({"doc_id": "lone", "dump": "", "text": "nothing shared\n  with anyone "})
    found = lines.find_shortened(frame(spark, rows), LinesConfig(max_occurrences=4), stages.inside("lines")).collect()
    assert {row["doc_id"] for row in found} == {f"{n:03d}" for n in range(4, 12)}
    assert all(row["text"] == f"own text {int(row['doc_id'])}\nmore of {int(row['doc_id'])}" for row in found)
    assert {row["lines_removed"] for row in found} == {1}


def test_a_line_seen_just_as_often_as_allowed_stays(spark: SparkSession, stages: engine.Stages) -> None:
    rows = [{"doc_id": f"{n}", "dump": "", "text": "same line"} for n in range(4)]
    assert not lines.find_shortened(frame(spark, rows), LinesConfig(max_occurrences=4), stages.inside("x")).count()


def random_graph(rng: random.Random, nodes: int, edges: int) -> dict[str, dict[str, float]]:
    graph: dict[str, dict[str, float]] = {}
    for _ in range(edges):
        winner, loser = sorted(rng.sample(range(nodes), 2))
        graph.setdefault(f"{loser:03d}", {})[f"{winner:03d}"] = rng.randint(80, 100) / 100
    return graph


@pytest.mark.parametrize("rounds", [0, 1, survivors.SPARK_ROUNDS])
def test_survivors_on_spark_equal_the_reference(
    spark: SparkSession, stages: engine.Stages, monkeypatch: pytest.MonkeyPatch, rounds: int
) -> None:
    monkeypatch.setattr(survivors, "SPARK_ROUNDS", rounds)
    graph = random_graph(random.Random(5), 60, 90)
    graph |= {f"chain{n + 1:02d}": {f"chain{n:02d}": 0.9} for n in range(9)}
    rows = [
        {"loser": loser, "winner": winner, "similarity": similarity}
        for loser, winners in graph.items()
        for winner, similarity in winners.items()
    ]
    found = survivors.choose_in_spark(frame(spark, rows), stages.inside("fuzzy")).collect()
    assert {row["doc_id"]: (row["duplicate_of"], row["similarity"]) for row in found} == survivors.choose(graph)


def test_a_circle_is_an_error_and_no_endless_run(
    spark: SparkSession, stages: engine.Stages, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [{"loser": "a", "winner": "b", "similarity": 1.0}, {"loser": "b", "winner": "a", "similarity": 1.0}]
    with pytest.raises(RuntimeError, match="cannot be settled"):
        survivors.choose_in_spark(frame(spark, rows), stages.inside("fuzzy"))
    # Where a task finds it, the task's words come through.
    monkeypatch.setattr(survivors, "SPARK_ROUNDS", 0)
    with pytest.raises(Exception, match="cannot be settled"):
        survivors.choose_in_spark(frame(spark, rows), stages.inside("again"))


def test_batches_end_where_their_texts_grow_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "BATCH_CHARACTERS", 100)
    schema = pa.schema([("text", pa.string())])
    rows = [{"text": "x" * length} for length in (40, 70, 1, 1, 1, 500, 3)]
    assert [len(batch) for batch in engine.rows_to_batches(rows, schema, size=3)] == [2, 3, 1, 1]


def near_copies(rng: random.Random) -> list[tuple[str, str]]:
    texts = []
    for family in range(12):
        words = [rng.choice(WORDS) for _ in range(220)]
        for member in range(4):
            changed = list(words)
            for position in rng.sample(range(220), member * 2):
                changed[position] = rng.choice(WORDS)
            texts.append((f"f{family:02d}m{member}", " ".join(changed)))
    return texts


def test_fuzzy_on_spark_equals_the_reference(spark: SparkSession, stages: engine.Stages) -> None:
    texts, config = near_copies(random.Random(11)), FuzzyConfig()
    alike = {"dump": "", "date": "", "site_rank": 0, "quality": 0.0, "language": "en"}
    rows = [{"doc_id": doc_id, "text": text, **alike} for doc_id, text in texts]
    documents, checkpoint = frame(spark, rows), stages.inside("fuzzy")
    pairs = minhash.candidate_pairs(checkpoint("bands", minhash.sign(documents, config)), config)
    edges = checkpoint("edges", minhash.verify_pairs(pairs, documents, config))
    found = survivors.choose_in_spark(edges, checkpoint).collect()
    expected = minhash.find_near_duplicates(texts, config)
    assert {row["doc_id"]: (row["duplicate_of"], row["similarity"]) for row in found} == expected
    assert len(expected) >= 12


def test_a_committed_stage_is_not_made_again_and_another_identity_is(spark: SparkSession, tmp_path: Path) -> None:
    made = []

    def make() -> DataFrame:
        made.append(1)
        return spark.range(5).toDF("id")

    for name, times in (("one", 1), ("one", 1), ("two", 2)):
        assert engine.Stages(spark, tmp_path, name).table("numbers", make).count() == 5
        assert len(made) == times


def test_parts_are_the_same_bytes_for_any_partitioning(spark: SparkSession, tmp_path: Path) -> None:
    schema = pa.schema([("doc_id", pa.string()), ("n", pa.int64())]).with_metadata({"k": "v"})
    rows = [{"doc_id": f"{n * 7919 % 1000:04d}", "n": n} for n in range(1000)]
    written = {}
    for partitions in (1, 2, 7):
        folder = tmp_path / f"p{partitions}"
        rng = random.Random(partitions)
        counts = engine.write_parts(
            frame(spark, rng.sample(rows, len(rows)), partitions), folder, schema, rows_a_part=300
        )
        assert sum(counts.values()) == 1000 and len(counts) == 4
        written[partitions] = {name: (folder / name).read_bytes() for name in counts}
    assert written[1] == written[2] == written[7]


def test_an_empty_table_is_one_readable_part(spark: SparkSession, tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    schema = pa.schema([("doc_id", pa.string())])
    counts = engine.write_parts(frame(spark, [{"doc_id": "a"}]).where("doc_id = 'b'"), tmp_path / "none", schema)
    assert counts == {"part-00000.parquet": 0}
    assert pq.read_table(tmp_path / "none").schema == schema


def test_what_goes_on_is_told_by_the_footers(spark: SparkSession, stages: engine.Stages) -> None:
    rows = [
        {"doc_id": str(n), "decision": "dropped" if n % 3 else None, "text": "" if n % 3 else f"{n:0>1000}"}
        for n in range(30)
    ]
    undecided = [{**row, "decision": None} for row in rows]
    schema = pa.schema([("doc_id", pa.string()), ("decision", pa.string()), ("text", pa.string())])
    for name, given in (("some", rows), ("all", undecided), ("none", [{**row, "decision": "dropped"} for row in rows])):
        stages.table(
            name, lambda given=given: spark.createDataFrame(pa.Table.from_pylist(given, schema)).repartition(3)
        )
        documents, size = engine.going_on(stages.folder / name)
        assert documents == {"some": 10, "all": 30, "none": 0}[name]
        assert 10 * 1000 <= size < 1.2 * 10 * 1000
    stages.table("keys", lambda: frame(spark, [{"doc_id": "a"}, {"doc_id": "b"}]))
    assert engine.going_on(stages.folder / "keys") == (2, 0)
    assert engine.going_on(stages.folder / "nowhere") == (0, 0)


def test_tasks_are_counted_while_they_run(spark: SparkSession) -> None:
    count, seen = engine.task_counter(spark), []

    def slow(batches: engine.Batches) -> engine.Batches:
        time.sleep(0.5)
        yield from batches

    table = spark.range(3, numPartitions=3)
    with console._repeated(lambda: seen.append(count()), seconds=0.05):
        engine.map_batches(table, slow, pa.schema([("id", pa.int64())])).collect()
    assert (0, 3) in seen and count() == (3, 3)
    assert all(done <= tasks for done, tasks in seen)
