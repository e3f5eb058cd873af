"""A mixture is a function of g: exact quotas, even blocks, ordinals without gaps, and a past that no change touches."""

from __future__ import annotations

import hashlib
import pickle
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dots_data.typed_yaml import ConfigError, build
from dots_train.config import load_job
from dots_train.curriculum import check_mixture
from dots_train.mixture import (
    BLOCK,
    Mixture,
    MixtureConfig,
    MixtureError,
    Segment,
    _Branch,
    divide,
    format_tokens,
    read,
)

RECIPES = Path(__file__).parents[2] / "jobs" / "mixtures"
PLENTY = 10**15
ERROR = 1.68  # the bound of the module's docstring


def mixture(
    *segments: Segment, caps: dict[str, float] | None = None, windows: object = PLENTY, seed: int = 0
) -> Mixture:
    """Over samples of one token, so that tokens and samples are the same number."""
    config = MixtureConfig(segments, caps or {})
    each = windows if isinstance(windows, dict) else dict.fromkeys(config.sources, windows)
    return Mixture(config, each, 1, seed)


weights_of = st.dictionaries(
    st.sampled_from("abcdefghijkl"), st.one_of(st.integers(1, 50), st.floats(1e-4, 1e4)), min_size=1, max_size=12
)
tables = st.lists(st.tuples(st.integers(1, 3000), weights_of), min_size=1, max_size=4)


def segments_of(rows: list[tuple[int, dict[str, float]]]) -> list[Segment]:
    ends = np.cumsum([length for length, _ in rows]).tolist()
    return [Segment(end, weights, f"s{i}") for i, (end, (_, weights)) in enumerate(zip(ends, rows, strict=True))]


@given(tables, st.integers(0, 3))
@settings(max_examples=60, deadline=None)
def test_every_segment_has_its_quotas_and_no_ordinal_is_skipped(
    rows: list[tuple[int, dict[str, float]]], seed: int
) -> None:
    table = segments_of(rows)
    mixed = mixture(*table, seed=seed)
    sources, ordinals = mixed.assign(np.arange(mixed.samples + 5))
    for place in range(len(mixed.sources)):
        mine = ordinals[sources == place]
        assert mine.tolist() == list(range(len(mine))), "in the order of g, without a gap"
    start = 0
    for segment in table:
        read_of = np.bincount(sources[start : segment.end], minlength=len(mixed.sources))
        total = sum(Fraction(str(weight)) for weight in segment.weights.values())
        for place, name in enumerate(mixed.sources):
            exact = (segment.end - start) * Fraction(str(segment.weights.get(name, 0))) / total
            assert abs(read_of[place] - exact) < 1, "largest remainder"
        start = segment.end
    assert mixed.consumed(start) == dict(
        zip(mixed.sources, np.bincount(sources[:start], minlength=len(mixed.sources)).tolist(), strict=True)
    )


def errors_of(branch: _Branch, above: list[int], into: list[Fraction]) -> None:
    """Half of the sum of a leaf's parts of the branches that it is on, the whole tree left out."""
    if branch.children is None:
        into[branch.source] = (
            sum((Fraction(branch.quota, quota) for quota in [*above, branch.quota][1:]), Fraction(0)) / 2
        )
    for child in branch.children or ():
        errors_of(child, [*above, branch.quota], into)


@given(weights_of, st.integers(1, 40 * BLOCK), st.lists(st.integers(0, 40), min_size=1, max_size=10))
@settings(max_examples=100, deadline=None)
def test_every_block_has_the_right_shares(weights: dict[str, float], samples: int, blocks: list[int]) -> None:
    mixed = mixture(Segment(samples, weights))
    part = mixed._parts[0]
    bounds = [Fraction(0)] * len(mixed.sources)
    errors_of(part.tree, [], bounds)
    before = [0] * len(mixed.sources)
    for block in sorted(blocks):
        upto = min(block * BLOCK, samples)
        counts = part.counts(upto)
        assert sum(counts) == upto
        assert all(now >= then for now, then in zip(counts, before, strict=True)), "monotone"
        for now, quota, bound in zip(counts, part.quotas, bounds, strict=True):
            assert abs(now - Fraction(upto * quota, samples)) <= bound < ERROR
        before = counts
    assert tuple(part.counts(samples)) == part.quotas


