"""The recipe as a function of tokens: the report's figures at each border, and properties of any table."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dots_data.typed_yaml import ConfigError, build
from dots_train.config import Job, load_job, preset
from dots_train.curriculum import Curriculum, Phase, check_mixture, parse_tokens, scaled

T, B, M = 10**12, 10**9, 10**6
LENGTH = 8192
PAPER = build(Job, preset("dots1"), "dots1").curriculum


@pytest.mark.parametrize(
    ("tokens", "rate", "batch", "phase"),
    [
        (0, 3e-4, 64 * M, "stable"),
        (6 * T - 1, 3e-4, 64 * M, "stable"),
        (6 * T, 3e-4, 96 * M, "stable"),
        (8_300 * B - 1, 3e-4, 96 * M, "stable"),
        (8_300 * B, 3e-4, 128 * M, "stable"),
        (10 * T - 1, 3e-4, 128 * M, "stable"),
        (10 * T, 3e-4, 128 * M, "anneal-1"),
        (10 * T + T // 2, (3e-4 + 3e-5) / 2, 128 * M, "anneal-1"),
        (11 * T, 3e-5, 128 * M, "anneal-2"),
        (11 * T + 100 * B, 2e-5, 128 * M, "anneal-2"),
        (11_200 * B - 1, 1e-5, 128 * M, "anneal-2"),
        (11_200 * B, 1e-5, 128 * M, "long-context"),
        (11_328 * B - 1, 1e-5, 128 * M, "long-context"),
    ],
)
def test_the_report_at_every_border(tokens: int, rate: float, batch: int, phase: str) -> None:
    stage = PAPER.at(step=10_000, tokens=tokens, sequence_length=LENGTH)
    assert stage is not None
    assert stage.learning_rate == pytest.approx(rate, rel=1e-9)
    assert stage.phase == phase
    assert stage.sequences * stage.sequence_length == pytest.approx(
        batch, rel=0.005 if phase != "long-context" else 0.02
    )
    assert stage.sequences % 128 == 0


def test_the_long_context_stage() -> None:
    before, after = (PAPER.at(140_000, tokens, LENGTH) for tokens in (11_200 * B - 1, 11_200 * B))
    assert before is not None
    assert after is not None
    assert (before.sequence_length, before.untie, before.mixture) == (8192, 0.0, "anneal-2")
    assert (after.sequence_length, after.untie, after.mixture) == (32768, 0.8, "long-context")
    assert (before.rope_theta, after.rope_theta) == (5e5, 1e7)
    assert after.sample == -(-11_200 * B // 32768)


def test_the_report_ends_with_128_billion_tokens_of_32k() -> None:
    assert PAPER.tokens == 11_328 * B
    assert PAPER.at(10_000, 11_328 * B, LENGTH) is None


def test_the_report_warms_up_over_4000_steps() -> None:
    rates = [PAPER.at(step, step * 64 * M, LENGTH).learning_rate for step in (0, 1999, 3999, 4000)]  # type: ignore[union-attr]
    assert rates == pytest.approx([3e-4 / 4000, 1.5e-4, 3e-4, 3e-4])


def test_the_report_stepped_to_its_end() -> None:
    """Step by step: what begins where, with which batch and length, and which rates it goes through."""
    begun: list[tuple[str, int, int]] = []
    first: list[tuple[int, int, float]] = []
    last: list[float] = []
    count = seen = 0
    for step, tokens, stage in PAPER.walk(LENGTH):
        now = (stage.phase, stage.sequences, stage.sequence_length)
        if not begun or begun[-1] != now:
            begun.append(now)
            first.append((step, tokens, stage.learning_rate))
            last.append(stage.learning_rate)
        last[-1] = stage.learning_rate
        count, seen = step + 1, tokens + stage.sequences * stage.sequence_length
    assert begun == [
        ("stable", 7808, 8192),
        ("stable", 11776, 8192),
        ("stable", 15616, 8192),
        ("anneal-1", 15616, 8192),
        ("anneal-2", 15616, 8192),
        ("long-context", 3968, 32768),
    ]
    borders = (0, 6 * T, 8_300 * B, 10 * T, 11 * T, 11_200 * B)
    for (_, tokens, _), border in zip(first, borders, strict=True):
        assert border <= tokens < border + 131 * M, "a phase begins with the first batch after its border"
    assert [step for step, _, _ in first] == [0, 93805, 117647, 130936, 138753, 140316]
    assert [rate for _, _, rate in first] == pytest.approx([3e-4 / 4000, 3e-4, 3e-4, 3e-4, 3e-5, 1e-5], rel=1e-3)
    assert last == pytest.approx([3e-4, 3e-4, 3e-4, 3e-5, 1e-5, 1e-5], rel=2e-3)
    assert 11_328 * B <= seen < 11_328 * B + 131 * M
    assert count == PAPER.steps(LENGTH) == 141_301


def test_spans_are_the_steps_in_closed_form() -> None:
    spans = PAPER.spans(LENGTH)
    assert [span.step for span in spans] == [0, 93805, 117647, 130936, 138753, 140316]
    for span, after in pairwise(spans):
        assert (span.end_step, span.end_tokens) == (after.step, after.tokens)
    assert spans[-1].end_step == 141_301


tables = st.lists(
    st.tuples(
        st.integers(1, 5000),
        st.floats(1e-6, 1.0),
        st.integers(1, 3000),
        st.sampled_from(["linear", "cosine"]),
    ),
    min_size=1,
    max_size=5,
)


def curriculum(rows: list[tuple[int, float, int, str]], warmup: int) -> Curriculum:
    end, phases = 0, []
    for length, rate, batch, decay in rows:
        end += length
        phases.append(Phase(end, rate, batch, decay=decay))  # type: ignore[arg-type]
    return Curriculum(tuple(phases), warmup)


@given(tables, st.integers(0, 20), st.integers(1, 64))
def test_any_table(rows: list[tuple[int, float, int, str]], warmup: int, length: int) -> None:
    table = curriculum(rows, warmup)
    walked = list(table.walk(length))
    assert table.steps(length) == len(walked)
    assert sum(span.steps for span in table.spans(length)) == len(walked)
    half, tokens, _ = walked[len(walked) // 2]
    assert table.steps(length, half, tokens) == len(walked), "the same count from the middle"
    rates = [rate for _, rate, _, _ in rows]
    for step, tokens, stage in walked:
        assert stage.sequences >= 1
        assert 0 < stage.learning_rate <= max(rates) * (1 + 1e-9)
        if step >= warmup:
            assert stage.learning_rate >= min(rates) * (1 - 1e-9)
        assert stage == table.at(step, tokens, length)
    step, tokens, stage = walked[-1]
    assert tokens < table.tokens <= tokens + stage.sequences * length


@given(tables, st.integers(0, 20), st.integers(1, 64), st.floats(1e-6, 1.0), st.integers(1, 8))
def test_any_table_scaled(
    rows: list[tuple[int, float, int, str]], warmup: int, length: int, factor: float, multiple: int
) -> None:
    table = replace(curriculum(rows, warmup), batch_multiple=multiple)
    small = scaled(table, factor, length)
    if factor == 1:
        assert small == table
        return
    assert len(small.phases) == len(table.phases)
    assert small.warmup_steps <= table.warmup_steps or small.steps(length) > table.steps(length)
    for span, phase in zip(small.spans(length), table.phases, strict=True):
        assert span.steps >= 1
        assert span.sequences % multiple == 0
        assert span.end_tokens == span.phase.end, "whole batches"
        assert span.phase.learning_rate == phase.learning_rate
        assert span.batch_tokens <= max(phase.batch_tokens, length * multiple) + length * multiple


@pytest.mark.parametrize(
    ("factor", "tokens", "steps", "warmup", "batches"),
    [
        (1e-2, 113_280 * M, 14_000, 400, [6_400_000, 9_600_000, 12_800_000]),
        (1e-4, 1_132_800_000, 1_400, 40, [640_000, 960_000, 1_280_000]),
        (1e-6, 11_328_000, 140, 4, [64_000, 96_000, 128_000]),
    ],
)
def test_the_report_scaled(factor: float, tokens: int, steps: int, warmup: int, batches: list[int]) -> None:
    small = load_job("dots1", [f"scale={factor}", "curriculum.batch_multiple=1"]).curriculum
    assert small.tokens == pytest.approx(tokens, rel=0.01)
    assert small.steps(LENGTH) == pytest.approx(steps, rel=0.03)
    assert small.warmup_steps == pytest.approx(warmup, abs=max(1, 0.05 * warmup))
    assert [phase.batch_tokens for phase in small.phases[:3]] == pytest.approx(batches, rel=0.03)
    assert [span.sequence_length for span in small.spans(LENGTH)] == [8192] * 5 + [32768]


@pytest.mark.parametrize("factor", [0, -1, 1.5, float("nan")])
def test_scales_that_cannot_be_meant(factor: float) -> None:
    with pytest.raises(ConfigError, match="scale must be over 0 and at most 1"):
        load_job("dots1", [f"scale={factor}".replace("nan", ".nan")])


def test_a_loaders_place_follows_from_the_tokens_through_a_change_of_length() -> None:
    table = Curriculum((Phase(1000, 1.0, 64), Phase(2000, 1.0, 128, sequence_length=64)))
    read: dict[int, list[int]] = {16: [], 64: []}
    for _, tokens, stage in table.walk(16):
        assert stage.sample * stage.sequence_length >= tokens
        read[stage.sequence_length] += range(stage.sample, stage.sample + stage.sequences)
    for samples in read.values():
        assert samples == list(range(samples[0], samples[-1] + 1)), "each sample once, in order"
    assert read[64][0] == -(-(len(read[16]) * 16) // 64)


SEGMENTS = [("stable", 10 * T), ("anneal-1", 11 * T), ("anneal-2", 11_200 * B), ("long-context", 11_328 * B)]


def test_the_mixture_that_the_phases_name() -> None:
    check_mixture(PAPER, SEGMENTS)


@pytest.mark.parametrize(
    ("segments", "message"),
    [
        (SEGMENTS[:3], "phase 'long-context' reads 'long-context' of the mixture.*its segment 'anneal-2' ends"),
        ([("stable", 9 * T), *SEGMENTS[1:]], "phase 'stable' reads 'stable'.*segment 'anneal-1' ends at 11,000"),
        ([("stable", 10_500 * B), *SEGMENTS[1:]], "phase 'anneal-1'.*segment 'stable' ends at 10,500,000,000,000"),
    ],
)
def test_a_mixture_with_other_borders_is_named(segments: list[tuple[str, int]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_mixture(PAPER, segments)


@pytest.mark.parametrize(
    ("text", "tokens"), [(5, 5), ("64M", 64 * M), ("8.3T", 8_300 * B), ("1_024", 1024), ("0.5K", 500)]
)
def test_tokens_are_read(text: int | str, tokens: int) -> None:
    assert parse_tokens(text) == tokens


@pytest.mark.parametrize("text", ["", "M", "8.3", "1e9", "5 X", "-3", "0.0001K"])
def test_tokens_that_are_none(text: str) -> None:
    with pytest.raises(ValueError, match="is not a number of tokens"):
        parse_tokens(text)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"phases": []}, "at least one phase"),
        ({"phases": [{"until": 5, "learning_rate": 1, "batch": 1}] * 2}, "not after the phase before it"),
        ({"phases": [{"until": 5, "learning_rate": -1, "batch": 1}]}, "not negative"),
        ({"phases": [{"until": 5, "learning_rate": 1, "batch": 0}]}, "must be positive"),
        ({"phases": [{"until": 5, "learning_rat": 1, "batch": 1}]}, "did you mean 'learning_rate'"),
        ({"phases": [{"until": "5Q", "learning_rate": 1, "batch": 1}]}, "not a number of tokens"),
        (
            {"phases": [{"until": 5, "learning_rate": 1, "batch": 1}], "warmup_steps": -1},
            "must not be negative",
        ),
        ({"phases": [{"until": 5, "learning_rate": 1, "batch": 1}], "batch_multiple": 0}, "batch_multiple must be"),
        ({"phases": [{"until": 5, "learning_rate": 1, "batch": 1, "untie": 2}]}, "untie is a probability, found 2"),
        ({"phases": [{"until": 5, "learning_rate": 1, "batch": 1, "rope_theta": 1}]}, "rope_theta must be a number"),
        ({"phases": [{"until": 5, "learning_rate": 1, "batch": 1, "sequence_length": 0}]}, "at least 1, found 0"),
        (
            {"phases": [{"until": 5, "learning_rate": 1, "batch": 1, "weight_decay": {"norm": 0.1}}]},
            "no group 'norm'; there are matrices",
        ),
        (
            {"phases": [{"until": 5, "learning_rate": 1, "batch": 1, "weight_decay": {"norms": -1}}]},
            "norms: must not be negative",
        ),
    ],
)
def test_tables_that_cannot_be_meant(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(Curriculum, values, "job.yaml")
