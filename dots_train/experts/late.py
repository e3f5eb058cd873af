"""Weight gradients that are put off: no other rank waits for them, so they fill the time in which one waits for others.

A backend whose backward pass has made the gradient of its input asks `gradient` for that of its weights: computed at
once, or put in the queue that was open when the forward pass ran.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge


class LateGradients:
    """Gradients to be computed later, first in, first out: each weight's are added up in the order of its backward
    passes, to the same bits as at once."""

    def __init__(self) -> None:
        self.waiting: deque[tuple[Tensor | GradientEdge, Callable[[], Tensor]]] = deque()

    def run(self, at_most: int | None = None) -> None:
        """Compute that many of them (all by default) and add each to the `.grad` of its parameter."""
        for _ in range(len(self.waiting) if at_most is None else min(at_most, len(self.waiting))):
            weight, compute = self.waiting.popleft()
            # Through whatever lies between the weight and its parameter: a cast, a part of a sharded tensor.
            torch.autograd.backward(weight, compute())


# Of the process, not of a thread: on a GPU the backward pass runs in threads of autograd's own.
_open: LateGradients | None = None


@contextmanager
def put_off(queue: LateGradients) -> Iterator[None]:
    """Have the weight gradients of the forward passes in this block put in `queue`; the caller runs it."""
    global _open
    before, _open = _open, queue
    try:
        yield
    finally:
        _open = before


def queue() -> LateGradients | None:
    """Where the weight gradients of a forward pass that runs now are to be put; None: computed at once."""
    return _open


def gradient(
    weight: Tensor | GradientEdge, compute: Callable[[], Tensor], queue: LateGradients | None
) -> Tensor | None:
    """What a backward pass returns for `weight`, a tensor of the forward pass or its place in the graph: the
    gradient, or None where it comes later."""
    if queue is None:
        return compute()
    queue.waiting.append((weight, compute))
    return None
