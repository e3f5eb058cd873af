"""AdamW as in the report's section 4.2: betas 0.9 and 0.95, weight decay 0.1, gradients clipped to norm 1."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from dots_train.config import OptimizerConfig
from dots_train.curriculum import DECAY_GROUPS, Stage


def decay_group(name: str, dimensions: int) -> str:
    """The weight-decay group (DECAY_GROUPS) of a parameter, by its name in Dots1 and its number of dimensions."""
    if dimensions < 2:
        return "norms"
    if name.endswith(("embed_tokens.weight", "lm_head.weight")):
        return "embeddings"
    if name.endswith("mlp.gate.weight"):
        return "routers"
    return "experts" if ".mlp.experts." in name else "matrices"


def make_optimizer(parts: Iterable[nn.Module], config: OptimizerConfig) -> torch.optim.AdamW:
    """AdamW over float32 master weights, one group for each of DECAY_GROUPS that these parts of a model have.

    Learning rate and weight decay are set before each step by `apply_stage`. Until then weight decay falls on
    all matrices, not on norms. The report does not say whether embeddings decay; here the embedding and the
    output matrix do, as in Megatron-Core, on which the report's own trainer was built.

    Raises:
        TypeError: a parameter is not float32.
    """
    groups: dict[str, list[nn.Parameter]] = {group: [] for group in DECAY_GROUPS}
    for name, parameter in (item for part in parts for item in part.named_parameters()):
        if parameter.dtype != torch.float32:
            raise TypeError(f"{name} is {parameter.dtype}; master weights must be float32")
        if parameter.requires_grad:
            groups[decay_group(name, parameter.ndim)].append(parameter)
    decays = weight_decays(config)
    options = [
        {"params": parameters, "weight_decay": decays[group], "name": group}
        for group, parameters in groups.items()
        if parameters
    ]
    betas = (config.betas[0], config.betas[1])
    return torch.optim.AdamW(options, lr=0.0, betas=betas, eps=config.eps, fused=True)


def weight_decays(config: OptimizerConfig, phase: Mapping[str, float] | None = None) -> dict[str, float]:
    """Of each group: what the phase says, else the optimizer's on matrices and none on norms."""
    own = {group: 0.0 if group == "norms" else config.weight_decay for group in DECAY_GROUPS}
    return own | dict(phase or {})


def apply_stage(optimizer: torch.optim.Optimizer, stage: Stage, config: OptimizerConfig) -> None:
    """Learning rate and weight decays of the step that `stage` describes."""
    decays = weight_decays(config, stage.weight_decay)
    for group in optimizer.param_groups:
        group["lr"], group["weight_decay"] = stage.learning_rate, decays[group["name"]]


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
