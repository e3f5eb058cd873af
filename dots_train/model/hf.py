"""The model as transformers' `Dots1ForCausalLM` writes it: config.json and the names of its tensors, both ways.

Tensors are named as ours behind a prefix `model.` (but for `lm_head`), and every routed expert has its own three.
transformers 5 stacks these when it loads them, as this package does.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, NamedTuple

import torch

from dots_train.config import ModelConfig
from dots_train.model.dots1 import Dots1

# The router decides in float32. transformers keeps these two in float32 whatever type the model is loaded in, so a
# file that rounds them would route other than the training did.
FLOAT32 = ("mlp.gate.weight", "mlp.gate.e_score_correction_bias")

_SIZES = {
    "vocab_size": "vocab_size",
    "hidden_size": "hidden_size",
    "layers": "num_hidden_layers",
    "dense_layers": "first_k_dense_replace",
    "dense_ffn_size": "intermediate_size",
    "heads": "num_attention_heads",
    "experts": "n_routed_experts",
    "experts_per_token": "num_experts_per_tok",
    "shared_experts": "n_shared_experts",
    "expert_ffn_size": "moe_intermediate_size",
}
_FACTORS = {
    "routed_scaling": "routed_scaling_factor",
    "norm_eps": "rms_norm_eps",
    "init_std": "initializer_range",
}

# What our model does in one way only: the values of a config.json that mean the same, `None` where a key that is
# absent means it too. Others would load and compute something else without a word.
_MEANS: dict[str, tuple[Any, ...]] = {
    "model_type": ("dots1",),
    "norm_topk_prob": (True,),
    "hidden_act": ("silu", None),
    "attention_bias": (False, None),
    "tie_word_embeddings": (False, None),
    "n_group": (1, None),
    "topk_group": (1, None),
    "moe_layer_freq": (1, None),
    "scoring_func": ("sigmoid", "noaux_tc", None),  # the second is what older readers of SGLang call it
    "topk_method": ("noaux_tc", None),
    "rope_scaling": (None,),
    "quantization_config": (None,),
    "quantization": (None,),
}


class Part(NamedTuple):
    """A tensor of the release: the whole of one of ours, or an expert's share of a stacked one."""

    key: str
    expert: int | None = None
    """Row of the stacked tensor."""
    half: int | None = None
    """Of `gate_up_proj` [E, 2F, D]: 0 is gate_proj, 1 up_proj."""


@cache
def shapes(config: ModelConfig) -> Mapping[str, tuple[int, ...]]:
    """Name and shape of every parameter and router bias of our model, in its order; no memory is taken."""
    with torch.device("meta"):
        state = Dots1(config).state_dict()
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


def parts(name: str, config: ModelConfig) -> Iterator[Part]:
    """The tensors of the release that our tensor `name` is made of."""
    before, stacked, which = name.partition(".mlp.experts.")
    if not stacked:
        yield Part(name if name.startswith("lm_head.") else f"model.{name}")
        return
    halves = {"gate_up_proj": (("gate_proj", 0), ("up_proj", 1)), "down_proj": (("down_proj", None),)}[which]
    for expert in range(config.experts):
        for projection, half in halves:
            yield Part(f"model.{before}.mlp.experts.{expert}.{projection}.weight", expert, half)


def part_shape(shape: tuple[int, ...], part: Part) -> tuple[int, ...]:
    """Of a part, from the shape of our tensor."""
    if part.expert is None:
        return shape
    rows = shape[1] if part.half is None else shape[1] // 2
    return (rows, shape[2])


