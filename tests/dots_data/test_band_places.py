"""Band keys scattered over places and met there: the buckets are those that a dictionary of all keys would give."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dots_data.dedup import minhash

I64 = st.integers(-(2**63), 2**63 - 1)
# Few keys, of which two are equal in the half that chooses a place.
KEYS = [0, 1, 7 << 32, -(1 << 40), 2**63 - 1, -(2**63)]


def batch(rows: list[tuple[int, set[int]]]) -> pa.RecordBatch:
    bands = pa.array([sorted(keys) for _, keys in rows], pa.list_(pa.int64()))
    return pa.RecordBatch.from_arrays([pa.array([row[0] for row in rows], pa.int64()), bands], ["document", "bands"])


def buckets_by_places(rows: list[tuple[int, set[int]]], places: int, cut: int) -> list[frozenset[int]]:
    """The buckets that the places give, one after another."""
    held = defaultdict(list)
    for scattered in minhash.scattered([batch(rows[:cut]), batch(rows[cut:])], places):
        for row in scattered.to_pylist():
            held[row["place"]].append(row["entries"])
    found: list[frozenset[int]] = []
    for entries in held.values():
        members = defaultdict(set)
        for row in minhash.buckets_of(pa.table({"entries": pa.array(entries, pa.binary())})).to_pylist():
            members[row["bucket"]].add(row["document"])
        found += map(frozenset, members.values())
    return found


@given(
    st.dictionaries(I64, st.sets(st.sampled_from(KEYS)), max_size=12),
    st.sampled_from([1, 2, 5, 300]),
    st.integers(0, 12),
    st.booleans(),
)
def test_buckets_are_those_of_a_dictionary(documents: dict[int, set[int]], places: int, cut: int, small: bool) -> None:
    by_key = defaultdict(set)
    for document, keys in documents.items():
        for key in keys:
            by_key[key].add(document)
    # A document of an earlier dump has an even number; among themselves they met before.
    expected = {frozenset(one) for one in by_key.values() if len(one) > 1 and any(number & 1 for number in one)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(minhash, "ENTRIES_A_BATCH", 4 if small else 1 << 20)
        found = buckets_by_places(list(documents.items()), places, cut)
    assert set(found) == expected
    if places == 1:
        assert len(found) == len(expected)


def test_a_place_of_one_key_costs_linear_work() -> None:
    """A million documents of one band key are one bucket."""
    numbers = np.arange(1_000_000) * 2 + 1
    entries = np.stack((np.full(len(numbers), 5), numbers), axis=1)
    found = minhash.buckets_of(pa.table({"entries": pa.array([entries.tobytes()], pa.binary())}))
    assert len(found) == len(numbers)
    assert len(set(found["bucket"].to_pylist())) == 1


def test_two_documents_with_one_hash_are_a_bucket() -> None:
    """They might be near to each other: whoever has that hash is paired, and compared."""
    rows = [(7, {1}), (7, {1})]
    assert buckets_by_places(rows, 1, 1) == [frozenset({7})]
