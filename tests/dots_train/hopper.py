"""Compile the kernels of the fused experts for Hopper, on a machine that need not have a GPU, and print as JSON what
became of them; or one string that says why not. Run by test_fused.py."""

from __future__ import annotations

import json
import re
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import torch
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import JITFunction

from dots_train.experts import ExpertWeights, Routing, fused
from dots_train.experts.tiles import TABLE, Tiles

HOPPER = GPUTarget("cuda", 90, 32)
HIDDEN, WIDTH = 4096, 1408


class Absent:
    """What Triton asks of a GPU's driver before it launches anything."""

    def get_current_target(self) -> GPUTarget:
        return HOPPER

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0


def compile_all(tiles: Tiles) -> list[Any]:
    """A forward and a backward pass whose launches compile and go no further: all numbers are left as they are."""
    compiled = []
    launch = JITFunction.run

    def only_compile(self: Any, *args: Any, grid: Any, warmup: bool, **kwargs: Any) -> None:
        compiled.append(launch(self, *args, grid=grid, warmup=True, **kwargs))

    JITFunction.run = only_compile
    x = torch.zeros(8, HIDDEN, dtype=torch.bfloat16).requires_grad_()
    gate_up = torch.zeros(2, 2 * WIDTH, HIDDEN, dtype=torch.bfloat16).requires_grad_()
    down = torch.zeros(2, HIDDEN, WIDTH, dtype=torch.bfloat16).requires_grad_()
    routing = Routing(torch.zeros(8, 6, dtype=torch.int64), torch.ones(8, 6).requires_grad_())
    y = fused.experts(x, routing, ExpertWeights(gate_up, down), tiles)
    y.backward(torch.zeros_like(y))
    JITFunction.run = launch
    return compiled


def examine(kernel: Any, assembler: str) -> dict[str, Any]:
    ptx = kernel.asm["ptx"]
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "kernel.ptx"
        source.write_text(ptx)
        command = [assembler, "-v", "--gpu-name=sm_90a", str(source), "-o", f"{folder}/kernel.o"]
        said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stderr
    count = lambda pattern: sum(map(int, re.findall(pattern, said)))  # noqa: E731
    return {
        "kernel": kernel.metadata.name,
        "threads": 32 * kernel.metadata.num_warps,
        "registers": count(r"Used (\d+) registers"),
        "spills": count(r"(\d+) bytes spill"),
        "shared": kernel.metadata.shared,
        "wgmma": ptx.count("wgmma.mma_async"),
        "tma": ptx.count("cp.async.bulk.tensor"),
        # The compiler says so where it makes each product wait for the one before.
        "serialized": "wgmma" in said and "serialized" in said,
    }


def main() -> None:
    from triton.backends.nvidia.compiler import get_ptxas

    try:
        assembler = get_ptxas(HOPPER.arch).path
    except RuntimeError as error:
        print(json.dumps(f"no ptxas: {error}"))
        return
    driver.set_active(Absent())
    fused.INTERPRETED = True  # CPU tensors are welcome
    kernels = {kernel.hash: kernel for tiles in TABLE for kernel in compile_all(tiles)}
    print(json.dumps([examine(kernel, assembler) for kernel in kernels.values()]))


if __name__ == "__main__":
    main()
