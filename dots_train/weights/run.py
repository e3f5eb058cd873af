"""A run as it can be published: one checkpoint of it, the data it read, and what it wrote of itself on the way."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dots_data.tokens import manifest as manifests
from dots_data.tokens import versions
from dots_data.tokens.manifest import Manifest, ManifestError
from dots_data.typed_yaml import ConfigError, build
from dots_train import checkpoint, metrics
from dots_train.config import ModelConfig
from dots_train.curriculum import Curriculum
from dots_train.weights.shards import WeightsError
from dots_train.weights.sources import Stored


@dataclass(frozen=True)
class Run:
    folder: Path
    step: int
    tokens: int
    job: dict[str, Any]
    """Its whole configuration, as the checkpoint has it."""
    torch_version: str
    weights: Stored
    manifest: Manifest
    tokenizer: bytes
    """The tokenizer.json that the shards were made with."""
    records: list[dict[str, Any]]
    """Of metrics.jsonl, up to this step."""
    config: ModelConfig
    """The model, with the RoPE base of its last step: a stage of long contexts has its own."""
    positions: int
    """The longest window that it was trained on so far."""


def open_run(folder: Path, step: int | None = None, data: str | None = None) -> Run:
    """The checkpoint of `step`, or the newest, and all that belongs to it.

    data: the folder of the shards, where it is not (any more) the one that the job names; only its manifest.json and
    tokenizer.json are read.

    Raises:
        WeightsError: there is no such checkpoint, it is damaged, or the shards are not those that it was trained on.
    """
    path = _checkpoint(folder, step)
    try:
        weights = Stored(path)
    except WeightsError as error:
        raise WeightsError(f"{error}; name an earlier one with --checkpoint") from error
    state = weights.state
    config, positions = _reach(weights)
    manifest, tokenizer = _dataset(Path(data or state["config"]["data"]), str(state["loader"]["manifest"]))
    return Run(
        folder=folder,
        step=weights.step,
        tokens=int(state["tokens"]),
        job=state["config"],
        torch_version=str(state["versions"]["torch"]),
        weights=weights,
        manifest=manifest,
        tokenizer=tokenizer,
        records=[record for record in metrics.read(folder) if record["step"] <= weights.step],
        config=config,
        positions=positions,
    )


def _reach(weights: Stored) -> tuple[ModelConfig, int]:
    """`config` and `positions` of a run, by the phases of its curriculum that had begun."""
    job = weights.state["config"]
    try:
        curriculum = build(Curriculum, job["curriculum"], f"{weights.where}: curriculum")
    except ConfigError as error:
        raise WeightsError(str(error)) from error
    begun = [span for span in curriculum.spans(int(job["sequence_length"])) if span.step < max(1, weights.step)]
    theta = begun[-1].phase.rope_theta or weights.config.rope_theta
    return replace(weights.config, rope_theta=theta), max(span.sequence_length for span in begun)


def _checkpoint(folder: Path, step: int | None) -> Path:
    found = checkpoint.saved(folder / "checkpoints")
    if not found:
        raise WeightsError(f"{folder}: holds no checkpoints; name the output folder of `make pretrain`")
    if step is None:
        return found[0]
    for path in found:
        if path.name == f"step-{step}":
            return path
    raise WeightsError(f"{folder}: has no checkpoint of step {step}; there are {', '.join(p.name for p in found)}")


def _dataset(folder: Path, trained_on: str) -> tuple[Manifest, bytes]:
    where = "name the folder of the shards that the run read with --data"
    try:
        manifest = manifests.read(versions.find(folder, trained_on))
        tokenizer = (manifests.manifest_path(folder).parent / manifest.tokenizer.file).read_bytes()
    except ManifestError as error:
        raise WeightsError(f"{error}; {where}") from error
    except OSError as error:
        raise WeightsError(f"{folder}: its tokenizer cannot be read ({error.strerror}); {where}") from error
    if hashlib.sha256(tokenizer).hexdigest() != manifest.tokenizer.sha256:
        raise WeightsError(f"{folder / manifest.tokenizer.file}: not the tokenizer that made the shards; {where}")
    return manifest, tokenizer
