"""The architecture: against naive arithmetic, and in the figures that the report gives."""

from __future__ import annotations

import dataclasses
import math
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils._python_dispatch import TorchDispatchMode

from dots_data.typed_yaml import build
from dots_train.config import Job, ModelConfig, preset
from dots_train.model import dots1
from dots_train.model.attention import Attention, Documents, attend, document_mask, documents, rotary
from dots_train.model.dots1 import Dots1, Tally, parameters
from dots_train.model.moe import MoE, Router, balance_loss
from dots_train.model.recompute import recompute


def make(config: ModelConfig) -> Dots1:
    model = Dots1(config)
    model.initialize(3)
    return model


def inputs(config: ModelConfig, borders: list[int], length: int = 24) -> tuple[torch.Tensor, ...]:
    """Two windows of random tokens, both cut into documents at the same places."""
    tokens = torch.randint(config.vocab_size, (2, length), generator=torch.Generator().manual_seed(0))
    place = torch.arange(length)
    document = sum(((place >= border).long() for border in borders), torch.zeros(length, dtype=torch.long))
    starts = torch.tensor([0, *borders])
    return tokens, (place - starts[document]).expand(2, -1), document.expand(2, -1)


def test_shapes_and_counts(tiny: ModelConfig) -> None:
    config = dataclasses.replace(tiny, layers=3)
    model = make(config)
    model.balance_weight = 0.5
    assert model(*inputs(config, [5, 11])).shape == (2, 24, config.vocab_size)
    assert model.tally.counts_E.keys() == {1, 2}
    for counts_E in model.tally.counts_E.values():
        assert counts_E.shape == (config.experts,)
        assert int(counts_E.sum()) == 2 * 24 * config.experts_per_token, "no token is dropped"
    # Two windows, each worth half of its balance, which is 1 and more.
    assert 1.0 <= float(model.tally.balance) < 1.5


def test_first_layers_are_dense_and_names_are_those_of_the_release(tiny: ModelConfig) -> None:
    names = set(dict(make(tiny).named_parameters())) | set(dict(make(tiny).named_buffers()))
    attention = {f"self_attn.{p}.weight" for p in ("q_proj", "k_proj", "v_proj", "o_proj", "q_norm", "k_norm")}
    both = attention | {"input_layernorm.weight", "post_attention_layernorm.weight"}
    swiglu = {f"{p}_proj.weight" for p in ("gate", "up", "down")}
    mixture = {"gate.weight", "gate.e_score_correction_bias", "experts.gate_up_proj", "experts.down_proj"}
    expected = {"embed_tokens.weight", "norm.weight", "lm_head.weight"}
    expected |= {f"layers.{n}.{name}" for n in (0, 1) for name in both}
    expected |= {f"layers.0.mlp.{name}" for name in swiglu}
    expected |= {f"layers.1.mlp.{name}" for name in mixture | {f"shared_experts.{name}" for name in swiglu}}
    assert names == expected


def test_a_document_never_sees_another(tiny: ModelConfig) -> None:
    """The gradient says it exactly; the logits alone may differ in last bits, as products of other sizes round so."""
    model = make(tiny)
    tokens, position, document = inputs(tiny, [7, 15])
    embedded: list[torch.Tensor] = []
    model.embed_tokens.register_forward_hook(lambda module, given, output: embedded.append(output))
    logits = model(tokens, position, document)
    inside = torch.zeros(24, dtype=torch.bool)
    inside[7:15] = True
    (from_outside,) = torch.autograd.grad(logits[:, ~inside].square().sum(), embedded[0], retain_graph=True)
    (from_inside,) = torch.autograd.grad(logits[:, inside].square().sum(), embedded[0])
    assert not from_outside[:, inside].any() and from_outside[:, ~inside].any()
    assert not from_inside[:, ~inside].any() and from_inside[:, inside].any()