def test_shares_stay_near_even_where_weights_are_fibonacci_numbers() -> None:
    """The worst trees: one source beside each branch."""
    numbers = [1, 1]
    while len(numbers) < 30:
        numbers.append(numbers[-1] + numbers[-2])
    part = mixture(Segment(sum(numbers), {f"{i:02}": n for i, n in enumerate(numbers)}))._parts[0]
    worst = max(
        abs(count - samples * quota / part.planned)
        for samples in range(0, part.planned, 997)
        for count, quota in zip(part.counts(samples), part.quotas, strict=True)
    )
    assert 0.5 < worst < ERROR


@given(tables, st.lists(st.integers(0, 12_000), max_size=30), st.integers(0, 2))
@settings(max_examples=40, deadline=None)
def test_any_samples_in_any_order(rows: list[tuple[int, dict[str, float]]], wanted: list[int], seed: int) -> None:
    mixed = mixture(*segments_of(rows), seed=seed)
    wanted = [g % (mixed.samples + 2000) for g in wanted]
    whole = mixed.assign(np.arange(mixed.samples + 2000))
    for found, expected in zip(mixed.assign(wanted), whole, strict=True):
        assert found.dtype == np.int64 and found.tolist() == expected[np.array(wanted, dtype=int)].tolist()
    square = mixed.assign(np.arange(6).reshape(2, 3))[0]
    assert square.shape == (2, 3) and square.flatten().tolist() == whole[0][:6].tolist()
    assert mixed.assign(3)[1].shape == ()


