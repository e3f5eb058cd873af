"""How extracted texts agree with the passages that people marked, beside other extractors, and how sure that is.

A page's tally is four counts: marked passages that should be there and are, all such; passages that should not be
there and are not, all such. White space does not count.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dots_data.extraction.labels import LabelledPage

I64 = NDArray[np.int64]
F64 = NDArray[np.float64]


class Quality(NamedTuple):
    """Shares of marked passages: `recall` of those wanted, `rejection` of those not; pages judged."""

    pages: int
    recall: float
    rejection: float


def tallies(pages: Sequence[LabelledPage], texts: Sequence[str]) -> I64:
    """The tally of each page, int64 [pages, 4]: wanted and there, wanted, unwanted and absent, unwanted."""
    return np.array([_tally(page, text) for page, text in zip(pages, texts, strict=True)], np.int64).reshape(-1, 4)


def _tally(page: LabelledPage, text: str) -> tuple[int, int, int, int]:
    whole = " ".join(text.split())
    there = sum(" ".join(passage.split()) in whole for passage in page.required)
    absent = sum(" ".join(passage.split()) not in whole for passage in page.forbidden)
    return there, len(page.required), absent, len(page.forbidden)


def quality(pages: Sequence[LabelledPage], texts: Sequence[str]) -> Quality:
    """Quality over all passages of the pages."""
    recall, rejection = shares(tallies(pages, texts))
    return Quality(sum(page.marked for page in pages), float(recall), float(rejection))


def shares(counted: I64) -> F64:
    """Recall and rejection, [2], or [..., 2] of tallies [..., pages, 4]."""
    there, wanted, absent, unwanted = np.moveaxis(counted.sum(-2), -1, 0)
    return np.stack([there / np.maximum(wanted, 1), absent / np.maximum(unwanted, 1)], -1)


def margins(ours: I64, others: Sequence[I64]) -> F64:
    """How far recall and rejection lie above the best of the others, each against its best: [..., 2]."""
    beyond: F64 = shares(ours) - np.max([shares(other) for other in others], 0)
    return beyond


def margin_interval(
    ours: I64, others: Sequence[I64], sites: Sequence[str], share: float = 0.9, draws: int = 2000, seed: int = 1
) -> F64:
    """Bootstrap interval of the margins, [2 (low, high), 2]: sites are drawn with replacement, all pages of one at
    once, for the pages of a site are alike."""
    names, of_page = np.unique(np.array(sites), return_inverse=True)
    drawn = np.random.default_rng(seed).multinomial(len(names), np.full(len(names), 1 / len(names)), draws)

    def resampled(counted: I64) -> I64:
        by_site = np.zeros((len(names), 4), np.int64)
        np.add.at(by_site, of_page, counted)
        return (drawn @ by_site)[:, None, :]

    found = margins(resampled(ours), [resampled(other) for other in others])
    interval: F64 = np.quantile(found, [(1 - share) / 2, (1 + share) / 2], axis=0)
    return interval
