"""The routed experts, behind one interface: `experts(x_TD, routing, weights) -> y_TD`.

Backends differ in speed, never in meaning. `reference` is torch's grouped matrix product and runs everywhere.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import NamedTuple, cast

import torch
from torch import Tensor

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
    if name not in BACKENDS:
        raise ValueError(f"unknown expert backend {name!r}; there are {', '.join(sorted(BACKENDS))}")
    return cast(Experts, import_module(BACKENDS[name]).experts)
