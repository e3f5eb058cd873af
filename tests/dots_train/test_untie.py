"""Untie-the-Knots on one window: nothing is lost but for the tags' room, no order is broken, the mask is exact."""

from __future__ import annotations

import hashlib
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dots_train.untie import INSERTED, Backtrace, Untie, plain, untie

TAGS, MARKS, LETTERS = tuple(range(5000, 5008)), tuple(range(5100, 5105)), (7, 8, 9)
FIRST = 10
WRITTEN = "8ae6acde3b1b1486"


def window(lengths: list[int], fragment: bool) -> tuple[np.ndarray, np.ndarray]:
    """S + 1 tokens that count up from FIRST, so that each names its place, and the places where documents begin."""
    borders = np.cumsum([0, *lengths])
    stream = np.arange(FIRST, FIRST + borders[-1], dtype=np.uint32)
    starts = borders[1:-1] if fragment else borders[:-1]
    return stream, starts[starts < borders[-1] - 1]


rules = st.builds(
    lambda chunks, least, order, length, probability: Untie(
        TAGS, probability, chunks, least, order, Backtrace(MARKS, LETTERS, length) if length else None
    ),
    st.lists(st.integers(1, 4), min_size=1, max_size=3).map(tuple),
    st.integers(1, 6),
    st.booleans(),
    st.integers(0, 3),
    st.just(1.0),
)
windows = st.builds(
    window, st.lists(st.integers(1, 40), min_size=1, max_size=12).filter(lambda x: sum(x) > 1), st.booleans()
)


@given(windows, rules, st.integers(0, 3), st.integers(0, 2**40))
@settings(max_examples=300, deadline=None)
def test_a_knotted_window(given_: tuple[np.ndarray, np.ndarray], rule: Untie, seed: int, g: int) -> None:
    stream, starts = given_
    length = len(stream) - 1
    knotted = untie(stream, starts, rule, seed, g)
    for array in knotted:
        assert array.shape == (length,)
    assert knotted.tokens_S[1:].tolist() == knotted.targets_S[:-1].tolist()
    assert knotted.position_S.tolist() == list(range(length)) and not knotted.document_S.any()

    # What is kept is the beginning of the window, each token once.
    text = np.flatnonzero(knotted.origin_S != INSERTED)
    places = knotted.origin_S[text]
    assert sorted(places.tolist()) == list(range(len(places)))
    assert (knotted.tokens_S[text] == stream[places]).all()
    if (knotted.origin_S != INSERTED).all():
        assert len(places) == length, "nothing inserted, nothing left out"

    # Removing the tags and sorting the chunks restores the text; a document's own chunks are in order.
    jumps = np.flatnonzero(np.diff(places) != 1) + 1
    chunks = [places[a:b] for a, b in pairwise([0, *jumps.tolist(), len(places)])]
    restored = np.concatenate(sorted(chunks, key=lambda chunk: int(chunk[0])))
    assert stream[restored].tolist() == stream[: len(places)].tolist()
    document = np.searchsorted(starts, places, side="right")
    if rule.keep_order:
        for number in np.unique(document):
            assert (np.diff(places[document == number]) > 0).all()
    # Cuts stand at document borders or between a tail tag and a head tag.
    borders = {0, *starts.tolist()}
    for chunk in chunks:
        if int(chunk[0]) not in borders:
            assert knotted.tokens_S[text[places == chunk[0]][0] - 1] in TAGS[1::2]


@given(windows, rules, st.integers(0, 2**40))
@settings(max_examples=300, deadline=None)
def test_the_mask_is_exact(given_: tuple[np.ndarray, np.ndarray], rule: Untie, g: int) -> None:
    """By the definition: a target counts where it follows its input in the text, begins a document, or is in a list."""
    stream, starts = given_
    knotted = untie(stream, starts, rule, 1, g)
    listing = False
    for token, target, counts in zip(knotted.tokens_S, knotted.targets_S, knotted.loss_mask_S, strict=True):
        listing = token == MARKS[2] or (listing and token != MARKS[4])
        inserted = {int(token), int(target)} & {*TAGS, *MARKS, *LETTERS}
        follows = target == token + 1 or target - FIRST in starts
        assert counts == (listing or (not inserted and follows))


