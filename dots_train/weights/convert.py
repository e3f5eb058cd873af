"""Weights into a folder of transformers, and out of one: one shard in memory at a time, all or nothing.

`export_hf` writes what `Dots1ForCausalLM.from_pretrained` loads; `import_hf` writes weights under the trainer's own
names, from which `make pretrain INIT=FOLDER` starts. Both are byte for byte the same for the same weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from dots_data.typed_yaml import to_mapping
from dots_train.config import ModelConfig
from dots_train.model.hf import FLOAT32, Part, part_shape, parts, shapes, to_hf
from dots_train.weights import shards
from dots_train.weights.shards import SHARD_BYTES, Entry, WeightsError
from dots_train.weights.sources import NATIVE, NATIVE_FORMAT, HuggingFace, Weights, half

TOKENIZER = "tokenizer.json"
_NATIVE_STEM = "weights"
_JOB = """\
# Training that starts from the weights beside this file. Name the shards and the output with DATA= and OUTPUT=, and
# lay over it what this run does otherwise: curriculum, sequence_length, device (dots_train/config.py has every key).
"""


def export_hf(
    weights: Weights,
    output: Path,
    *,
    dtype: torch.dtype = torch.bfloat16,
    positions: int,
    eos: int | None,
    texts: Mapping[str, str | bytes],
    config: ModelConfig | None = None,
    shard_bytes: int = SHARD_BYTES,
) -> None:
    """Write a folder that transformers loads.

    Args:
        dtype: of the file; the router stays float32 in any.
        positions: the longest sequence that the model was trained on.
        eos: the id that ends a document.
        texts: further files by name: the tokenizer's, the card.
        config: the model as config.json tells it, where that is not what the weights say (another RoPE base).

    Raises:
        WeightsError: `output` holds something, the disk is too small, or a tensor has a number that is not finite.
        OSError: it could not be written; nothing is left of it.
    """
    sources = {p.key: (name, p) for name in shapes(weights.config) for p in parts(name, weights.config)}
    entries = {key: _entry(weights.config, name, part, dtype) for key, (name, part) in sources.items()}

    def read(key: str) -> Tensor:
        name, part = sources[key]
        if part.expert is None:
            return _finite(weights.read(name), key)
        expert = weights.read(name, slice(part.expert, part.expert + 1))[0]
        return _finite(half(expert, part).clone(), key)  # a view would hold the other half as well

    with shards.new_folder(output, shards.total_bytes(entries)) as folder:
        shards.write(folder, "model", entries, read, shard_bytes)
        shards.write_json(folder / "config.json", to_hf(config or weights.config, dtype, positions, eos))
        # Greedy until the end of a document: a base model has no other settings that are known to be good.
        ends = {"eos_token_id": eos, "pad_token_id": eos, "do_sample": False}
        shards.write_json(folder / "generation_config.json", ends)
        for name, content in texts.items():
            (folder / name).write_bytes(content.encode("utf-8") if isinstance(content, str) else content)


def import_hf(source: Path, output: Path, shard_bytes: int = SHARD_BYTES) -> ModelConfig:
    """Write the weights of a folder of transformers under the trainer's names, in the types they have there.

    Beside them: `job.yaml`, which starts a run from them, and the folder's tokenizer.json.

    Raises:
        WeightsError: the folder is not a whole dots1 model, `output` holds something, the disk is too small, or a
            tensor has a number that is not finite.
        OSError: it could not be written; nothing is left of it.
    """
    weights = HuggingFace(source)
    config = weights.config
    entries = {name: Entry(shape, weights.dtype(name)) for name, shape in shapes(config).items()}
    with shards.new_folder(output, shards.total_bytes(entries)) as folder:
        shards.write(folder, _NATIVE_STEM, entries, lambda name: _finite(weights.read(name), name), shard_bytes)
        shards.write_json(folder / NATIVE, {"format": NATIVE_FORMAT, "model": to_mapping(config)})
        (folder / "job.yaml").write_text(_JOB + _job(output, config), encoding="utf-8")
        if (source / TOKENIZER).is_file():
            (folder / TOKENIZER).write_bytes((source / TOKENIZER).read_bytes())
    return config


def _entry(config: ModelConfig, name: str, part: Part, dtype: torch.dtype) -> Entry:
    kept = name.endswith(FLOAT32)
    return Entry(part_shape(shapes(config)[name], part), torch.float32 if kept else dtype)


def _job(output: Path, config: ModelConfig) -> str:
    job: dict[str, Any] = {"init": str(output.resolve()), "model": to_mapping(config)}
    return yaml.safe_dump(job, sort_keys=False)


def _finite(tensor: Tensor, key: str) -> Tensor:
    # Both ends are NaN where any number is; unlike isfinite this takes no memory.
    if not all(torch.isfinite(end) for end in tensor.aminmax()):
        raise WeightsError(f"{key}: holds numbers that are not finite; these weights are damaged")
    return tensor
