"""Tokenizers: train a byte-level BPE, or take any `tokenizer.json`; text in, ids out, nothing else.

Crawled text is hostile: a page that spells `<|endoftext|>` must not end a document. So the text of a special
token is always encoded as ordinary text, never as the special id, and no special token is added; the caller
puts EOS itself.

Ids are those of the Hugging Face library `tokenizers`. `gigatoken` gives the same ids many times faster; a
job uses it where both agree on a sample of the job's own documents and on the probes below, and says so when
they do not. Texts of megabytes are encoded in parts (`dots_data.tokens.cuts`), so that none takes more memory.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dots_data.tokens import cuts
from dots_data.tokens.cuts import QWEN_PATTERN
from dots_data.tokens.manifest import TokenizerInfo

Ids = npt.NDArray[np.uint32]
Borders = npt.NDArray[np.int64]
Engine = Literal["gigatoken", "huggingface"]

NAME = "tokenizer.json"
ENDOFTEXT = "<|endoftext|>"
BYTES = 256
ROUND_TRIP_BYTES = 500_000  # of the sample that is decoded again
TOGETHER_BYTES = 4 << 20  # of text that Hugging Face's library is given at once: it takes some 100 bytes a token
CACHE_BYTES = 1 << 30  # that gigatoken may remember

# Where encoders are known to part: special tokens spelt out, white space, marks, scripts, emoji, long runs.
PROBES = (
    "",
    " ",
    f"a {ENDOFTEXT} b <|im_start|>user\nhi<|im_end|>",
    "  two  spaces\t\ttabs \r\n\r\n lines \n \n",
    "don't I'LL we'Ve 'tis x'S",
    "1234567890 3.14 ١٢٣ ⅷ ²",
    "\N{ZERO WIDTH JOINER}e\N{COMBINING ACUTE ACCENT} é \N{BYTE ORDER MARK}\x00\x1b[0m\N{NO-BREAK SPACE}",
    "中文没有空格,全角标点。日本語と한국어 ไทย العربية",
    "👩\N{ZERO WIDTH JOINER}🚀 🇨🇳 \U0010ffff",
    "x" * 5000 + " " * 5000 + "\n" * 5000 + "." * 5000,
)


class TokenizerError(ValueError):
    """A tokenizer that cannot be loaded, trained or used; the message names the file."""


@dataclass(frozen=True)
class TokenizerConfig:
    """Which tokenizer a job uses.

    file: a `tokenizer.json` to take; None: train one on the documents.
    vocab_size: ids of the trained tokenizer, special tokens included.
    train_bytes: how much text (UTF-8) training reads, chosen by a keyed hash of the documents' ids.
    eos: the token that ends every document.
    special_tokens: of the trained tokenizer; Qwen's by default.
    encoder: `auto` takes gigatoken where its ids are equal; `huggingface` never does.
    """

    file: str | None = None
    vocab_size: int = 8192
    train_bytes: int = 100_000_000
    eos: str = ENDOFTEXT
    special_tokens: tuple[str, ...] = (ENDOFTEXT, "<|im_start|>", "<|im_end|>")
    encoder: Literal["auto", "huggingface"] = "auto"

    def __post_init__(self) -> None:
        if self.vocab_size < BYTES + len(self.special_tokens):
            fewest = f"{BYTES} bytes + {len(self.special_tokens)} special tokens"
            raise ValueError(f"vocab_size: {self.vocab_size} is below {fewest}")
        if self.train_bytes < 1:
            raise ValueError(f"train_bytes: {self.train_bytes} is not at least 1")
        if self.file is None and self.eos not in self.special_tokens:
            raise ValueError(f"eos: {self.eos!r} is not among special_tokens")


def train(texts: Iterable[str], config: TokenizerConfig) -> bytes:
    """A byte-level BPE trained on `texts`, as the content of a tokenizer.json.

    No normaliser: decoding gives the text back exactly. Special tokens follow the vocabulary, as Qwen's do,
        so that no merge can make one. The result does not depend on the order of the texts.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(QWEN_PATTERN), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=config.vocab_size - len(config.special_tokens),
        min_frequency=2,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(iter(texts), trainer)
    tokenizer.add_special_tokens(list(config.special_tokens))
    return tokenizer.to_str(pretty=False).encode("utf-8")


