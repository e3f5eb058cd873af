"""A run goes out, is read by transformers, judged by the harness, and comes in again: `dots export, eval, import`."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from dots_data import cli
from dots_data.tokens import manifest as manifests
from dots_data.tokens import shards
from dots_data.tokens.tokenizer import TextTokenizer, TokenizerConfig, train
from dots_train.model.hf import shapes
from dots_train.weights.sources import HuggingFace, open_weights
from pipelines import pretrain

ROOT = Path(__file__).resolve().parents[2]
SOURCE = "web_2024"

JOB = """
preset: debug
data: {data}
model:
  {{hidden_size: 32, layers: 2, dense_ffn_size: 48, heads: 2, head_dim: 16, experts: 8, experts_per_token: 2,
   expert_ffn_size: 16, init_std: 0.05}}
sequence_length: 64
micro_batch: 2
threads: 1
curriculum:
  warmup_steps: 2
  phases:
    - {{until: 4K, learning_rate: 0.01, batch: 256}}
    - {{until: 6K, learning_rate: 0.001, batch: 256, name: long, sequence_length: 128, rope_theta: 20000}}
checkpoint: {{every_steps: 6}}
tensorboard: false
"""

TEXTS = [f"The {n} birds of the {c} tree sing, and the {c} birds sleep. <|im_end|> 中文 {n}" for n in range(9)
         for c in ("red", "green", "old", "tall", "blue")]  # fmt: skip


def write_shards(folder: Path) -> Path:
    """A few documents under a real tokenizer."""
    folder.mkdir()
    config = TokenizerConfig(vocab_size=300)
    content = train(TEXTS, config)
    (folder / "tokenizer.json").write_bytes(content)
    tokenizer = TextTokenizer(content, config.eos, "test")
    header = shards.Header(tokenizer.info, SOURCE, None, "job", 0)
    ids = [hashlib.blake2b(text.encode(), digest_size=16).digest() for text in TEXTS]
    encoded, ends = tokenizer.encode(TEXTS)
    tokens, borders = np.insert(encoded, ends[1:], tokenizer.info.eos_id), ends + np.arange(len(ends))
    count = len(TEXTS)
    documents = shards.Documents(tokens, borders, pa.array(ids, pa.binary(16)), np.zeros(count, np.uint8))
    known: dict[str, Any] = {"doc_id": [one.hex() for one in ids], "tokens": np.diff(borders).tolist()}
    provenance = pa.table({f.name: pa.array(known.get(f.name, [None] * count), f.type) for f in shards.PROVENANCE})
    shard = shards.write_shard(folder, "part-0", [shards.record_batch(documents, header)], provenance, header)
    sources = (manifests.Source(SOURCE, shard.rows, shard.tokens),)
    recipe = manifests.Recipe(None, "job")
    info = tokenizer.info
    manifests.write(
        folder,
        manifests.Manifest(info, info.dtype, recipe, 0, shard.rows, shard.tokens, sources, (shard,)),
    )
    return folder


@pytest.fixture(autouse=True)
def torch_settings() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(False)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of pretrain; its job, shards and tokenizer lie beside it."""
    folder = tmp_path_factory.mktemp("export")
    (folder / "job.yaml").write_text(JOB.format(data=write_shards(folder / "tokens")))
    assert pretrain.main(["--job", str(folder / "job.yaml"), "--output", str(folder / "model")]) == 0
    return folder / "model"


@pytest.fixture(scope="module")
def exported(run: Path) -> Path:
    folder = run.parent / "birds"
    assert cli.main(["export", str(run), "--to", "hf", "--output", str(folder), "--dtype", "float32"]) == 0
    return folder