def test_eleven_trillion_tokens_cost_what_eleven_do() -> None:
    """Far into a long run the state is still only a number, and shares are exact."""
    config = read(RECIPES / "dots1.yaml")
    config = MixtureConfig(config.segments)
    mixed = Mixture(config, dict.fromkeys(config.sources, PLENTY), 8192, seed=1)
    assert mixed.samples == -(-11_328 * 10**9 // 8192)
    far = mixed.samples - 50 * BLOCK
    sources, ordinals = mixed.assign(np.arange(far, mixed.samples))
    consumed = mixed.consumed(far)
    for place, name in enumerate(mixed.sources):
        mine = ordinals[sources == place]
        assert mine.tolist() == list(range(consumed[name], consumed[name] + len(mine)))
    pickled: Mixture = pickle.loads(pickle.dumps(mixed))  # noqa: S301
    assert pickled.assign(far)[1] == mixed.assign(far)[1]
    assert len(pickle.dumps(mixed)) < 10_000


def test_the_order_is_written_down() -> None:
    """The same numbers on every machine and in every version; else a saved state would go on elsewhere."""
    mixed = mixture(Segment(3000, {"a": 1, "b": 2, "c": 0.3}), Segment(6000, {"b": 1, "c": 1}, "later"), seed=5)
    written = b"".join(column.astype("<i8").tobytes() for column in mixed.assign(np.arange(7000)))
    assert hashlib.blake2b(written, digest_size=8).hexdigest() == "19a51aa4e30f8be8"
    assert mixed.past(4000) == "b6a7dbf93923a147e194ee5d5fc80fa5"


def test_seeds_and_blocks_have_other_orders() -> None:
    half = Segment(4 * BLOCK, {"a": 1, "b": 1})
    orders = [mixture(half, seed=seed).assign(np.arange(2 * BLOCK))[0] for seed in (0, 1)]
    blocks = [*orders[0].reshape(2, -1), orders[1][:BLOCK]]
    for i in range(3):
        assert blocks[i].sum() == BLOCK // 2
        runs = np.flatnonzero(np.diff(blocks[i])).size
        assert abs(runs - BLOCK / 2) < 100, "as mixed as coin tosses"
        assert (blocks[i] != blocks[i - 1]).sum() > BLOCK / 3


@given(
    st.integers(0, 10**9),
    st.lists(st.tuples(st.integers(1, 1000), st.none() | st.integers(0, 10**9)), min_size=1, max_size=8),
)
def test_water_filling(samples: int, rows: list[tuple[int, int | None]]) -> None:
    weights, left = [Fraction(weight) for weight, _ in rows], [bound for _, bound in rows]
    if None not in left and sum(left) < samples:  # type: ignore[arg-type]
        with pytest.raises(MixtureError, match=f"{samples - sum(left)} samples"):  # type: ignore[arg-type]
            divide(samples, weights, left)
        return
    given_ = divide(samples, weights, left)
    assert sum(given_) == samples
    assert all(bound is None or count <= bound for count, bound in zip(given_, left, strict=True))
    # All that could give more stand at one level; those at their bound stand below it.
    level = [
        Fraction(count) / weight for count, weight, bound in zip(given_, weights, left, strict=True) if count != bound
    ]
    assert max(level, default=0) - min(level, default=0) <= 2
    for count, weight, bound in zip(given_, weights, left, strict=True):
        if count == bound and level:
            assert count / weight <= max(level) + 1


@pytest.mark.parametrize(
    ("samples", "weights", "expected"),
    [(10, [1, 1, 1], [4, 3, 3]), (7, [3, 2, 2], [3, 2, 2]), (1, [1, 5], [0, 1]), (0, [1], [0]), (5, [0, 1], [0, 5])],
)
def test_largest_remainders(samples: int, weights: list[int], expected: list[int]) -> None:
    assert divide(samples, [Fraction(weight) for weight in weights], [None] * len(weights)) == expected


def test_a_cap_over_the_whole_run_is_kept_and_explained() -> None:
    table = [Segment(10_000, {"math": 1, "web": 2, "zh": 1}), Segment(14_000, {"math": 1, "web": 1}, "anneal")]
    mixed = mixture(*table, caps={"math": 2.5}, windows={"math": 1200, "web": PLENTY, "zh": 600})
    # math asks 2,500 and 2,000; 3,000 are allowed: 500 are left for the second segment, web takes the rest.
    assert mixed.consumed(10_000) == {"math": 2500, "web": 5000, "zh": 2500}
    assert mixed.consumed(14_000) == {"math": 3000, "web": 8500, "zh": 2500}
    rows = {row.source: row for row in mixed.summary()}
    assert rows["math"][1:6] == (1200, 4500, 3000, 2.5, 2.5)
    assert rows["math"].why == (
        "repeated: 1.2K there, 3K read; anneal: 1.5K of 2K asked went to web: the cap of 2.5 epochs was reached"
    )
    assert rows["web"].why == "anneal: 1.5K of 2K asked came on top, from math at the cap"
    assert rows["zh"].why == "repeated: 600 there, 2.5K read"
    assert mixed.shares()[-2:] == [("anneal", "math", 0.5, 0.125), ("anneal", "web", 0.5, 0.875)]


def test_what_all_caps_together_cannot_give_is_refused_with_what_is_missing() -> None:
    with pytest.raises(MixtureError, match=r"'stable': all its sources \(a, b\) reach their caps, 4K tokens before"):
        mixture(Segment(10_000, {"a": 1, "b": 9}), caps={"a": 1, "b": 2}, windows={"a": 2000, "b": 2000})
    mixture(Segment(6000, {"a": 1, "b": 9}), caps={"a": 1, "b": 2}, windows={"a": 2000, "b": 2000})


@given(tables, weights_of, st.floats(0, 1.1), st.booleans())
@settings(max_examples=60, deadline=None)
def test_a_change_in_mid_run_leaves_the_past(
    rows: list[tuple[int, dict[str, float]]], weights: dict[str, float], where: float, capped: bool
) -> None:
    config = MixtureConfig(tuple(segments_of(rows)), {min(rows[0][1]): 1.5} if capped else {})
    names = {*config.sources, *weights}
    windows = {name: 700 if name in config.caps and len(rows[0][1]) > 1 else PLENTY for name in names}
    try:
        old = Mixture(config, windows, 1, 7)
    except MixtureError:
        return
    g = max(1, int(old.samples * where))
    new = Mixture(config.changed(g, [Segment(max(g, old.samples) + 1000, weights, "new")], caps={}), windows, 1, 7)
    was = [tuple(column.tolist()) for column in _named(old, g)]
    now = [tuple(column.tolist()) for column in _named(new, new.samples)]
    assert [column[:g] for column in now] == was
    assert new.past(g) == old.past(g)
    new.check_past(old.past(g), g)
    for name in new.sources:
        mine = [ordinal for source, ordinal in zip(*now, strict=True) if source == name]
        assert mine == list(range(len(mine))), "ordinals go on"
    if new.assign(g)[0] != old.assign(g)[0] or new.past(g + 1) != old.past(g + 1):
        with pytest.raises(MixtureError, match="of another mixture"):
            old.check_past(new.past(g + 1), g + 1)


def test_a_change_of_caps_leaves_the_past_too() -> None:
    before = MixtureConfig((Segment(10_000, {"a": 1, "b": 1}),), {"a": 2})
    windows = {"a": 1000, "b": PLENTY}
    old = Mixture(before, windows, 1, 0)
    assert abs(old.consumed(5000)["a"] - 1000) < 50, "two epochs of 1,000 over the whole segment"
    new = Mixture(before.changed(5000, [Segment(10_000, {"a": 1, "b": 1}, "freed")], caps={"a": 2.5}), windows, 1, 0)
    new.check_past(old.past(5000), 5000)
    assert new.consumed(10_000) == {"a": 2500, "b": 7500}


def test_a_run_goes_on_after_the_last_batch_reached_over_the_end() -> None:
    before = MixtureConfig((Segment(10_000, {"a": 1, "b": 1}),))
    old = mixture(*before.segments)
    new = mixture(*before.changed(10_100, [Segment(12_000, {"b": 1}, "more")]).segments)
    new.check_past(old.past(10_100), 10_100)
    assert [column.tolist() for column in new.assign(np.arange(10_100))] == [
        column.tolist() for column in old.assign(np.arange(10_100))
    ]
    assert abs(old.consumed(10_100)["a"] - 5050) < 60
    assert new.consumed(12_000)["a"] == old.consumed(10_100)["a"]


def _named(mixed: Mixture, upto: int) -> tuple[np.ndarray, np.ndarray]:
    sources, ordinals = mixed.assign(np.arange(upto))
    return np.array(mixed.sources, dtype=object)[sources], ordinals


def test_a_state_of_another_mixture_is_refused_by_name() -> None:
    half, more = Segment(1000, {"a": 1, "b": 1}), Segment(1000, {"a": 1, "b": 2})
    state = mixture(half).past(500)
    mixture(half).check_past(state, 500)
    mixture(Segment("0.5K", half.weights, planned=1000), Segment(3000, {"b": 1}, "only b")).check_past(state, 500)
    for other in (
        mixture(more),
        mixture(half, seed=1),
        mixture(Segment(500, half.weights), Segment(1000, {"b": 1}, "only b")),
        mixture(Segment(400, half.weights, planned=1000), Segment(1000, half.weights)),
        mixture(Segment(1000, {"a": 1, "c": 1})),
    ):
        with pytest.raises(MixtureError, match=r"sample 500 of another mixture .* here the past is stable to .*500"):
            other.check_past(state, 500)
    assert mixture(half).past(0) == mixture(more).past(0), "nothing was read"


def test_a_source_without_a_window_is_refused() -> None:
    with pytest.raises(MixtureError, match=r"of source 'b' there is not one window of 1 tokens \(there is a\)"):
        mixture(Segment(10, {"a": 1, "b": 1}), windows={"a": 5})
    with pytest.raises(MixtureError, match="shorter than one window of 100"):
        Mixture(MixtureConfig((Segment(50, {"a": 1}), Segment(60, {"a": 1}))), {"a": 5}, 100, 0)
    with pytest.raises(MixtureError, match="counted from 0"):
        mixture(Segment(10, {"a": 1})).assign([3, -1])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"segments": []}, "at least one segment"),
        ({"segments": [{"until": 5, "weights": {}}]}, "name no source"),
        ({"segments": [{"until": 5, "weights": {"a": 0}}]}, "weights: a: 0.0 is not a positive number"),
        ({"segments": [{"until": 5, "weights": {"a": ".inf"}}]}, "not a"),
        ({"segments": [{"until": 5, "wieghts": {"a": 1}}]}, "did you mean 'weights'"),
        ({"segments": [{"until": "5Q", "weights": {"a": 1}}]}, "not a number of tokens"),
        ({"segments": [{"until": 5, "weights": {"a": 1}}] * 2}, "not after the one before it"),
        ({"segments": [{"until": 5, "weights": {"a": 1}}], "caps": {"b": 1}}, "'b' is a source of no segment"),
        ({"segments": [{"until": 5, "weights": {"a": 1}, "caps": {"a": -1}}]}, "caps: a: -1.0 is not"),
    ],
)
def test_tables_that_cannot_be_meant(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(MixtureConfig, values, "mixture.yaml")


@pytest.mark.parametrize(
    ("tokens", "text"), [(0, "0"), (999, "999"), (1500, "1.5K"), (10**13, "10T"), (128 * 10**9, "128B")]
)
def test_tokens_in_three_digits(tokens: int, text: str) -> None:
    assert format_tokens(tokens) == text


def test_the_recipes_say_what_the_report_says() -> None:
    recipe = read(RECIPES / "dots1.yaml")
    stable, first, second, stage = recipe.segments
    check_mixture(load_job("dots1").curriculum, [(segment.name, segment.end) for segment in recipe.segments])
    assert [(s.name, s.end) for s in (stable, first, second, stage)] == [
        ("stable", 10 * 10**12),
        ("anneal-1", 11 * 10**12),
        ("anneal-2", 11_200 * 10**9),
        ("long-context", 11_328 * 10**9),
    ]
    for segment in (stable, first, second):
        assert sum(segment.weights.values()) == 100, "per cent"
        languages = [sum(w for name, w in segment.weights.items() if name.startswith(to)) for to in ("zh-", "en-")]
        assert languages[0] == languages[1] > 0, "Chinese to English 1:1"
    knowledge = {name for name in stable.weights if not name.endswith("-web")}
    assert sum(first.weights[name] for name in knowledge) == 90
    assert sum(stable.weights[name] for name in knowledge) < 90
    for name in ("code", "mathematics", "reasoning"):
        assert stable.weights[name] < first.weights[name] < second.weights[name]

    assert sum(stage.weights.values()) == 100
    assert sum(weight for name, weight in stage.weights.items() if name.endswith("-long")) == 50
    for name, weight in second.weights.items():
        assert stage.weights[name] == weight / 2, "the other half is the last annealing mixture"
    assert recipe.untie is not None and recipe.untie.backtrace is not None
    assert (recipe.untie.probability, recipe.untie.chunks, recipe.untie.keep_order) == (0.8, (2, 3), True)
    assert max(recipe.untie.ids) < 152_064 and len(recipe.untie.backtrace.letters) == 62


def test_the_recipes_mix() -> None:
    """With as much of each source as its caps need, and an end that the curriculum has."""
    for path in RECIPES.glob("*.yaml"):
        config = read(path)
        mixed = Mixture(config, dict.fromkeys(config.sources, 10**9), 8192, seed=0)
        sources, _ = mixed.assign(np.arange(10 * BLOCK))
        first = config.segments[0]
        for place, name in enumerate(mixed.sources):
            assert (sources == place).mean() == pytest.approx(first.weights.get(name, 0) / 100, abs=2 / BLOCK)
