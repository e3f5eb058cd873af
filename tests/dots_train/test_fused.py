"""The fused experts without a GPU: their cases in Triton's interpreter, and what the compiler makes of them for Hopper.

Both run in processes of their own: whether Triton interprets is settled when it is imported.
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from dots_data.typed_yaml import ConfigError
from dots_train.config import Job
from dots_train.experts import choose
from dots_train.experts.tiles import TABLE, Tiles
from dots_train.trainer import Trainer

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).parent
SHARED_MEMORY = 227 * 1024  # what a block of Hopper's may have


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    # Some virtual machines announce AMX and die of it.
    clean |= {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE", "ATEN_CPU_CAPABILITY": "avx2", **environment}
    command = [sys.executable, *arguments]
    return subprocess.run(command, env=clean, cwd=ROOT, capture_output=True, text=True, timeout=500)


def test_in_the_interpreter() -> None:
    done = run("-m", "pytest", "-x", str(HERE / "fused_cases.py"), TRITON_INTERPRET="1")
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert " passed" in done.stdout
    assert "skipped" not in done.stdout


def test_compiled_for_hopper_without_spills(tmp_path: Path) -> None:
    """Every kernel by every tile of the table at the sizes of dots.llm1, through the very calls of the backend."""
    done = run("-m", "tests.dots_train.hopper", TRITON_CACHE_DIR=str(tmp_path))
    assert done.returncode == 0, done.stderr[-3000:]
    kernels = json.loads(done.stdout)
    if isinstance(kernels, str):
        pytest.skip(kernels)
    for one in kernels:
        assert one["spills"] == 0, one
        assert one["registers"] * one["threads"] <= 65536, one
        assert one["shared"] <= SHARED_MEMORY, one
        assert not one["serialized"], one
        product = one["kernel"] not in ("permute_kernel", "combine_kernel")
        assert (one["wgmma"] > 0) == (one["tma"] > 0) == product, one
    products = {"up_kernel", "product_kernel", "down_dgrad_kernel", "wgrad_kernel"}
    assert {one["kernel"] for one in kernels} == {*products, "permute_kernel", "combine_kernel"}


@pytest.mark.parametrize("tiles", TABLE)
def test_tiles_agree_on_the_block(tiles: Tiles) -> None:
    assert {tiles.up.m, tiles.down.m, tiles.down_dgrad.m, tiles.up_dgrad.m} == {tiles.block}
    assert tiles.block % tiles.up_wgrad.k == 0
    assert tiles.block % tiles.down_wgrad.k == 0


def test_the_backend_is_chosen_by_device(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    capability = (9, 0)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert [choose("auto", cpu), choose("auto", gpu), choose("reference", gpu)] == ["reference", "fused", "reference"]
    assert choose("fused", gpu) == "fused"
    with pytest.raises(ValueError, match=r"needs a GPU from Hopper on and triton, but the device is cpu; take ref"):
        choose("fused", cpu)
    capability = (8, 0)
    assert choose("auto", gpu) == "reference"
    with pytest.raises(ValueError, match=r"but this one has compute capability 8\.0"):
        choose("fused", gpu)
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert choose("fused", cpu) == "fused"
    assert choose("auto", cpu) == "reference"


def test_a_run_asks_for_fused_where_it_cannot_be_had(job: Job, reader: object) -> None:
    with pytest.raises(ConfigError, match="experts: the fused backend needs a GPU"):
        Trainer(dataclasses.replace(job, experts="fused"), reader)  # type: ignore[arg-type]
