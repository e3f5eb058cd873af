"""What a model costs, in closed form: parameters, FLOPs, bytes of memory and of the expert all-to-all.

Formulas read like the model in dots_train/model: D hidden, H heads, K head size, V vocabulary, S sequence length, E
experts, F expert width. The tests compare them with real models: parameters tensor by tensor, FLOPs with torch's own
counter, kept activations with what autograd saves. Needs no torch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from itertools import accumulate
from typing import Literal, NamedTuple

from dots_train.config import LOGITS_AT_ONCE, Job, Layout, ModelConfig
from dots_train.curriculum import Span

FLOAT32 = 4

Checkpointing = Literal["off", "selective", "full"]
"""Of activations. A layer's input is kept and the rest computed again: all of it (full), or all but the router's choice
and what the all-to-alls brought (selective), which could come out otherwise and would have to be sent again."""


class Gpu(NamedTuple):
    teraflops: float
    """Dense bfloat16 products, as the vendor gives them."""
    gigabytes: float


# By what is found in the name that CUDA gives a device; the first that fits, so special kinds come before general ones.
GPUS = {
    "B200": Gpu(2250, 180),
    "GH200": Gpu(989, 96),
    "H200": Gpu(989, 141),
    "H20": Gpu(148, 96),
    "H800": Gpu(989, 80),
    "H100 PCIe": Gpu(756, 80),
    "H100 NVL": Gpu(835, 94),
    "H100": Gpu(989, 80),
    "A800": Gpu(312, 80),
    "A100-SXM4-40GB": Gpu(312, 40),
    "A100-PCIE-40GB": Gpu(312, 40),
    "A100": Gpu(312, 80),
    "L40S": Gpu(362, 48),
    "RTX 4090": Gpu(165, 24),
    "A10G": Gpu(70, 24),
}


def gpu(name: str) -> Gpu | None:
    """The entry for a device name such as `NVIDIA H100 80GB HBM3`; None where the table has none (a CPU)."""
    return next((found for key, found in GPUS.items() if key.lower() in name.lower()), None)


@dataclass(frozen=True)
class Parts:
    """A quantity by the part of the model that it belongs to."""

    embedding: float = 0
    attention: float = 0
    """The four projections, and the norms of queries and keys."""
    scores: float = 0
    """Queries with keys and the sum of values: no parameters, FLOPs that grow with the sequence."""
    dense: float = 0
    """Feed-forward networks of the first layers."""
    router: float = 0
    experts: float = 0
    shared: float = 0
    norms: float = 0
    head: float = 0

    @property
    def total(self) -> float:
        return sum(float(getattr(self, field.name)) for field in fields(self))

    def times(self, factor: float) -> Parts:
        return Parts(**{field.name: getattr(self, field.name) * factor for field in fields(self)})


def parameters(model: ModelConfig, layers: range | None = None, active: bool = False) -> Parts:
    """Numbers of parameters; of some layers without embedding and head, where `layers` is given.

    active: only those that one token passes, embeddings included.
    """
    m = model
    counted = range(m.layers) if layers is None else layers
    moe = sum(layer >= m.dense_layers for layer in counted)
    ends = layers is None
    return Parts(
        embedding=m.vocab_size * m.hidden_size * ends,
        attention=len(counted) * (4 * m.hidden_size * m.heads * m.head_dim + 2 * m.head_dim),
        dense=(len(counted) - moe) * 3 * m.hidden_size * m.dense_ffn_size,
        router=moe * m.experts * m.hidden_size,
        experts=moe * (m.experts_per_token if active else m.experts) * _expert(m),
        shared=moe * m.shared_experts * _expert(m),
        norms=len(counted) * 2 * m.hidden_size + m.hidden_size * ends,
        head=m.vocab_size * m.hidden_size * ends,
    )


def _expert(model: ModelConfig) -> int:
    return 3 * model.hidden_size * model.expert_ffn_size


def forward_flops(model: ModelConfig, sequence_length: int, causal: bool = True) -> Parts:
    """FLOPs of the matrix products for one token of a window, going forward: two for each weight that it passes.

    Attention counts the positions that a token sees, (S + 1) / 2 on average under a causal mask; masks between
    documents leave less. causal=False counts the whole square, as torch's FlopCounterMode does. Norms, rotations,
    activation functions and the router's choice are not counted, as is the custom.
    """
    active = parameters(model, active=True)
    norms = model.layers * 2 * model.head_dim
    seen = (sequence_length + 1) / 2 if causal else sequence_length
    return Parts(
        attention=2 * (active.attention - norms),
        scores=model.layers * 4 * seen * model.heads * model.head_dim,
        dense=2 * active.dense,
        router=2 * active.router,
        experts=2 * active.experts,
        shared=2 * active.shared,
        head=2 * active.head,
    )


def training_flops(model: ModelConfig, sequence_length: int, causal: bool = True) -> Parts:
    """Forward and backward: a product has two gradients, so three times the forward ones.

    What activation checkpointing computes again is not counted: MFU is about useful work.
    """
    return forward_flops(model, sequence_length, causal).times(3)


def stage_layers(model: ModelConfig, sequence_length: int, stages: int) -> list[range]:
    """The layers of each pipeline stage, so that the slowest stage has as little work as may be.

    The output matrix is work as well: that of 2.6 layers in the released model, so its stage gets fewer layers. All
    layers count alike, since the width of the dense ones is chosen so; looking up an embedding counts nothing.

    Raises:
        ValueError: there are more stages than layers.
    """
    if stages > model.layers:
        raise ValueError(f"{model.layers} layers do not divide among {stages} stages; each needs at least one")
    if stages == 1:
        return [range(model.layers)]
    forward = forward_flops(model, sequence_length)
    head = forward.head * model.layers / (forward.total - forward.head)

    def slowest(last: int) -> float:
        return max(-(-(model.layers - last) // (stages - 1)), last + head)

    last = min(range(1, model.layers - stages + 2), key=lambda layers: (slowest(layers), -layers))
    share, over = divmod(model.layers - last, stages - 1)
    sizes = [*(share + (stage < over) for stage in range(stages - 1)), last]
    ends = list(accumulate(sizes))
    return [range(end - size, end) for size, end in zip(sizes, ends, strict=True)]


def stage_flops(model: ModelConfig, sequence_length: int, stages: int) -> list[float]:
    """Forward FLOPs a token of each stage, in layers' worth."""
    forward = forward_flops(model, sequence_length)
    layer = (forward.total - forward.head) / model.layers
    flops = [len(layers) * layer for layers in stage_layers(model, sequence_length, stages)]
    return [*flops[:-1], flops[-1] + forward.head]


