"""How a rank's share of a global batch goes through the model: in micro-batches, alone or in a pipeline.

The pipeline is torch.distributed.pipelining's own: 1F1B where each rank holds one part of the model, interleaved 1F1B
where it holds several, and the overlapped one of schedule.py on the same runtime where the layout asks for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor
from torch.distributed.pipelining import PipelineStage, Schedule1F1B, ScheduleInterleaved1F1B

from dots_train.config import Job
from dots_train.experts.late import LateGradients
from dots_train.model.dots1 import Dots1
from dots_train.parallel.mesh import Ranks, sync_gradients
from dots_train.parallel.schedule import DirectedStage, Overlapped1F1B, keep_gathered
from dots_train.reading import Tokens

Schedule = Schedule1F1B | ScheduleInterleaved1F1B


class Share(NamedTuple):
    """The sequences [n, S] of a global batch that one rank reads, on its device; see dots_train.data.Batch.

    `document` stays on the CPU, where a mask is made of it without waiting for the device.
    """

    tokens: Tensor
    targets: Tensor
    position: Tensor
    document: Tensor

    @classmethod
    def of(cls, batch: Tokens, device: torch.device) -> Share:
        tokens, targets, position = (part.to(device) for part in (batch.tokens_BS, batch.targets_BS, batch.position_BS))
        return cls(tokens, targets, position, batch.document_BS)

    def micro_batches(self, size: int) -> list[Share]:
        return [Share(*parts) for parts in zip(*(torch.split(tensor, size) for tensor in self), strict=True)]


class Plain:
    """One micro-batch after another through the whole model."""

    def __init__(self, model: Dots1, micro_batch: int):
        self.model, self.micro_batch = model, micro_batch

    def run(self, share: Share, scale: float) -> Tensor:
        """Add the gradients of these sequences [n, S], their losses times `scale`; returns each micro-batch's loss [M],
        float64."""
        losses: list[Tensor] = []
        micro_batches = share.micro_batches(self.micro_batch)
        for number, micro in enumerate(micro_batches, 1):
            sync_gradients([self.model], number == len(micro_batches))
            loss = self.model(micro.tokens, micro.position, micro.document, micro.targets) * scale
            torch.autograd.backward(loss)
            losses.append(loss.detach())
        return torch.stack(losses).double()

    @torch.no_grad()
    def evaluate(self, share: Share) -> Tensor:
        """The summed loss of these sequences, float64."""
        loss = torch.zeros((), dtype=torch.float64, device=share.tokens.device)
        for micro in share.micro_batches(self.micro_batch):
            loss += self.model(micro.tokens, micro.position, micro.document, micro.targets)
        return loss


class Pipeline:
    """1F1B over the ranks of the mesh's dimension `pp`; interleaved where a rank has several parts.

    Every stage is told the shapes that it takes and gives: torch would otherwise find them out by a forward pass over
    memory that holds anything, which a router would route and count.
    """

    def __init__(self, parts: Sequence[Dots1], job: Job, ranks: Ranks, device: torch.device):
        self.parts, self.job, self.ranks, self.device = parts, job, ranks, device
        self.scale = 1.0
        self.schedules: dict[tuple[int, int], Schedule] = {}
        self.stages: dict[int, list[PipelineStage]] = {}
        self.overlapped = job.layout.schedule == "overlapped"
        # Where there is no all-to-all they would wait for nothing.
        self.late = LateGradients() if self.overlapped and job.layout.ep > 1 else None
        if self.overlapped:
            self.directions = ranks.own_group("pp"), ranks.own_group("pp")
            for part in parts:
                keep_gathered(part)

    def run(self, share: Share, scale: float) -> Tensor:
        """As `Plain.run`; every rank of the pipeline is given the same sequences, and the last one returns the losses,
        the others none ([0])."""
        self.scale = scale
        losses = self._pass(share, backward=True)
        return torch.stack([one.detach() for one in losses]).double() if losses else torch.zeros(0, dtype=torch.float64)

    @torch.no_grad()
    def evaluate(self, share: Share) -> Tensor:
        """The summed loss of these sequences, float64; 0 but on the last rank."""
        if self.job.layout.pp == 1:
            return Plain(self.parts[0], self.job.micro_batch).evaluate(share)
        self.scale = 1.0
        losses = self._pass(share, backward=False)
        return torch.stack(losses).double().sum() if losses else torch.zeros((), dtype=torch.float64)

    def _pass(self, share: Share, backward: bool) -> list[Tensor]:
        """The micro-batches' losses, on the last rank of the pipeline."""
        schedule = self._schedule(len(share.tokens) // self.job.micro_batch, share.tokens.shape[1])
        losses: list[Tensor] = []
        first, last = self.ranks.stage == 0, self.ranks.stage == self.job.layout.pp - 1
        (schedule.step if backward else schedule.eval)(
            *((share.tokens,) if first else ()),
            target=share.targets if last else None,
            losses=losses if last else None,
            return_outputs=False,
            position_BS=share.position,
            document_BS=share.document,
            targets_BS=share.targets,
        )
        return losses

    def _schedule(self, micro_batches: int, length: int) -> Schedule:
        """The schedule for so many micro-batches; one for each batch size that the curriculum has."""
        found = self.schedules.get((micro_batches, length))
        if found is None:
            stages = self.stages.setdefault(length, self._stages(length))

            def loss(summed: Tensor, targets_BS: Tensor) -> Tensor:
                return summed * self.scale

            if self.overlapped:
                found = Overlapped1F1B([*stages], micro_batches, self.late, loss_fn=loss, scale_grads=False)
            elif len(stages) == 1:
                found = Schedule1F1B(stages[0], micro_batches, loss_fn=loss, scale_grads=False)
            else:
                found = ScheduleInterleaved1F1B([*stages], micro_batches, loss_fn=loss, scale_grads=False)
            self.schedules[micro_batches, length] = found
        return found

    def _stages(self, length: int) -> list[PipelineStage]:
        layout, model = self.job.layout, self.job.model
        shape = (self.job.micro_batch, length)
        with torch.device("meta"):
            tokens = torch.empty(shape, dtype=torch.int64)
            hidden = torch.empty(*shape, model.hidden_size, requires_grad=True)
            loss = torch.empty((), requires_grad=True)
        count = layout.pp * layout.vpp
        numbers = range(self.ranks.stage, count, layout.pp)
        make = partial(DirectedStage, groups=self.directions) if self.overlapped else PipelineStage
        return [
            make(
                part,
                number,
                count,
                self.device,
                input_args=(tokens if number == 0 else hidden,),
                output_args=(loss if number == count - 1 else hidden,),
                group=self.ranks.group("pp"),
            )
            for number, part in zip(numbers, self.parts, strict=True)
        ]


def engine(parts: Sequence[Dots1], job: Job, ranks: Ranks, device: torch.device) -> Plain | Pipeline:
    """What runs the parts of a model that this rank holds."""
    plain = job.layout.pp == 1 and job.layout.schedule != "overlapped"
    return Plain(parts[0], job.micro_batch) if plain else Pipeline(parts, job, ranks, device)
