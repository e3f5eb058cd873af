"""Against transformers' Dots1ForCausalLM: the same numbers, and weights that go there and back to the bit."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import math
import os
import random
from pathlib import Path
from typing import Any

import pytest
import torch

from dots_train.config import ModelConfig
from dots_train.model.dots1 import Dots1
from dots_train.model.hf import FLOAT32, from_hf, to_hf
from dots_train.model.moe import Router
from dots_train.weights.convert import export_hf, import_hf
from dots_train.weights.sources import HuggingFace, Native, StateDict, load_weights


@pytest.fixture(scope="module")
def transformers() -> Any:
    """Imported when a test wants it: that takes seconds."""
    if importlib.util.find_spec("transformers") is None:
        pytest.skip("transformers is not installed; it is in the extra dev")
    os.environ["HF_HUB_OFFLINE"] = "1"
    import transformers

    transformers.utils.logging.disable_progress_bar()
    return transformers


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Products this small only wait for a second one; torch_settings gives it back."""
    torch.set_num_threads(1)


def draw(number: int) -> ModelConfig:
    """A random small architecture; the same for the same number."""
    choose = random.Random(number).choice
    experts = choose((2, 4, 8, 16))
    layers = choose((1, 2, 3, 4))
    return ModelConfig(
        vocab_size=choose((40, 64, 101)),
        hidden_size=choose((24, 32, 64)),
        layers=layers,
        dense_layers=choose(range(layers + 1)),
        dense_ffn_size=choose((20, 48)),
        heads=choose((1, 2, 3, 4)),
        head_dim=choose((4, 8, 16, 24)),
        experts=experts,
        experts_per_token=choose(range(1, experts + 1)),
        shared_experts=choose((1, 2, 3)),
        expert_ffn_size=choose((8, 16, 24)),
        routed_scaling=choose((1.0, 2.5)),
        rope_theta=choose((1e2, 1e4, 1e7)),
        norm_eps=choose((1e-5, 1e-6)),
        init_std=choose((0.05, 0.1)),
    )


def make(config: ModelConfig, bias: float = 0.05, spread: float = 0.3) -> Dots1:
    """Random weights; norms and router biases too, which initialisation leaves at 1 and 0.

    bias: by default about as large as scores differ, so that it changes choices and does not make them alone.
    """
    model = Dots1(config)
    model.initialize(1)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.uniform_(1 - spread, 1 + spread, generator=generator)
        for router in routers(model):
            router.e_score_correction_bias.normal_(0, bias, generator=generator)
    return model


def routers(model: Dots1) -> list[Router]:
    return [module for module in model.modules() if isinstance(module, Router)]


def weights_of(model: Dots1) -> StateDict:
    return StateDict(model.config, model.state_dict())


def export(model: Dots1, folder: Path, dtype: torch.dtype = torch.float32, eos: int | None = None) -> Path:
    export_hf(weights_of(model), folder, dtype=dtype, positions=64, eos=eos, texts={}, shard_bytes=20_000)
    return folder


def load(transformers: Any, folder: Path, dtype: torch.dtype = torch.float32) -> Any:
    model, said = transformers.Dots1ForCausalLM.from_pretrained(folder, dtype=dtype, output_loading_info=True)
    assert not any(said.values()), f"keys that did not fit: {said}"
    return model


def forward(model: Dots1, tokens_BS: torch.Tensor) -> torch.Tensor:
    position_BS = torch.arange(tokens_BS.shape[1]).expand_as(tokens_BS)
    logits_BSV: torch.Tensor = model(tokens_BS, position_BS, torch.zeros_like(tokens_BS))
    return logits_BSV


def tokens_for(config: ModelConfig, length: int = 33) -> torch.Tensor:
    return torch.randint(config.vocab_size, (3, length), generator=torch.Generator().manual_seed(3))


def off(found: torch.Tensor, expected: torch.Tensor, least: float = 0.0) -> float:
    """The largest difference, in units of the largest number expected (of `least`, if that is larger)."""
    difference, largest = (found - expected).abs().max().item(), expected.abs().max().item()
    return difference / max(largest, least)