def test_a_packed_document_equals_the_document_alone(tiny: ModelConfig) -> None:
    model = make(tiny)
    tokens, position, document = inputs(tiny, [7, 15])
    packed = model(tokens, position, document)[:, 7:15]
    alone = model(tokens[:, 7:15], position[:, 7:15], torch.zeros(2, 8, dtype=torch.long))
    torch.testing.assert_close(packed, alone, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("rows", [1, 7, 47, 48])
def test_a_loss_in_slices_is_the_whole_loss(tiny: ModelConfig, monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    """To the last bits, with the same gradients, and never more logits than are allowed."""
    tokens, position, document = inputs(tiny, [7, 15])
    targets = tokens.roll(-1)
    targets[0, 3:6] = -100
    expected = make(tiny)
    logits_BSV = expected(tokens, position, document)
    loss = cross_entropy(logits_BSV.flatten(0, 1), targets.flatten(), reduction="sum")
    loss.backward()

    most = 0

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            nonlocal most
            result = func(*args, **(kwargs or {}))
            if func is torch.ops.aten._log_softmax.default:
                most = max(most, len(result))
            return result

    monkeypatch.setattr(dots1, "LOGITS_AT_ONCE", rows * tiny.vocab_size)
    model = make(tiny)
    with Watch():
        found = model(tokens, position, document, targets)
        found.backward()
    torch.testing.assert_close(found, loss, rtol=1e-6, atol=0)
    for (name, mine), one in zip(model.named_parameters(), expected.parameters(), strict=True):
        assert mine.grad is not None and one.grad is not None
        assert float((mine.grad - one.grad).norm() / one.grad.norm()) < 1e-6, name
    assert most == min(rows, tokens.numel())


def test_the_future_is_not_seen(tiny: ModelConfig) -> None:
    model = make(tiny)
    tokens, position, document = inputs(tiny, [])
    assert document_mask(document, document.device) is None, "one document: causality is enough"
    changed = tokens.clone()
    changed[:, 10:] = (changed[:, 10:] + 1) % tiny.vocab_size
    before, after = (model(t, position, document) for t in (tokens, changed))
    torch.testing.assert_close(before[:, :10], after[:, :10])


@given(st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=5), min_size=1, max_size=4), st.integers(0, 9))
@settings(max_examples=30)
def test_borders_of_documents_say_what_the_mask_says(lengths: list[list[int]], seed: int) -> None:
    """Attention within each pair of borders, causal, equals masked attention over the windows."""
    size = max(sum(window) for window in lengths)
    numbers = [torch.repeat_interleave(torch.arange(len(w) + 1), torch.tensor([*w, size - sum(w)])) for w in lengths]
    document_BS = torch.stack(numbers)
    borders = documents(document_BS, document_BS.device)
    spans = list(pairwise(borders.start_N.tolist()))
    assert borders.start_N.dtype == torch.int32 and borders.longest == max(end - start for start, end in spans)
    torch.manual_seed(seed)
    q, k, v = torch.randn(3, len(lengths), size, 2, 8)
    masked = attend(q, k, v, document_mask(document_BS, q.device))
    parts = [[x.flatten(0, 1)[start:end][None] for x in (q, k, v)] for start, end in spans]
    alone = torch.cat([attend(*part, None)[0] for part in parts])
    torch.testing.assert_close(alone.view_as(masked), masked, rtol=1e-5, atol=1e-5)


def test_documents_go_to_flash_attention() -> None:
    """Without a GPU: which kernels are called, and the shapes and types that they take and give."""
    called: list[str] = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            called.append(func.name())
            return func(*args, **(kwargs or {}))

    with torch.device("meta"), Watch():
        q, k, v = (torch.empty(2, 24, 4, 16, dtype=torch.bfloat16, requires_grad=True) for _ in "qkv")
        y_BSHK = attend(q, k, v, Documents(torch.empty(6, dtype=torch.int32), 16))
        y_BSHK.sum().backward()
    assert (y_BSHK.shape, y_BSHK.dtype) == (q.shape, torch.bfloat16)
    assert all(x.grad is not None and x.grad.shape == x.shape for x in (q, k, v))
    assert [name for name in called if "varlen" in name] == [
        "torch_attn::_varlen_attn",
        "torch_attn::_varlen_attn_backward",
    ]


