"""The order is a bijection of any size, keyed, and the same for integers and arrays."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dots_data.tokens.order import LARGEST, Bijection, epoch_order, key, keyed_hashes

GOLDEN = [0, 4, 1, 9, 3, 8, 7, 6, 2, 5]
GOLDEN_HASHES = [2532643658998290241, 5000439254143237598]
AROUND_POWERS = sorted({max(1, 2**p + d) for p in range(15) for d in (-1, 0, 1)})


@pytest.mark.parametrize("n", AROUND_POWERS)
def test_every_item_has_one_place(n: int) -> None:
    order = Bijection(n, key("test", n))
    items = order(np.arange(n))
    assert np.array_equal(np.sort(items), np.arange(n))
    assert np.array_equal(order.inverse(items), np.arange(n))


@given(n=st.integers(1, LARGEST), seed=st.integers(0, 2**64), data=st.data())
@settings(max_examples=200, deadline=None)
def test_the_inverse_finds_the_place_at_any_size(n: int, seed: int, data: st.DataObject) -> None:
    places = np.array(data.draw(st.lists(st.integers(0, n - 1), min_size=1, max_size=20)))
    order = Bijection(n, key(seed))
    items = order(places)
    assert (items >= 0).all() and (items < n).all()
    assert np.array_equal(order.inverse(items), places)
    assert [order(int(place)) for place in places] == items.tolist()
    assert [order.inverse(int(item)) for item in items] == places.tolist()


@pytest.mark.parametrize("n", [2**32 - 1, 2**32, 2**32 + 1, 10**10, LARGEST])
def test_items_spread_over_large_sizes(n: int) -> None:
    items = Bijection(n, key("spread"))(np.arange(40_000))
    assert len(np.unique(items)) == len(items)
    counts = np.histogram(items, bins=16, range=(0, n))[0]
    assert abs(counts - 2500).max() < 6 * 2500**0.5
    # Neighbours do not stay neighbours: half of the steps go down.
    assert abs((np.diff(items) < 0).mean() - 0.5) < 0.02


def test_seeds_and_epochs_give_other_orders() -> None:
    orders = [epoch_order(1000, seed, epoch)(np.arange(1000)) for seed in (1, 2) for epoch in (0, 1, 2)]
    for number, one in enumerate(orders):
        for other in orders[number + 1 :]:
            assert (one == other).sum() < 10


def test_the_order_does_not_change_between_releases() -> None:
    assert epoch_order(10, seed=7, epoch=3)(np.arange(10)).tolist() == GOLDEN
    assert keyed_hashes(np.array([[1, 2], [2, 1]], np.uint64), key("shard", 7)).tolist() == GOLDEN_HASHES


@pytest.mark.parametrize("bits", [range(64), range(64, 128)])
def test_every_bit_of_an_id_and_of_a_key_moves_its_place(bits: range) -> None:
    """Ids that count, or differ in one bit, spread as chance would have it, under any two keys apart."""
    single = np.array([[1 << (bit - 64) if bit >= 64 else 0, 1 << bit if bit < 64 else 0] for bit in bits], np.uint64)
    counting = np.stack([np.arange(4096, dtype=np.uint64)] * 2, axis=1)
    counting[:, bits.start // 64] = 7
    hashes = [keyed_hashes(counting, key("shard", seed)) for seed in range(2)]
    for one in (*hashes, hashes[0] ^ hashes[1], hashes[0] << np.uint64(32) | hashes[0] >> np.uint64(32)):
        counts = np.bincount((one >> np.uint64(60)).astype(np.int64), minlength=16)
        assert abs(counts - 256).max() < 6 * 256**0.5
    flips = keyed_hashes(single, key("row", 1)) ^ keyed_hashes(np.zeros((1, 2), np.uint64), key("row", 1))
    assert abs(np.bitwise_count(flips).mean() - 32) < 4 and len(np.unique(flips)) == 64


def test_keys_tell_their_parts_apart() -> None:
    parts = [("a", "bc"), ("ab", "c"), ("abc",), (1,), ("1",), (b"1",), (1, 1), (11,), (-1,)]
    assert len({key(*one) for one in parts}) == len(parts)


@pytest.mark.parametrize("n", [0, -1, LARGEST + 1])
def test_sizes_without_an_order_are_refused(n: int) -> None:
    with pytest.raises(ValueError, match="2\\*\\*62"):
        Bijection(n, key(0))


@pytest.mark.parametrize("place", [-1, 10])
def test_places_outside_are_refused(place: int) -> None:
    with pytest.raises(IndexError):
        Bijection(10, key(0))(place)
    with pytest.raises(IndexError):
        Bijection(10, key(0)).inverse(np.array([0, place]))