@pytest.mark.parametrize("number", range(12))
def test_logits_and_all_gradients_are_those_of_transformers(number: int, transformers: Any, tmp_path: Path) -> None:
    """float32: within 1e-5 of the largest, where sums over some hundred numbers round at 6e-8 each.

    Gradients begin with numbers of size 1 at the logits. Some come to nothing, such as that of a router which chooses
    one expert (its weight is always 1): there the difference is held against 1.
    """
    config = draw(number)
    ours = make(config)
    theirs = load(transformers, export(ours, tmp_path / "export"))
    tokens = tokens_for(config)
    toward = torch.randn(3, 33, config.vocab_size, generator=torch.Generator().manual_seed(4))
    logits, expected = forward(ours, tokens), theirs(tokens).logits
    assert off(logits, expected) < 1e-5
    (logits * toward).sum().backward()
    (expected * toward).sum().backward()
    gradients = {name.removeprefix("model."): parameter.grad for name, parameter in theirs.named_parameters()}
    for name, parameter in ours.named_parameters():
        wanted = gradients.pop(name)
        assert parameter.grad is not None and wanted is not None, name
        assert off(parameter.grad, wanted, least=1.0) < 1e-5, name
    assert not gradients, "transformers has no parameter that ours lacks"


def test_the_table_of_architectures_is_wide() -> None:
    """Guards the test above: what is drawn holds every kind of layer, and biases that change choices."""
    drawn = [draw(number) for number in range(12)]
    assert any(c.dense_layers == 0 for c in drawn) and any(c.dense_layers == c.layers for c in drawn)
    assert any(0 < c.dense_layers < c.layers for c in drawn)
    assert any(c.heads * c.head_dim != c.hidden_size for c in drawn)
    assert any(c.experts_per_token == 1 for c in drawn) and len({c.shared_experts for c in drawn}) > 1
    changed = 0
    for config in drawn:
        model, tokens = make(config), tokens_for(config)
        before = forward(model, tokens)
        for router in routers(model):
            router.e_score_correction_bias.zero_()
        changed += off(forward(model, tokens), before) > 1e-3
    assert changed >= 4


@pytest.mark.parametrize("number", [1, 8, 9, 10])
def test_bfloat16_is_equal_within_its_rounding(number: int, transformers: Any, tmp_path: Path) -> None:
    """Both are held against float32 logits of the same rounded weights. transformers rounds to 8 bits some dozens of
    times on the way to a logit, so it is off by a few units of 2**-9, root mean square; ours, whose products are
    bfloat16 over a float32 stream as in training, must be off by less. These errors have nothing to do with each
    other, so the two differ by the root of the sum of their squares, and by more if one of them were wrong.

    Biases are large here: a choice at a tie would flip by rounding, and then the outputs differ by a whole expert.
    """
    config = draw(number)
    master = make(config, bias=5.0)
    folder = export(master, tmp_path / "export", torch.bfloat16)
    theirs = load(transformers, folder, torch.bfloat16)
    ours = Dots1(config)
    load_weights(ours, HuggingFace(folder))
    tokens = tokens_for(config)
    with torch.no_grad():
        exact = forward(ours, tokens)
        expected = theirs(tokens).logits.float()
        with torch.autocast("cpu", torch.bfloat16):
            found = forward(ours, tokens).float()

    def error(one: torch.Tensor, other: torch.Tensor) -> float:
        return float((one - other).square().mean().sqrt() / exact.square().mean().sqrt())

    assert error(expected, exact) < 12 * 2**-9
    assert error(found, exact) < error(expected, exact)
    assert error(found, expected) < 1.1 * math.hypot(error(found, exact), error(expected, exact))


@pytest.mark.parametrize("number", [3, 6, 9, 11])
def test_there_and_back_is_equal_to_the_bit(number: int, transformers: Any, tmp_path: Path) -> None:
    model = make(draw(number))
    folder = export(model, tmp_path / "export")
    load(transformers, folder).save_pretrained(tmp_path / "again")
    config = import_hf(tmp_path / "again", tmp_path / "start", shard_bytes=20_000)
    assert config == model.config
    for weights in (HuggingFace(folder), HuggingFace(tmp_path / "again"), Native(tmp_path / "start")):
        back = Dots1(config)
        load_weights(back, weights)
        for name, tensor in model.state_dict().items():
            assert torch.equal(back.state_dict()[name], tensor), name


def test_bfloat16_there_and_back_rounds_once_and_never_the_router(transformers: Any, tmp_path: Path) -> None:
    model = make(draw(8))
    folder = export(model, tmp_path / "export", torch.bfloat16)
    loaded = load(transformers, folder, torch.bfloat16)
    loaded.save_pretrained(tmp_path / "again")
    kept = 0
    for name, tensor in model.state_dict().items():
        exact = name.endswith(FLOAT32)
        kept += exact
        wanted = tensor if exact else tensor.bfloat16()
        for weights in (HuggingFace(folder), HuggingFace(tmp_path / "again")):
            assert weights.read(name).dtype == wanted.dtype
            assert torch.equal(weights.read(name), wanted), name
    assert kept == 2 * len(routers(model)) > 0
    bias = next(b for name, b in loaded.named_buffers() if name.endswith("e_score_correction_bias"))
    assert bias.dtype == torch.float32


