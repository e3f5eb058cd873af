"""Where weights are read from, under the trainer's names: a folder of transformers, an import, a checkpoint.

All give one tensor at a time, or some of its first dimension, so that a rank can take its share alone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import reduce
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from dots_data.typed_yaml import ConfigError, build, to_mapping
from dots_train import checkpoint
from dots_train.checkpoint import CheckpointError
from dots_train.config import ModelConfig, differences
from dots_train.model.hf import Part, from_hf, part_shape, parts, shapes
from dots_train.weights.shards import ALL, Shards, WeightsError, read_json

NATIVE = "weights.json"
NATIVE_FORMAT = "dots-weights/1"


class Weights(Protocol):
    """A whole model's weights; `where` names them in messages."""

    @property
    def config(self) -> ModelConfig: ...
    @property
    def where(self) -> str: ...
    def read(self, name: str, rows: slice = ALL) -> Tensor:
        """A tensor of `shapes(config)`, or some rows of it, on the CPU in the type that it is stored in."""
        ...


@dataclasses.dataclass(frozen=True)
class StateDict:
    """Tensors that are in memory, or mapped from a file."""

    config: ModelConfig
    tensors: Mapping[str, Tensor]
    where: str = "the model"

    def __post_init__(self) -> None:
        found = {name: tuple(tensor.shape) for name, tensor in self.tensors.items()}
        _compare(shapes(self.config), found, lambda name: self.where)

    def read(self, name: str, rows: slice = ALL) -> Tensor:
        return self.tensors[name][rows]


class Native:
    """What `dots import` wrote: the trainer's own names, experts stacked."""

    def __init__(self, folder: Path):
        self.where = str(folder)
        said = read_json(folder / NATIVE)
        if said.get("format") != NATIVE_FORMAT:
            raise WeightsError(f"{folder / NATIVE}: format is {said.get('format')!r}, not {NATIVE_FORMAT!r}")
        try:
            self.config = build(ModelConfig, said.get("model", {}), str(folder / NATIVE))
        except ConfigError as error:
            raise WeightsError(str(error)) from error
        self._shards = Shards(folder, "weights")
        _compare(shapes(self.config), {k: e.shape for k, e in self._shards.entries.items()}, self._shards.file)

    def read(self, name: str, rows: slice = ALL) -> Tensor:
        return self._shards.read(name, rows)


class HuggingFace:
    """A folder that transformers writes or reads: the release, or an export.

    Experts may be one tensor each, as in the release, or stacked already, as some tools write them.

    Raises:
        WeightsError: another architecture, a key too few or too many, a wrong shape, a damaged file, a pickle.
    """

    def __init__(self, folder: Path):
        self.where = str(folder)
        path = folder / "config.json"
        try:
            self.config = from_hf(read_json(path), str(path))
        except ValueError as error:
            raise WeightsError(str(error)) from error
        self._shards = Shards(folder)
        self._require_plausible(path)
        try:
            names = shapes(self.config)
        except RuntimeError as error:  # torch, of a tensor with more bytes than can be counted
            raise WeightsError(f"{path}: its sizes are impossible ({str(error).splitlines()[0]})") from error
        self._parts = {name: list(self._found(name)) for name in names}
        wanted = {p.key: part_shape(names[name], p) for name, found in self._parts.items() for p in found}
        _compare(wanted, {key: entry.shape for key, entry in self._shards.entries.items()}, self._shards.file)

    def read(self, name: str, rows: slice = ALL) -> Tensor:
        found = self._parts[name]
        if found[0].expert is None:
            return self._shards.read(found[0].key, rows)
        shape = shapes(self.config)[name]
        chosen = range(*rows.indices(shape[0]))
        stacked = torch.empty(len(chosen), *shape[1:], dtype=self.dtype(name))
        for part in found:
            if part.expert is not None and part.expert in chosen:
                half(stacked[chosen.index(part.expert)], part).copy_(self._shards.read(part.key))
        return stacked

    def dtype(self, name: str) -> torch.dtype:
        """The type that a tensor is stored in; of experts stored in several, one that holds all."""
        return reduce(torch.promote_types, (self._shards.entries[part.key].dtype for part in self._parts[name]))

    def _require_plausible(self, path: Path) -> None:
        """Every layer and every expert has a tensor; a number that cannot be true is not counted up to."""
        there = len(self._shards.entries)
        stacked = any(key.endswith(".mlp.experts.down_proj") for key in self._shards.entries)
        for key, number in (("num_hidden_layers", self.config.layers), ("n_routed_experts", self.config.experts)):
            if number > there and not (stacked and key == "n_routed_experts"):
                raise WeightsError(f"{path}: {key} is {number:,}, but there are {there:,} tensors in all")

    def _found(self, name: str) -> Iterator[Part]:
        stacked = f"model.{name}"
        if stacked in self._shards.entries:
            yield Part(stacked)
        else:
            yield from parts(name, self.config)


