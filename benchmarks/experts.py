"""`make bench-experts`: the products of the experts and their whole layer beside other ways to compute them.

    python -m benchmarks.experts [--seconds N] [--rounds N]

On a GPU (bfloat16): the shapes of the technical report's Table 1, the same with the real down-projection, 512 to 8,192
tokens an expert, the same for all of them or by Zipf's law. Peers are torch's grouped_mm, a loop of cuBLAS products on
four streams (Transformer Engine's way), and one dense product of equal FLOPs, which is the ceiling; for the layer, the
reference backend. Inputs are random and each is larger than the L2 cache with its copies, which take turns; so do the
contestants, launched behind a pause that hides the time of launching; medians of what events of the GPU measure. Every
product is compared with grouped_mm's.

Without a GPU: toy sizes in Triton's interpreter, float32, errors alone and no speed.
"""

# ruff: noqa: E402
from __future__ import annotations

import argparse
import datetime
import itertools
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import grouped_mm

GPU = torch.cuda.is_available()
if not GPU:
    os.environ["TRITON_INTERPRET"] = "1"  # before Triton is imported

from dots_data import console
from dots_train.experts import ExpertWeights, Routing, backend, fused
from dots_train.experts.plan import Blocks, make_blocks
from dots_train.experts.tiles import Tile, tiles_for

RESULTS = Path(__file__).parent / "results"
DEVICE = torch.device("cuda" if GPU else "cpu")
DTYPE = torch.bfloat16 if GPU else torch.float32
COPIES = 3 if GPU else 1
EXPERTS = (4, 8) if GPU else (4,)
ROWS = (512, 1024, 2048, 4096, 8192) if GPU else (24,)  # an expert
SIZES = ((2816, 4096), (4096, 2816), (4096, 1408)) if GPU else ((48, 64), (64, 48), (64, 24))  # N, K
HIDDEN, WIDTH, LAYER_EXPERTS, TOP_K = (4096, 1408, 16, 6) if GPU else (64, 24, 8, 3)
TABLE_1 = {(n, k, rows) for n, k in SIZES[:2] for rows in (1024, 2048)}
PRODUCTS = ("forward", "dgrad", "wgrad")
PEERS = ("grouped_mm", "4 streams", "dense")
PAUSE = 4_000_000  # cycles of the GPU, about 2 ms: launching is over before the GPU begins
STREAMS = [torch.cuda.Stream() for _ in range(4)] if GPU else []


@dataclass
class Inputs:
    """Of one product of E experts: R rows of K features to N; P rows in blocks."""

    x_RK: Tensor
    grad_RN: Tensor
    weight_ENK: Tensor
    x_PK: Tensor
    grad_PN: Tensor
    plan: Blocks
    end_E: Tensor
    sizes: list[int]


def spread(experts: int, rows: int, routing: str) -> list[int]:
    """How many of experts * rows rows each expert gets."""
    if routing == "even":
        return [rows] * experts
    shares = [1 / (place + 1) for place in range(experts)]
    sizes = [int(experts * rows * share / sum(shares)) for share in shares]
    sizes[0] += experts * rows - sum(sizes)
    return sizes


def make_inputs(sizes: list[int], n: int, k: int) -> Inputs:
    rows, experts = sum(sizes), len(sizes)
    x_RK = torch.randn(rows, k, device=DEVICE, dtype=DTYPE)
    grad_RN = torch.randn(rows, n, device=DEVICE, dtype=DTYPE)
    weight_ENK = torch.randn(experts, n, k, device=DEVICE, dtype=DTYPE) / k**0.5
    counts_E = torch.tensor(sizes, device=DEVICE)
    ids_R1 = torch.repeat_interleave(torch.arange(experts, device=DEVICE), counts_E)[:, None]
    plan = make_blocks(ids_R1, experts, tiles_for(experts, rows).block)
    blocks = (fused.permute(one, plan, DTYPE) for one in (x_RK, grad_RN))
    return Inputs(x_RK, grad_RN, weight_ENK, *blocks, plan, counts_E.cumsum(0, dtype=torch.int32), sizes)


