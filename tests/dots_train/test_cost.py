"""The closed forms against real models: tensors, torch's FLOP counter, what autograd keeps, torch's schedules."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from dots_train import cost
from dots_train.config import LOGITS_AT_ONCE, Job, Layout, ModelConfig, OptimizerConfig, load_job
from dots_train.model.dots1 import Dots1
from dots_train.optim import decay_group, make_optimizer

DEBUG = dataclasses.replace(load_job("debug").model, vocab_size=512)
VARIANTS = [
    DEBUG,
    dataclasses.replace(DEBUG, layers=4, dense_layers=2, shared_experts=2, experts_per_token=3),
    dataclasses.replace(DEBUG, heads=3, experts=8, dense_ffn_size=120, dense_layers=3),
    dataclasses.replace(DEBUG, dense_layers=0, hidden_size=64),
]


@pytest.mark.parametrize("config", VARIANTS)
def test_parameters_by_part(config: ModelConfig) -> None:
    """Each tensor of a real model, put to the part that its name says."""
    found: dict[str, int] = defaultdict(int)
    for name, parameter in Dots1(config).named_parameters():
        part = {"embeddings": "embedding", "routers": "router"}.get(kind := decay_group(name, parameter.ndim), kind)
        if "self_attn" in name:
            part = "attention"
        elif part == "matrices":
            part = "shared" if "shared_experts" in name else "dense"
        found["head" if name.startswith("lm_head") else part] += parameter.numel()
    expected = dataclasses.asdict(cost.parameters(config))
    assert {part: number for part, number in expected.items() if number} == dict(found)


def test_the_released_model() -> None:
    model = load_job("dots1").model
    assert cost.parameters(model).total == 142_774_373_888
    assert cost.parameters(model, active=True).total == 14_016_581_120


def test_layers_add_up() -> None:
    model = load_job("dots1").model
    layers = [cost.parameters(model, range(first, first + 31)).total for first in (0, 31)]
    whole = cost.parameters(model)
    assert sum(layers) + whole.embedding + whole.head + model.hidden_size == whole.total


def grouped_mm_flops(a: Any, b: Any, *rest: Any, out_shape: Any = None, **more: Any) -> int:
    """2 M N K: [rows, K] with one [K, N] for each row, or [M, rows] with [rows, N]."""
    return 2 * a[0] * a[1] * b[-1]


def run(model: Dots1, windows: int, length: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(0, model.config.vocab_size, (windows, length), generator=generator)
    logits_BSV: Tensor = model(tokens, torch.arange(length).expand(windows, -1), torch.zeros_like(tokens))
    return logits_BSV


@pytest.mark.parametrize("config", VARIANTS)
def test_flops_are_those_that_torch_counts(config: ModelConfig) -> None:
    """To the last one. torch does not know grouped products, and counts the whole square of attention."""
    windows, length = 2, 32
    model = Dots1(config)
    model.initialize(0)
    known = {torch.ops.aten._grouped_mm: grouped_mm_flops}
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False, custom_mapping=known) as counter:
        model.balance_weight = 1.0
        output = run(model, windows, length)
        forward = counter.get_total_flops()
        output.square().mean().backward()
    tokens = windows * length
    assert forward == tokens * cost.forward_flops(config, length, causal=False).total
    assert counter.get_total_flops() == tokens * cost.training_flops(config, length, causal=False).total


def test_the_causal_mask_leaves_half_of_attention() -> None:
    causal, square = (cost.forward_flops(DEBUG, 256, causal) for causal in (True, False))
    assert causal.scores == pytest.approx(square.scores * 257 / 512)
    assert dataclasses.replace(causal, scores=0) == dataclasses.replace(square, scores=0)


def test_gpu_hours_are_those_of_the_report() -> None:
    """130K a trillion tokens on H800s (989 TFLOP/s dense), at about 20% MFU."""
    hours = cost.gpu_hours_a_trillion(load_job("dots1").model, 8192, cost.GPUS["H800"].teraflops, 0.20)
    assert hours == pytest.approx(130_000, rel=0.01)


def one_rank(job: Job, checkpointing: cost.Checkpointing = "off") -> dict[str, float]:
    span = job.curriculum.spans(job.sequence_length)[0]
    return {line.part: line.bytes for line in cost.memory(job, Layout(), span, 0, checkpointing)}


def test_weights_gradients_and_optimizer_states_are_those_of_a_real_model() -> None:
    job = dataclasses.replace(load_job("debug"), model=DEBUG)
    model = Dots1(DEBUG)
    model.initialize(0)
    optimizer = make_optimizer([model], OptimizerConfig())
    run(model, 1, 16).sum().backward()
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
    optimizer.step()

    def size(tensors: list[Tensor]) -> int:
        return sum(tensor.nbytes for tensor in tensors)

    parameters = list(model.parameters())
    states = [state[name] for state in optimizer.state.values() for name in ("exp_avg", "exp_avg_sq")]
    lines = one_rank(job)
    assert lines["master weights, float32"] == size(parameters)
    assert lines["gradients, float32"] == size([p.grad for p in parameters if p.grad is not None])
    assert lines["optimizer states, 2 x float32"] == size(states)
    assert lines["compute copies, float32"] == 0


def kept_by_autograd(config: ModelConfig, tokens: int) -> int:
    """Bytes of the distinct tensors that a forward pass saves for the backward one, weights left out."""
    model = Dots1(config)
    model.initialize(0)
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, Tensor] = {}

    def pack(tensor: Tensor) -> Tensor:
        if tensor.untyped_storage().data_ptr() not in weights:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        output = run(model, 1, tokens)
    assert output.requires_grad
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


@pytest.mark.parametrize("dense", [True, False], ids=["dense", "experts"])
def test_activations_kept_are_those_that_autograd_keeps(dense: bool) -> None:
    """Of one more layer, within 2%. On a CPU the norms are not fused: they keep their normalised inputs as well."""
    tokens, m = 256, DEBUG
    small = dataclasses.replace(m, layers=1, dense_layers=1)
    large = dataclasses.replace(m, layers=2, dense_layers=2 if dense else 1)
    kept = kept_by_autograd(large, tokens) - kept_by_autograd(small, tokens)
    normalised = tokens * 4 * (2 * m.hidden_size + 2 * m.heads * m.head_dim)
    assert kept == pytest.approx(cost.activations(large, 1, tokens, 4) + normalised, rel=0.02)


@pytest.mark.parametrize(
    ("pp", "vpp", "micro_batches", "most"),
    [
        (4, 2, 8, [11, 9, 7, 5]),  # of the interleaved schedule in the report's Figure 2, by simulation
        (4, 1, 8, [4, 3, 2, 1]),
        (4, 1, 2, [2, 2, 2, 1]),
        (1, 1, 8, [1]),
        (2, 2, 2, [4, 3]),
    ],
)
def test_micro_batches_in_flight(pp: int, vpp: int, micro_batches: int, most: list[int]) -> None:
    layout = Layout(pp=pp, vpp=vpp)
    assert [cost.in_flight(layout, rank, micro_batches) for rank in range(pp)] == most


@pytest.mark.parametrize(
    ("stages", "sizes"),
    [(1, [62]), (2, [32, 30]), (4, [16, 16, 16, 14]), (8, [*[8] * 7, 6]), (16, [*[4] * 14, 4, 2]), (62, [1] * 62)],
)
def test_layers_of_the_released_models_stages(stages: int, sizes: list[int]) -> None:
    """The output matrix is the work of 2.6 layers, so the last stage has two or three fewer."""
    split = cost.stage_layers(load_job("dots1").model, 8192, stages)
    assert [len(layers) for layers in split] == sizes
    assert [layer for layers in split for layer in layers] == list(range(62))


@given(st.integers(1, 80), st.integers(1, 80), st.integers(8, 200_000))
def test_no_other_last_stage_would_be_faster(layers: int, stages: int, vocabulary: int) -> None:
    model = dataclasses.replace(DEBUG, layers=layers, vocab_size=vocabulary)
    if stages > layers:
        with pytest.raises(ValueError, match=f"{layers} layers do not divide among {stages} stages"):
            cost.stage_layers(model, 256, stages)
        return
    sizes = [len(part) for part in cost.stage_layers(model, 256, stages)]
    assert sum(sizes) == layers
    assert min(sizes) >= 1
    if stages == 1:
        return
    work = cost.stage_flops(model, 256, stages)
    forward = cost.forward_flops(model, 256)
    assert sum(work) == pytest.approx(forward.total)
    layer = (forward.total - forward.head) / layers
    for last in range(1, layers - stages + 2):
        other = max(-(-(layers - last) // (stages - 1)) * layer, last * layer + forward.head)
        assert max(work) <= other * (1 + 1e-9)


def shares(layout: Layout, checkpointing: cost.Checkpointing = "selective") -> list[dict[str, float]]:
    job = load_job("dots1")
    span = job.curriculum.spans(job.sequence_length)[0]
    return [
        {line.part: line.bytes for line in cost.memory(job, layout, span, rank, checkpointing)}
        for rank in range(layout.pp)
    ]


@pytest.mark.parametrize(
    "layout", [Layout(dp_shard=8), Layout(pp=8, dp_shard=16, ep=16), Layout(pp=4, vpp=2, dp_shard=8)]
)
def test_shards_add_up_to_the_model(layout: Layout) -> None:
    """Whatever the layout, the ranks together hold each float32 weight once a replica, and two states for it."""
    ranks = shares(layout)
    total = cost.parameters(load_job("dots1").model).total
    assert sum(rank["master weights, float32"] for rank in ranks) * layout.dp_shard == pytest.approx(4 * total)
    assert sum(rank["optimizer states, 2 x float32"] for rank in ranks) * layout.dp_shard == pytest.approx(8 * total)


def test_what_each_way_of_sharding_saves() -> None:
    def line(layout: Layout, part: str, checkpointing: cost.Checkpointing = "selective") -> float:
        return shares(layout, checkpointing)[0][part]

    weights, copies, kept = "master weights, float32", "compute copies, bfloat16", "activations kept"
    assert line(Layout(dp_replicate=4, dp_shard=8), weights) == line(Layout(dp_shard=8), weights)
    assert line(Layout(dp_shard=16), weights) == line(Layout(dp_shard=8), weights) / 2
    assert line(Layout(pp=4, dp_shard=8, ep=8), copies) < line(Layout(pp=4, dp_shard=8), copies) / 5
    micro, before = load_job("dots1", ["micro_batch=976"]), "gradients before reduction"
    (one,) = (
        {line.part: line.bytes for line in cost.memory(micro, Layout(dp_shard=8), span, 0, "full")}
        for span in micro.curriculum.spans(8192)[:1]
    )
    assert one[before] < line(Layout(dp_shard=8), before) / 10, "one micro-batch is reduced layer by layer"
    assert line(Layout(dp_shard=8), copies) < line(Layout(), copies) / 10
    whole, selective, full = (line(Layout(dp_shard=8, ep=8), kept, how) for how in ("off", "selective", "full"))  # type: ignore[arg-type]
    assert full < selective < whole
    assert shares(Layout(pp=4, dp_shard=8))[0]["logits and loss"] == 0
    assert shares(Layout(pp=4, dp_shard=8))[3]["logits and loss"] == LOGITS_AT_ONCE * 14


def test_all_to_all_bytes() -> None:
    """By hand: 2 tokens, 2 mixture layers, 4 experts a token, rows of 128 bfloat16, there and back, twice."""
    rows = 2 * 2 * 4 * 128 * 2 * 4
    assert cost.all_to_all_bytes(DEBUG, Layout(), 2, 2) == 0
    assert cost.all_to_all_bytes(DEBUG, Layout(dp_shard=2, ep=2), 2, 2) == rows // 2
    assert cost.all_to_all_bytes(DEBUG, Layout(dp_shard=4, ep=4), 2, 2) == rows * 3 // 4
    assert cost.all_to_all_bytes(DEBUG, Layout(dp_shard=4, ep=4), 2, 2, again=True) == rows * 3 // 4 * 3 // 2


@pytest.mark.parametrize(
    ("name", "teraflops"),
    [
        ("NVIDIA H100 80GB HBM3", 989),
        ("NVIDIA H100 PCIe", 756),
        ("NVIDIA H800", 989),
        ("NVIDIA H20", 148),
        ("NVIDIA H200", 989),
        ("NVIDIA A100-SXM4-80GB", 312),
        ("NVIDIA GeForce RTX 4090", 165),
    ],
)
def test_peaks_by_device_name(name: str, teraflops: float) -> None:
    found = cost.gpu(name)
    assert found is not None
    assert found.teraflops == teraflops


def test_a_cpu_has_no_peak() -> None:
    assert cost.gpu("cpu") is None
    assert cost.gpu("AMD EPYC 7B13") is None
