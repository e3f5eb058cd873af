"""AdamW as in the report's section 4.2: betas 0.9 and 0.95, weight decay 0.1, gradients clipped to norm 1."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from dots_train.config import OptimizerConfig


def make_optimizer(parts: Iterable[nn.Module], config: OptimizerConfig) -> torch.optim.AdamW:
    """AdamW over float32 master weights; the learning rate is set before each step.

    Weight decay falls on matrices only: not on norms. The report does not say whether embeddings decay; here
    the embedding and the output matrix do, as in Megatron-Core, on which the report's own trainer was built.

    Raises:
        TypeError: a parameter is not float32.
    """
    named = [item for part in parts for item in part.named_parameters()]
    for name, parameter in named:
        if parameter.dtype != torch.float32:
            raise TypeError(f"{name} is {parameter.dtype}; master weights must be float32")
    trained = [parameter for _, parameter in named if parameter.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]
    betas = (config.betas[0], config.betas[1])
    return torch.optim.AdamW(groups, lr=0.0, betas=betas, eps=config.eps, fused=True)


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate


def optimizer_state(optimizer: torch.optim.Optimizer, parameter: Tensor) -> dict[str, Tensor]:
    """The optimizer's tensors for a parameter by their names, made where no step was done yet; {} for a buffer."""
    if not isinstance(parameter, nn.Parameter):
        return {}
    state = optimizer.state[parameter]
    if not state:
        state["step"] = torch.zeros((), dtype=torch.float32)
        state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
    return dict(state)