class Encoder(ABC):
    """Text to ids, nothing else: no special token is added or found, nothing is cut off or filled up."""

    def __init__(self, content: bytes) -> None:
        self._can_cut = cuts.can_cut(_described(content))

    def encode(self, texts: Sequence[str] | pa.Array) -> tuple[Ids, Borders]:
        """Ids of all texts in one array, and the borders between texts (len(texts) + 1, from 0).

        An Arrow array is one of large_string without nulls.
        """
        if not len(texts):
            return np.empty(0, dtype=np.uint32), np.zeros(1, dtype=np.int64)
        strings = texts if isinstance(texts, pa.Array) else pa.array(texts, pa.large_string())
        if not self._can_cut:
            return self._encode(strings)
        parts, firsts = cuts.cut(strings)
        ids, borders = self._encode(parts)
        return ids, borders[firsts]

    @abstractmethod
    def _encode(self, texts: pa.Array) -> tuple[Ids, Borders]: ...


class HuggingFace(Encoder):
    """The reference."""

    def __init__(self, content: bytes) -> None:
        from tokenizers import Tokenizer

        self.tokenizer = Tokenizer.from_str(content.decode("utf-8"))
        self.tokenizer.no_truncation()
        self.tokenizer.no_padding()
        self.tokenizer.encode_special_tokens = True
        super().__init__(content)

    def _encode(self, texts: pa.Array) -> tuple[Ids, Borders]:
        ids: list[Ids] = []
        for some in _in_groups(texts, TOGETHER_BYTES):
            encoded = self.tokenizer.encode_batch_fast(some.to_pylist(), add_special_tokens=False)
            ids += [np.array(one.ids, dtype=np.uint32) for one in encoded]
        return np.concatenate(ids), np.cumsum([0, *map(len, ids)], dtype=np.int64)


class Gigatoken(Encoder):
    """The fast one. It remembers every word that it has met; once that takes CACHE_BYTES it is loaded anew."""

    def __init__(self, content: bytes) -> None:
        super().__init__(content)
        described = _described(content)
        left_out = {"truncation": None, "padding": None, "post_processor": None}  # it would apply these to the text
        tokens = [token for token in described.get("added_tokens") or [] if not token.get("special")]
        self._content = json.dumps({**described, **left_out, "added_tokens": tokens})
        self._load()

    def _load(self) -> None:
        import gigatoken

        self._tokenizer = gigatoken.Tokenizer.from_json(self._content)
        self._held = _resident_bytes()

    def _encode(self, texts: pa.Array) -> tuple[Ids, Borders]:
        import awkward as ak

        if _resident_bytes() > self._held + CACHE_BYTES:
            self._load()
        _, offsets, data = texts.buffers()
        starts = np.frombuffer(offsets, np.int64)[texts.offset : texts.offset + len(texts) + 1]
        characters = np.frombuffer(data, np.uint8) if data else np.empty(0, np.uint8)
        strings = ak.contents.ListOffsetArray(
            ak.index.Index64(starts),
            ak.contents.NumpyArray(characters, parameters={"__array__": "char"}),
            parameters={"__array__": "string"},
        )
        layout = self._tokenizer.encode_batch(ak.Array(strings), parallel=False).layout
        borders = np.asarray(layout.offsets.data, dtype=np.int64)
        ids = np.asarray(layout.content.data, dtype=np.uint32)
        return ids[borders[0] : borders[-1]], borders - borders[0]


ENCODERS: dict[Engine, type[Encoder]] = {"gigatoken": Gigatoken, "huggingface": HuggingFace}


class TextTokenizer:
    """A loaded tokenizer: `info` for the manifest, `encode` as the reference does, `decode`.

    Raises:
        TokenizerError: `content` (of the file `where`) is not a tokenizer.json, has no token `eos`, or would
            turn the text of a special token into its id.
    """

    def __init__(self, content: bytes, eos: str, where: str) -> None:
        self.content, self.where = content, where
        try:
            self._reference = HuggingFace(content)
        except Exception as error:  # the library raises bare Exception
            raise TokenizerError(f"{where}: not a tokenizer.json: {error}") from error
        self._hf = self._reference.tokenizer
        special = {t.content: i for i, t in sorted(self._hf.get_added_tokens_decoder().items()) if t.special}
        eos_id = self._hf.token_to_id(eos)
        if eos_id is None:
            known = ", ".join(special) or "none"
            raise TokenizerError(f"{where}: has no token {eos!r} to end documents with (special tokens: {known})")
        self.info = TokenizerInfo(
            file=NAME,
            sha256=hashlib.sha256(content).hexdigest(),
            vocab_size=max(self._hf.get_vocab(with_added_tokens=True).values()) + 1,
            eos=eos,
            eos_id=eos_id,
            bos_id=None,
            special=special,
        )
        self._refuse_forgery()

    def _refuse_forgery(self) -> None:
        for text, number in {self.info.eos: self.info.eos_id, **self.info.special}.items():
            ids, _ = self.encode(_spelt(text))
            if (ids == number).any():
                raise TokenizerError(f"{self.where}: encodes the text {text!r} as special id {number}: any page could")

    def encode(self, texts: Sequence[str] | pa.Array) -> tuple[Ids, Borders]:
        """`Encoder.encode` of the reference."""
        return self._reference.encode(texts)

    def decode(self, ids: Iterable[int]) -> str:
        """The text of some ids; the spelling of special ones is shown."""
        return str(self._hf.decode([int(number) for number in ids], skip_special_tokens=False))


