"""What a training run is, typed: the model, its recipe, where it reads and writes.

A job file names a preset and what it changes; both are YAML and go through `dots_data.typed_yaml`, so an
unknown key is an error that suggests the nearest one. Presets lie in `dots_train/presets/`: `debug` (a CPU),
`small` (about 1B parameters, one GPU), `dots1` (the released 142B model with the recipe of the technical
report).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import yaml

from dots_data.typed_yaml import ConfigError, build, read_yaml, to_mapping
from dots_train.curriculum import Curriculum, Span, parse_tokens, scaled
from dots_train.data.objects import StorageConfig

PRESETS = Path(__file__).parent / "presets"

LOGITS_AT_ONCE = 2**28
"""That many are made at once for a loss: 1 GiB in float32. All of a window of 32K would be 20 GB in the released model,
and their gradients as much again."""

# What may change between two parts of one run: where it reads and writes, how often it reports and saves, on how many
# ranks it runs.
# Everything else decides the numbers, and a run that changed it would not be the same run.
_FREE = (
    *("preset", "data", "output", "checkpoint", "log_every", "tensorboard", "verify_data", "storage"),
    *("layout", "guards", "activation_checkpointing", "mixture", "evaluation"),
)


@dataclass(frozen=True)
class ModelConfig:
    """The architecture of the dots.llm1 report, section 2; defaults are the released model's sizes."""

    vocab_size: int = 0
    """Rows of the embedding; 0 takes the size of the vocabulary that the shards were made with."""
    hidden_size: int = 4096
    layers: int = 62
    dense_layers: int = 1
    """The first layers, whose feed-forward network is dense."""
    dense_ffn_size: int = 10944
    heads: int = 32
    head_dim: int = 128
    experts: int = 128
    experts_per_token: int = 6
    shared_experts: int = 2
    expert_ffn_size: int = 1408
    routed_scaling: float = 2.5
    """Factor on the normalised weights of the routed experts; the shared experts are added unscaled."""
    rope_theta: float = 1e7
    norm_eps: float = 1e-5
    init_std: float = 0.006

    def __post_init__(self) -> None:
        for name in ("hidden_size", "layers", "dense_ffn_size", "heads", "experts", "experts_per_token"):
            _require(getattr(self, name) >= 1, f"{name} must be at least 1, found {getattr(self, name)}")
        for name in ("shared_experts", "expert_ffn_size"):
            _require(getattr(self, name) >= 1, f"{name} must be at least 1, found {getattr(self, name)}")
        _require(self.vocab_size >= 0, f"vocab_size must not be negative, found {self.vocab_size}")
        _require(
            0 <= self.dense_layers <= self.layers,
            f"dense_layers is {self.dense_layers}, which is not between 0 and layers ({self.layers})",
        )
        _require(
            self.experts_per_token <= self.experts,
            f"experts_per_token is {self.experts_per_token}, more than the {self.experts} experts there are",
        )
        _require(
            self.head_dim >= 2 and self.head_dim % 2 == 0,
            f"head_dim must be even (rotary embedding turns pairs), found {self.head_dim}",
        )
        for name in ("hidden_size", "expert_ffn_size"):
            # torch's grouped matrix product wants rows that begin on 16 bytes, in bfloat16 too.
            _require(
                getattr(self, name) % 8 == 0,
                f"{name} must be a multiple of 8 (grouped matrix products need rows aligned to 16 bytes), "
                f"found {getattr(self, name)}",
            )


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW as in the report's section 4.2."""

    betas: tuple[float, ...] = (0.9, 0.95)
    eps: float = 1e-8
    weight_decay: float = 0.1
    clip_norm: float = 1.0

    def __post_init__(self) -> None:
        _require(
            len(self.betas) == 2 and all(0 <= beta < 1 for beta in self.betas),
            f"betas must be two numbers in [0, 1), found {list(self.betas)}",
        )
        _require(self.weight_decay >= 0, f"weight_decay must not be negative, found {self.weight_decay}")
        _require(self.clip_norm > 0, f"clip_norm must be positive, found {self.clip_norm}")


@dataclass(frozen=True)
class BalanceConfig:
    """How expert load is kept even. The report gives no rates; these are Megatron's and DeepSeek-V3's."""

    bias_rate: float = 1e-3
    """How far an expert's selection bias moves after each global batch."""
    sequence_alpha: float = 1e-4
    """Weight of the sequence-wise balance loss, averaged over layers."""


