"""Connected components: the rounds on Spark say what a plain union-find says, on any graph."""

from __future__ import annotations

import random
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dots_data.dedup import components
from dots_data.engines import spark as engine

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

Edges = list[tuple[str, str]]

edge_lists = st.lists(st.tuples(*[st.integers(0, 25).map("n{:02d}".format)] * 2), max_size=40)


@pytest.fixture
def stages(spark: SparkSession, tmp_path: Path) -> engine.Stages:
    return engine.Stages(spark, tmp_path / "stages", "test")


def table(spark: SparkSession, edges: Edges, partitions: int = 2) -> DataFrame:
    schema = pa.schema([("one", pa.string()), ("other", pa.string())])
    columns = [list(column) for column in zip(*edges, strict=True)] or [[], []]
    return spark.createDataFrame(pa.table(columns, schema=schema)).repartition(partitions)


def on_spark(spark: SparkSession, edges: Edges, stages: engine.Stages) -> dict[str, str]:
    found = components.components(table(spark, edges), stages.inside("graph")).collect()
    assert len(found) == len({row["doc_id"] for row in found})
    return {row["doc_id"]: row["component"] for row in found}


@given(edge_lists)
def test_the_reference_is_closed_and_connected(edges: Edges) -> None:
    labels = components.union_find(edges)
    assert labels.keys() == {end for edge in edges for end in edge}
    assert all(labels[one] == labels[other] for one, other in edges)
    # Whoever is named can be reached: a walk from the smallest vertex meets all that bear its name.
    near: dict[str, set[str]] = {}
    for one, other in edges:
        near.setdefault(one, set()).add(other)
        near.setdefault(other, set()).add(one)
    for name in set(labels.values()):
        met, waiting = {name}, [name]
        while waiting:
            fresh = near[waiting.pop()] - met
            met |= fresh
            waiting += fresh
        assert met == {vertex for vertex, label in labels.items() if label == name}
        assert name == min(met)


def test_the_reference_takes_a_long_chain() -> None:
    labels = components.union_find((n, n + 1) for n in range(100_000))
    assert set(labels.values()) == {0}


@pytest.mark.engine
@settings(max_examples=3, suppress_health_check=list(HealthCheck))
@given(graphs=st.lists(edge_lists, min_size=5, max_size=20))
def test_rounds_on_spark_equal_the_reference(
    spark: SparkSession, tmp_path_factory: pytest.TempPathFactory, graphs: list[Edges]
) -> None:
    # Many graphs side by side cost Spark no more than one.
    edges = [(f"{n}{one}", f"{n}{other}") for n, graph in enumerate(graphs) for one, other in graph]
    stages = engine.Stages(spark, tmp_path_factory.mktemp("graph"), "test")
    assert on_spark(spark, edges, stages) == components.union_find(edges)


@pytest.mark.engine
def test_a_chain_a_star_and_loose_pairs(spark: SparkSession, stages: engine.Stages) -> None:
    names = random.Random(3).sample(range(10_000, 99_999), 1_000)
    chain = [(f"{a}", f"{b}") for a, b in pairwise(names[:301])]
    star = [("hub", f"{leaf}") for leaf in names[400:700]]
    pairs = [(f"{a}", f"{b}") for a, b in zip(names[700:800], names[800:900], strict=True)]
    edges = [*chain, *star, *pairs, ("alone", "alone")]
    assert on_spark(spark, edges, stages) == components.union_find(edges)
    # A chain that hands on its smallest name takes 300 rounds.
    assert len(list((stages.folder).glob("graph.heads-*.json"))) <= 20


@pytest.mark.engine
def test_rounds_that_were_committed_are_not_made_again(spark: SparkSession, stages: engine.Stages) -> None:
    edges = [(f"{n:03d}", f"{n + 1:03d}") for n in range(60)]
    whole = on_spark(spark, edges, stages)
    before = {path.name: path.stat().st_mtime_ns for path in stages.folder.glob("*.json")}
    gone = [name for name in before if name > "graph.heads-3" or "labels" in name]
    assert gone and len(gone) < len(before)
    for name in gone:
        (stages.folder / name).unlink()
    assert on_spark(spark, edges, stages) == whole
    after = {path.name: path.stat().st_mtime_ns for path in stages.folder.glob("*.json")}
    assert after.keys() == before.keys()
    assert {name for name in before if after[name] == before[name]} == before.keys() - set(gone)


@pytest.mark.engine
def test_ids_that_share_a_key_are_told_apart(
    spark: SparkSession, stages: engine.Stages, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pyspark.sql import functions as F

    good = components.key_of

    def weak(column: str, salt: int) -> object:
        return F.xxhash64(F.substring(column, 1, 1)) if salt == 0 else good(column, salt)

    monkeypatch.setattr(components, "key_of", weak)
    edges = [("a1", "a2"), ("a3", "b1"), ("b2", "b3")]
    assert components.unique_salt(table(spark, edges), stages.inside("graph")) == 1
    monkeypatch.setattr(components, "MOST_SALTS", 1)
    with pytest.raises(RuntimeError, match="equal 64-bit hashes"):
        components.unique_salt(table(spark, edges), stages.inside("again"))
