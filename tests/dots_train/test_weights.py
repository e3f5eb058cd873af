"""Weights in folders: read and written a shard at a time, refused by name, loaded by ranks that hold a share."""

from __future__ import annotations

import dataclasses
import json
import pickle
import shutil
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import distributed, nn

pytest.importorskip("safetensors", reason="safetensors is not installed; it is in the extra train")
from safetensors.torch import load_file, save_file
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from dots_train import checkpoint, metrics
from dots_train.config import Job, Layout, ModelConfig
from dots_train.curriculum import Curriculum, Phase
from dots_train.model.dots1 import Dots1, parameters
from dots_train.model.hf import FLOAT32, from_hf, parts, shapes, to_hf
from dots_train.parallel import mesh
from dots_train.parallel.dispatch import held_here
from dots_train.trainer import Trainer
from dots_train.weights import shards
from dots_train.weights.convert import export_hf, import_hf
from dots_train.weights.shards import Shards, WeightsError
from dots_train.weights.sources import HuggingFace, Native, StateDict, load_weights, open_weights, start_from

SHARD = 15_000


def make(config: ModelConfig, seed: int = 3) -> Dots1:
    model = Dots1(config)
    model.initialize(seed)
    with torch.no_grad():
        for name, buffer in model.named_buffers():
            assert name.endswith("bias")
            buffer.normal_(0, 0.1, generator=torch.Generator().manual_seed(seed))
    return model


def export(model: Dots1, folder: Path, dtype: torch.dtype = torch.float32, **texts: str) -> Path:
    weights = StateDict(model.config, model.state_dict())
    export_hf(weights, folder, dtype=dtype, positions=64, eos=0, texts=texts, shard_bytes=SHARD)
    return folder


@pytest.fixture
def exported(tiny: ModelConfig, tmp_path: Path) -> Path:
    return export(make(tiny), tmp_path / "export")


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def equal(model: nn.Module, expected: nn.Module) -> bool:
    state = expected.state_dict()
    return all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())


def test_names_are_those_of_the_release(tiny: ModelConfig, exported: Path) -> None:
    attention = {f"self_attn.{p}.weight" for p in ("q_proj", "k_proj", "v_proj", "o_proj", "q_norm", "k_norm")}
    both = attention | {"input_layernorm.weight", "post_attention_layernorm.weight"}
    swiglu = {f"{p}_proj.weight" for p in ("gate", "up", "down")}
    mixture = {"gate.weight", "gate.e_score_correction_bias", *(f"shared_experts.{name}" for name in swiglu)}
    mixture |= {f"experts.{e}.{name}" for e in range(tiny.experts) for name in swiglu}
    expected = {"model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"}
    expected |= {f"model.layers.{n}.{name}" for n in (0, 1) for name in both}
    expected |= {f"model.layers.0.mlp.{name}" for name in swiglu} | {f"model.layers.1.mlp.{name}" for name in mixture}
    index = json.loads((exported / "model.safetensors.index.json").read_text())
    assert set(index["weight_map"]) == expected
    files = sorted(set(index["weight_map"].values()))
    assert files == [f"model-{n:05}-of-{len(files):05}.safetensors" for n in range(1, len(files) + 1)]
    assert len(files) > 3 and sorted(p.name for p in exported.glob("*.safetensors")) == files
    assert all((exported / file).stat().st_size < SHARD + 5000 for file in files)
    assert index["metadata"]["total_size"] == sum(t.nbytes for f in files for t in load_file(exported / f).values())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_import_and_export_are_inverse_to_the_bit(tiny: ModelConfig, tmp_path: Path, dtype: torch.dtype) -> None:
    model = make(dataclasses.replace(tiny, layers=3))
    folder = export(model, tmp_path / "export", dtype)
    assert import_hf(folder, tmp_path / "start", SHARD) == model.config
    native = open_weights(tmp_path / "start")
    assert isinstance(native, Native) and isinstance(open_weights(folder), HuggingFace)
    for name, tensor in model.state_dict().items():
        wanted = tensor if name.endswith(FLOAT32) else tensor.to(dtype)
        assert torch.equal(native.read(name), wanted) and native.read(name).dtype == wanted.dtype, name
    export_hf(native, tmp_path / "again", dtype=dtype, positions=64, eos=0, texts={}, shard_bytes=SHARD)
    assert content(tmp_path / "again") == content(folder)