@given(windows, rules, st.integers(0, 2**40))
@settings(max_examples=50, deadline=None)
def test_names_are_listed_in_the_order_of_the_document(
    given_: tuple[np.ndarray, np.ndarray], rule: Untie, g: int
) -> None:
    stream, starts = given_
    rule = Untie(TAGS, 1.0, rule.chunks, 2, rule.keep_order, Backtrace(MARKS, tuple(range(6000, 7000)), 2))
    knotted = untie(stream, starts, rule, 3, g)
    tokens, origin = knotted.tokens_S.tolist(), knotted.origin_S
    named: dict[tuple[int, ...], int] = {}
    for at, token in enumerate(tokens[:-5]):
        if token == MARKS[0]:
            following = np.flatnonzero(origin[at:] != INSERTED)
            if following.size:
                named[tuple(tokens[at + 1 : at + 3])] = int(origin[at + following[0]])
        if token == MARKS[2] and MARKS[4] in tokens[at:]:
            listed = tokens[at + 1 : tokens.index(MARKS[4], at)]
            places = [named[tuple(listed[i : i + 2])] for i in range(0, len(listed), 3)]
            assert places == sorted(places) and len(places) > 1
            assert len(np.unique(np.searchsorted(starts, places, side="right"))) == 1, "of one document"


def test_chunks_and_probability_are_as_asked() -> None:
    stream, starts = window([200, 300, 150, 400, 250], fragment=False)
    rule = Untie(TAGS[:4], 0.8, (2, 3), 16)
    windows = [untie(stream, starts, rule, 5, g) for g in range(400)]
    knotted = [w for w in windows if (w.origin_S == INSERTED).any()]
    assert 0.72 < len(knotted) / len(windows) < 0.88
    for one in knotted[:50]:
        tags = [token for token in one.tokens_S.tolist() if token in TAGS]
        assert 5 * 2 <= len(tags) <= 5 * 4 and len(tags) % 2 == 0
        assert len(one.origin_S) - len(tags) == (one.origin_S != INSERTED).sum()
        assert (~one.loss_mask_S).sum() <= 2 * len(tags)
    firsts = {int(one.origin_S[0]) for one in knotted}
    assert firsts == set(starts.tolist()), "any document may come first"


def test_a_function_of_seed_and_g() -> None:
    stream, starts = window([90, 120, 80], fragment=True)
    rule = Untie(TAGS, 1.0, (2, 3), 8, True, Backtrace(MARKS, LETTERS))
    first = untie(stream, starts, rule, 1, 2)
    assert all((a == b).all() for a, b in zip(first, untie(stream, starts, rule, 1, 2), strict=True))
    for seed, g in ((1, 3), (2, 2)):
        assert (untie(stream, starts, rule, seed, g).tokens_S != first.tokens_S).any()
    written = b"".join(column.astype("<i8").tobytes() for column in first)
    assert hashlib.blake2b(written, digest_size=8).hexdigest() == WRITTEN, "on every machine, with every NumPy"


@given(windows, st.integers(0, 2**40))
@settings(max_examples=50, deadline=None)
def test_probability_zero_is_the_identity(given_: tuple[np.ndarray, np.ndarray], g: int) -> None:
    stream, starts = given_
    same = untie(stream, starts, Untie(TAGS, 0.0), 0, g)
    assert same.tokens_S.tolist() == stream[:-1].tolist() and same.targets_S.tolist() == stream[1:].tolist()
    assert same.loss_mask_S.all() and same.origin_S.tolist() == list(range(len(stream) - 1))
    position, document = -1, 0
    for place in range(len(stream) - 1):
        begins = place in starts
        position, document = 0 if begins else position + 1, document + (begins and place > 0)
        assert (same.position_S[place], same.document_S[place]) == (position, document)
    assert all((a == b).all() for a, b in zip(same, plain(stream, starts), strict=True))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"tags": (1, 2)}, "3 chunks need 4, found 2"),
        ({"tags": (1, 2, 3, 3)}, "different ids"),
        ({"tags": (1, 2, 3, -4)}, "none of them negative"),
        ({"tags": (1, 2, 3, 4), "probability": 1.5}, "between 0 and 1"),
        ({"tags": (1, 2, 3, 4), "chunks": ()}, "chunks are one or more"),
        ({"tags": (1, 2, 3, 4), "backtrace": Backtrace((4, 5, 6, 7, 8), (9, 10))}, "different ids"),
    ],
)
def test_rules_that_cannot_be_meant(values: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Untie(**values)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="five different ids"):
        Backtrace((1, 2, 3, 4), (5, 6))
