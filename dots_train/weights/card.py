"""The model card of an export: what the model is and how it came about, from the run's own records."""

from __future__ import annotations

import math
import platform
from collections.abc import Iterable, Sequence
from typing import Any

import dots_train
from dots_train.config import ModelConfig
from dots_train.model.dots1 import Size
from dots_train.weights.run import Run

_HEAD = """\
---
library_name: transformers
pipeline_tag: text-generation
tags: [dots1, mixture-of-experts, base-model]
---
"""


def model_card(run: Run, size: Size, name: str, dtype: str) -> str:
    """Markdown. Names that come from data are escaped.

    The licence is left to whoever publishes: it depends on the texts.
    """
    config = run.config
    return "\n".join(
        (
            _HEAD,
            f"# {_text(name)}\n",
            f"A mixture-of-experts base model of the dots.llm1 architecture ([arXiv 2506.05767]"
            f"(https://arxiv.org/abs/2506.05767)): {size.total:,} parameters, {size.active:,} of them active for a "
            f"token; trained on {run.tokens:,} tokens (step {run.step:,}). Weights in {dtype}, the router's in "
            "float32.\n",
            _usage(),
            "## Architecture\n",
            _table(("", ""), _architecture(config)),
            "## Data\n",
            f"Token shards with manifest `{run.manifest.id}`: {run.manifest.tokens:,} tokens of "
            f"{run.manifest.documents:,} documents. The tokenizer has {run.manifest.tokenizer.vocab_size:,} ids; each "
            f"document ends with {_code(run.manifest.tokenizer.eos)} (id {run.manifest.tokenizer.eos_id}), and nothing "
            "stands before it.\n",
            _table(
                ("source", "documents", "tokens"),
                ((_code(s.name), f"{s.rows:,}", f"{s.tokens:,}") for s in run.manifest.sources),
            ),
            "## Training\n",
            _training(run),
            _table(
                ("phase", "until (tokens)", "learning rate at its end", "batch (tokens)", "window"), _curriculum(run)
            ),
            "## Loss\n",
            _losses(run.records),
            "## Versions\n",
            _table(
                ("", ""),
                (
                    ("dots", dots_train.__version__),
                    ("torch (training)", run.torch_version),
                    ("Python (export)", platform.python_version()),
                    ("transformers", "4.53 or later loads it; checked with 4.57 and 5.24"),
                ),
            ),
        )
    )


def _usage() -> str:
    return """\
```python
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained(FOLDER)
model = AutoModelForCausalLM.from_pretrained(FOLDER, dtype="auto")
ids = tokenizer("Once", return_tensors="pt")
print(tokenizer.decode(model.generate(**ids, max_new_tokens=50)[0]))
```

A text that spells a special token becomes that token here; in training it was plain text. Pass
`split_special_tokens=True` to the tokenizer for texts that are not trusted.
"""


def _architecture(config: ModelConfig) -> list[tuple[str, str]]:
    return [
        ("layers", f"{config.layers}, the first {config.dense_layers} dense (width {config.dense_ffn_size:,})"),
        ("hidden size", f"{config.hidden_size:,}"),
        ("attention", f"{config.heads} heads of {config.head_dim}, keys and values of their own; QK-norm before RoPE"),
        ("experts", f"{config.experts} routed, {config.experts_per_token} a token; {config.shared_experts} shared"),
        ("expert width", f"{config.expert_ffn_size:,}"),
        ("router", f"float32, sigmoid; a bias chooses only; weights normalised times {config.routed_scaling:g}"),
        ("RoPE base", f"{config.rope_theta:,.0f}"),
        ("vocabulary", f"{config.vocab_size:,}"),
    ]


def _training(run: Run) -> str:
    optimizer, job, warmup = run.job.get("optimizer", {}), run.job, run.job["curriculum"].get("warmup_steps", 0)
    betas = ", ".join(str(beta) for beta in optimizer.get("betas", ()))
    return (
        f"AdamW (betas {betas}; weight decay {optimizer.get('weight_decay')}; gradients clipped to norm "
        f"{optimizer.get('clip_norm')}), {job['precision']} computation "
        f"over float32 weights, {warmup:,} warm-up steps, seed {job['seed']}.\n"
    )


def _curriculum(run: Run) -> Iterable[tuple[str, ...]]:
    for phase in run.job["curriculum"]["phases"]:
        window = phase.get("sequence_length") or run.job["sequence_length"]
        rate = f"{phase['learning_rate']:g}"
        yield _text(phase["name"]), str(phase["until"]), rate, str(phase["batch"]), f"{window:,}"


def _losses(records: Sequence[dict[str, Any]]) -> str:
    """The first, the last, and some between, of steps that were not skipped."""
    records = [record for record in records if isinstance(record["loss"], float) and math.isfinite(record["loss"])]
    if not records:
        return "The run left no metrics.jsonl.\n"
    every = max(1, len(records) // 8)
    shown = [*records[:-1:every], records[-1]]
    last = records[-10:]
    mean = sum(record["loss"] for record in last) / len(last)
    rows = ((f"{r['step']:,}", f"{r['tokens']:,}", f"{r['loss']:.4f}") for r in shown)
    return f"Cross-entropy in nats a token; the mean of the last {len(last)} steps is {mean:.4f}.\n\n" + _table(
        ("step", "tokens", "loss"), rows
    )


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def _code(text: str) -> str:
    """Text from outside, as code: it cannot leave its line, nor be read as markup."""
    return "`" + "".join(c if c.isprintable() and c != "`" else "\N{REPLACEMENT CHARACTER}" for c in text) + "`"


def _text(text: object) -> str:
    return "".join(c if c.isalnum() or c in " .,-_:/" else "\N{REPLACEMENT CHARACTER}" for c in str(text))