class Stored:
    """A checkpoint of the trainer. Of its tensors one at a time is in memory.

    Raises:
        WeightsError: a file is missing or damaged, or it does not say which model it is.
    """

    def __init__(self, path: Path):
        self.where = str(path)
        try:
            self._checkpoint = checkpoint.load(path)
            self.config = build(ModelConfig, self.state["config"]["model"], f"{path / 'state.json'}: config: model")
        except CheckpointError as error:
            raise WeightsError(str(error)) from error
        except (KeyError, TypeError, ConfigError) as error:
            raise WeightsError(f"{path / 'state.json'}: does not say which model it is ({error})") from error
        self._last: tuple[str, Tensor] | None = None

    @property
    def state(self) -> dict[str, Any]:
        return self._checkpoint.state

    @property
    def step(self) -> int:
        return self._checkpoint.step

    def read(self, name: str, rows: slice = ALL) -> Tensor:
        # The experts of a layer are asked for one by one, and are one tensor here.
        if self._last is None or self._last[0] != name:
            self._last = None
            tensor = torch.empty(shapes(self.config)[name])
            try:
                self._checkpoint.read({f"model.{name}": tensor}, alone=True)
            except CheckpointError as error:
                raise WeightsError(str(error)) from error
            self._last = name, tensor
        return self._last[1][rows]


def half(tensor: Tensor, part: Part) -> Tensor:
    """The share of one expert's [2F, D] (or [D, F]) that is this part: a view."""
    return tensor if part.half is None else tensor.chunk(2)[part.half]


def open_weights(folder: str | Path) -> Weights:
    """The weights in a folder, whichever of the known kinds it is.

    Raises:
        WeightsError: it is none of them, or what it holds is not whole.
    """
    path = Path(folder)
    if (path / NATIVE).is_file():
        return Native(path)
    if (path / "state.json").is_file():
        return Stored(path)
    if (path / "config.json").is_file():
        return HuggingFace(path)
    raise WeightsError(
        f"{path}: holds no weights; name a folder of transformers (config.json and safetensors), one that "
        "`dots import` wrote, or a checkpoint (checkpoints/step-N)"
    )


@torch.no_grad()
def load_weights(model: nn.Module, weights: Weights, rows: Callable[[str], slice] = lambda name: ALL) -> None:
    """Fill a built model, or a pipeline stage of it, tensor by tensor; types are converted on the way.

    A parameter that FSDP has sharded gets its own share, and no rank reads more than that of the first dimension.
    rows: of a parameter that holds only some of the first dimension and is no DTensor (the experts of one rank).

    Raises:
        WeightsError: a tensor of the model is not among the weights, or has another shape.
    """
    known = shapes(weights.config)
    for name, target in model.state_dict().items():
        if name not in known:
            raise WeightsError(f"{weights.where}: has no {name}, which the model has")
        if isinstance(target, DTensor):
            _fill_share(target, weights, name, known[name])
            continue
        tensor = weights.read(name, rows(name))
        _require_shape(target, tuple(tensor.shape), name, weights)
        target.copy_(tensor)


