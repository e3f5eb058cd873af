"""Which rank holds what: pipeline parts, data-parallel shards, experts, on one mesh of torch's own engines.

The ranks of a job are counted through pipeline stages, replicas, shards, in that order, so that the ranks that talk
most are neighbours. Experts are divided among neighbours inside a group of shards: of dp_shard ranks, every `ep` in a
row hold all experts of a layer together, and the dp_shard/ep rows share each expert's weights among them (FSDP).
"""

from __future__ import annotations

import datetime
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed import PrefixStore  # type: ignore[attr-defined]
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.rendezvous import rendezvous
from torch.distributed.tensor import DTensor, Shard, distribute_tensor

from dots_train.config import Job, Layout, ModelConfig
from dots_train.cost import stage_layers
from dots_train.experts import choose
from dots_train.model.dots1 import Dots1, Layer, initial
from dots_train.model.moe import MoE
from dots_train.parallel.dispatch import dispatched, held_here

T = TypeVar("T")

TIMEOUT = datetime.timedelta(minutes=10)


@dataclass(frozen=True)
class Ranks:
    """This process among all: its layout and, where there are several processes, the mesh.

    stage: of the pipeline. share: which of the `shares` of each global batch it reads.
    """

    layout: Layout
    mesh: DeviceMesh | None = None
    experts: dist.ProcessGroup | None = None
    """The ranks of `ep`, for the experts' all-to-all alone."""

    @property
    def world(self) -> int:
        return self.layout.world

    @property
    def rank(self) -> int:
        return dist.get_rank() if self.mesh is not None else 0

    @property
    def stage(self) -> int:
        return self.mesh.get_local_rank("pp") if self.mesh is not None else 0

    @property
    def shares(self) -> int:
        return self.layout.dp_replicate * self.layout.dp_shard

    @property
    def share(self) -> int:
        return self.rank % self.shares

    def group(self, name: str) -> dist.ProcessGroup:
        """The process group of a dimension of the mesh."""
        assert self.mesh is not None
        return self.mesh.get_group(name)

    def own_group(self, name: str, urgent: bool = False) -> dist.ProcessGroup:
        """A new group of the same ranks, whose messages wait for nobody else's; all of them must call this.

        urgent: on a GPU its messages go before computation that is waiting.
        """
        assert self.mesh is not None
        options = None
        if urgent and self.mesh.device_type == "cuda":
            options = dist.ProcessGroupNCCL.Options(is_high_priority_stream=True)
        backend = "nccl" if self.mesh.device_type == "cuda" else "gloo"
        ranks = dist.get_process_group_ranks(self.group(name))
        group: dist.ProcessGroup = dist.new_group(ranks, TIMEOUT, backend, options, use_local_synchronization=True)
        return group

    def sum(self, values: Tensor) -> Tensor:
        """`values` summed over all ranks, in place."""
        if self.mesh is not None:
            dist.all_reduce(values)
        return values

    def greatest(self, values: Tensor) -> Tensor:
        """The largest of each number over all ranks, in place."""
        if self.mesh is not None:
            dist.all_reduce(values, op=dist.ReduceOp.MAX)
        return values

    def least(self, value: int) -> int:
        """The smallest of the ranks' values."""
        values = torch.tensor(value)
        if self.mesh is not None:
            dist.all_reduce(values, op=dist.ReduceOp.MIN)
        return int(values)

    def first_to_say(self, value: T | None) -> T | None:
        """What the first rank that has something says."""
        values: list[T | None] = [value] * self.world
        if self.mesh is not None:
            dist.all_gather_object(values, value)
        return next((one for one in values if one is not None), None)

    def first_failure(self, error: BaseException) -> str | None:
        """What failed before `error` did on another rank, and left this one without an answer; None: nothing.

        The ranks tell each other through the store that they met by, which does not wait.
        """
        if self.mesh is None:
            return None
        while error.__cause__ is not None:  # a stage says that it failed, its cause says why
            error = error.__cause__
        mine = f"rank {self.rank}: {type(error).__name__}: {error}"
        try:
            first = dist.distributed_c10d._get_default_store().compare_set("first failure", "", mine).decode()
        except RuntimeError:  # the store went with its process
            return None
        return None if first == mine else first

    def told_by_first(self, value: T) -> T:
        """What the first rank has, on every rank."""
        values = [value]
        if self.mesh is not None:
            dist.broadcast_object_list(values, src=0)
        return values[0]


