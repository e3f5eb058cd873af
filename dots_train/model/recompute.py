"""Activation checkpointing: of a layer its input is kept, and what must never come out differently the second time.

A router that is asked again may choose other experts (a last bit of a score suffices), and ranks that then send other
rows wait for each other for ever. So the choice and everything that an all-to-all brought are kept, and recomputed are
only norms, attention and the experts' own products.

torch's selective checkpointing does the same for a list of operators, but wants every other operator to run as often as
it did in the forward pass; where FSDP holds weights whole in one of the two passes and gathers them in the other, they
do not.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only
from torch.utils.checkpoint import checkpoint

from dots_train.model.dots1 import Dots1


def _kept_operators() -> list[Any]:
    exchanges = ("all_to_all", "exchange_counts")
    known = [getattr(torch.ops.dots, name).default for name in exchanges if hasattr(torch.ops.dots, name)]
    return [torch.ops.aten.topk.default, *known]


class _Keep(TorchDispatchMode):
    """Notes what the kept operators gave."""

    def __init__(self, results: list[Any]):
        super().__init__()  # type: ignore[no-untyped-call]
        self.results, self.kept = results, _kept_operators()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func in self.kept:
            self.results.append(tree_map_only(torch.Tensor, torch.Tensor.detach, result))
        return result


class _Recall(TorchDispatchMode):
    """Gives it again, in the same order, instead of asking them."""

    def __init__(self, results: Sequence[Any]):
        super().__init__()  # type: ignore[no-untyped-call]
        self.results, self.kept = results, _kept_operators()
        self.next: Iterator[Any] = iter(())

    def __enter__(self) -> Any:
        self.next = iter(self.results)
        return super().__enter__()  # type: ignore[no-untyped-call]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in self.kept:
            return tree_map_only(torch.Tensor, torch.Tensor.detach, next(self.next))
        return func(*args, **(kwargs or {}))


def _contexts() -> tuple[_Keep, _Recall]:
    results: list[Any] = []
    return _Keep(results), _Recall(results)


def recompute(part: Dots1) -> None:
    """Have every layer of `part` compute its activations again in the backward pass; no name in it changes."""
    for layer in part.layers.values():
        layer.forward = partial(
            checkpoint, layer.forward, use_reentrant=False, context_fn=_contexts, preserve_rng_state=False
        )