def test_rows_of_a_tensor_are_those_of_the_whole(tiny: ModelConfig, exported: Path, tmp_path: Path) -> None:
    import_hf(exported, tmp_path / "start")
    for weights in (HuggingFace(exported), Native(tmp_path / "start")):
        for name, shape in shapes(tiny).items():
            rows = slice(shape[0] // 4, shape[0] // 2)
            assert torch.equal(weights.read(name, rows), weights.read(name)[rows]), name


def test_experts_that_are_stacked_already_are_read(tiny: ModelConfig, exported: Path, tmp_path: Path) -> None:
    weights = HuggingFace(exported)
    stacked = {name if name.startswith("lm_head") else f"model.{name}": weights.read(name) for name in shapes(tiny)}
    other = tmp_path / "stacked"
    other.mkdir()
    save_file(stacked, other / "model.safetensors")
    shutil.copy(exported / "config.json", other)
    for name in shapes(tiny):
        assert torch.equal(HuggingFace(other).read(name), weights.read(name))


ODD = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.lists(st.integers(), max_size=2)
)


@given(st.dictionaries(st.sampled_from(sorted(to_hf(ModelConfig(vocab_size=8), torch.float32, 8, 0))), ODD, max_size=3))
def test_any_config_is_read_or_refused_by_name(changed: dict[str, Any]) -> None:
    """No value of JSON ends in another error; and what is read means what it says."""
    values = to_hf(ModelConfig(vocab_size=8), torch.float32, 8, 0) | changed
    try:
        found = from_hf(values, "here")
    except ValueError as error:
        assert str(error).startswith("here: ") and "\n" not in str(error)
    else:
        again = to_hf(found, torch.float32, 8, 0)
        assert all(again[key] == values[key] for key in again if again[key] is not None and key in MEANT)


MEANT = ("hidden_size", "num_hidden_layers", "n_routed_experts", "rope_theta", "rms_norm_eps", "norm_topk_prob")


class Counted:
    """Counts the bytes of what it has given out and is still held."""

    def __init__(self, config: ModelConfig):
        self.config, self.where = config, "counted"
        self.held = self.peak = self.given = 0

    def read(self, name: str, rows: slice = shards.ALL) -> torch.Tensor:
        shape = shapes(self.config)[name]
        tensor = torch.zeros(len(range(*rows.indices(shape[0]))), *shape[1:])
        self.held += tensor.nbytes
        self.given += tensor.nbytes
        self.peak = max(self.peak, self.held)
        weakref.finalize(tensor.untyped_storage(), self._freed, tensor.nbytes)
        return tensor

    def _freed(self, size: int) -> None:
        self.held -= size


def test_no_more_than_a_shard_is_in_memory(tiny: ModelConfig, tmp_path: Path) -> None:
    config = dataclasses.replace(tiny, layers=12, experts=32)
    weights = Counted(config)
    export_hf(weights, tmp_path / "export", dtype=torch.float32, positions=64, eos=0, texts={}, shard_bytes=SHARD)
    assert weights.given > 50 * SHARD
    expert = 2 * config.expert_ffn_size * config.hidden_size * 4
    assert SHARD / 2 < weights.peak <= SHARD + expert


def truncate(folder: Path) -> None:
    path = sorted(folder.glob("model-*"))[1]
    path.write_bytes(path.read_bytes()[:-8])