def test_greedy_generation_gives_the_same_tokens(transformers: Any, tmp_path: Path) -> None:
    for number in (3, 8, 9):
        config = dataclasses.replace(draw(number), init_std=0.1)
        model = make(config)
        theirs = load(transformers, export(model, tmp_path / str(number), eos=0))
        assert theirs.generation_config.eos_token_id == 0
        tokens = tokens_for(config, length=5)[:1]
        generated = theirs.generate(tokens, max_new_tokens=40, attention_mask=torch.ones_like(tokens))
        with torch.no_grad():
            for _ in range(40):
                tokens = torch.cat([tokens, forward(model, tokens)[:, -1:].argmax(-1)], dim=1)
                if tokens[0, -1] == 0:
                    break
        assert tokens.shape[1] > 8, "long enough to say something"
        assert torch.equal(generated, tokens)


RELEASED = ModelConfig(
    vocab_size=64,
    hidden_size=32,
    layers=70,
    dense_ffn_size=48,
    heads=2,
    head_dim=24,
    experts=8,
    experts_per_token=3,
    expert_ffn_size=16,
)

# Key, what it must be, and where transformers' own default would differ: what it would be.
TRAPS = [
    ("hidden_size", 32, 4608),
    ("rms_norm_eps", 1e-5, 1e-6),
    ("routed_scaling_factor", 2.5, 1.0),
    ("norm_topk_prob", True, False),
    ("first_k_dense_replace", 1, 0),
    ("sliding_window", None, 4096),
    ("max_window_layers", 70, 62),
    ("n_routed_experts", 8, None),
    ("n_shared_experts", 2, None),
    ("num_experts_per_tok", 3, None),
    ("num_key_value_heads", 2, 32),
    ("num_hidden_layers", 70, 62),
    ("moe_intermediate_size", 16, 1408),
    ("intermediate_size", 48, 10944),
    ("max_position_embeddings", 4096, 2048),
    ("initializer_range", 0.006, 0.02),
    ("eos_token_id", 7, None),
    ("n_group", 1, 1),
    ("topk_group", 1, 1),
    ("hidden_act", "silu", "silu"),
    ("tie_word_embeddings", False, False),
    ("attention_bias", False, False),
    ("bos_token_id", None, None),
    ("pad_token_id", None, None),
]


def test_every_trap_of_the_config_is_set(transformers: Any, tmp_path: Path) -> None:
    written = to_hf(RELEASED, torch.bfloat16, 4096, 7)
    loaded = transformers.Dots1Config.from_dict(written)
    default = transformers.Dots1Config()
    for key, wanted, other in TRAPS:
        assert written[key] == wanted and getattr(loaded, key) == wanted, key
        assert getattr(default, key) == other, f"{key}: the default has changed"
    assert loaded.rope_parameters == {"rope_type": "default", "rope_theta": 1e7} != default.rope_parameters
    assert loaded.head_dim == 24, "not hidden_size / num_attention_heads"
    assert set(loaded.layer_types) == {"full_attention"} and len(loaded.layer_types) == 70
    assert loaded.dtype == torch.bfloat16
    # Read by vLLM and SGLang alone, and by older versions of transformers.
    readers = {"topk_method": "noaux_tc", "scoring_func": "sigmoid", "moe_layer_freq": 1, "moe_gating_fp32": True}
    older = {"rope_theta": 1e7, "rope_scaling": None, "torch_dtype": "bfloat16", "architectures": ["Dots1ForCausalLM"]}
    assert {key: written[key] for key in readers | older} == readers | older
    assert from_hf(written, "here") == RELEASED == from_hf(loaded.to_dict(), "here")


def test_a_key_that_is_left_out_would_change_the_model(transformers: Any, tmp_path: Path) -> None:
    """Why the traps are written out: without one of them transformers loads, and computes something else."""
    config = dataclasses.replace(draw(8), routed_scaling=2.5, norm_eps=1e-5, init_std=0.1, rope_theta=1e4)
    model = make(config)
    folder, tokens = export(model, tmp_path / "export"), tokens_for(config)
    whole = json.loads((folder / "config.json").read_text())
    expected = load(transformers, folder)(tokens).logits
    for key in ("rms_norm_eps", "routed_scaling_factor", "norm_topk_prob"):
        (folder / "config.json").write_text(json.dumps({k: v for k, v in whole.items() if k != key}))
        assert off(load(transformers, folder)(tokens).logits, expected) > 1e-6, key
