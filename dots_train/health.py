"""Is the training well? Spikes of loss and gradients, and experts that starve or take everything.

Pure functions: what was seen so far and a step's numbers go in, a verdict and the new state come out. States are plain
numbers (`plain` and `of`), so a checkpoint holds them and a resumed run says what an unbroken one says.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from dots_train.data import Batch

LOADS_FILE = "expert_load.json"


@dataclass(frozen=True)
class SpikeState:
    """The last steps, oldest first, and how many there were in all."""

    loss: tuple[float, ...] = ()
    gradient_norm: tuple[float, ...] = ()
    steps: int = 0
    spikes: int = 0

    def plain(self) -> dict[str, Any]:
        return {**vars(self), "loss": list(self.loss), "gradient_norm": list(self.gradient_norm)}

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> SpikeState:
        return cls(**{**plain, "loss": tuple(plain["loss"]), "gradient_norm": tuple(plain["gradient_norm"])})


class Spike(NamedTuple):
    """A step beside those before it; deviations are in standard deviations over their mean, 0 while they are few."""

    loss: float
    gradient_norm: float
    score: float
    """Share of all steps so far that were spikes."""
    warning: str
    """One sentence where this step is one, else empty."""


def watch_spikes(
    state: SpikeState, step: int, loss: float, gradient_norm: float, window: int = 128, threshold: float = 6.0
) -> tuple[Spike, SpikeState]:
    """Compare a step with the `window` before it: a spike is over `threshold` deviations above their mean.

    The spike score of the OLMo 2 report (arXiv 2501.00656), which takes 7 deviations of 1,000 steps; window and
    threshold here are those of OLMo-core's monitor. Until a quarter of a window was seen there is no verdict. A number
    that is not finite is a spike and does not enter the window.
    """
    seen = {
        "loss": (loss, state.loss),
        "gradient norm": (gradient_norm, state.gradient_norm),
    }
    deviations = {name: _deviation(value, before, window // 4) for name, (value, before) in seen.items()}
    high = [name for name, deviation in deviations.items() if deviation > threshold]
    after = SpikeState(
        _append(state.loss, loss, window),
        _append(state.gradient_norm, gradient_norm, window),
        state.steps + 1,
        state.spikes + bool(high),
    )
    warning = ""
    if high:
        told = ", and ".join(_told(name, *seen[name], deviations[name]) for name in high)
        warning = f"step {step}: {told}"
    return Spike(deviations["loss"], deviations["gradient norm"], after.spikes / after.steps, warning), after


def _deviation(value: float, before: Sequence[float], least: int) -> float:
    if not math.isfinite(value):
        return math.inf
    if len(before) < max(2, least):
        return 0.0
    mean = fmean(before)
    spread = math.sqrt(fmean((each - mean) ** 2 for each in before))
    # A flat stretch must not make a spike of rounding.
    return (value - mean) / max(spread, 1e-3 * abs(mean), 1e-12)


def _append(values: tuple[float, ...], value: float, window: int) -> tuple[float, ...]:
    return (*values, value)[-window:] if math.isfinite(value) else values


def _told(name: str, value: float, before: Sequence[float], deviation: float) -> str:
    if not before or not math.isfinite(value):
        return f"the {name} is {value:.4g}"
    mean = f"{fmean(before):.4g}, the mean of {len(before)} steps"
    return f"the {name} is {value:.4g}, {deviation:.1f} deviations above {mean}"


@dataclass(frozen=True)
class RoutingState:
    """Shapes: L mixture layers, E experts."""

    idle_LE: Tensor
    """int64: steps since each expert last got a token."""
    collapsed_L: Tensor
    """bool: layers that were said to have collapsed."""

    @classmethod
    def start(cls, layers: int, experts: int) -> RoutingState:
        return cls(torch.zeros(layers, experts, dtype=torch.int64), torch.zeros(layers, dtype=torch.bool))

    def plain(self) -> dict[str, Any]:
        return {"idle": self.idle_LE.tolist(), "collapsed": self.collapsed_L.tolist()}

    @classmethod
    def of(cls, plain: Mapping[str, Sequence[Any]]) -> RoutingState:
        return cls(torch.tensor(plain["idle"], dtype=torch.int64), torch.tensor(plain["collapsed"], dtype=torch.bool))


class Routing(NamedTuple):
    """How the routers spread a global batch."""

    load: tuple[float, ...]
    """Of each layer: tokens of its busiest expert over the mean."""
    entropy: tuple[float, ...]
    """Of each layer's load: 1 when it is even, 0 when all tokens go to the same few experts."""
    dead: tuple[tuple[int, int], ...]
    """(layer of the model, expert) without a token for long."""
    warnings: tuple[str, ...]
    """One sentence for what became so in this step, or ended."""