@dataclass(frozen=True)
class GuardConfig:
    """When a step is not to be trusted."""

    skip_in_a_row: int = 10
    """A step whose loss or gradient is not finite changes nothing; after so many one after another training stops."""
    find_first: bool = False
    """Look in every step for the first module whose output is not finite, and name it. Slow."""
    dead_after: int = 100
    """An expert that was given no token for so many steps is named."""

    def __post_init__(self) -> None:
        for name in ("skip_in_a_row", "dead_after"):
            _require(getattr(self, name) >= 1, f"{name} must be at least 1, found {getattr(self, name)}")


@dataclass(frozen=True)
class CheckpointConfig:
    every_steps: int = 100
    keep: int = 3
    """How many of the newest checkpoints stay."""
    milestone: int | str = 0
    """Tokens after each of which the next checkpoint is kept for ever, as 1T; 0: none is."""

    @property
    def milestone_tokens(self) -> int:
        return parse_tokens(self.milestone)

    def __post_init__(self) -> None:
        _require(self.milestone_tokens >= 0, f"milestone must not be negative, found {self.milestone}")
        _require(self.every_steps >= 1, f"every_steps must be at least 1, found {self.every_steps}")
        _require(self.keep >= 1, f"keep must be at least 1, found {self.keep}")


@dataclass(frozen=True)
class Layout:
    """How the processes of a run divide the work; no number of the run depends on it, but for the last bits.

    There are pp * dp_replicate * dp_shard processes.
    """

    pp: int = 1
    """Ranks of the pipeline."""
    vpp: int = 1
    """Parts of the model that each rank of the pipeline holds; more than one interleaves them."""
    dp_replicate: int = 1
    """Copies of the model (HSDP)."""
    dp_shard: int = 1
    """Ranks that divide a copy's weights and optimizer among them (FSDP)."""
    ep: int = 1
    """Ranks of dp_shard that divide the experts of a layer among them."""
    schedule: Literal["1f1b", "overlapped"] = "1f1b"
    """overlapped: the experts' all-to-all runs beside the computation of another micro-batch. Changes no number."""

    def __post_init__(self) -> None:
        for name in ("pp", "vpp", "dp_replicate", "dp_shard", "ep"):
            _require(getattr(self, name) >= 1, f"{name} must be at least 1, found {getattr(self, name)}")
        _require(self.dp_shard % self.ep == 0, f"ep is {self.ep}, which does not divide dp_shard ({self.dp_shard})")
        _require(self.pp > 1 or self.vpp == 1, f"vpp is {self.vpp}, but there is no pipeline: pp is 1")
        if self.schedule == "overlapped":
            _require(
                self.pp == 1 or self.vpp > 1,
                f"schedule is overlapped, which needs several parts on each of the pp {self.pp} ranks of the pipeline: "
                "set vpp to 2 or more",
            )

    @property
    def world(self) -> int:
        """Processes."""
        return self.pp * self.dp_replicate * self.dp_shard

    @property
    def dp(self) -> int:
        """Ranks that read sequences of their own."""
        return self.dp_replicate * self.dp_shard

    @property
    def stages(self) -> int:
        """Parts of the model in all; part n is on pipeline rank n % pp."""
        return self.pp * self.vpp


@dataclass(frozen=True)
class EvaluationConfig:
    """Validation beside training."""

    data: str = ""
    """Folder of held-out token shards, made with the tokenizer of the others; empty: no validation."""
    every_steps: int = 500
    windows: int = 64
    """Of each source; rounded down to what divides among the ranks."""

    def __post_init__(self) -> None:
        for name in ("every_steps", "windows"):
            _require(getattr(self, name) >= 1, f"{name} must be at least 1, found {getattr(self, name)}")


