"""Finding what went wrong first: the module or parameter in which a number that is not finite appears."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from dots_train.parallel.dispatch import held_here


class FirstNotFinite:
    """Watches the outputs of all modules, in the order in which they are computed.

    Every output is looked at, which waits for the device each time: for finding a fault, not for training.
    """

    def __init__(self, parts: Iterable[nn.Module]):
        self.name: str | None = None
        """Of the first module since `reset` that gave a number which is not finite."""
        for part in parts:
            for name, module in part.named_modules():
                if name and not any(True for _ in module.children()):
                    module.register_forward_hook(self._hook(name))

    def reset(self) -> None:
        self.name = None

    def _hook(self, name: str) -> Any:
        def look(module: nn.Module, given: Any, output: Any) -> None:
            if self.name is None and not all(map(_finite, _tensors(output))):
                self.name = name

        return look


def first_gradient(parts: Iterable[nn.Module]) -> str | None:
    """The last parameter, in the order of the model, whose gradient here is not finite: where a backward pass, which
    goes the other way, met the fault first."""
    found = None
    for part in parts:
        for name, parameter in part.named_parameters():
            if parameter.grad is not None and not _finite(held_here(parameter.grad)):
                found = name
    return found


def _finite(tensor: Tensor) -> bool:
    return not tensor.is_floating_point() or bool(torch.isfinite(tensor).all())


def _tensors(output: Any) -> Sequence[Tensor]:
    if isinstance(output, Tensor):
        return [output]
    if isinstance(output, (tuple, list)):
        return [tensor for one in output for tensor in _tensors(one)]
    return []
