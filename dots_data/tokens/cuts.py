"""Where a text can be cut so that its parts, encoded apart, give the ids of the whole.

A byte-level BPE never merges across the pieces that its pre-tokenizer makes, so a border of these pieces is a safe cut
if the pre-tokenizer, started anew behind it, goes on as it would have. For the patterns below, which those of GPT-2,
GPT-4, Llama 3, Qwen and GPT-4o are, that holds in two places whatever stands around them:

- between a letter and a space or line end: no alternative matches a letter with white space behind it, and none looks
  back;
- behind a single line end that follows anything but white space, before a letter: an optional first mark of a word is
  no line end, and `\\s+(?!\\S)` has no second white space that it could leave to the next piece.

Letters are those of ASCII and the Han characters from U+5000 to U+8FFF: letters in every version of Unicode, and
unchanged by NFC together with any neighbour. A tokenizer of another kind is not cut.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

# How Qwen's tokenizers, whose vocabulary dots.llm1 uses, cut text before byte-pair encoding: contractions,
# words with one leading mark or space, single digits, runs of punctuation, line ends, other white space.
QWEN_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
GPT2_PATTERN = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3_PATTERN = QWEN_PATTERN.replace(r"|\p{N}| ", r"|\p{N}{1,3}| ")
O200K_PATTERN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
PATTERNS = {QWEN_PATTERN, GPT2_PATTERN, LLAMA3_PATTERN, O200K_PATTERN}

# In UTF-8: a Han character is one of these first bytes and two more; 、 to 〟 and the full-width marks are no space.
_HAN = rb"[\xe5-\xe8]"
_VISIBLE = (rb"[!-~]", _HAN + rb"[\x80-\xbf]{2}", rb"\xe3\x80[\x81-\x9f]", rb"\xef\xbc[\x81-\xbf]")
SAFE = re.compile(
    rb"(?:(?<=[A-Za-z])|(?<=" + _HAN + rb"[\x80-\xbf]{2}))(?=[ \n])"
    rb"|(?:" + b"|".join(rb"(?<=" + one + rb"\n)" for one in _VISIBLE) + rb")(?=[A-Za-z]|" + _HAN + rb")"
)
PART_BYTES = 1 << 20


def can_cut(described: dict[str, Any]) -> bool:
    """Whether texts may be cut at SAFE before the tokenizer of this tokenizer.json encodes them."""
    model, normalizer = described["model"], described.get("normalizer")
    plain = model.get("type") == "BPE" and not any(
        model.get(name) for name in ("dropout", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback")
    )
    return (
        plain
        and (normalizer is None or normalizer == {"type": "NFC"})
        and _pattern(described.get("pre_tokenizer")) in PATTERNS
        and not any(map(_reaches_across, described.get("added_tokens") or []))
    )


def _pattern(pre_tokenizer: dict[str, Any] | None) -> str | None:
    """The regular expression of a byte-level pre-tokenizer, if it is one and nothing else."""
    steps = [pre_tokenizer] if pre_tokenizer else []
    if steps and steps[0].get("type") == "Sequence":
        steps = steps[0].get("pretokenizers", [])
    if not steps or steps[-1].get("type") != "ByteLevel" or steps[-1].get("add_prefix_space", True):
        return None
    if steps[-1].get("use_regex", True):
        return GPT2_PATTERN if len(steps) == 1 else None
    if len(steps) != 2 or steps[0].get("type") != "Split":
        return None
    whole = (steps[0].get("behavior"), steps[0].get("invert", False)) == ("Isolated", False)
    found = steps[0].get("pattern", {}).get("Regex")
    return found if whole and isinstance(found, str) else None


def _reaches_across(token: dict[str, Any]) -> bool:
    """Whether an added token that is looked for in texts could hold a cut, or depend on what is beyond one."""
    looked_for = not token.get("special")
    bound = any(token.get(name) for name in ("lstrip", "rstrip", "single_word"))
    return looked_for and (bound or not re.fullmatch(r"[!-~]+", token.get("content", "")))


def cut(texts: pa.Array, most: int = PART_BYTES) -> tuple[pa.Array, npt.NDArray[np.int64]]:
    """Texts (large_string) over `most` bytes in parts, others whole; and where the parts of each text begin (n + 1).

    A part ends at the first safe cut behind its first `most` bytes; where there is none, at the end of the text.
    """
    offsets = np.frombuffer(texts.buffers()[1], np.int64)[texts.offset : texts.offset + len(texts) + 1]
    long = np.flatnonzero(np.diff(offsets) > most)
    if not long.size:
        return texts, np.arange(len(texts) + 1)
    data = memoryview(texts.buffers()[2])
    borders, counts = [offsets[:1]], np.ones(len(texts), np.int64)
    done = 0
    for row in long.tolist():
        inner = []
        at, end = int(offsets[row]), int(offsets[row + 1])
        while (found := SAFE.search(data, min(at + most, end), end)) is not None:
            at = found.start()
            inner.append(at)
        borders += [offsets[done + 1 : row + 1], np.array(inner, np.int64)]
        counts[row] += len(inner)
        done = row
    borders.append(offsets[done + 1 :])
    edges = np.concatenate(borders)
    parts = pa.Array.from_buffers(pa.large_string(), len(edges) - 1, [None, pa.py_buffer(edges), texts.buffers()[2]])
    return parts, np.concatenate([[0], np.cumsum(counts)])