@dataclass(frozen=True)
class Job:
    """One training run."""

    model: ModelConfig
    curriculum: Curriculum
    preset: str = "debug"
    data: str | tuple[str, ...] = "build/tokens"
    """Folder of token shards with their manifest.json, or its URL: s3://, gs://, az://, https://. Several with a
    mixture."""
    mixture: str = ""
    """File that says how the sources of the shards are weighted (jobs/mixtures/); empty: all shards are one stream. It
    may change between two parts of a run, as long as what was read stays as it was."""
    output: str = "build/model"
    init: str = ""
    """Folder of weights to start from: of `dots import`, of transformers, or a checkpoint of another run; none draws
    them at random from the seed."""
    sequence_length: int = 8192
    micro_batch: int = 1
    """Sequences in one forward and backward pass; a batch of the curriculum is made of several."""
    packed: bool = False
    """Rows of whole documents, best-fit packed and filled up, rather than windows of the stream."""
    seed: int = 0
    """Seeds both the initial weights and the order of the data."""
    device: Literal["cpu", "cuda"] = "cpu"
    threads: int = 2
    """CPU threads; part of the run's identity, since sums split over more threads round differently."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Of the computation; the weights, the router and the optimizer are always float32."""
    activation_checkpointing: bool = False
    """Keep of each layer its input, the routing and what the all-to-all brought, and compute the rest again."""
    layout: Layout = field(default_factory=Layout)
    experts: str = "auto"
    """Backend of the expert products: reference, fused (GPUs from Hopper on), or auto, which takes fused on those."""
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    balance: BalanceConfig = field(default_factory=BalanceConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    guards: GuardConfig = field(default_factory=GuardConfig)

    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    scale: float = 1.0
    """Shrinks the curriculum for a small run, see dots_train.curriculum.scaled. `load_job` applies it: the job that it
    returns has the smaller curriculum, and a scale of 1 again."""
    log_every: int = 10
    """Steps between two lines on the screen; metrics.jsonl has every step."""
    tensorboard: bool = True
    """Write TensorBoard events, where the package is installed."""
    verify_data: bool = True
    """Check that every shard is there, with its size and schema, before the first step."""
    storage: StorageConfig = field(default_factory=StorageConfig)
    """How data in object storage is read: its cache, retries and their bounds."""

    @property
    def folders(self) -> tuple[str, ...]:
        """`data` as a list."""
        return (self.data,) if isinstance(self.data, str) else self.data

    def __post_init__(self) -> None:
        for name in ("sequence_length", "micro_batch", "threads", "log_every"):
            _require(getattr(self, name) >= 1, f"{name} must be at least 1, found {getattr(self, name)}")


def presets() -> list[str]:
    return sorted(file.stem for file in PRESETS.glob("*.yaml"))


def preset(name: str) -> dict[str, Any]:
    """The preset's YAML as a mapping. Raises ConfigError for an unknown name."""
    if name not in presets():
        raise ConfigError(f"unknown preset {name!r}; there are {', '.join(presets())}")
    return read_yaml(PRESETS / f"{name}.yaml")


def load_job(path: str | Path, overrides: Sequence[str] = ()) -> Job:
    """Read a job file over its preset, apply overrides of the form `checkpoint.keep=5`, then the job's scale.

    Lists (the phases of the curriculum) are replaced as a whole, never merged. The name of a preset that is no file is
    taken for a job of that preset alone.

    Raises:
        ConfigError: the file, a key or a value is wrong; the message names it.
    """
    only_preset = str(path) in presets() and not Path(path).exists()
    values, where = {"preset": str(path)} if only_preset else read_yaml(path), str(path)
    for override in overrides:
        values = _merge(values, _parse_override(override))
        where = f"{path} with --set"
    name = values.get("preset", "debug")
    if not isinstance(name, str):
        raise ConfigError(f"{where}: preset: expected a name, found {name!r}")
    job = build(Job, _merge(preset(name), values), where)
    try:
        smaller = scaled(job.curriculum, job.scale, job.sequence_length)
    except ValueError as error:
        raise ConfigError(f"{where}: {error}") from error
    return replace(job, curriculum=smaller, scale=1.0)


def identity(job: Job) -> dict[str, Any]:
    """The part of a job that decides the numbers, as plain values."""
    return {key: value for key, value in to_mapping(job).items() if key not in _FREE}


def differences(saved: Mapping[str, Any], current: Mapping[str, Any], prefix: str = "") -> list[str]:
    """One entry for each value in which two identities differ: `model.layers is 4 there, 6 here`."""
    found = []
    for key in sorted({*saved, *current}):
        there, here = saved.get(key), current.get(key)
        if isinstance(there, Mapping) and isinstance(here, Mapping):
            found += differences(there, here, f"{prefix}{key}.")
        elif there != here:
            found.append(f"{prefix}{key} is {there!r} there, {here!r} here")
    return found


def check_layout(job: Job, layout: Layout, world: int) -> None:
    """Refuse a layout that the job or the number of ranks cannot have; to be called before any process group is made.

    Raises:
        ConfigError: one sentence that names the numbers that do not fit, and what would.
    """
    try:
        _check_ranks(job.model, layout, world)
        for span in job.curriculum.spans(job.sequence_length):
            _check_batch(job, layout, span)
    except ValueError as error:
        raise ConfigError(f"layout: {error}") from error


def _check_ranks(model: ModelConfig, layout: Layout, world: int) -> None:
    product = f"pp {layout.pp} x dp_replicate {layout.dp_replicate} x dp_shard {layout.dp_shard}"
    _require(layout.world == world, f"{product} is {layout.world} ranks, but there are {world}")
    _require(
        model.experts % layout.ep == 0,
        f"the {model.experts} experts of a layer do not divide among ep {layout.ep} ranks",
    )
    # Within an expert FSDP divides rows, and evenly.
    among = layout.dp_shard // layout.ep
    for name, rows in (("2 * expert_ffn_size", 2 * model.expert_ffn_size), ("hidden_size", model.hidden_size)):
        _require(
            layout.ep == 1 or rows % among == 0,
            f"{name} is {rows}, which does not divide among the {among} ranks (dp_shard / ep) that share an expert",
        )
    _require(
        layout.ep == 1 or model.dense_layers < model.layers,
        f"ep is {layout.ep}, but the model has no layer with experts (dense_layers is {model.dense_layers})",
    )
    _require(
        layout.schedule != "overlapped" or layout.ep > 1,
        "schedule is overlapped, which hides the experts' all-to-all, but there is none: ep is 1; leave schedule out",
    )
    _require(
        layout.stages <= model.layers,
        f"the model's {model.layers} layers do not divide among pp {layout.pp} x vpp {layout.vpp} = {layout.stages} "
        "stages; each needs at least one",
    )


def _check_batch(job: Job, layout: Layout, span: Span) -> None:
    """Whether every rank gets as much as the others, and the pipeline schedule enough equal micro-batches."""
    where = f"phase {span.phase.name!r}: the batch of {span.sequences:,} sequences"
    whole_ones = layout.pp > 1 or layout.schedule == "overlapped"
    unit = layout.dp * (job.micro_batch if whole_ones else 1)
    whole = math.lcm(unit * (layout.pp if layout.vpp > 1 else 1), job.curriculum.batch_multiple)
    do = f"set curriculum.batch_multiple to {whole}"
    asked = f"{layout.dp} data-parallel ranks" + (f" in micro-batches of {job.micro_batch}" if whole_ones else "")
    _require(span.sequences % unit == 0, f"{where} does not divide among {asked}; {do}")
    count = span.sequences // unit
    if layout.pp == 1:
        _require(
            layout.schedule != "overlapped" or count >= 2,
            f"{where} gives each rank {count} micro-batch, and schedule overlapped needs two to run together; "
            "take a larger batch, smaller micro-batches or fewer data-parallel ranks",
        )
        return
    _require(
        count >= layout.pp,
        f"{where} gives each rank {count} micro-batches, fewer than the pipeline's {layout.pp} ranks; "
        "take a larger batch, smaller micro-batches or fewer data-parallel ranks",
    )
    # torch's Interleaved1F1B goes in rounds of at least pp micro-batches, all of the same size.
    rounds = count // layout.pp
    _require(
        layout.vpp == 1 or count % rounds == 0,
        f"{where} gives each rank {count} micro-batches, which the interleaved schedule cannot divide into {rounds} "
        f"equal rounds over {layout.pp} pipeline ranks; {do}",
    )


def _parse_override(text: str) -> dict[str, Any]:
    key, equals, value = text.partition("=")
    if not equals or not all(key.split(".")):
        raise ConfigError(f"--set {text}: expected KEY=VALUE, for example --set checkpoint.keep=5")
    try:
        nested: Any = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {text}: the value is not valid YAML") from error
    for part in reversed(key.split(".")):
        nested = {part: nested}
    assert isinstance(nested, dict)
    return nested


def _merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        inner = merged.get(key)
        both = isinstance(inner, Mapping) and isinstance(value, Mapping)
        merged[key] = _merge(inner, value) if both else value  # type: ignore[arg-type]
    return merged


def _require(condition: bool, sentence: str) -> None:
    if not condition:
        raise ValueError(sentence)
