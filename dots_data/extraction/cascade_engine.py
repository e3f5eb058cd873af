"""The cascade: the fast engine first, trafilatura for the pages that its model is unsure of."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dots_data.extraction import fast_engine, trafilatura_engine
from dots_data.extraction import model as models
from dots_data.extraction import scan as s
from dots_data.extraction.model import Limits
from dots_data.extraction.scan import Scan


def extract(html: str, url: str | None = None) -> str:
    """The page's main text; "" where neither engine finds any."""
    return choose(models.load().limits, *fast_engine.score(html), html, url)


def choose(limits: Limits, scanned: Scan, scores: NDArray[np.float32], html: str, url: str | None) -> str:
    """The fast engine's text, or trafilatura's where the scores tell of more doubt than the limit."""
    text = fast_engine.text_of(html, scanned, scores, limits.threshold)
    if doubt(scanned, scores) <= limits.max_doubt:
        return text
    return trafilatura_engine.extract(html, url) or text


def forget() -> None:
    """Empty trafilatura's caches."""
    trafilatura_engine.forget()


def doubt(scanned: Scan, scores: NDArray[np.float32]) -> float:
    """How unsure the model is of a page, from 0 to 1: the expected share of misjudged text in what may be kept."""
    lengths = scanned.units[:, s.CHARS] + 1.5 * scanned.units[:, s.UNSPACED]
    candidates = scores * lengths
    return float(np.sum(np.minimum(scores, 1 - scores) * lengths) / max(float(np.sum(candidates)), 1.0))