def edit(change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], None]:
    """Rewrite the shard that holds layer 1's first expert, and the index with it."""

    def harm(folder: Path) -> None:
        index = json.loads((folder / "model.safetensors.index.json").read_text())
        file = index["weight_map"]["model.layers.1.mlp.experts.0.gate_proj.weight"]
        tensors = load_file(folder / file)
        change(tensors)
        save_file(tensors, folder / file)
        kept = {key: where for key, where in index["weight_map"].items() if where != file}
        index["weight_map"] = kept | dict.fromkeys(tensors, file)
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))

    return harm


def config(**changed: Any) -> Callable[[Path], None]:
    def harm(folder: Path) -> None:
        values = json.loads((folder / "config.json").read_text()) | changed
        values = {key: value for key, value in values.items() if value != "absent"}
        (folder / "config.json").write_text(json.dumps(values))

    return harm


def index(key: str, file: str) -> Callable[[Path], None]:
    def harm(folder: Path) -> None:
        path = folder / "model.safetensors.index.json"
        values = json.loads(path.read_text())
        values["weight_map"][key] = file
        path.write_text(json.dumps(values))

    return harm


def only_pickles(folder: Path) -> None:
    for path in folder.glob("model*"):
        path.unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps({}))


GATE = "model.layers.1.mlp.experts.0.gate_proj.weight"
HARMS: list[tuple[Callable[[Path], object], str]] = [
    (truncate, r"model-00002-of-000\d+.safetensors: cut or damaged"),
    (lambda folder: sorted(folder.glob("model-*"))[2].unlink(), r"model-00003-of-000\d+.safetensors: missing"),
    (lambda folder: sorted(folder.glob("model-*"))[0].write_bytes(b"\xff" * 64), "model-00001-.*: cut or damaged"),
    (edit(lambda t: t.pop(GATE)), f"export: {GATE} is missing$"),
    (edit(lambda t: t.update({GATE: t[GATE].T.contiguous()})), rf"{GATE} is \[32, 16\], its config says \[16, 32\]"),
    (edit(lambda t: t.update({"model.extra": torch.zeros(1)})), "model.extra is no tensor of this model"),
    (edit(lambda t: t.update({GATE: t[GATE].to(torch.float8_e4m3fn)})), f"{GATE} is of type F8_E4M3"),
    (edit(lambda t: t.update({GATE: t[GATE].int()})), f"{GATE} is of type I32"),
    (index(GATE, "../elsewhere.safetensors"), "is said to lie in '../elsewhere.safetensors'"),
    (index(GATE, "pytorch_model.bin"), "is said to lie in 'pytorch_model.bin'"),
    (index("model.ghost", "model-00001-of-00001.safetensors"), "model-00001-of-00001.safetensors: missing"),
    (lambda f: (f / "model.safetensors.index.json").write_text("{"), r"index\.json: not JSON"),
    (lambda f: (f / "model.safetensors.index.json").write_text("{}"), r"index\.json: has no weight_map"),
    (only_pickles, "pytorch_model.bin: a pickle, which may run code and is never opened"),
    (lambda f: [path.unlink() for path in f.glob("model*")], "holds neither model.safetensors.index.json nor"),
    (lambda f: (f / "config.json").unlink(), "config.json: cannot be read"),
    (lambda f: (f / "config.json").write_text("[]"), "config.json: not a JSON object"),
    (config(model_type="llama"), "model_type is 'llama'; the dots model has 'dots1'"),
    (config(norm_topk_prob=False), "norm_topk_prob is False; the dots model has True"),
    (config(norm_topk_prob="absent"), "norm_topk_prob is None"),
    (config(norm_topk_prob=1), "norm_topk_prob is 1; the dots model has True"),
    (config(n_group=4), "n_group is 4; the dots model has 1"),
    (config(tie_word_embeddings=True), "tie_word_embeddings is True"),
    (config(attention_bias=True), "attention_bias is True"),
    (config(hidden_act="gelu"), "hidden_act is 'gelu'"),
    (config(scoring_func="softmax"), "scoring_func is 'softmax'"),
    (config(num_key_value_heads=1), "num_key_value_heads is 1, num_attention_heads 2; they must be equal"),
    (config(sliding_window=128, max_window_layers=1), "sliding_window is 128 in some layers"),
    (config(layer_types=["full_attention", "sliding_attention"]), "sliding_window is"),
    (config(rope_scaling={"type": "yarn"}), "rope_scaling is .*yarn.*; the dots model has nothing"),
    (config(rope_parameters={"rope_type": "yarn", "rope_theta": 1e4}), "rope_type is 'yarn'"),
    (config(rope_theta="absent"), "rope_theta is missing"),
    (config(rms_norm_eps="absent"), "rms_norm_eps is missing; the defaults of transformers are another model's"),
    (config(hidden_size="32"), "hidden_size is '32', not a number"),
    (config(layer_types=7), "sliding_window is None in some layers"),
    (config(head_dim=7.5), "head_dim is 7.5, not a whole number"),
    (config(num_attention_heads=0, num_key_value_heads=None, head_dim=None), "heads must be at least 1, found 0"),
    (config(hidden_size=2**60), "hidden_size is 1152921504606846976, not a whole number below"),
    (config(hidden_size=2**31 - 8, vocab_size=2**31 - 8), "its sizes are impossible"),
    (config(rms_norm_eps=float("inf")), "rms_norm_eps is inf, not a number"),
    (config(num_hidden_layers=10**9), r"num_hidden_layers is 1,000,000,000, but there are \d+ tensors in all"),
    (config(n_routed_experts=10**9), "n_routed_experts is 1,000,000,000, but there are"),
    (config(num_hidden_layers=2.5), "num_hidden_layers is 2.5, not a whole number"),
    (config(first_k_dense_replace=5), "dense_layers is 5, which is not between 0 and layers"),
    (config(quantization_config={"quant_method": "fp8"}), "quantization_config is .*fp8"),
    (config(n_routed_experts=9), r"export: model.layers.1.mlp.experts.8.gate_proj.weight is missing \(and 2 more\)"),
    (config(vocab_size=65), r"is \[64, 32\], its config says \[65, 32\]"),
]


