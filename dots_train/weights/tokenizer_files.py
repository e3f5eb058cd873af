"""The files that transformers reads a tokenizer from, made of a tokenizer.json."""

from __future__ import annotations

import json
from typing import Any

from dots_data.tokens.manifest import TokenizerInfo


def tokenizer_files(content: bytes, info: TokenizerInfo, positions: int) -> dict[str, str | bytes]:
    """Name and content of each file. The ids of a text are those of the shards: nothing is put before or after it."""
    added = {token["id"]: token for token in json.loads(content).get("added_tokens") or ()}
    others = [text for text in info.special if text != info.eos]
    config: dict[str, Any] = {
        # Qwen2Tokenizer and the like would rebuild the rules that cut text; this class takes them from the file.
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": info.eos,
        "pad_token": info.eos,
        "bos_token": None,
        "unk_token": None,
        "additional_special_tokens": others,
        "add_bos_token": False,
        "add_eos_token": False,
        # transformers 4 would otherwise take the space before a full stop out of what it decodes.
        "clean_up_tokenization_spaces": False,
        "model_max_length": positions,
        # transformers 4 would add token_type_ids, which the model does not take.
        "model_input_names": ["input_ids", "attention_mask"],
        "added_tokens_decoder": {
            str(number): {key: value for key, value in token.items() if key != "id"}
            for number, token in sorted(added.items())
        },
    }
    named = {"eos_token": info.eos, "pad_token": info.eos, "additional_special_tokens": others}
    return {
        "tokenizer.json": _plain(content),
        "tokenizer_config.json": _json(config),
        "special_tokens_map.json": _json(named),
    }


def _plain(content: bytes) -> bytes:
    """The file as it is, unless it cuts or pads texts or puts tokens around them: the shards were made without."""
    described = json.loads(content)
    after = described.get("post_processor")
    if (
        not described.get("truncation")
        and not described.get("padding")
        and (after or {}).get("type")
        in (
            None,
            "ByteLevel",  # it moves offsets alone
        )
    ):
        return content
    described.update(truncation=None, padding=None, post_processor=None)
    return json.dumps(described, ensure_ascii=False).encode("utf-8")


def _json(value: dict[str, Any]) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"
