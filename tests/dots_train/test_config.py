"""Jobs and presets: what is read, what is merged, what is refused and in which words."""

from __future__ import annotations

from pathlib import Path

import pytest

from dots_data.typed_yaml import ConfigError, build
from dots_train.config import (
    PRESETS,
    Job,
    Layout,
    ModelConfig,
    check_layout,
    differences,
    identity,
    load_job,
    preset,
)

JOBS = Path(__file__).resolve().parents[2] / "jobs"


@pytest.mark.parametrize("name", sorted(file.stem for file in PRESETS.glob("*.yaml")))
def test_every_preset_is_a_whole_job(name: str) -> None:
    assert build(Job, preset(name), name).curriculum.tokens > 0


def test_the_released_model() -> None:
    assert build(Job, preset("dots1"), "dots1").model == ModelConfig(vocab_size=152064)


@pytest.mark.parametrize(
    ("file", "data", "output"),
    [
        ("pretrain.yaml", "build/tokens", "build/model"),
        ("pretrain-demo.yaml", "build/demo/tokens", "build/demo/model"),
    ],
)
def test_the_jobs_of_the_make_targets(file: str, data: str, output: str) -> None:
    job = load_job(JOBS / file)
    assert (job.data, job.output, job.preset) == (data, output, "debug")


def test_a_job_is_laid_over_its_preset_and_overrides_over_both(tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    path.write_text("preset: debug\nmodel: {layers: 7}\ncheckpoint: {keep: 9}\n")
    job = load_job(path, ["model.layers=8", "curriculum.warmup_steps=5", "seed=3"])
    base = build(Job, preset("debug"), "debug")
    assert (job.model.layers, job.checkpoint.keep, job.seed) == (8, 9, 3)
    assert job.model.hidden_size == base.model.hidden_size
    assert job.curriculum.warmup_steps == 5
    assert job.curriculum.phases == base.curriculum.phases


@pytest.mark.parametrize(
    ("text", "overrides", "message"),
    [
        ("model: {layer: 7}", [], r"job.yaml: model: unknown key 'layer'; did you mean 'layers'\?"),
        ("preset: debgu", [], "unknown preset 'debgu'; there are debug, dots1, small"),
        ("preset: [debug]", [], "preset: expected a name"),
        ("model: 5", [], "model: expected keys and values, found 5"),
        ("model: {experts_per_token: 99}", [], "experts_per_token is 99, more than the 16 experts"),
        ("model: {dense_layers: 9}", [], "dense_layers is 9, which is not between 0 and layers"),
        ("model: {head_dim: 5}", [], "head_dim must be even"),
        ("model: {expert_ffn_size: 20}", [], "expert_ffn_size must be a multiple of 8"),
        ("precision: float16", [], "precision: 'float16' is not one of 'float32', 'bfloat16'"),
        ("optimizer: {betas: [0.9]}", [], "betas must be two numbers"),
        ("micro_batch: 0", [], "micro_batch must be at least 1"),
        ("layout: {pp: 0}", [], "layout: pp must be at least 1, found 0"),
        ("layout: {dp_shard: 4, ep: 3}", [], r"layout: ep is 3, which does not divide dp_shard \(4\)"),
        ("layout: {vpp: 2}", [], "layout: vpp is 2, but there is no pipeline: pp is 1"),
        ("layout: {tp: 2}", [], "layout: unknown key 'tp'"),
        (
            "seed: 0",
            ["checkpoint.keeps=1"],
            "with --set: checkpoint: unknown key 'keeps'; did you mean 'keep'",
        ),
        ("seed: 0", ["seed"], "--set seed: expected KEY=VALUE"),
        ("seed: 0", ["=5"], "--set =5: expected KEY=VALUE"),
        ("seed: 0", ["seed=[1"], "the value is not valid YAML"),
        ("- 1", [], "expected keys and values at the top level"),
    ],
)
def test_jobs_that_cannot_be_meant(tmp_path: Path, text: str, overrides: list[str], message: str) -> None:
    path = tmp_path / "job.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_job(path, overrides)


def test_identity_leaves_out_what_decides_no_number(tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    path.write_text("preset: debug")
    first = identity(load_job(path))
    free = ["output=elsewhere", "data=there", "checkpoint.keep=9", "log_every=1", "tensorboard=false", "layout.pp=2"]
    assert differences(first, identity(load_job(path, free))) == []
    changed = identity(load_job(path, ["model.layers=6", "seed=4", "threads=1"]))
    assert differences(first, changed) == [
        "model.layers is 3 there, 6 here",
        "seed is 0 there, 4 here",
        "threads is 2 there, 1 here",
    ]


def test_a_preset_is_a_job_of_its_own() -> None:
    assert load_job("debug") == build(Job, preset("debug"), "debug")


def test_a_loaded_job_is_scaled_once(tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    path.write_text("preset: debug\nscale: 0.25\n")
    job = load_job(path)
    assert (job.scale, job.curriculum.tokens) == (1.0, 300_032)
    assert job.curriculum.phases[0].batch_tokens == 256
    assert build(Job, identity(job), "saved").curriculum == job.curriculum


@pytest.mark.parametrize(
    ("layout", "overrides"),
    [
        (Layout(), []),
        (Layout(), ["micro_batch=5"]),
        (Layout(pp=8, dp_shard=64, ep=16), []),
        (Layout(pp=8, vpp=2, dp_shard=16, ep=16), []),
        (Layout(pp=4, dp_replicate=2, dp_shard=8, ep=4), ["micro_batch=4"]),
        (Layout(dp_shard=128, ep=128), []),
    ],
)
def test_layouts_that_the_released_model_can_have(layout: Layout, overrides: list[str]) -> None:
    check_layout(load_job("dots1", overrides), layout, layout.world)


@pytest.mark.parametrize(
    ("layout", "world", "overrides", "message"),
    [
        (Layout(pp=2, dp_shard=4), 9, [], "pp 2 x dp_replicate 1 x dp_shard 4 is 8 ranks, but there are 9"),
        (Layout(dp_shard=5, ep=5), 5, [], "the 128 experts of a layer do not divide among ep 5 ranks"),
        (Layout(dp_shard=6, ep=2), 6, [], "expert_ffn_size is 2816, which does not divide among the 3 ranks"),
        (Layout(dp_shard=2, ep=2), 2, ["model.dense_layers=62"], "the model has no layer with experts"),
        (Layout(pp=32, vpp=2), 32, [], "62 layers do not divide among pp 32 x vpp 2 = 64 stages"),
        (
            Layout(dp_shard=3),
            3,
            [],
            "phase 'stable': the batch of 7,808 sequences does not divide among 3 data-para.*384",
        ),
        (Layout(pp=2, dp_shard=64), 128, ["micro_batch=3"], "64 data-parallel ranks in micro-batches of 3; .* to 384"),
        (
            Layout(pp=62, dp_shard=128),
            62 * 128,
            [],
            "gives each rank 61 micro-batches, fewer than the pipeline's 62 ranks",
        ),
        (
            Layout(pp=8, vpp=2, dp_shard=64, ep=16),
            512,
            [],
            "cannot divide into 15 equal rounds .*batch_multiple to 512",
        ),
    ],
)
def test_layouts_that_do_not_divide(layout: Layout, world: int, overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=f"^layout: .*{message}") as error:
        check_layout(load_job("dots1", overrides), layout, world)
    assert "\n" not in str(error.value)


def test_what_a_refusal_says_to_do_does_help() -> None:
    layout = Layout(pp=8, vpp=2, dp_shard=64, ep=16)
    check_layout(load_job("dots1", ["curriculum.batch_multiple=512"]), layout, 512)