def connect(layout: Layout, device: torch.device) -> Ranks:
    """Join the processes that torchrun started; alone, nothing is started.

    Every wait for another rank ends after TIMEOUT with an error.
    """
    if layout.world == 1:
        return Ranks(layout)
    if not dist.is_initialized():
        backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
        # torchrun keeps its store when it starts lost processes again: what the last attempt wrote there, addresses of
        # processes that are gone among it, must not be found by this one.
        store, rank, world = next(rendezvous("env://", timeout=TIMEOUT))
        attempt = PrefixStore(f"attempt-{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)
        dist.init_process_group(backend, store=attempt, rank=rank, world_size=world, timeout=TIMEOUT)
    shape = (layout.pp, layout.dp_replicate, layout.dp_shard // layout.ep, layout.ep)
    mesh = init_device_mesh(device.type, shape, mesh_dim_names=("pp", "dp_replicate", "efsdp", "ep"))
    mesh["efsdp", "ep"]._flatten("dp_shard")
    for group in (*mesh.get_all_groups(), mesh.get_group("dp_shard")):
        dist.distributed_c10d._set_pg_timeout(TIMEOUT, group)  # they begin with torch's own, which is longer
    ranks = Ranks(layout, mesh)
    return replace(ranks, experts=ranks.own_group("ep", urgent=True)) if layout.ep > 1 else ranks


def world_size() -> int:
    """How many processes torchrun started; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def make_parts(job: Job, ranks: Ranks, device: torch.device) -> list[Dots1]:
    """This rank's parts of the model, sharded, with their first weights: one, or `vpp` of a pipeline."""
    held = stage_layers(job.model, job.sequence_length, job.layout.stages)
    experts = choose(job.experts, device)
    with torch.device("meta"):
        parts = [Dots1(job.model, experts, held[n]) for n in range(ranks.stage, len(held), job.layout.pp)]
    for part in parts:
        if ranks.mesh is not None:
            shard(part, ranks, job.precision)
        part.to_empty(device=device)
        for name, tensor in named_tensors([part]):
            fill(tensor, initial(name, tensor.shape, job.model, job.seed))
    return parts


def shard(part: Dots1, ranks: Ranks, precision: str = "float32") -> None:
    """Divide experts among the ranks of `ep` and all weights among those of `dp_shard` (FSDP2).

    In bfloat16 the weights of matrix products travel as what the products take; those of norms, router and embedding
    stay float32, as they do on one rank.
    """
    assert ranks.mesh is not None
    layout, mesh = ranks.layout, ranks.mesh
    whole, halved = _replicated(mesh, layout, "dp_shard"), precision == "bfloat16"
    for layer in part.layers.values():
        assert isinstance(layer, Layer)
        mlp, attention = layer.mlp, layer.self_attn
        exact: list[nn.Module] = [
            layer.input_layernorm,
            layer.post_attention_layernorm,
            attention.q_norm,
            attention.k_norm,
        ]
        if isinstance(mlp, MoE):
            exact.append(mlp.gate)
        if isinstance(mlp, MoE) and layout.ep > 1:
            for name, weight in list(mlp.experts.named_parameters()):
                divided = distribute_tensor(weight, mesh["ep"], [Shard(0)], src_data_rank=None)
                mlp.experts.register_parameter(name, nn.Parameter(divided))
            assert ranks.experts is not None
            mlp.experts.backend = dispatched(mlp.experts.backend, ranks.experts)
            _fully_shard(mlp.experts, _replicated(mesh, layout, "efsdp"), halved, expert=True)
        if halved:
            _fully_shard(exact, whole)
        _fully_shard(layer, whole, halved)
    if halved and part.lm_head is not None:
        _fully_shard(part.lm_head, whole, halved)
        assert isinstance(part.lm_head, FSDPModule)
        # Its backward pass comes next: as in the group of the root, it is not gathered twice.
        part.lm_head.set_reshard_after_forward(False)
    _fully_shard(part, whole)


def _replicated(mesh: DeviceMesh, layout: Layout, name: str) -> DeviceMesh:
    """The mesh of a dimension, with the replicas before it where there are any (HSDP)."""
    return mesh["dp_replicate", name] if layout.dp_replicate > 1 else mesh[name]


def _fully_shard(
    module: nn.Module | list[nn.Module], mesh: DeviceMesh, halved: bool = False, expert: bool = False
) -> None:
    # Gradients are added up in float32, over micro-batches as over ranks.
    policy = MixedPrecisionPolicy(torch.bfloat16, torch.float32, cast_forward_inputs=False)
    fully_shard(
        module,
        mesh=mesh,
        mp_policy=policy if halved else MixedPrecisionPolicy(cast_forward_inputs=False),
        # An expert's own rows are divided: its number is taken by the dimension of the experts.
        shard_placement_fn=(lambda _: Shard(1)) if expert else None,
    )
    for one in module if isinstance(module, list) else [module]:
        assert isinstance(one, FSDPModule)
        # The loss is divided by the global batch, so gradients are sums; gloo knows no scaled sum.
        one.set_gradient_divide_factor(1.0)
        one.set_force_sum_reduction_for_comms(True)


def sync_gradients(parts: Sequence[Dots1], wanted: bool) -> None:
    """Whether the next backward passes add their gradients up over the ranks."""
    for part in parts:
        if isinstance(part, FSDPModule):
            part.set_requires_gradient_sync(wanted)


def named_tensors(parts: Sequence[nn.Module]) -> list[tuple[str, Tensor]]:
    """Parameters and buffers of all parts by the names that they have in the whole model."""
    for part in parts:
        for module in part.modules():
            # After a pass without a backward one, as validation is, FSDP's root still holds whole weights.
            if isinstance(module, FSDPModule):
                module.reshard()
    return [item for part in parts for item in (*part.named_parameters(), *part.named_buffers())]


def expert_counts(parts: Iterable[Dots1], model: ModelConfig, ranks: Ranks) -> Tensor:
    """int64 [L, E] on the CPU: what all ranks tallied, tokens given to each expert of each mixture layer."""
    counts_LE = torch.zeros(model.layers, model.experts, dtype=torch.int64)
    for part in parts:
        for number, counts_E in part.tally.counts_E.items():
            counts_LE[number] = counts_E.cpu()
    return ranks.sum(counts_LE)[model.dense_layers :]


@torch.no_grad()
def fill(tensor: Tensor, whole: Tensor) -> None:
    """Give a parameter or buffer, which may be sharded, its value; `whole` is the same on every rank."""
    if isinstance(tensor, DTensor):
        part = distribute_tensor(
            whole.to(tensor.device), tensor.device_mesh, tensor.placements, src_data_rank=None
        ).to_local()
        tensor.to_local().copy_(part)
    else:
        tensor.copy_(whole)


@torch.no_grad()
def gradient_norm(parts: Iterable[nn.Module], ranks: Ranks) -> float:
    """The norm of the whole model's gradient, over all meshes: no number is counted twice, none left out.

    What replicas hold twice is counted by the first of them.
    """
    squares = [
        torch.linalg.vector_norm(held_here(parameter.grad), dtype=torch.float64).square()
        for part in parts
        for parameter in part.parameters()
        if parameter.grad is not None
    ]
    total = torch.stack(squares).sum() if squares else torch.zeros((), dtype=torch.float64)
    first = ranks.share < ranks.layout.dp_shard
    return float(ranks.sum(total if first else torch.zeros_like(total)).sqrt())


@torch.no_grad()
def scale_gradients(parts: Iterable[nn.Module], factor: float) -> None:
    for part in parts:
        for parameter in part.parameters():
            if parameter.grad is not None:
                held_here(parameter.grad).mul_(factor)