@pytest.mark.parametrize(("harm", "message"), HARMS)
def test_what_cannot_be_read_is_named(
    harm: Callable[[Path], object], message: str, exported: Path, tmp_path: Path
) -> None:
    harm(exported)
    with pytest.raises(WeightsError, match=message) as caught:
        import_hf(exported, tmp_path / "start")
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.glob("*start*")) and not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_a_number_that_is_not_finite_is_named_and_nothing_is_left(
    tiny: ModelConfig, tmp_path: Path, bad: float
) -> None:
    model = make(tiny)
    with torch.no_grad():
        model.get_parameter("layers.1.mlp.experts.down_proj")[5, 0, 0] = bad
    with pytest.raises(
        WeightsError, match=r"layers\.1\.mlp\.experts\.5\.down_proj\.weight: holds numbers that are not"
    ):
        export(model, tmp_path / "export")
    assert not list(tmp_path.iterdir())


def test_a_folder_that_holds_something_is_left_alone(tiny: ModelConfig, tmp_path: Path) -> None:
    folder = tmp_path / "full"
    folder.mkdir()
    export(make(tiny), folder)  # empty: taken
    before = content(folder)
    with pytest.raises(WeightsError, match="full: holds something already"):
        export(make(tiny, seed=4), folder)
    assert content(folder) == before
    with pytest.raises(WeightsError, match=r"config\.json: holds something already"):
        import_hf(folder, folder / "config.json")


