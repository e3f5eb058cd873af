"""Interleaved 1F1B in which a forward and a backward pass run together, on torch.distributed.pipelining's runtime.

One forward pass more is done before the first backward one (dots.llm1's report, section 3.2). So the forward and the
backward pass that a rank has next to each other are never of the same micro-batch and part, neither waits for the
other, and the experts' all-to-all of one runs beside the computation of the other. The pipeline is neither emptier nor
fuller than that of plain interleaved 1F1B: there, too, a rank holds the micro-batches of its warm-up and one more.
"""

from __future__ import annotations

from typing import Any

import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.pipelining import PipelineStage, ScheduleInterleaved1F1B
from torch.distributed.pipelining.schedules import (
    OVERLAP_F_B,
    REDUCE_GRAD,
    _Action,
    _get_1f1b_rank_ops,
    _get_warmup_ops,
    _PipelineContext,
    _wait_batch_p2p,
)

from dots_train.experts.late import LateGradients, put_off
from dots_train.parallel import mesh
from dots_train.parallel.baton import BATON

Group = dist.ProcessGroup


def rank_actions(
    rank: int, ranks: int, parts: int, micro_batches: int, extra: int = 1, pairs: bool = True
) -> list[_Action]:
    """What a rank computes, in order; behind the warm-up a forward and the next backward pass are one action.

    parts: of the model on each rank. ranks * parts stages; stage n is on rank n % ranks.
    extra: forward passes more in the warm-up than plain interleaved 1F1B has; with none, and no pairs, this is it.
    """
    in_round = micro_batches // max(1, micro_batches // ranks)
    passes = parts * micro_batches
    warm_up = min(_get_warmup_ops(rank, parts, in_round, ranks, micro_batches) + extra, passes)

    def forward_stage(step: int) -> int:
        return step // in_round % parts * ranks + rank

    def backward_stage(step: int) -> int:
        return (parts - 1 - (step - warm_up) // in_round % parts) * ranks + rank

    steps = (warm_up, passes - warm_up, warm_up)
    listed = _get_1f1b_rank_ops(  # type: ignore[no-untyped-call]
        parts, ranks, *steps, rank, forward_stage, backward_stage
    )
    actions = [action for action in listed if action is not None]
    if not pairs:
        return actions
    ends = 2 * passes - warm_up
    steady = actions[warm_up:ends]
    together = [_Action(-1, OVERLAP_F_B, None, pair) for pair in zip(steady[::2], steady[1::2], strict=True)]
    return [*actions[:warm_up], *together, *actions[ends:]]


class DirectedStage(PipelineStage):
    """A stage whose messages go through one of two groups, by whether they go to a higher rank or a lower one.

    A group's messages between two ranks pass in order, so a receive that is posted late would hold up what its rank
    sends, and two ranks could wait for each other for ever. After each backward pass gradients are set aside.
    """

    def __init__(self, *args: Any, groups: tuple[Group, Group], **options: Any):
        super().__init__(*args, **options)
        self.groups = groups

    def get_fwd_send_ops(self, chunk: int) -> list[dist.P2POp]:
        return self._directed(super().get_fwd_send_ops(chunk), sends=True)

    def get_bwd_send_ops(self, chunk: int) -> list[dist.P2POp]:
        return self._directed(super().get_bwd_send_ops(chunk), sends=True)

    def get_fwd_recv_ops(self, chunk: int) -> list[dist.P2POp]:
        return self._directed(super().get_fwd_recv_ops(chunk), sends=False)

    def get_bwd_recv_ops(self, chunk: int) -> list[dist.P2POp]:
        return self._directed(super().get_bwd_recv_ops(chunk), sends=False)

    def backward_one_chunk(self, bwd_chunk_id: int, *args: Any, **options: Any) -> None:
        super().backward_one_chunk(bwd_chunk_id, *args, **options)
        set_aside(self.submod)

    def _directed(self, messages: list[dist.P2POp], sends: bool) -> list[dist.P2POp]:
        for message in messages:
            upwards = (self.group_rank < message.group_peer) == sends
            message.group = self.groups[0 if upwards else 1]
        return messages


class Overlapped1F1B(ScheduleInterleaved1F1B):
    """The schedule; stages, micro-batches and options as torch's. A rank may be the only one of its pipeline: then
    F; F+B; ...; B.

    late: where weight gradients of the experts are put until an all-to-all is under way; None computes them at once.
    Receives are posted right before what reads them: on a GPU one that waits for its sender would hold up the experts'
    all-to-all.
    """

    def __init__(self, stages: list[Any], micro_batches: int, late: LateGradients | None = None, **options: Any):
        super().__init__(stages, micro_batches, defer_pp_recv=True, **options)
        self.late = late
        self.register_custom_function(OVERLAP_F_B, self._together)
        self.register_custom_function(REDUCE_GRAD, self._reduce)

    def _calculate_single_rank_operations(self, rank: int) -> list[_Action | None]:
        return [*rank_actions(rank, self.pp_group_size, self.n_local_stages, self._n_microbatches)]

    def _step_microbatches(self, *args: Any, **options: Any) -> None:
        BATON.late = self.late
        if self.late is None:
            super()._step_microbatches(*args, **options)
            return
        self.late.waiting.clear()  # of a step that failed
        with put_off(self.late):
            super()._step_microbatches(*args, **options)

    def _together(self, action: _Action, ctx: _PipelineContext) -> None:
        """The forward pass of one micro-batch and the backward pass of another."""
        assert action.sub_actions is not None
        ahead, back = action.sub_actions
        stages = {stage.stage_index: stage for stage in self._stages}
        forward, backward = stages[ahead.stage_index], stages[back.stage_index]
        coming, going = ahead.microbatch_index, back.microbatch_index
        assert coming is not None and going is not None
        assert ctx.arg_mbs is not None and ctx.kwarg_mbs is not None
        arguments, keywords = ctx.arg_mbs[coming], ctx.kwarg_mbs[coming]
        for stage in (forward, backward):
            self._assert_unsharded(stage)
        if not forward.is_first:
            _wait_batch_p2p(self.fwd_recv_ops.pop((ahead.stage_index, coming)))
        if not backward.is_last:
            _wait_batch_p2p(self.bwd_recv_ops.pop((back.stage_index, going)))
        loss = self._maybe_get_loss(backward, going)  # type: ignore[no-untyped-call]
        self.backward_counter[back.stage_index] += 1

        def go_forward() -> None:
            output = forward.forward_one_chunk(coming, arguments, keywords, save_forward_output=False)
            self._maybe_compute_loss(forward, output, ctx.target_mbs, coming)  # type: ignore[no-untyped-call]

        def go_back() -> None:
            # The forward pass counts its rows first and sends them in the next turn; this one's first is that after.
            BATON.rest()
            backward.backward_one_chunk(going, loss=loss)

        BATON.together(go_forward, go_back, 2 * mesh.TIMEOUT.total_seconds())

    def _reduce(self, action: _Action, ctx: _PipelineContext) -> None:
        """Add the gradients of a stage up over the ranks, when none of them is left to compute."""
        if self.late is not None:
            self.late.run()
        stage = next(stage for stage in self._stages if stage.stage_index == action.stage_index)
        stage.perform_reduce_grad(1)


def set_aside(part: nn.Module) -> None:
    """Add the gradients of a pass to those before it, in the type in which FSDP adds them up over the ranks.

    Its hooks do so, too, but one that a forward pass would have set up is left out while its layer goes back.
    """
    for module in part.modules():
        if isinstance(module, FSDPModule):
            for group in module._get_fsdp_state()._fsdp_param_groups:
                for parameter in group.fsdp_params:
                    parameter.accumulate_unsharded_grad_if_needed()
                    parameter.to_accumulated_grad_if_needed()


def keep_gathered(part: nn.Module) -> None:
    """Leave weights whole from when the schedule gathers them: a forward pass that ends must not take them from a
    backward pass beside it."""
    for module in part.modules():
        if isinstance(module, FSDPModule):
            module.set_reshard_after_forward(False, recurse=False)