def test_what_an_export_holds(exported: Path, run: Path) -> None:
    assert sorted(path.name for path in exported.iterdir()) == [
        "README.md",
        "config.json",
        "generation_config.json",
        "model-00001-of-00001.safetensors",
        "model.safetensors.index.json",
        "special_tokens_map.json",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    assert (exported / "tokenizer.json").read_bytes() == (run.parent / "tokens" / "tokenizer.json").read_bytes()
    modes = {path.stat().st_mode & 0o777 for path in exported.iterdir()}
    assert len(modes) == 1, "whoever may read one file may read all"
    config = json.loads((exported / "config.json").read_text())
    eos = json.loads((exported / "generation_config.json").read_text())["eos_token_id"]
    assert config["eos_token_id"] == eos == 297
    assert (config["vocab_size"], config["dtype"]) == (300, "float32")
    assert (config["max_position_embeddings"], config["rope_theta"]) == (128, 20_000), "those of the last phase"
    newest, weights = open_weights(run / "checkpoints" / "step-24"), HuggingFace(exported)
    assert all(torch.equal(weights.read(name), newest.read(name)) for name in shapes(weights.config))


def test_the_card_tells_the_run(exported: Path, run: Path) -> None:
    card = (exported / "README.md").read_text()
    manifest = manifests.read(run.parent / "tokens")
    losses = [json.loads(line)["loss"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    for said in (
        "# birds\n",
        f"`{manifest.id}`: {manifest.tokens:,} tokens of {len(TEXTS)} documents",
        "| `web_2024` | 45 |",
        "trained on 6,144 tokens (step 24)",
        "| stable | 4K | 0.01 | 256 | 64 |\n| long | 6K | 0.001 | 256 | 128 |",
        f"the mean of the last 10 steps is {sum(losses[-10:]) / 10:.4f}",
        f"| 24 | 6,144 | {losses[-1]:.4f} |",
        "| 1 | 256 |",
        "8 routed, 2 a token; 1 shared",
        f"| torch (training) | {torch.__version__} |",
        "`<|endoftext|>` (id 297)",
    ):
        assert said in card, said
    assert card.startswith("---\nlibrary_name: transformers\n") and "licen" not in card.partition("#")[0]


def test_an_earlier_checkpoint_in_bfloat16(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "early"
    options = ["--checkpoint", "12", "--part-size", "2e-5", "--name", "Early <b>birds</b>"]
    assert cli.main(["export", str(run), "--output", str(out), *options]) == 0
    assert "early: step 12 (3,072 tokens)" in " ".join(capsys.readouterr().out.split())
    name = "layers.1.mlp.experts.gate_up_proj"
    saved = open_weights(run / "checkpoints" / "step-12").read(name)
    assert torch.equal(HuggingFace(out).read(name), saved.bfloat16())
    assert len(list(out.glob("*.safetensors"))) > 3
    config = json.loads((out / "config.json").read_text())
    assert (config["max_position_embeddings"], config["rope_theta"]) == (64, 10_000), (
        "the long windows were still to come"
    )
    card = (out / "README.md").read_text()
    assert "<b>" not in card and "| 12 | 3,072 |" in card and "| 13 |" not in card


def test_exports_are_the_same_bytes(run: Path, exported: Path, tmp_path: Path) -> None:
    again = tmp_path / exported.name
    assert cli.main(["export", str(run), "--output", str(again), "--dtype", "float32"]) == 0
    assert all((again / path.name).read_bytes() == path.read_bytes() for path in exported.iterdir())


@pytest.mark.skipif(importlib.util.find_spec("transformers") is None, reason="transformers is not installed (dev)")
def test_transformers_reads_text_as_the_shards_do(exported: Path, run: Path) -> None:
    os.environ["HF_HUB_OFFLINE"] = "1"
    from transformers import AutoModelForCausalLM, AutoTokenizer

    theirs = AutoTokenizer.from_pretrained(exported)
    ours = TextTokenizer((run.parent / "tokens" / "tokenizer.json").read_bytes(), "<|endoftext|>", "test")
    texts = ["The old birds , sing .", "  two\n\n lines ", "don't 1234 中文", ""]
    for text in texts:
        ids = theirs(text).input_ids
        assert ids == ours.encode([text])[0].tolist(), "the same ids, and nothing before or after them"
        assert theirs.decode(ids) == text
    assert (theirs.eos_token_id, theirs.pad_token_id, theirs.bos_token_id) == (297, 297, None)
    assert theirs("<|im_end|>").input_ids == [299], "a special token is one here"
    assert theirs("<|im_end|>", split_special_tokens=True).input_ids == ours.encode(["<|im_end|>"])[0].tolist()
    assert theirs.model_max_length == 128 and set(theirs("The")) == {"input_ids", "attention_mask"}
    model = AutoModelForCausalLM.from_pretrained(exported, dtype="auto")
    assert type(model).__name__ == "Dots1ForCausalLM" and model.dtype == torch.float32
    said = theirs.decode(model.generate(**theirs("The", return_tensors="pt"), max_new_tokens=8)[0])
    assert said.startswith("The") and len(said) > 8


def test_an_import_starts_a_run(exported: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    start = tmp_path / "start"
    assert cli.main(["import", str(exported), "--output", str(start)]) == 0
    assert f"make pretrain CONFIG={start}/job.yaml" in "".join(capsys.readouterr().out.split("\n"))
    assert (start / "tokenizer.json").read_bytes() == (exported / "tokenizer.json").read_bytes()
    shape = ["--set", "sequence_length=64", "--set", "threads=1", "--set", "tensorboard=false"]
    shape += ["--set", "curriculum={phases: [{until: 1K, learning_rate: 0.001, batch: 256}]}"]
    common = ["--data", str(run.parent / "tokens"), *shape]
    assert pretrain.main(["--job", str(start / "job.yaml"), "--output", str(tmp_path / "a"), *common]) == 0
    assert f"starting from the weights of {start}" in capsys.readouterr().out
    init = ["--init", str(exported), "--output", str(tmp_path / "b")]
    assert pretrain.main(["--job", str(start / "job.yaml"), *init, *common]) == 0
    first, second = ((tmp_path / name / "metrics.jsonl").read_text().splitlines() for name in "ab")
    assert json.loads(first[-1])["loss"] == json.loads(second[-1])["loss"]
    begun = json.loads((run / "metrics.jsonl").read_text().splitlines()[0])["loss"]
    assert json.loads(first[0])["loss"] < begun - 0.5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["export", "{run}", "--output", "{run}"], "model: holds something already; name a new or an empty folder"),
        (["export", "{run}", "--output", "{new}", "--checkpoint", "7"], "no checkpoint of step 7; there are step-24,"),
        (["export", "{run}/checkpoints", "--output", "{new}"], "holds no checkpoints; name the output folder of"),
        (
            ["export", "{run}", "--output", "{new}", "--data", "{new}"],
            "name the folder of the shards that the run read",
        ),
        (
            ["export", "{run}", "--output", "{new}", "--data", "{other}"],
            "other/manifest.json: is the dataset .*; name the folder",
        ),
        (["export", "{run}", "--output", "{new}", "--part-size", "0"], "--part-size must be positive, found 0"),
        (["import", "{run}", "--output", "{new}"], "config.json: model_type is None; the dots model has 'dots1'"),
        (["import", "{exported}", "--output", "{run}"], "model: holds something already"),
        (["import", "{other}", "--output", "{new}"], "config.json: cannot be read"),
        (["eval", "{run}", "--tasks", "x"], "config.json: model_type is not dots1; name a folder that `dots export`"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(
    arguments: list[str],
    message: str,
    run: Path,
    exported: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    other = tmp_path / "other"
    if "{other}" in arguments:
        write_shards(other)
        manifest = json.loads((other / "manifest.json").read_text())
        manifest["seed"] += 1
        manifest["id"] = manifests.content_id({key: value for key, value in manifest.items() if key != "id"})
        (other / "manifest.json").write_text(json.dumps(manifest))
    names = {"run": run, "new": tmp_path / "new", "other": other, "exported": exported}
    assert cli.main([argument.format(**names) for argument in arguments]) == 2
    said = capsys.readouterr().err
    assert re.search(message, said) and said.count("\n") == 1
    assert not (tmp_path / "new").exists()


def test_a_damaged_checkpoint_is_not_exported(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = run / "checkpoints" / "step-18" / "__0_0.distcp"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + b"\0\0")
    try:
        assert cli.main(["export", str(run), "--output", str(tmp_path / "new"), "--checkpoint", "18"]) == 2
    finally:
        path.write_bytes(whole)
    assert "step-18/__0_0.distcp: damaged (size differs" in capsys.readouterr().err
    assert open_weights(path.parent) and not list(tmp_path.iterdir())


def test_help_teaches_and_loads_no_torch() -> None:
    code = "import sys; from dots_data import cli; cli.parser(); assert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=60).returncode == 0
    for command, word in (("export", "safetensors"), ("import", "INIT="), ("eval", "data_files")):
        done = subprocess.run(
            [sys.executable, "-m", "dots_data.cli", command, "--help"],
            cwd=ROOT,
            timeout=60,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0 and word in done.stdout


# The harness.

CHOICE = """
task: birds_choice
dataset_path: json
dataset_kwargs: {data_files: {test: choice.jsonl}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{question}}"
doc_to_choice: "{{choices}}"
doc_to_target: "{{answer}}"
metric_list:
  - {metric: acc, aggregation: mean, higher_is_better: true}
  - {metric: acc_norm, aggregation: mean, higher_is_better: true}
metadata: {version: 1.0}
"""

PERPLEXITY = """
task: birds_perplexity
dataset_path: json
dataset_kwargs: {data_files: {test: texts.jsonl}}
test_split: test
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{text}}"
metric_list:
  - {metric: word_perplexity}
  - {metric: byte_perplexity}
  - {metric: bits_per_byte}
metadata: {version: 1.0}
"""

REMOTE = """
task: birds_remote
dataset_path: somebody/birds
test_split: test
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{text}}"
metric_list: [{metric: bits_per_byte}]
"""


@pytest.fixture
def tasks(tmp_path: Path) -> Path:
    folder = tmp_path / "tasks"
    folder.mkdir()
    (folder / "choice.yaml").write_text(CHOICE)
    (folder / "perplexity.yaml").write_text(PERPLEXITY)
    questions = [
        {"question": f"The {n} birds of the red tree", "choices": [" sing", " zxqj"], "answer": 0} for n in range(6)
    ]
    (folder / "choice.jsonl").write_text("".join(json.dumps(question) + "\n" for question in questions))
    (folder / "texts.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS[:5]))
    return folder


def harness(arguments: list[str], cache: Path) -> subprocess.CompletedProcess[str]:
    """In a process of its own: its libraries read what is offline when they are imported."""
    return subprocess.run(
        [sys.executable, "-m", "dots_data.cli", "eval", *arguments],
        cwd=ROOT,
        timeout=300,
        capture_output=True,
        text=True,
        env={**os.environ, "HF_HOME": str(cache), "OMP_NUM_THREADS": "1"},
    )


need_harness = pytest.mark.skipif(
    importlib.util.find_spec("lm_eval") is None, reason="lm-eval is not installed; it is the extra eval"
)


@need_harness
def test_the_harness_judges_an_export(exported: Path, tasks: Path, tmp_path: Path) -> None:
    out = tmp_path / "scores"
    options = ["--tasks", str(tasks), "--output", str(out), "--limit", "5"]
    done = harness([str(exported), *options], tmp_path / "cache")
    assert done.returncode == 0, done.stderr
    report = json.loads((out / "results.json").read_text())
    scores = {(score["task"], score["metric"]): score for score in report["scores"]}
    choice = scores["birds_choice", "acc"]
    assert (choice["value"], choice["documents"], choice["higher_is_better"]) == (1.0, 5, True)
    assert scores["birds_perplexity", "bits_per_byte"]["value"] == pytest.approx(bits_per_byte(exported), rel=1e-4)
    assert report["versions"]["lm_eval"] and report["tasks"]["birds_choice"]["version"] == 1.0
    for said in ("birds_choice", "acc_norm", "bits_per_byte", "results.json"):
        assert said in done.stdout


def bits_per_byte(exported: Path) -> float:
    """By our own forward: each text after EOS, over its bytes."""
    from dots_train.model.dots1 import Dots1
    from dots_train.weights.sources import load_weights

    weights = HuggingFace(exported)
    model = Dots1(weights.config)
    load_weights(model, weights)
    tokenizer = TextTokenizer((exported / "tokenizer.json").read_bytes(), "<|endoftext|>", "test")
    nats = 0.0
    for text in TEXTS[:5]:
        # As the harness reads it, special tokens are such.
        ids = [number for part in text.split("<|im_end|>") for number in (*tokenizer.encode([part])[0].tolist(), 299)]
        stream = torch.tensor([[297, *ids[:-1]]])
        position = torch.arange(stream.shape[1] - 1)[None]
        assert stream.shape[1] <= 64
        with torch.no_grad():
            logits = model(stream[:, :-1], position, torch.zeros_like(position))
        nats += torch.nn.functional.cross_entropy(logits[0], stream[0, 1:], reduction="sum").item()
    return nats / float(np.log(2)) / sum(len(text.encode()) for text in TEXTS[:5])


@need_harness
def test_a_task_that_cannot_run_is_named(exported: Path, tasks: Path, tmp_path: Path) -> None:
    (tasks / "remote.yaml").write_text(REMOTE)
    for names, message in (
        ([str(tasks), "birds_remote"], "error: birds_remote: .*somebody/birds"),
        ([str(tasks), "birds_chioce"], "error: birds_chioce: not among the tasks of .*tasks"),
        (["no/such/folder"], "error: no/such/folder: no such folder; give folders of task files"),
    ):
        done = harness([str(exported), "--tasks", *names, "--output", str(tmp_path / "out")], tmp_path / "cache")
        assert done.returncode == 1
        assert any(re.match(message, line) for line in done.stderr.splitlines()), done.stderr[-2000:]
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(importlib.util.find_spec("lm_eval") is not None, reason="lm-eval is installed")
def test_without_the_harness_the_extra_is_named(exported: Path, tasks: Path, tmp_path: Path) -> None:
    done = harness([str(exported), "--tasks", str(tasks)], tmp_path / "cache")
    assert done.returncode == 1 and "pip install 'dots[eval]'" in done.stderr.replace("\n", "")