def _fill_share(target: DTensor, weights: Weights, name: str, shape: tuple[int, ...]) -> None:
    from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

    _require_shape(target, shape, name, weights)
    size, offset = compute_local_shape_and_global_offset(target.shape, target.device_mesh, target.placements)
    local = target.to_local()
    if not local.numel():
        return
    share = weights.read(name, slice(offset[0], offset[0] + size[0]))
    for dimension in range(1, share.ndim):
        share = share.narrow(dimension, offset[dimension], size[dimension])
    local.copy_(share)


def start_from(folder: str | Path, parts: Iterable[nn.Module], config: ModelConfig, tokenizer: Path) -> None:
    """Fill the built parts of a model from a folder of weights, of the same architecture and tokenizer.

    config: of the whole model.
    tokenizer: the tokenizer.json of the shards that it will be trained on.

    Raises:
        WeightsError: the folder holds none, or those of another model or tokenizer.
    """
    weights = open_weights(folder)
    require_same(config, weights)
    require_same_tokenizer(folder, tokenizer)
    for part in parts:
        load_weights(part, weights)


def require_same(wanted: ModelConfig, weights: Weights) -> None:
    """Refuse weights of another architecture than the job's, naming each difference.

    How weights were first drawn is no part of it.

    Raises:
        WeightsError: the two differ.
    """
    there = dataclasses.replace(weights.config, init_std=wanted.init_std)
    changed = differences({"model": to_mapping(there)}, {"model": to_mapping(wanted)})
    if changed:
        raise WeightsError(f"{weights.where}: weights of another model: {'; '.join(changed)}")


def require_same_tokenizer(folder: str | Path, tokenizer: Path) -> None:
    """Refuse weights that were trained with other ids than the shards hold, where their folder has a tokenizer.

    Equal are the same tokens under the same ids.

    Raises:
        WeightsError: they differ, and by which token.
    """
    path = Path(folder) / "tokenizer.json"
    if not (path.is_file() and tokenizer.is_file()):
        return
    theirs, ours = _ids(read_json(path)), _ids(read_json(tokenizer))
    for token, _ in sorted(theirs.items() ^ ours.items(), key=lambda item: (item[1], item[0])):
        raise WeightsError(
            f"{path}: another tokenizer than that of the shards: {token!r} is {_named(theirs, token)} there, "
            f"{_named(ours, token)} in {tokenizer}; tokenize with the tokenizer of these weights"
        )


def _ids(tokenizer: Mapping[str, Any]) -> dict[str, int]:
    vocabulary = tokenizer.get("model", {}).get("vocab", {})
    added = {token["content"]: token["id"] for token in tokenizer.get("added_tokens") or ()}
    return {**(vocabulary if isinstance(vocabulary, dict) else {}), **added}


def _named(ids: Mapping[str, int], token: str) -> str:
    return f"id {ids[token]}" if token in ids else "no token"


def _require_shape(target: Tensor, shape: tuple[int, ...], name: str, weights: Weights) -> None:
    if tuple(target.shape) != shape:
        raise WeightsError(f"{weights.where}: {name} is {list(shape)} there, {list(target.shape)} in the model")


def _compare(
    wanted: Mapping[str, tuple[int, ...]], found: Mapping[str, tuple[int, ...]], file: Callable[[str], object]
) -> None:
    """Name the first key that is missing, too many or of another shape."""
    missing = [key for key in wanted if key not in found]
    if missing:
        more = f" (and {len(missing) - 1} more)" if missing[1:] else ""
        raise WeightsError(f"{_folder(found, file)}: {missing[0]} is missing{more}")
    for key, shape in found.items():
        if key not in wanted:
            raise WeightsError(f"{file(key)}: {key} is no tensor of this model")
        if shape != wanted[key]:
            raise WeightsError(f"{file(key)}: {key} is {list(shape)}, its config says {list(wanted[key])}")


def _folder(found: Mapping[str, Any], file: Callable[[str], object]) -> object:
    for key in found:
        path = file(key)
        return path.parent if isinstance(path, Path) else path
    return "the weights"
