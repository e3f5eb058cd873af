"""Spikes, dead experts and collapsed layers: found, named once, and the same after a restart."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dots_train.config import ModelConfig
from dots_train.health import (
    Loads,
    Routing,
    RoutingState,
    Spike,
    SpikeState,
    loads_by_domain,
    read_loads,
    watch_routing,
    watch_spikes,
    write_loads,
)
from dots_train.model.dots1 import Dots1


def follow(losses: list[float], norms: list[float], state: SpikeState | None = None, first: int = 1) -> list[Spike]:
    spikes, state = [], state or SpikeState()
    for step, (loss, norm) in enumerate(zip(losses, norms, strict=True), start=first):
        spike, state = watch_spikes(state, step, loss, norm)
        spikes.append(spike)
    return spikes


def quiet(steps: int, mean: float, seed: int = 0) -> list[float]:
    noise = random.Random(seed)
    return [mean * (1 + noise.gauss(0, 0.02)) for _ in range(steps)]


def test_a_spike_is_told_with_its_step_and_size() -> None:
    losses, norms = quiet(200, 2.0), quiet(200, 0.5, seed=1)
    losses[150], norms[170] = 4.0, 5.0
    spikes = follow(losses, norms)
    assert [step for step, spike in enumerate(spikes, start=1) if spike.warning] == [151, 171]
    assert spikes[150].warning.startswith("step 151: the loss is 4, ")
    assert spikes[150].warning.endswith(" deviations above 2, the mean of 128 steps")
    assert "the gradient norm is 5, " in spikes[170].warning
    assert spikes[-1].score == 2 / 200


def test_deviations_are_those_of_the_definition() -> None:
    losses = quiet(129, 2.0)
    spike = follow(losses, [1.0] * 129)[-1]
    before = torch.tensor(losses[:-1], dtype=torch.float64)
    assert spike.loss == pytest.approx(float((losses[-1] - before.mean()) / before.std(correction=0)), rel=1e-9)
    assert spike.gradient_norm == 0


@pytest.mark.parametrize(
    ("losses", "at"),
    [
        ([2.0] * 100 + [2.0 + 1e-9], []),  # rounding
        ([2.0] * 20 + [9.0], []),  # too few steps to tell
        ([8 - step / 50 for step in range(200)], []),  # a falling loss
        ([2.0] * 100 + [0.1], []),  # a fall is no spike
        ([2.0] * 100 + [math.nan], [101]),
        ([math.inf, *[2.0] * 100], [1]),
    ],
)
def test_what_is_a_spike_and_what_is_not(losses: list[float], at: list[int]) -> None:
    spikes = follow(losses, [1.0] * len(losses))
    assert [step for step, spike in enumerate(spikes, start=1) if spike.warning] == at


def test_a_number_that_is_not_finite_does_not_blind_the_watch() -> None:
    losses = quiet(200, 2.0)
    losses[150], losses[160] = math.nan, 5.0
    spikes = follow(losses, [1.0] * 200)
    assert spikes[150].warning == "step 151: the loss is nan"
    assert spikes[160].warning.startswith("step 161: the loss is 5, ")


@settings(max_examples=20)
@given(st.integers(0, 200), st.integers(0, 3))
def test_a_restart_changes_no_verdict(cut: int, seed: int) -> None:
    losses, norms = quiet(200, 2.0, seed), quiet(200, 1.0, seed + 9)
    losses[180] = 6.0
    whole = follow(losses, norms)
    state = SpikeState()
    for step in range(cut):
        _, state = watch_spikes(state, step + 1, losses[step], norms[step])
    saved = SpikeState.of(json.loads(json.dumps(state.plain())))
    assert saved == state
    assert follow(losses[cut:], norms[cut:], saved, first=cut + 1) == whole[cut:]


def watch(rows: list[torch.Tensor], **options: Any) -> Iterator[Routing]:
    state = RoutingState.start(*rows[0].shape)
    for step, counts in enumerate(rows, start=1):
        health, state = watch_routing(state, step, counts, top_k=2, **options)
        state = RoutingState.of(json.loads(json.dumps(state.plain())))  # as a restart at every step would
        yield health


def even(layers: int = 2, experts: int = 8) -> torch.Tensor:
    return torch.full((layers, experts), 10)


def test_an_even_load_is_well() -> None:
    (health,) = watch([even()])
    assert health == Routing((1.0, 1.0), (pytest.approx(1.0), pytest.approx(1.0)), (), ())


def test_a_dead_expert_is_named_once_and_so_is_its_return() -> None:
    starved = even()
    starved[1, 5] = 0
    rows = [even()] * 3 + [starved] * 12 + [even()] * 2
    found = list(watch(rows, first_layer=2, dead_after=10))
    assert [health.warnings for health in found if health.warnings] == [
        ("step 13: layer 3 expert 5 got no token for 10 steps",),
        ("step 16: layer 3 expert 5 gets tokens again",),
    ]
    assert [health.dead for health in found[11:16]] == [(), *[((3, 5),)] * 3, ()]


def test_many_dead_experts_of_a_layer_are_one_sentence() -> None:
    starved = even()
    starved[0, 1:8] = 0
    found = list(watch([starved] * 3, dead_after=3, collapse_below=0.0))
    assert found[-1].warnings == ("step 3: layer 0 experts 1, 2, 3, 4 and 3 more got no token for 3 steps",)
    assert len(found[-1].dead) == 7


def test_a_collapsed_layer_is_told_when_it_begins_and_when_it_ends() -> None:
    collapsed = even()
    collapsed[1] = torch.tensor([500, 500, 1, 1, 1, 1, 1, 1])
    found = list(watch([even(), collapsed, collapsed, even()], first_layer=1))
    assert [len(health.warnings) for health in found] == [0, 1, 0, 1]
    assert found[1].warnings[0].startswith("step 2: layer 2: routing collapsed, the entropy of the load is 0.0")
    assert "expert 0 has 4.0 times its share" in found[1].warnings[0]
    assert found[3].warnings == ("step 4: layer 2: routing recovered, the entropy of the load is 1.00 of 1",)
    assert found[1].load == (1.0, pytest.approx(500 / 125.75))


@pytest.mark.parametrize(
    ("counts", "entropy"),
    [
        ([50, 50, 0, 0, 0, 0, 0, 0], 0.0),  # every token to the same two experts: all that top 2 can do
        ([25, 25, 25, 25, 0, 0, 0, 0], 0.5),
        ([10] * 8, 1.0),
        ([0] * 8, 1.0),
    ],
)
def test_entropy_of_a_load(counts: list[int], entropy: float) -> None:
    health, _ = watch_routing(RoutingState.start(1, 8), 1, torch.tensor([counts]), top_k=2)
    assert health.entropy == (pytest.approx(entropy, abs=1e-6),)
    assert math.isfinite(health.load[0])


def test_a_model_that_takes_all_experts_cannot_collapse() -> None:
    health, _ = watch_routing(RoutingState.start(1, 4), 1, torch.tensor([[9, 9, 9, 9]]), top_k=4)
    assert (health.entropy, health.warnings) == ((1.0,), ())


def test_loads_by_domain_are_the_sums_of_single_passes(tiny: ModelConfig, reader: Any) -> None:
    model = Dots1(tiny)
    model.initialize(0)
    batches = {"even": [reader.batch(0, 2), reader.batch(4, 1)], "odd": [reader.batch(9, 3)]}
    counts_DLE = loads_by_domain(model, batches)
    assert counts_DLE.shape == (2, 1, tiny.experts)
    assert counts_DLE.sum((1, 2)).tolist() == [3 * 16 * 2, 3 * 16 * 2], "windows x positions x experts a token"
    batch = batches["odd"][0]
    assert torch.equal(counts_DLE[1], model(batch.tokens_BS, batch.position_BS, batch.document_BS).counts_LE)
    assert model.training
    assert all(parameter.grad is None for parameter in model.parameters())
    with pytest.raises(ValueError, match="domain 'none' has no batch"):
        loads_by_domain(model, {"none": []})


def test_loads_come_back_from_their_file(tmp_path: Path) -> None:
    assert read_loads(tmp_path) is None
    loads = Loads(7, 1, ("zh", "en"), [[[1, 2]], [[3, 4]]])
    write_loads(tmp_path, loads)
    assert read_loads(tmp_path) == loads


@pytest.mark.parametrize(
    "values",
    [
        None,
        [],
        {},
        {"step": 1, "first_layer": 0, "domains": ["a"], "counts": [[1]]},
        {"step": 1, "first_layer": 0, "domains": ["a", "b"], "counts": [[[1]]]},
        {"step": 1, "first_layer": 0, "domains": ["a"], "counts": [[["x"]]]},
        {"step": 1, "first_layer": 0, "domains": ["a"], "counts": [[[1], [1, 2]]]},
    ],
)
def test_damaged_loads_are_named(tmp_path: Path, values: object) -> None:
    (tmp_path / "expert_load.json").write_text(json.dumps(values) if values is not None else "{cut")
    with pytest.raises(ValueError, match=r"expert_load.json: damaged.*; remove it"):
        read_loads(tmp_path)