def seconds(flops: float, teraflops: float, mfu: float, ranks: int = 1) -> float:
    return flops / (teraflops * 1e12 * mfu * ranks)


def gpu_hours_a_trillion(model: ModelConfig, sequence_length: int, teraflops: float, mfu: float) -> float:
    return seconds(training_flops(model, sequence_length).total * 1e12, teraflops, mfu) / 3600


def mfu(tokens_a_second: float, flops_a_token: float, peak_flops: float, ranks: int = 1) -> float:
    """Model FLOPs utilisation: useful FLOPs over what the devices could do. All in FLOPs, not teraflops."""
    return tokens_a_second * flops_a_token / (peak_flops * ranks)


def all_to_all_bytes(model: ModelConfig, layout: Layout, tokens: int, width: int, again: bool = False) -> int:
    """Bytes that leave a rank through the expert all-to-all for so many tokens, over all ranks together.

    Forward a token's hidden state goes to each of its experts and comes back; backward its gradients do the same. With
    even routing 1/ep of the rows stay at home. width: bytes of a number on the wire. again: full checkpointing sends
    the forward ones twice.
    """
    moe = model.layers - model.dense_layers
    row = model.hidden_size * width
    times = 6 if again else 4
    return times * moe * tokens * model.experts_per_token * row * (layout.ep - 1) // layout.ep


