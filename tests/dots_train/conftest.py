"""A tiny model, and data without files: what the tests of the trainer share."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from dots_data.typed_yaml import build
from dots_train.checkpoint import Checkpoint
from dots_train.config import Job, ModelConfig

VOCABULARY = 64


@dataclass(frozen=True)
class Windows:
    tokens_BS: torch.Tensor
    targets_BS: torch.Tensor
    position_BS: torch.Tensor
    document_BS: torch.Tensor


class CountingReader:
    """Window g counts upwards from a start that depends on g, two documents to a window: easy to learn."""

    def __init__(self, sequence_length: int = 16, name: str = "counting"):
        self.length = sequence_length
        self.windows = 1000
        self.manifest = SimpleNamespace(id=name, tokenizer=SimpleNamespace(vocab_size=VOCABULARY))

    @property
    def id(self) -> str:
        return str(self.manifest.id)

    def batch(self, g: int, n: int) -> Windows:
        start_B = torch.arange(g, g + n) * 2654435761 % VOCABULARY
        stream_BT = (start_B[:, None] + torch.arange(self.length + 1)) % VOCABULARY
        border = self.length // 2
        place = torch.arange(self.length)
        position = torch.where(place < border, place, place - border)
        return Windows(
            stream_BT[:, :-1],
            stream_BT[:, 1:],
            position.expand(n, -1),
            (place >= border).long().expand(n, -1),
        )

    def state(self, g: int) -> dict[str, str | int]:
        return {"manifest": self.manifest.id, "g": g}

    def resume(self, state: Any) -> int:
        assert state["manifest"] == self.manifest.id
        return int(state["g"])


TINY = {
    "hidden_size": 32,
    "layers": 2,
    "dense_layers": 1,
    "dense_ffn_size": 48,
    "heads": 2,
    "head_dim": 16,
    "experts": 8,
    "experts_per_token": 2,
    "shared_experts": 2,
    "expert_ffn_size": 16,
    "init_std": 0.05,
    "rope_theta": 1e4,
}


def tensors_of(found: Checkpoint) -> dict[str, torch.Tensor]:
    """Every tensor of a checkpoint, whole."""
    stored = found._reader.read_metadata().state_dict_metadata
    tensors = {name: torch.empty(one.size, dtype=one.properties.dtype) for name, one in stored.items()}  # type: ignore[union-attr]
    found.read(tensors)
    return tensors


@pytest.fixture
def tiny() -> ModelConfig:
    return ModelConfig(vocab_size=VOCABULARY, **TINY)  # type: ignore[arg-type]


@pytest.fixture
def reader() -> CountingReader:
    return CountingReader()


@pytest.fixture
def job(tmp_path: Path) -> Job:
    """Twelve steps of 64 tokens, the last four of 128; a checkpoint every three."""
    values = {
        "model": TINY,
        "output": str(tmp_path / "run"),
        "sequence_length": 16,
        "micro_batch": 3,
        "threads": 1,
        "curriculum": {
            "warmup_steps": 3,
            "phases": [
                {"until": 512, "learning_rate": 0.01, "batch": 64},
                {"until": 1024, "learning_rate": 0.001, "batch": 128, "name": "anneal"},
            ],
        },
        "checkpoint": {"every_steps": 3, "keep": 2},
        "tensorboard": False,
    }
    return build(Job, values, "test")


@pytest.fixture(autouse=True)
def torch_settings() -> Iterator[None]:
    """A trainer sets threads and determinism for its whole process; other tests want them back."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(False)