def test_attention_normalises_before_it_rotates() -> None:
    torch.manual_seed(0)
    heads, size, length, eps, theta = 2, 8, 6, 1e-5, 1e4
    attention = Attention(12, heads, size, eps)
    for norm in (attention.q_norm, attention.k_norm):
        nn.init.uniform_(norm.weight, 0.5, 2.0)
    x = torch.randn(1, length, 12)
    position = torch.arange(length)[None]

    def turn(v: torch.Tensor, at: int) -> torch.Tensor:
        out = v.clone()
        for i in range(size // 2):
            angle = at * theta ** (-2 * i / size)
            a, b = v[i], v[i + size // 2]
            out[i] = a * math.cos(angle) - b * math.sin(angle)
            out[i + size // 2] = b * math.cos(angle) + a * math.sin(angle)
        return out

    def normalise(v: torch.Tensor, norm: nn.RMSNorm) -> torch.Tensor:
        return v / torch.sqrt((v * v).mean() + eps) * norm.weight

    merged = torch.zeros(length, heads * size)
    for head in range(heads):
        part = slice(head * size, (head + 1) * size)
        q, k, v = (x[0] @ p.weight[part].T for p in (attention.q_proj, attention.k_proj, attention.v_proj))
        q = torch.stack([turn(normalise(q[s], attention.q_norm), s) for s in range(length)])
        k = torch.stack([turn(normalise(k[s], attention.k_norm), s) for s in range(length)])
        for s in range(length):
            share = ((k[: s + 1] @ q[s]) / math.sqrt(size)).softmax(0)
            merged[s, part] = share @ v[: s + 1]
    expected = merged @ attention.o_proj.weight.T
    torch.testing.assert_close(attention(x, rotary(position, size, theta), None)[0], expected, rtol=1e-5, atol=1e-5)


def test_router_bias_changes_the_choice_and_not_the_weights() -> None:
    torch.manual_seed(0)
    router = Router(16, experts=8, top_k=3, scaling=2.5)
    nn.init.normal_(router.weight)
    x = torch.randn(50, 16)
    plain, scores = router(x)
    torch.testing.assert_close(plain.weights_TK.sum(1), torch.full((50,), 2.5))
    assert torch.equal(plain.ids_TK.sort(1).values, scores.topk(3).indices.sort(1).values)

    router.e_score_correction_bias[5] = 10.0
    biased, same_scores = router(x)
    assert torch.equal(scores, same_scores)
    assert (biased.ids_TK == 5).any(1).all()
    chosen = scores.gather(1, biased.ids_TK)
    torch.testing.assert_close(biased.weights_TK, 2.5 * chosen / chosen.sum(1, keepdim=True))
    assert not biased.weights_TK.max() > 2.5


def test_router_computes_in_float32_under_autocast() -> None:
    torch.manual_seed(0)
    router = Router(64, experts=8, top_k=2, scaling=2.5)
    nn.init.normal_(router.weight)
    x = torch.randn(20, 64)
    expected = router(x)
    with torch.autocast("cpu", torch.bfloat16):
        found = router(x)
    assert found[1].dtype == torch.float32
    assert torch.equal(found[1], expected[1])


def test_bias_moves_towards_balance_in_place_and_stays_centred() -> None:
    router = Router(8, experts=4, top_k=1, scaling=1.0)
    bias = router.e_score_correction_bias
    router.update_bias(torch.tensor([10, 0, 0, 2]), rate=0.1)  # mean 3: one above, three below
    assert bias is router.e_score_correction_bias
    torch.testing.assert_close(bias, torch.tensor([-0.15, 0.05, 0.05, 0.05]))
    router.update_bias(torch.tensor([3, 3, 3, 3]), rate=0.1)
    torch.testing.assert_close(bias, torch.tensor([-0.15, 0.05, 0.05, 0.05]))


def test_bias_updates_even_out_a_skewed_router(tiny: ModelConfig) -> None:
    model = make(tiny)
    batch = inputs(tiny, [], length=256)
    router = next(module for module in model.modules() if isinstance(module, Router))

    def counts_E() -> torch.Tensor:
        model.tally = Tally()
        model(*batch)
        return model.tally.counts_E[1]

    with torch.no_grad():
        router.weight.normal_(0, 1.0, generator=torch.Generator().manual_seed(0))
        first = counts_E()
        for _ in range(100):
            router.update_bias(counts_E(), 0.01)
        last = counts_E()
    assert first.max() / first.float().mean() > 1.5
    assert last.max() / last.float().mean() < 1.4


def test_the_balance_loss_has_its_gradient_and_leaves_the_logits(tiny: ModelConfig) -> None:
    """As if it were added to the loss; and a model cut in two parts has the same gradients to the bit."""
    batch = inputs(tiny, [5])
    plain, weighted, parts = make(tiny), make(tiny), [Dots1(tiny, numbers=[n]) for n in (0, 1)]
    weighted.balance_weight = 3.0
    for part in parts:
        part.initialize(3)
        part.balance_weight = 3.0
    logits = plain(*batch)
    assert torch.equal(weighted(*batch), logits)
    assert torch.equal(parts[1](parts[0](*batch), *batch[1:]), logits)
    for model in (plain, weighted):
        model(*batch).square().mean().backward()
    parts[1](parts[0](*batch), *batch[1:]).square().mean().backward()
    gradients = {name: p.grad for part in parts for name, p in part.named_parameters()}
    assert gradients.keys() == dict(weighted.named_parameters()).keys()
    for name, parameter in weighted.named_parameters():
        assert torch.equal(gradients[name], parameter.grad), name
    router = "layers.1.mlp.gate.weight"
    difference = weighted.get_parameter(router).grad - plain.get_parameter(router).grad
    scores, ids = [], []
    plain.zero_grad()
    gate = plain.get_submodule("layers.1.mlp.gate")
    gate.register_forward_hook(lambda module, given, out: scores.append(out[1]) or ids.append(out[0].ids_TK))
    plain(*batch)
    (3.0 * 2 * balance_loss(scores[0].unflatten(0, (2, 24)), ids[0].unflatten(0, (2, 24)))).backward()
    torch.testing.assert_close(difference, plain.get_parameter(router).grad, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_recomputing_changes_no_gradient_and_counts_nothing_twice(tiny: ModelConfig, precision: str) -> None:
    batch = inputs(tiny, [5])
    kept, recomputed = make(tiny), make(tiny)
    recompute(recomputed)
    assert dict(recomputed.named_parameters()).keys() == dict(kept.named_parameters()).keys()
    asked = []
    recomputed.get_submodule("layers.1.mlp.gate").register_forward_hook(lambda *_: asked.append(1))
    for model in (kept, recomputed):
        model.balance_weight = 1.0
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
            logits = model(*batch)
        logits.float().square().mean().backward()
    assert len(asked) == 2, "it was computed again"
    assert all(torch.equal(a.grad, b.grad) for a, b in zip(kept.parameters(), recomputed.parameters(), strict=True))
    assert torch.equal(kept.tally.counts_E[1], recomputed.tally.counts_E[1])
    assert kept.tally.balance == recomputed.tally.balance


def test_balance_loss_is_one_when_even_and_grows_with_skew() -> None:
    even_ids = torch.arange(8).repeat(2).view(1, 8, 2)
    even = balance_loss(torch.ones(1, 8, 8), even_ids)
    assert even.item() == pytest.approx(1.0)
    skewed = torch.full((1, 8, 8), 0.01)
    skewed[..., :2] = 1.0
    assert balance_loss(skewed, torch.tensor([0, 1]).expand(1, 8, 2)).item() > 3.5


def test_shared_experts_are_added_unscaled(tiny: ModelConfig) -> None:
    moe = next(module for module in make(tiny).modules() if isinstance(module, MoE))
    x = torch.randn(1, 5, tiny.hidden_size)
    with torch.no_grad():
        whole, _ = moe(x)
        routed = moe.experts(x[0], moe.gate(x[0])[0])
        torch.testing.assert_close(whole[0], routed + moe.shared_experts(x[0]))


def test_initial_loss_is_that_of_a_guess_and_weights_follow_the_seed(tiny: ModelConfig) -> None:
    model = make(dataclasses.replace(tiny, init_std=0.006))
    tokens, position, document = inputs(tiny, [])
    logits = model(tokens, position, document)
    loss = nn.functional.cross_entropy(logits.flatten(0, 1), tokens.flatten())
    assert loss.item() == pytest.approx(math.log(tiny.vocab_size), abs=0.05)
    assert model.lm_head.weight.std().item() == pytest.approx(0.006, rel=0.05)
    other = Dots1(model.config)
    other.initialize(3)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))


def test_dots1_has_the_size_of_the_release() -> None:
    size = parameters(build(Job, preset("dots1"), "dots1").model)
    assert round(size.total / 1e9, 2) == 142.77
    assert round(size.active / 1e9, 2) == 14.02