class Memory(NamedTuple):
    """One line of the memory table: bytes on a rank, and what divides them."""

    part: str
    bytes: float
    pp: str
    fsdp: str
    ep: str


def memory(job: Job, layout: Layout, span: Span, pp_rank: int, checkpointing: Checkpointing) -> list[Memory]:
    """Bytes by part on a rank of pipeline rank `pp_rank`, during the phase `span`, at even routing.

    Assumes FSDP2 with float32 shards and copies of the computation's type, gathered layer by layer; a stage of a
    pipeline stays gathered until the step's end, as torch's pipeline runtime has it. Gradients of several micro-batches
    add up unsharded in float32 and are reduced once. Not counted: the allocator's slack, the CUDA context, NCCL's
    buffers.
    """
    m, width = job.model, 2 if job.precision == "bfloat16" else FLOAT32
    stages = stage_layers(m, job.sequence_length, layout.stages)[pp_rank :: layout.pp]
    first, last = pp_rank == 0, pp_rank == layout.pp - 1
    sizes = [parameters(m, layers) for layers in stages]
    ends = m.vocab_size * m.hidden_size * (first + last) + m.hidden_size * last
    experts = sum(size.experts for size in sizes)
    others = sum(size.total - size.experts for size in sizes) + ends
    sharded = (experts + others) / layout.dp_shard
    here = experts / layout.ep + others  # once gathered
    stays = layout.pp > 1 or layout.schedule == "overlapped" or layout.dp_shard == 1
    layer = max(_layer_here(m, n, layout) for layers in stages for n in layers)
    copies = 0.0 if width == FLOAT32 and layout.dp_shard == 1 else width * (here if stays else 2 * layer + ends)
    tokens = job.micro_batch * span.sequence_length
    micro_batches = max(1, -(-span.sequences // (layout.dp * job.micro_batch)))
    whole = layout.pp > 1 or micro_batches > 1
    unsharded = 0.0 if layout.dp_shard == 1 else FLOAT32 * (here if whole else layer + ends)
    alive = in_flight(layout, pp_rank, micro_batches)
    most = max(sum(kept(m, layout, n, tokens, width, checkpointing) for n in layers) for layers in stages)
    largest = max(activations(m, n, tokens, width) for layers in stages for n in layers)
    logits = min(tokens * m.vocab_size, LOGITS_AT_ONCE) * logit_bytes(width) if last else 0.0
    rows = tokens * m.experts_per_token * m.hidden_size * width
    buffers = 2.0 * rows if layout.ep > 1 else 0.0

    by_stage = f"its layers, 1/{layout.pp}" if layout.pp > 1 else "-"
    shard = f"1/{layout.dp_shard}" if layout.dp_shard > 1 else "-"
    of_shards = f"experts 1/{layout.ep}, then 1/{layout.dp_shard // layout.ep}" if layout.ep > 1 else "-"
    of_experts = f"experts 1/{layout.ep}" if layout.ep > 1 else "-"
    gathered = "-" if stays else "all but two layers"
    depth = f"{alive} chunks in flight" if layout.pp > 1 else "-"
    rows_move = "moves rows, as many stay" if layout.ep > 1 else "-"
    own = "by sequences" if layout.dp > 1 else "-"
    return [
        Memory("master weights, float32", FLOAT32 * sharded, by_stage, shard, of_shards),
        Memory("optimizer states, 2 x float32", 2 * FLOAT32 * sharded, by_stage, shard, of_shards),
        Memory("gradients, float32", FLOAT32 * sharded, by_stage, shard, of_shards),
        Memory("gradients before reduction", unsharded, by_stage, "-" if whole else "all but a layer", of_experts),
        Memory(f"compute copies, {job.precision}", copies, by_stage, gathered, of_experts),
        Memory("activations kept", alive * most, depth, own, rows_move),
        Memory("one layer computed again", largest if checkpointing != "off" else 0.0, "-", own, rows_move),
        Memory("logits and loss", logits, "last rank alone" if layout.pp > 1 else "-", own, "-"),
        Memory("all-to-all buffers", buffers, "-", own, "rows sent and received" if layout.ep > 1 else "-"),
    ]


def _layer_here(model: ModelConfig, layer: int, layout: Layout) -> float:
    size = parameters(model, range(layer, layer + 1))
    return size.total - size.experts + size.experts / layout.ep


def in_flight(layout: Layout, pp_rank: int, micro_batches: int) -> int:
    """Chunks whose activations a pipeline rank holds at most: the schedule's warm-up and the one in work.

    1F1B and interleaved 1F1B of torch.distributed.pipelining (vpp chunks a rank, rounds of pp micro-batches). The
    overlapped schedule warms up one longer, and of a pair the one takes layer by layer what the other lets go.
    """
    if layout.vpp == 1:
        return min(micro_batches, layout.pp - pp_rank)
    round_size = micro_batches // max(1, micro_batches // layout.pp)
    warm_up = (layout.vpp - 1) * round_size + 2 * (layout.pp - 1 - pp_rank)
    return min(warm_up + 1, micro_batches * layout.vpp)


def activations(model: ModelConfig, layer: int, tokens: int, width: int) -> float:
    """Bytes that autograd keeps of one layer for its backward pass, without checkpointing.

    Fused RMSNorm and attention that keeps no square of scores. width: bytes of a number in the computation.
    """
    m, inner = model, model.heads * model.head_dim
    # Input of each norm and its output; queries and keys before their norm; what attention reads and gives.
    attention = 2 * m.hidden_size + 2 * inner + 4 * inner
    lines = m.heads * FLOAT32 + 2 * FLOAT32 + 2 * m.heads * FLOAT32  # log-sum-exp, and 1/rms of each norm
    if layer < m.dense_layers:
        return float(tokens * (width * (attention + 2 * m.hidden_size + 4 * m.dense_ffn_size) + lines))
    rows = m.experts_per_token * (2 * m.hidden_size + 4 * m.expert_ffn_size)
    shared = 4 * m.shared_experts * m.expert_ffn_size
    # The router reads float32: its scores, the chosen of them, their sum, indices both ways.
    reads = 0 if width == FLOAT32 else m.hidden_size
    router = FLOAT32 * (reads + m.experts + 2 * m.experts_per_token + 1) + 8 * 3 * m.experts_per_token
    return float(tokens * (width * (attention + 2 * m.hidden_size + rows + shared) + lines + router))


def kept(
    model: ModelConfig, layout: Layout, layer: int, tokens: int, width: int, checkpointing: Checkpointing
) -> float:
    """Bytes of one layer and micro-batch until its backward pass."""
    if checkpointing == "off":
        return activations(model, layer, tokens, width)
    if checkpointing == "full" or layer < model.dense_layers:
        return float(tokens * width * model.hidden_size)
    brought = 2 * model.experts_per_token * model.hidden_size if layout.ep > 1 else 0
    choice = model.experts_per_token * (8 + FLOAT32)
    return float(tokens * (width * (model.hidden_size + brought) + choice))


def logit_bytes(width: int) -> int:
    """Bytes a logit at the peak of the loss: the logits, their float32 log-softmax, its gradient, and that of the
    logits, in float32; where the computation has another type the float32 ones come on top.
    """
    return 3 * FLOAT32 + width


def peak_ranks(job: Job, layout: Layout, span: Span, checkpointing: Checkpointing) -> list[float]:
    """Bytes on each pipeline rank."""
    return [
        math.fsum(line.bytes for line in memory(job, layout, span, rank, checkpointing)) for rank in range(layout.pp)
    ]