def load(path: str | Path, eos: str) -> TextTokenizer:
    """Read a tokenizer.json. Raises TokenizerError naming the file."""
    return TextTokenizer(_content(path), eos, str(path))


def encoder(path: str, sha256: str, engine: Engine) -> Encoder:
    """The encoder of a job. Raises TokenizerError for a file that is no longer the one that the
    job began with."""
    content = _content(path)
    if (found := hashlib.sha256(content).hexdigest()) != sha256:
        raise TokenizerError(f"{path}: sha256 is {found}, the job began with {sha256}")
    return _loaded(content, engine)


@functools.lru_cache(maxsize=2)
def _loaded(content: bytes, engine: Engine) -> Encoder:
    """Once a process: a vocabulary of 150,000 takes seconds."""
    return ENCODERS[engine](content)


@functools.lru_cache(maxsize=1)
def _described(content: bytes) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(content)
    return loaded


@dataclass(frozen=True)
class Checked:
    """What a sample of the documents tells about a tokenizer.

    engine, because: the encoder for the job, and why. exact: decoding gave every text back.
    bytes, tokens: of the sample, an EOS for each text counted.
    """

    engine: Engine
    because: str
    exact: bool
    bytes: int
    tokens: int


def check(tokenizer: TextTokenizer, texts: Sequence[str], asked: Literal["auto", "huggingface"] = "auto") -> Checked:
    """Encode a sample, decode it again, and choose an encoder: the fast one where it agrees on all of it."""
    probes = [*PROBES, *(one for special in tokenizer.info.special for one in _spelt(special))]
    ids, borders = tokenizer.encode([*probes, *texts])
    engine: Engine = "huggingface"
    because = "asked for"
    if asked == "auto":
        engine, because = _choose(tokenizer, probes, texts, ids, borders)
    own = borders[len(probes) :]
    size = sum(len(one.encode("utf-8")) for one in texts)
    return Checked(engine, because, _round_trips(tokenizer, texts, ids, own), size, int(own[-1] - own[0]) + len(texts))


def _choose(
    tokenizer: TextTokenizer, probes: Sequence[str], texts: Sequence[str], ids: Ids, borders: Borders
) -> tuple[Engine, str]:
    """gigatoken if it is there and gives these ids; and why."""
    try:
        fast = _loaded(tokenizer.content, "gigatoken")
    except ImportError:
        return "huggingface", "gigatoken is not installed"
    except Exception as error:
        return "huggingface", f"gigatoken cannot load this tokenizer: {error}"
    try:
        theirs = fast.encode([*probes, *texts])
    except Exception as error:
        return "huggingface", f"gigatoken failed on a sample: {error}"
    if not (np.array_equal(ids, theirs[0]) and np.array_equal(borders, theirs[1])):
        return "huggingface", f"gigatoken gives other ids on a sample of {len(borders) - 1} texts"
    return "gigatoken", f"equal ids on a sample of {len(borders) - 1} texts"


def _round_trips(tokenizer: TextTokenizer, texts: Sequence[str], ids: Ids, borders: Borders) -> bool:
    """Whether decoding gives the first texts back exactly (a tokenizer with a normaliser does not)."""
    left = ROUND_TRIP_BYTES
    for text, start, stop in zip(texts, borders[:-1].tolist(), borders[1:].tolist(), strict=True):
        if tokenizer.decode(ids[start:stop]) != text:
            return False
        left -= len(text.encode("utf-8"))
        if left < 0:
            break
    return True


def _spelt(special: str) -> tuple[str, str, str]:
    """The text of a special token, alone and among others."""
    return special, f"a{special}b", f" {special}\n"


def _content(path: str | Path) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise TokenizerError(f"{path}: cannot be read ({error.strerror})") from error


def _in_groups(texts: pa.Array, most: int) -> Iterator[pa.Array]:
    """The texts in order, as many at a time as hold `most` bytes, and at least one."""
    ends = np.frombuffer(texts.buffers()[1], np.int64)[texts.offset : texts.offset + len(texts) + 1]
    start = 0
    while start < len(texts):
        stop = max(start + 1, int(np.searchsorted(ends, ends[start] + most, side="right")) - 1)
        yield texts.slice(start, stop - start)
        start = stop


def _resident_bytes() -> int:
    """Memory of this process; 0 where the system does not say."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError, ValueError):
        return 0