def to_hf(config: ModelConfig, dtype: torch.dtype, positions: int, eos: int | None) -> dict[str, Any]:
    """config.json. Every key is written: the defaults of `Dots1Config` are not the model's.

    Args:
        positions: the longest sequence that the model was trained on.
        eos: the id that ends a document.
    """
    values = {theirs: getattr(config, ours) for ours, theirs in (_SIZES | _FACTORS).items()}
    name = str(dtype).removeprefix("torch.")
    return {
        "architectures": ["Dots1ForCausalLM"],
        "model_type": "dots1",
        **values,
        "num_key_value_heads": config.heads,
        "head_dim": config.head_dim,
        "max_position_embeddings": positions,
        # Read by transformers 4 and 5, vLLM and SGLang alike; `rope_parameters` by the newest alone.
        "rope_theta": config.rope_theta,
        "rope_scaling": None,
        "norm_topk_prob": True,
        "n_group": 1,
        "topk_group": 1,
        "hidden_act": "silu",
        "attention_bias": False,
        "attention_dropout": 0.0,
        # Without these two every layer from max_window_layers on would see 4,096 tokens.
        "sliding_window": None,
        "max_window_layers": config.layers,
        "tie_word_embeddings": False,
        "use_cache": True,
        "bos_token_id": None,
        "eos_token_id": eos,
        "pad_token_id": None,
        # Read by vLLM and SGLang; transformers knows no other way.
        "topk_method": "noaux_tc",
        "scoring_func": "sigmoid",
        "moe_layer_freq": 1,
        "moe_gating_fp32": True,
        # The first is what transformers 5 reads, the second what 4 does.
        "dtype": name,
        "torch_dtype": name,
    }


def from_hf(values: Mapping[str, Any], where: str) -> ModelConfig:
    """Our architecture from a config.json, of the release or of an export.

    Raises:
        ValueError: it is not a dots1 model as ours is; the message names the first key that says so.
    """
    for key, meant in _MEANS.items():
        found = values.get(key)
        if not any(type(found) is type(value) and found == value for value in meant):
            wanted = " or ".join(repr(value) for value in meant if value is not None) or "nothing"
            raise ValueError(f"{where}: {key} is {found!r}; the dots model has {wanted}")
    sizes: dict[str, Any] = {ours: _whole(values, theirs, where) for ours, theirs in _SIZES.items()}
    sizes |= {ours: float(_number(values, theirs, where)) for ours, theirs in _FACTORS.items()}
    _require_plain_attention(values, where, sizes["heads"], sizes["layers"])
    if values.get("head_dim") is None:
        sizes["head_dim"] = sizes["hidden_size"] // max(1, sizes["heads"])
    else:
        sizes["head_dim"] = _whole(values, "head_dim", where)
    theta = _theta(values, where)
    try:
        return ModelConfig(**sizes, rope_theta=theta)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def _require_plain_attention(values: Mapping[str, Any], where: str, heads: int, layers: int) -> None:
    """As many keys as queries, and every layer sees all that came before."""
    keys = values.get("num_key_value_heads", 32)
    if keys is not None and keys != heads:
        raise ValueError(f"{where}: num_key_value_heads is {keys!r}, num_attention_heads {heads}; they must be equal")
    kinds, window = values.get("layer_types"), values.get("sliding_window", 4096)
    if kinds is not None:
        slides = kinds != ["full_attention"] * layers
    else:
        slides = window is not None and values.get("max_window_layers", 62) not in range(layers, 1 << 31)
    if slides:
        raise ValueError(f"{where}: sliding_window is {window!r} in some layers; the dots model has none in any")


def _theta(values: Mapping[str, Any], where: str) -> float:
    """The base of the rotary angles: at the top, or where transformers 5 writes it."""
    rope = values.get("rope_parameters")
    if isinstance(rope, Mapping):
        if rope.get("rope_type", "default") != "default":
            raise ValueError(f"{where}: rope_type is {rope['rope_type']!r}; the dots model has 'default'")
        return float(_number(rope, "rope_theta", f"{where}: rope_parameters"))
    return float(_number(values, "rope_theta", where))


def _whole(values: Mapping[str, Any], key: str, where: str) -> int:
    found = _number(values, key, where)
    # Tensors that are larger do not exist; their sizes would overflow before anything is compared.
    if found != int(found) or found >= 1 << 31:
        raise ValueError(f"{where}: {key} is {found!r}, not a whole number below 2**31")
    return int(found)


def _number(values: Mapping[str, Any], key: str, where: str) -> float:
    found = values.get(key)
    if not isinstance(found, int | float) or isinstance(found, bool) or not math.isfinite(found):
        what = "is missing" if found is None else f"is {found!r}, not a number"
        raise ValueError(f"{where}: {key} {what}; the defaults of transformers are another model's")
    return found