def test_a_disk_too_small_is_refused_before_the_first_byte(
    tiny: ModelConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shards.shutil, "disk_usage", lambda path: usage._replace(free=1000))
    with pytest.raises(WeightsError, match=r"export: needs 0\.\d GB, the disk has 0\.0 GB left"):
        export(make(tiny), tmp_path / "export")
    assert not list(tmp_path.iterdir())


def test_a_write_that_fails_on_the_way_leaves_nothing(
    tiny: ModelConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import safetensors.torch

    calls: list[Path] = []

    def full(tensors: object, path: Path, metadata: object) -> None:
        calls.append(path)
        if len(calls) == 3:
            raise safetensors.SafetensorError("I/O error: No space left on device (os error 28)")
        save_file(tensors, path, metadata)

    monkeypatch.setattr(safetensors.torch, "save_file", full)
    with pytest.raises(OSError, match="No space left on device"):
        export(make(tiny), tmp_path / "export")
    assert len(calls) == 3 and not list(tmp_path.iterdir())


def test_what_a_killed_export_left_is_no_export_and_goes_with_the_next(tiny: ModelConfig, tmp_path: Path) -> None:
    left = tmp_path / ".export.partial"
    left.mkdir()
    (left / "model-00001-of-00009.safetensors").write_bytes(b"half")
    with pytest.raises(WeightsError, match="holds no weights"):
        open_weights(tmp_path / "export")
    folder = export(make(tiny), tmp_path / "export")
    assert [path.name for path in tmp_path.iterdir()] == ["export"] and HuggingFace(folder)


# Sharded models, without processes: a group that communicates nothing. torch takes meshes of one size for one mesh,
# with the rank that it first had, so each case has a size of its own.


@pytest.fixture
def rank(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[int, int]]:
    # Nor do processes meet that are not there, as those of a new group would.
    monkeypatch.setattr(mesh.Ranks, "own_group", lambda self, name, urgent=False: self.group(name))
    from torch.testing._internal.distributed.fake_pg import FakeStore

    number, world = request.param
    distributed.init_process_group("fake", rank=number, world_size=world, store=FakeStore())
    yield number, world
    distributed.destroy_process_group()


@pytest.mark.parametrize("rank", [(2, 3), (4, 5), (5, 7), (10, 11)], indirect=True)
def test_a_rank_of_fsdp_reads_its_own_rows(tiny: ModelConfig, rank: tuple[int, int], exported: Path) -> None:
    number, world = rank
    with torch.device("meta"):
        model = Dots1(tiny)
    among = init_device_mesh("cpu", (world,))
    for layer in model.layers.values():
        fully_shard(layer, mesh=among)
    fully_shard(model, mesh=among)
    model.to_empty(device="cpu")
    read: list[int] = []
    weights = HuggingFace(exported)
    plain = weights.read
    weights.read = lambda name, rows=shards.ALL: read.append((out := plain(name, rows)).nbytes) or out  # type: ignore[method-assign]
    load_weights(model, weights)
    expected = make(tiny).state_dict()
    for name, tensor in model.state_dict().items():
        if isinstance(tensor, DTensor):
            share = expected[name].chunk(world)
            assert torch.equal(tensor.to_local(), share[number] if number < len(share) else expected[name][:0]), name
        else:
            assert torch.equal(tensor, expected[name]), name
    rows = sum(t.nbytes / len(t) * (-(-len(t) // world)) for t in expected.values())
    assert sum(read) <= rows + sum(t.nbytes for t in model.state_dict().values() if not isinstance(t, DTensor))


LAYOUTS = [
    Layout(dp_shard=4, ep=2),
    Layout(pp=3, dp_shard=2),
    Layout(pp=2, dp_replicate=2, dp_shard=2, ep=2),
    Layout(pp=2, vpp=2, dp_shard=8, ep=4),
]


@pytest.mark.parametrize(
    ("rank", "layout"), [((one.world - 2, one.world), one) for one in LAYOUTS], indirect=["rank"], ids=str
)
def test_a_rank_of_any_layout_gets_its_part(
    tiny: ModelConfig, rank: tuple[int, int], layout: Layout, tmp_path: Path, job: Job
) -> None:
    """What it would have drawn itself from the seed of the weights that it is given."""
    config = dataclasses.replace(tiny, layers=4)
    whole = Dots1(config)
    whole.initialize(3)
    folder = export(whole, tmp_path / "export")
    ranks = mesh.connect(layout, torch.device("cpu"))
    job = dataclasses.replace(job, model=config, layout=layout)
    parts, expected = (
        mesh.make_parts(dataclasses.replace(job, seed=seed), ranks, torch.device("cpu")) for seed in (9, 3)
    )
    start_from(folder, parts, config, tmp_path / "none.json")
    found = dict(mesh.named_tensors(parts))
    assert found and any(".experts." in name for name in found)
    for name, tensor in mesh.named_tensors(expected):
        assert torch.equal(held_here(found[name]), held_here(tensor)), name


def test_a_stage_and_a_rank_of_experts_take_their_part(tiny: ModelConfig, exported: Path) -> None:
    """Names say which layers a stage has; `rows` says which experts a rank has."""
    whole = make(tiny)
    stage = Dots1(tiny, numbers=[1])
    experts = stage.layers["1"].mlp.experts
    experts.gate_up_proj = nn.Parameter(torch.empty(2, 32, 32))
    experts.down_proj = nn.Parameter(torch.empty(2, 32, 16))
    load_weights(stage, HuggingFace(exported), lambda name: slice(4, 6) if ".experts." in name else shards.ALL)
    for name, tensor in stage.state_dict().items():
        wanted = whole.state_dict()[name]
        assert torch.equal(tensor, wanted[4:6] if ".mlp.experts." in name else wanted), name
    with pytest.raises(WeightsError, match=r"gate_up_proj is \[8, 32, 32\] there, \[2, 32, 32\] in the model"):
        load_weights(stage, HuggingFace(exported))
    with pytest.raises(WeightsError, match=r"export: has no other\.weight, which the model has"):
        load_weights(nn.ModuleDict({"other": nn.Linear(1, 1)}), HuggingFace(exported))


# Training that starts from weights.


def losses(job: Job) -> list[float]:
    return [line["loss"] for line in metrics.read(Path(job.output))]


def test_a_run_starts_from_weights_wherever_they_lie(job: Job, reader: Any, tmp_path: Path) -> None:
    """The same first loss from an export, an import and a checkpoint; and it is that of the run they come from."""
    Trainer(job, reader, log=str).run()
    first = checkpoint.saved(Path(job.output) / "checkpoints")[-1]
    assert first.name == "step-9"
    model = Dots1(dataclasses.replace(job.model, vocab_size=64))
    load_weights(model, open_weights(first))
    folder = export(model, tmp_path / "export")
    import_hf(folder, tmp_path / "start")
    found = []
    for name, source in (("a", folder), ("b", tmp_path / "start"), ("c", first)):
        said: list[str] = []
        reader.manifest.tokenizer.file = "tokenizer.json"
        again = dataclasses.replace(job, init=str(source), output=str(tmp_path / name))
        trainer = Trainer(again, reader, log=said.append)
        assert said == [f"starting from the weights of {source}"]
        assert trainer.step == 0 and equal(trainer.parts[0], model)
        trainer.run()
        assert Trainer(again, reader, log=said.append).step == 12, "resumed from its own checkpoint"
        found.append(losses(again))
    assert found[0] == found[1] == found[2]
    assert found[0][0] < losses(job)[0] - 0.5, "it knows what the first run learned"


def test_weights_of_another_model_or_tokenizer_are_refused(tiny: ModelConfig, exported: Path, tmp_path: Path) -> None:
    ours = tmp_path / "tokenizer.json"

    def start(config: ModelConfig) -> None:
        start_from(exported, [Dots1(config)], config, ours)

    start(dataclasses.replace(tiny, init_std=0.3))  # how weights were drawn is no part of a model
    for changed, message in (
        ({"vocab_size": 70}, "model.vocab_size is 64 there, 70 here"),
        ({"rope_theta": 1e5}, "model.rope_theta is 10000.0 there, 100000.0 here"),
        ({"experts_per_token": 3}, "model.experts_per_token is 2 there, 3 here"),
    ):
        with pytest.raises(WeightsError, match=f"export: weights of another model: {message}"):
            start(dataclasses.replace(tiny, **changed))

    def tokenizer(path: Path, **vocabulary: int) -> None:
        added = [{"id": 9, "content": "<eos>"}]
        path.write_text(json.dumps({"model": {"vocab": vocabulary}, "added_tokens": added}))

    tokenizer(ours, a=0, b=1)
    tokenizer(exported / "tokenizer.json", b=1, a=0)
    start(tiny)
    tokenizer(exported / "tokenizer.json", b=0, a=1)
    with pytest.raises(WeightsError, match="another tokenizer than that of the shards: 'a' is id 1 there, id 0 in"):
        start(tiny)
    tokenizer(exported / "tokenizer.json", a=0)
    with pytest.raises(WeightsError, match=r"'b' is no token there, id 1 in .*tokenizer\.json; tokenize"):
        start(tiny)


@pytest.mark.parametrize(
    ("file", "harm", "message"),
    [
        ("__0_0.distcp", lambda p: p.write_bytes(p.read_bytes()[:-100]), "__0_0.distcp: damaged .size"),
        (".metadata", lambda p: p.write_bytes(pickle.dumps(print)), ".metadata: damaged .size"),
        ("state.json", lambda p: p.write_text("{}"), "state.json: damaged .size"),
        ("manifest.json", lambda p: p.unlink(), "manifest.json: cannot be read"),
        ("state.json", lambda p: p.unlink(), "holds no weights; name a folder of transformers"),
    ],
)
def test_a_damaged_checkpoint_is_named(
    job: Job, reader: Any, file: str, harm: Callable[[Path], object], message: str
) -> None:
    Trainer(
        dataclasses.replace(job, curriculum=Curriculum((Phase(until=64, learning_rate=0.1, batch=64),))), reader
    ).run()
    path = checkpoint.saved(Path(job.output) / "checkpoints")[0]
    assert open_weights(path).config.vocab_size == 64
    harm(path / file)
    with pytest.raises(WeightsError, match=message):
        open_weights(path)


def test_the_released_model_has_its_size_and_its_names() -> None:
    """142.77B parameters and 14.02B active, exactly, on the meta device; and as many tensors as the release has."""
    released = ModelConfig(vocab_size=152064)
    size = parameters(released)
    attention, expert = 4 * 4096 * 4096 + 2 * 128, 3 * 4096 * 1408
    dense, mixture = 3 * 4096 * 10944, 128 * 4096 + 2 * expert
    outside = 2 * 152064 * 4096 + 4096 + 62 * (attention + 2 * 4096) + dense + 61 * mixture
    assert (size.total, size.active) == (outside + 61 * 128 * expert, outside + 61 * 6 * expert)
    assert (size.total, size.active) == (142_774_373_888, 14_016_581_120)
    keys = [part.key for name in shapes(released) for part in parts(name, released)]
    assert len(keys) == len(set(keys)) == 3 + 62 * 8 + 3 + 61 * (2 + 3 + 3 * 128)
    assert to_hf(released, torch.bfloat16, 32768, 151643)["rope_theta"] == 1e7


def test_opening_reads_headers_alone(exported: Path) -> None:
    opened = Shards(exported)
    assert opened.entries["lm_head.weight"] == ((64, 32), torch.float32)
    assert opened.read("lm_head.weight", slice(3, 5)).shape == (2, 32)