def watch_routing(
    state: RoutingState,
    step: int,
    counts_LE: Tensor,
    top_k: int,
    first_layer: int = 0,
    dead_after: int = 100,
    collapse_below: float = 0.5,
) -> tuple[Routing, RoutingState]:
    """Find dead experts and collapsed layers in the counts of a global batch, summed over all ranks.

    top_k: experts a token. first_layer: the model's number of the first row (its `dense_layers`). An expert is dead
    after `dead_after` steps without a token; a layer has collapsed while its entropy is below `collapse_below`. Each is
    said once, when it begins, and when it ends.
    """
    counts = counts_LE.detach().to("cpu", torch.int64)
    mean_L = counts.float().mean(1).clamp(min=1e-12)
    load_L, entropy_L = counts.amax(1) / mean_L, _entropy(counts, top_k)
    idle = torch.where(counts > 0, 0, state.idle_LE + 1)
    collapsed = entropy_L < collapse_below
    revived = (idle == 0) & (state.idle_LE >= dead_after)
    warnings = [
        *_name_experts(step, idle == dead_after, first_layer, f"got no token for {dead_after} steps"),
        *_name_experts(step, revived, first_layer, "gets tokens again"),
    ]
    for layer in (collapsed != state.collapsed_L).nonzero().flatten().tolist():
        entropy, busiest = float(entropy_L[layer]), int(counts[layer].argmax())
        said = (
            f"routing collapsed, the entropy of the load is {entropy:.2f} of 1, expert {busiest} has "
            f"{float(load_L[layer]):.1f} times its share"
            if collapsed[layer]
            else f"routing recovered, the entropy of the load is {entropy:.2f} of 1"
        )
        warnings.append(f"step {step}: layer {layer + first_layer}: {said}")
    dead = [(layer + first_layer, expert) for layer, expert in (idle >= dead_after).nonzero().tolist()]
    health = Routing(tuple(load_L.tolist()), tuple(entropy_L.tolist()), tuple(dead), tuple(warnings))
    return health, RoutingState(idle, collapsed)


def _entropy(counts_LE: Tensor, top_k: int) -> Tensor:
    """Entropy of each layer's load between that of top_k experts (0) and that of all (1)."""
    experts = counts_LE.shape[1]
    if top_k >= experts:
        return torch.ones(len(counts_LE))
    total_L1 = counts_LE.sum(1, keepdim=True)
    # A layer that saw no token is as even as can be.
    share = torch.where(total_L1 > 0, counts_LE / total_L1.clamp(min=1), 1 / experts)
    entropy_L: Tensor = -torch.special.xlogy(share, share).sum(1)
    return ((entropy_L - math.log(top_k)) / (math.log(experts) - math.log(top_k))).clamp(0, 1)


def _name_experts(step: int, found_LE: Tensor, first_layer: int, what: str, most: int = 4) -> list[str]:
    """One sentence an expert; of a layer with many, one for all of them."""
    sentences = []
    for layer, found_E in enumerate(found_LE):
        experts = found_E.nonzero().flatten().tolist()
        if len(experts) > most:
            some = ", ".join(map(str, experts[:most]))
            sentences.append(
                f"step {step}: layer {layer + first_layer} experts {some} and {len(experts) - most} more {what}"
            )
        else:
            sentences += [f"step {step}: layer {layer + first_layer} expert {expert} {what}" for expert in experts]
    return sentences


@torch.no_grad()
def loads_by_domain(model: nn.Module, batches: Mapping[str, Iterable[Batch]]) -> Tensor:
    """Tokens that each expert gets of each domain: int64 [domains, L, E] on the CPU, domains in the mapping's order.

    Forward passes without gradients, for an evaluation beside training; the model is left as it was.

    Raises:
        ValueError: a domain without a batch.
    """
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    found = []
    try:
        for domain, its in batches.items():
            counts = [
                model(*(part.to(device) for part in (batch.tokens_BS, batch.position_BS, batch.document_BS))).counts_LE
                for batch in its
            ]
            if not counts:
                raise ValueError(f"domain {domain!r} has no batch to count the experts' load on")
            found.append(torch.stack(counts).sum(0).cpu())
    finally:
        model.train(was_training)
    return torch.stack(found)


@dataclass(frozen=True)
class Loads:
    """What `loads_by_domain` counted, with its names."""

    step: int
    first_layer: int
    """The model's number of the first mixture layer."""
    domains: tuple[str, ...]
    counts: list[list[list[int]]]
    """[domain][layer][expert]"""


def write_loads(folder: Path, loads: Loads) -> Path:
    """Into the run's folder, for `dots curves`; the newest counts replace older ones."""
    path = folder / LOADS_FILE
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(json.dumps(vars(loads)) + "\n", encoding="utf-8")
    partial.replace(path)
    return path


def read_loads(folder: Path) -> Loads | None:
    """None where nothing was counted. Raises ValueError for a file that is not whole."""
    path = folder / LOADS_FILE
    if not path.exists():
        return None
    try:
        plain = json.loads(path.read_text(encoding="utf-8"))
        loads = Loads(int(plain["step"]), int(plain["first_layer"]), tuple(map(str, plain["domains"])), plain["counts"])
        shape = tuple(torch.tensor(loads.counts, dtype=torch.int64).shape)
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: damaged; remove it, the next evaluation writes it anew") from error
    if len(shape) != 3 or shape[0] != len(loads.domains) or 0 in shape:
        raise ValueError(f"{path}: damaged (counts of shape {shape}); remove it, the next evaluation writes it anew")
    return loads
