"""The routed experts, behind one interface: `experts(x_TD, routing, weights) -> y_TD`.

Backends differ in speed and memory, never in meaning. `reference` is torch's grouped matrix product and runs
everywhere; `fused` are Triton kernels for GPUs from Hopper on. `auto` is the second where it can be had.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from importlib import import_module
from importlib.util import find_spec
from typing import NamedTuple, cast

import torch
from torch import Tensor

AUTO = "auto"
BACKENDS = {"reference": "dots_train.experts.reference", "fused": "dots_train.experts.fused"}


class Routing(NamedTuple):
    """Where each token goes."""

    ids_TK: Tensor
    """int64: the experts chosen, without repetition within a token."""
    weights_TK: Tensor
    """float32: the factor on each chosen expert's output."""


class ExpertWeights(NamedTuple):
    """All experts of a layer, laid out like `nn.Linear` weights: output features first."""

    gate_up_EGD: Tensor
    """Gate in the first half of G = 2F, up in the second."""
    down_EDF: Tensor


Experts = Callable[[Tensor, Routing, ExpertWeights], Tensor]


def compute_dtype(x: Tensor) -> torch.dtype:
    """That of the products: autocast's where it is on, else that of `x`."""
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype


def backend(name: str) -> Experts:
    """The function that computes the experts. Raises ValueError for a name that is not a backend."""
    _check(name, BACKENDS)
    return cast(Experts, import_module(BACKENDS[name]).experts)


def choose(name: str, device: torch.device) -> str:
    """The backend that `name`, which may be `auto`, means on a device.

    Raises:
        ValueError: there is no such backend, or it does not run there; one sentence that says what would.
    """
    _check(name, [*BACKENDS, AUTO])
    obstacle = _no_fused(device)
    if name == "fused" and obstacle:
        raise ValueError(f"the fused backend needs a GPU from Hopper on and triton, but {obstacle}; take reference")
    if name == AUTO:
        return "fused" if device.type == "cuda" and not obstacle else "reference"
    return name


def _check(name: str, known: Iterable[str]) -> None:
    if name not in known:
        raise ValueError(f"unknown expert backend {name!r}; there are {', '.join(sorted(known))}")


def _no_fused(device: torch.device) -> str | None:
    """Why the fused backend cannot run on `device`; Triton's interpreter takes any."""
    if find_spec("triton") is None:
        return "triton is not installed"
    from triton import knobs

    if knobs.runtime.interpret:
        return None
    if device.type != "cuda":
        return f"the device is {device.type}"
    capability = torch.cuda.get_device_capability(device)
    return None if capability >= (9, 0) else f"this one has compute capability {'.'.join(map(str, capability))}"