def fitting(tile: Tile, columns: int) -> Tile:
    """Half as wide where that leaves less of the last tile empty."""
    return tile if columns % tile.n == 0 else tile._replace(n=tile.n // 2)


def ours(product: str, one: Inputs) -> Tensor:
    tiles = tiles_for(len(one.sizes), len(one.x_RK))
    n, k = one.weight_ENK.shape[1:]
    if product == "forward":
        return fused.product(one.x_PK, one.weight_ENK.mT, one.plan, fitting(tiles.down, n))
    if product == "dgrad":
        return fused.product(one.grad_PN, one.weight_ENK, one.plan, fitting(tiles.up_dgrad, k))
    tile = tiles.up_wgrad if k % tiles.up_wgrad.n == 0 else tiles.down_wgrad
    return fused.weight_gradient(one.grad_PN, one.x_PK, one.plan, tiles.block, tile, like=one.weight_ENK)


def grouped(product: str, one: Inputs) -> Tensor:
    if product == "forward":
        return grouped_mm(one.x_RK, one.weight_ENK.mT, offs=one.end_E)
    if product == "dgrad":
        return grouped_mm(one.grad_RN, one.weight_ENK, offs=one.end_E)
    return grouped_mm(one.grad_RN.T, one.x_RK, offs=one.end_E)


def on_streams(product: str, one: Inputs) -> list[Tensor]:
    """One product an expert, whose sizes the host knows."""
    xs, grads = one.x_RK.split(one.sizes), one.grad_RN.split(one.sizes)
    pairs = {
        "forward": [(x, weight.T) for x, weight in zip(xs, one.weight_ENK, strict=True)],
        "dgrad": list(zip(grads, one.weight_ENK, strict=True)),
        "wgrad": [(grad.T, x) for x, grad in zip(xs, grads, strict=True)],
    }[product]
    if not GPU:
        return [left @ right for left, right in pairs]
    here = torch.cuda.current_stream()
    for stream in STREAMS:
        stream.wait_stream(here)
    found = []
    for stream, (left, right) in zip(itertools.cycle(STREAMS), pairs, strict=False):
        with torch.cuda.stream(stream):
            found.append(left @ right)
    for stream in STREAMS:
        here.wait_stream(stream)
    return found


def dense(product: str, one: Inputs) -> Tensor:
    if product == "forward":
        return one.x_RK @ one.weight_ENK[0].T
    if product == "dgrad":
        return one.grad_RN @ one.weight_ENK[0]
    return one.grad_RN.T @ one.x_RK


CONTESTANTS: dict[str, Callable[[str, Inputs], Any]] = {
    "dots": ours,
    "grouped_mm": grouped,
    "4 streams": on_streams,
    "dense": dense,
}


def medians(runs: dict[str, Sequence[Callable[[], Any]]], rounds: int, pause: int = PAUSE) -> dict[str, float | None]:
    """Milliseconds of each contestant, whose functions (one for each copy of the inputs) take turns."""
    if not GPU:
        return dict.fromkeys(runs)
    for functions in runs.values():  # compile, and let libraries choose
        functions[0]()
        functions[-1]()
    torch.cuda.synchronize()
    times: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(rounds):
        marks = []
        for name, functions in runs.items():
            begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            torch.cuda._sleep(pause)
            begin.record()
            functions[turn % len(functions)]()
            end.record()
            marks.append((name, begin, end))
        torch.cuda.synchronize()
        for name, begin, end in marks:
            times[name].append(begin.elapsed_time(end))
    return {name: statistics.median(one) for name, one in times.items()}


def error(found: Tensor, wanted: Tensor) -> float:
    distance = (found.float() - wanted.float()).norm() / wanted.float().norm()
    return float(distance)


def measure_products(experts: int, rows: int, n: int, k: int, routing: str, rounds: int) -> list[dict[str, Any]]:
    sizes = spread(experts, rows, routing)
    copies = [make_inputs(sizes, n, k) for _ in range(COPIES)]
    lines = []
    for product in PRODUCTS:
        found = ours(product, copies[0])
        if product != "wgrad":
            found = found.index_select(0, copies[0].plan.row_TK.flatten())
        wrong = error(found, grouped(product, copies[0]))
        runs = {
            name: [lambda one=one, apply=apply: apply(product, one) for one in copies]  # noqa: B023
            for name, apply in CONTESTANTS.items()
        }
        times = medians(runs, rounds)
        flops = 2 * sum(sizes) * n * k
        rates = {name: flops / ms / 1e9 if ms else None for name, ms in times.items()}
        shape = {"experts": experts, "rows": rows, "n": n, "k": k, "routing": routing, "product": product}
        lines.append({**shape, "tflops": rates, "error": wrong})
    return lines


def layer_inputs(rows: int, routing: str) -> tuple[list[Tensor], Tensor, Tensor]:
    """x, routing weights and both weights; choices; the gradient of the output."""
    tokens = LAYER_EXPERTS * rows // TOP_K
    share_E = torch.tensor(spread(LAYER_EXPERTS, rows, routing), dtype=torch.float32, device=DEVICE)
    # Without repetition within a token, so that the load is flatter than the shares that it is drawn by.
    ids_TK = torch.multinomial(share_E.expand(tokens, -1), TOP_K)
    shapes = (LAYER_EXPERTS, 2 * WIDTH, HIDDEN), (LAYER_EXPERTS, HIDDEN, WIDTH)
    weights = [torch.randn(shape, device=DEVICE, dtype=DTYPE) / shape[2] ** 0.5 for shape in shapes]
    x = torch.randn(tokens, HIDDEN, device=DEVICE, dtype=DTYPE)
    factor = torch.rand(tokens, TOP_K, device=DEVICE)
    return [one.requires_grad_() for one in (x, factor, *weights)], ids_TK, torch.randn_like(x)


def forward(name: str, inputs: tuple[list[Tensor], Tensor, Tensor]) -> Tensor:
    (x, factor, gate_up, down), ids_TK, _ = inputs
    return backend(name)(x, Routing(ids_TK, factor), ExpertWeights(gate_up, down))


def backward(y: Tensor, inputs: tuple[list[Tensor], Tensor, Tensor]) -> tuple[Tensor, ...]:
    return torch.autograd.grad(y, inputs[0], inputs[2], retain_graph=True)


def results_of(name: str, inputs: tuple[list[Tensor], Tensor, Tensor]) -> list[Tensor]:
    """The output and all gradients."""
    y = forward(name, inputs)
    return [y.detach(), *torch.autograd.grad(y, inputs[0], inputs[2])]


def peak_bytes(name: str, inputs: tuple[list[Tensor], Tensor, Tensor]) -> int | None:
    """What a forward and a backward pass need at most, beside their inputs."""
    if not GPU:
        return None
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    results_of(name, inputs)
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before


def measure_layer(rows: int, routing: str, rounds: int) -> dict[str, Any]:
    copies = [layer_inputs(rows, routing) for _ in range(min(COPIES, 2))]
    names = ("fused", "reference")
    first, again, wanted = (results_of(name, copies[0]) for name in ("fused", "fused", "reference"))
    worst, same = max(map(error, first, wanted)), all(map(torch.equal, first, again))
    del first, again, wanted
    peaks = {name: peak_bytes(name, copies[0]) for name in names}
    there = {name: [lambda one=one, name=name: forward(name, one) for one in copies] for name in names}
    ahead = medians(there, rounds)
    graphs = {name: [(forward(name, one), one) for one in copies] for name in names}
    back = {name: [lambda y=y, one=one: backward(y, one) for y, one in graphs[name]] for name in names}
    # Autograd takes longer to launch.
    after = medians(back, rounds, pause=5 * PAUSE)
    measured = {"forward": ahead, "backward": after, "peak": peaks}
    return {"rows": rows, "routing": routing, **measured, "error": worst, "same bits": same}


def over(ours: float | None, theirs: float | None) -> str:
    return f"{ours / theirs:.2f}x" if ours and theirs else ""


def show(products: list[dict[str, Any]], layers: list[dict[str, Any]]) -> None:
    columns: tuple[str, ...] = ("product", "routing", "experts", "rows", "N", "K", "dots", *PEERS)
    columns += (*(f"over {one}" for one in PEERS), "error")
    rows: list[tuple[Any, ...]] = []
    for line in products:
        rates = line["tflops"]
        shape = (line["product"], line["routing"], line["experts"], line["rows"], line["n"], line["k"])
        ratios = (over(rates["dots"], rates[peer]) for peer in PEERS)
        rows.append((*shape, rates["dots"], *(rates[peer] for peer in PEERS), *ratios, f"{line['error']:.1e}"))
    console.table("products, TFLOP/s", columns, rows, left=2)
    rows = []
    for line in layers:
        for way in ("forward", "backward"):
            ms, faster = line[way], over(line[way]["reference"], line[way]["fused"])
            mib = (one and one / 2**20 for one in line["peak"].values())
            checks = f"{line['error']:.1e}", line["same bits"]
            rows.append((way, line["routing"], line["rows"], ms["fused"], ms["reference"], faster, *mib, *checks))
    columns = ("layer", "routing", "rows", "fused ms", "reference ms", "faster", "fused MiB", "reference MiB")
    columns += ("error", "same bits")
    console.table(f"layer: {LAYER_EXPERTS} experts, top {TOP_K}, {HIDDEN} x {WIDTH}", columns, rows, left=2)


def rate(lines: list[dict[str, Any]], name: str) -> float:
    """FLOPs a second over several products, each with the same FLOPs."""
    return len(lines) / sum(1 / line["tflops"][name] for line in lines)


def summary(products: list[dict[str, Any]], layers: list[dict[str, Any]]) -> dict[str, float]:
    """The figures that a claim would be made of."""

    def chosen(
        routing: str = "even", rows: Sequence[int] = ROWS, ways: Sequence[str] = PRODUCTS
    ) -> list[dict[str, Any]]:
        found = [one for one in products if one["routing"] == routing]
        return [one for one in found if one["rows"] in rows and one["product"] in ways]

    def table_1(ways: Sequence[str]) -> list[dict[str, Any]]:
        return [one for one in chosen(ways=ways) if (one["n"], one["k"], one["rows"]) in TABLE_1]

    def shape(line: dict[str, Any]) -> tuple[int, ...]:
        return line["experts"], line["rows"], line["n"], line["k"]

    def mean_over_streams(ways: Sequence[str]) -> float:
        """The mean over the shapes, as the report's; of two products of a shape the time of both."""
        lines = sorted(table_1(ways), key=shape)
        groups = [list(group) for _, group in itertools.groupby(lines, shape)]
        return statistics.mean(rate(group, "dots") / rate(group, "4 streams") for group in groups)

    def seconds(lines: list[dict[str, Any]]) -> float:
        return sum(one["experts"] * one["rows"] * one["n"] * one["k"] / one["tflops"]["dots"] for one in lines)

    figures = {
        "forward over 4 streams, mean of Table 1": mean_over_streams(["forward"]),
        "backward over 4 streams, mean of Table 1": mean_over_streams(["dgrad", "wgrad"]),
        "over grouped_mm, lowest": min(one["tflops"]["dots"] / one["tflops"]["grouped_mm"] for one in products),
        "share of dense at 2,048 rows, lowest": min(
            one["tflops"]["dots"] / one["tflops"]["dense"] for one in chosen(rows=(2048,))
        ),
        "Zipf beside even, all products": seconds(chosen("even")) / seconds(chosen("Zipf")),
    }
    for way in ("forward", "backward"):
        ratios = [one[way]["reference"] / one[way]["fused"] for one in layers]
        figures[f"layer {way} over reference, mean"] = statistics.mean(ratios)
        figures[f"layer {way} over reference, lowest"] = min(ratios)
    return figures


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.experts", description=__doc__)
    parser.add_argument(
        "--seconds", type=float, default=400, help="then no other shape is begun (default: %(default)s)"
    )
    parser.add_argument("--rounds", type=int, default=15, help="turns of each contestant (default: %(default)s)")
    options = parser.parse_args()
    began = time.monotonic()
    torch.manual_seed(0)
    products: list[dict[str, Any]] = []
    layers: list[dict[str, Any]] = []
    left_out = 0
    # The layer first: most depends on it.
    for rows, routing in itertools.product(ROWS, ("even", "Zipf")):
        layers.append(measure_layer(rows, routing, options.rounds))
    shapes = itertools.product(EXPERTS, ROWS, SIZES, ("even", "Zipf"))
    # Those of the report's table before the others.
    for experts, rows, (n, k), routing in sorted(shapes, key=lambda one: (*one[2], one[1]) not in TABLE_1):
        if time.monotonic() - began > options.seconds:
            left_out += 1
            continue
        products += measure_products(experts, rows, n, k, routing, options.rounds)
    show(products, layers)
    worst = max(line["error"] for line in (*products, *layers))
    if left_out:
        print(f"{left_out} shapes were left out: over {options.seconds:.0f} seconds")
    if GPU:
        figures = summary(products, layers)
        console.table("in short", ("figure", "ratio"), list(figures.items()))
        name, versions = torch.cuda.get_device_name(), {"torch": torch.__version__, "cuda": torch.version.cuda}
        result = {"date": datetime.date.today().isoformat(), "device": name, **versions, "in short": figures}
        RESULTS.mkdir(exist_ok=True)
        text = json.dumps({**result, "products": products, "layers": layers}, indent=1)
        (RESULTS / "experts.json").write_text(text + "\n")
    if not (worst < 2e-2 and all(line["same bits"] for line in layers)):
        print("the results are not right: see the columns error and same bits", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
