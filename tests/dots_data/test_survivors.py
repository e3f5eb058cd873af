"""Survivor choice: an order without ties, and no cluster that is wiped out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dots_data.dedup.survivors import (
    Preference,
    choose,
    order_column,
    order_key,
    settle_whole,
    whole_components,
)

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


@pytest.mark.parametrize(
    ("preferences", "first"),
    [
        (("longest", "earliest"), "long"),
        (("shortest",), "short"),
        (("earliest",), "early"),
        (("latest",), "late"),
        (("curated", "longest"), "late"),
        (("curated", "earliest"), "early"),
        (("quality", "longest"), "short"),
        ((), "early"),
    ],
)
def test_preferences(spark: SparkSession, preferences: tuple[Preference, ...], first: str) -> None:
    """Spark orders as the key does."""
    pages = [
        page("long", date="2024-01-02", length=900),
        page("short", date="2024-01-03", length=10, quality=0.75),
        page("early", date="2023-01-01", site_rank=1),
        page("late", date="2025-01-01", length=51, site_rank=1),
        page("undated", date="", length=10, quality=0.5),
    ]
    ordered = [one["doc_id"] for one in sorted(pages, key=lambda one: order_key(preferences, one))]
    assert ordered[0] == first
    frame = spark.createDataFrame(pa.Table.from_pylist(pages)).orderBy(order_column(preferences))
    assert [row["doc_id"] for row in frame.collect()] == ordered


@pytest.mark.parametrize("preference", ["curated", "quality", "longest", "shortest", "earliest", "latest"])
def test_an_earlier_dump_comes_first_whatever_is_preferred(preference: Preference) -> None:
    plain, better = page("a", dump="2024-10", date="2024"), page("b", dump="2024-18", date="2024", site_rank=1)
    assert order_key((preference,), plain) < order_key((preference,), {**better, "quality": 1.0})


def page(doc_id: str, **facts: Any) -> dict[str, Any]:
    return {"doc_id": doc_id, "dump": "", "date": "", "length": 50, "site_rank": 0, "quality": 0.0, **facts}


def test_an_undated_page_is_neither_earliest_nor_latest() -> None:
    preferences: tuple[Preference, ...] = ("earliest", "latest")
    for preference in preferences:
        assert order_key((preference,), page("b", date="2020-01-01")) < order_key((preference,), page("a"))


def test_a_chain_does_not_drop_everyone() -> None:
    # a ~ b ~ c ~ d, but a is near to b alone: c must stay, since b, its only neighbour ahead, is dropped.
    assert choose({"b": {"a": 0.9}, "c": {"b": 0.9}, "d": {"c": 0.85}}) == {"b": ("a", 0.9), "d": ("c", 0.85)}


def test_the_nearest_kept_document_is_named() -> None:
    assert choose({"c": {"a": 0.8, "b": 0.95}})["c"] == ("b", 0.95)
    assert choose({"b": {"a": 0.99}, "c": {"a": 0.8, "b": 0.95}})["c"] == ("a", 0.8)


graphs = st.dictionaries(
    st.tuples(st.integers(0, 30), st.integers(0, 30)).filter(lambda pair: pair[0] != pair[1]),
    st.floats(0.8, 1.0),
    max_size=120,
)


def as_edges(pairs: dict[tuple[int, int], float]) -> dict[str, dict[str, float]]:
    edges: dict[str, dict[str, float]] = {}
    for (one, other), similarity in pairs.items():
        winner, loser = sorted((one, other))
        edges.setdefault(f"{loser:02d}", {})[f"{winner:02d}"] = similarity
    return edges


@given(graphs)
def test_every_dropped_document_has_a_kept_neighbour_and_kept_ones_are_independent(
    pairs: dict[tuple[int, int], float],
) -> None:
    edges = as_edges(pairs)
    dropped = choose(edges)
    for loser, (winner, similarity) in dropped.items():
        assert winner not in dropped
        assert edges[loser][winner] == similarity
    for loser, winners in edges.items():
        if loser not in dropped:
            assert all(winner in dropped for winner in winners)


@given(graphs)
def test_whole_components_are_settled_as_by_the_reference(pairs: dict[tuple[int, int], float]) -> None:
    ends = np.array([sorted(pair, reverse=True) for pair in pairs], np.int64).reshape(-1, 2)
    dropped = choose(as_edges(pairs))
    assert [f"{vertex:02d}" for vertex in settle_whole(ends[:, 0], ends[:, 1])] == sorted(dropped)


def test_a_chain_of_any_length_is_settled() -> None:
    chain = np.arange(1_000_000)
    assert np.array_equal(settle_whole(chain[1:], chain[:-1]), chain[1::2])


def test_a_circle_in_a_component_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="cannot be settled"):
        settle_whole(np.array([1, 2, 3, 9]), np.array([2, 3, 1, 8]))


@given(st.lists(st.integers(1, 9), max_size=30), st.integers(1, 12), st.integers(1, 20))
def test_no_component_is_divided(sizes: list[int], rows_a_batch: int, at_least: int) -> None:
    table = np.array([(label, row, row) for label, size in enumerate(sizes) for row in range(size)]).reshape(-1, 3)
    batches = [
        pa.record_batch(list(map(pa.array, table[at : at + rows_a_batch].T)), names=["component", "loser", "winner"])
        for at in range(0, len(table), rows_a_batch)
    ]
    parts = list(whole_components(batches, at_least))
    assert [row for loser, _ in parts for row in loser] == [row for size in sizes for row in range(size)]
    # Each begins with the first row of a component; all but the last are large enough, and none much larger.
    assert all(loser[0] == 0 for loser, _ in parts)
    assert all(at_least <= len(loser) < at_least + rows_a_batch + 9 for loser, _ in parts[:-1])
