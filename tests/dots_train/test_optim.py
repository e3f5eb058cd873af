"""Which parameters decay, and how the curriculum changes that."""

from __future__ import annotations

import pytest

from dots_train.config import ModelConfig, OptimizerConfig
from dots_train.curriculum import DECAY_GROUPS, Curriculum, Phase
from dots_train.model.dots1 import Dots1
from dots_train.optim import apply_stage, decay_group, make_optimizer

CONFIG = OptimizerConfig(weight_decay=0.1)


@pytest.mark.parametrize(
    ("name", "dimensions", "group"),
    [
        ("embed_tokens.weight", 2, "embeddings"),
        ("lm_head.weight", 2, "embeddings"),
        ("layers.0.self_attn.q_proj.weight", 2, "matrices"),
        ("layers.0.self_attn.q_norm.weight", 1, "norms"),
        ("layers.0.mlp.gate_proj.weight", 2, "matrices"),
        ("layers.1.mlp.gate.weight", 2, "routers"),
        ("layers.1.mlp.experts.gate_up_proj", 3, "experts"),
        ("layers.1.mlp.shared_experts.up_proj.weight", 2, "matrices"),
        ("norm.weight", 1, "norms"),
    ],
)
def test_groups_of_parameters(tiny: ModelConfig, name: str, dimensions: int, group: str) -> None:
    assert dict(Dots1(tiny).named_parameters())[name].ndim == dimensions
    assert decay_group(name, dimensions) == group


def test_weight_decay_falls_on_matrices_only(tiny: ModelConfig) -> None:
    model = Dots1(tiny)
    groups = {group["name"]: group for group in make_optimizer(model, CONFIG).param_groups}
    assert set(groups) == set(DECAY_GROUPS)
    assert {name: group["weight_decay"] for name, group in groups.items()} == {
        "matrices": 0.1,
        "experts": 0.1,
        "routers": 0.1,
        "embeddings": 0.1,
        "norms": 0.0,
    }
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    for name, group in groups.items():
        assert all(("norm" in names[id(parameter)]) == (name == "norms") for parameter in group["params"])
    assert sum(len(group["params"]) for group in groups.values()) == len(names)


def test_a_model_without_experts_has_no_group_of_them(tiny: ModelConfig) -> None:
    dense = ModelConfig(**{**vars(tiny), "dense_layers": tiny.layers})
    groups = make_optimizer(Dots1(dense), CONFIG).param_groups
    assert [group["name"] for group in groups] == ["matrices", "embeddings", "norms"]


def test_a_phase_sets_rate_and_decay_and_the_next_sets_them_back(tiny: ModelConfig) -> None:
    optimizer = make_optimizer(Dots1(tiny), CONFIG)
    table = Curriculum((Phase(10, 0.5, 10, weight_decay={"embeddings": 0.0, "norms": 0.01}), Phase(20, 0.25, 10)))
    seen = []
    for _, _, stage in table.walk(1):
        apply_stage(optimizer, stage, CONFIG)
        assert {group["lr"] for group in optimizer.param_groups} == {stage.learning_rate}
        seen.append({group["name"]: group["weight_decay"] for group in optimizer.param_groups})
    assert [(step["embeddings"], step["norms"], step["experts"]) for step in seen] == [
        (0.0, 0.01, 0.1),
        (0.1, 0.0, 0.1),
    ]
