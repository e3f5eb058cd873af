"""Activation checkpointing: of a layer its input is kept, and what must never come out differently the second time.

A router that is asked again may choose other experts (a last bit of a score suffices), and ranks that then send other
rows wait for each other for ever. So the choice and everything that an all-to-all brought are kept, and recomputed are
only norms, attention and the experts' own products.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch.utils.checkpoint import (
    SAC_IGNORED_OPS,
    CheckpointPolicy,
    checkpoint,
    create_selective_checkpoint_contexts,
)

from dots_train.model.dots1 import Dots1

# Marks for the profiler, which FSDP sets more often where activations are computed again.
SAC_IGNORED_OPS.update(
    {torch.ops.profiler._record_function_enter_new.default, torch.ops.profiler._record_function_exit._RecordFunction}
)


def _policy(context: Any, operator: Any, *args: Any, **kwargs: Any) -> CheckpointPolicy:
    kept = [torch.ops.aten.topk.default]
    if hasattr(torch.ops.dots, "all_to_all"):
        kept.append(torch.ops.dots.all_to_all.default)
    return CheckpointPolicy.MUST_SAVE if operator in kept else CheckpointPolicy.PREFER_RECOMPUTE


def recompute(part: Dots1) -> None:
    """Have every layer of `part` compute its activations again in the backward pass; no name in it changes."""
    contexts = partial(create_selective_checkpoint_contexts, _policy)
    for layer in part.layers.values():
        forward = partial(checkpoint, layer.forward, use_reentrant=False, context_fn=contexts, preserve_rng_state=False)
        layer.forward = forward
