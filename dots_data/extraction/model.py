"""The model of the fast extractor: a small convolutional network over the units of a page, in numpy.

    hidden  = relu(features W0 + b0)                              a unit alone
    context = relu(mean and maximum of hidden over the page)      the page
    hidden  = relu(conv(hidden, dilation 1) + context)            its neighbours
    hidden += relu(means of hidden over the unit's groups)        its like, and what stands in the same element
    hidden += relu(conv(hidden, dilation 3))                      neighbours of neighbours
    hidden += relu(conv(hidden, dilation 9))
    score   = sigmoid(hidden w + b)

Weights lie in a .npz file of plain arrays, read without pickle, and beside them the thresholds that were chosen for
them: one file, whose content is part of a run's hash, decides what is kept. train.py writes it.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import BadZipFile

import numba
import numpy as np
from numpy.typing import NDArray

from dots_data.extraction import FAST_MODEL
from dots_data.extraction.features import FEATURES, VERSION

F32 = NDArray[np.float32]

DILATIONS = (1, 3, 9)


class Limits(NamedTuple):
    """A unit is main text from the score `threshold` on; a page is sure whose doubt (cascade_engine.doubt) is at most
    `max_doubt`."""

    threshold: float
    max_doubt: float


class ModelError(ValueError):
    """A model file that cannot be used; the message names it and says why."""


class Model:
    """Scores units. `weights` as `train.Network.export` names them, float32; `limits` say what follows from scores."""

    def __init__(self, weights: dict[str, F32], limits: Limits) -> None:
        self.weights, self.limits = weights, limits
        self._convolutions = [(weights[f"w{k}"], weights[f"b{k}"], dilation) for k, dilation in enumerate(DILATIONS, 1)]

    def score(self, features: F32, groups: NDArray[np.int64]) -> F32:
        """The probability that each unit is main text, float32 [units].

        `features` [units, FEATURES] and `groups` [2, units] as features.py makes them.
        """
        if not len(features):
            return np.zeros(0, np.float32)
        w = self.weights
        hidden = np.maximum(features @ w["w0"] + w["b0"], 0)
        page = np.concatenate([hidden.mean(0), hidden.max(0)])
        context = np.maximum(page @ w["wp"] + w["bp"], 0)
        matrix, bias, dilation = self._convolutions[0]
        hidden = np.maximum(_convolve(hidden, matrix, bias, dilation) + context, 0)
        like = np.concatenate([group_means(hidden, groups[0]), group_means(hidden, groups[1])], 1)
        hidden += np.maximum(like @ w["wg"] + w["bg"], 0)
        for matrix, bias, dilation in self._convolutions[1:]:
            hidden += np.maximum(_convolve(hidden, matrix, bias, dilation), 0)
        logits = hidden @ w["wo"] + w["bo"]
        scores: F32 = 1 / (1 + np.exp(-np.clip(logits, -30, 30)))
        return scores


@numba.njit(cache=True, nogil=True)
def group_means(hidden: Any, groups: Any) -> Any:
    """The mean of `hidden` [units, width] over each unit's group; a group is named by its first unit."""
    count, width = hidden.shape
    means, sizes = np.zeros((count, width), np.float32), np.zeros(count, np.float32)
    for i in range(count):
        sizes[groups[i]] += 1
        for k in range(width):
            means[groups[i], k] += hidden[i, k]
    # A group's first unit comes first: all others copy from it.
    for i in range(count):
        if groups[i] == i:
            for k in range(width):
                means[i, k] /= sizes[i]
        else:
            for k in range(width):
                means[i, k] = means[groups[i], k]
    return means


def _convolve(hidden: F32, matrix: F32, bias: F32, dilation: int) -> F32:
    """Three taps at -dilation, 0 and +dilation, their matrices side by side: [units, width] to [units, width]."""
    before, here, after = np.split(hidden @ matrix, 3, axis=1)
    out: F32 = here + bias
    out[dilation:] += before[:-dilation]
    out[:-dilation] += after[dilation:]
    return out


def save(path: Path, model: Model) -> None:
    """Write a model file."""
    numbers = {name: np.array(value, np.float64) for name, value in model.limits._asdict().items()}
    with open(path, "wb") as file:
        np.savez(file, allow_pickle=False, version=np.array(VERSION), **numbers, **model.weights)


@lru_cache(maxsize=8)
def load(path: Path = FAST_MODEL) -> Model:
    """Read a model file.

    Raises:
        ModelError: no such file, no model, or one for other features.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError, BadZipFile) as error:
        raise ModelError(f"{path}: cannot be read as a model: {error}") from error
    version = str(arrays.pop("version", ""))
    if version != VERSION or arrays.get("w0", np.zeros(0)).shape[:1] != (FEATURES,):
        raise ModelError(
            f"{path}: made for features {version or 'unknown'}, not {VERSION}: "
            "train it again with python -m dots_data.extraction.train"
        )
    numbers = [arrays.pop(name, np.zeros(0)) for name in Limits._fields]
    if any(number.shape != () or not 0 <= number <= 1 for number in numbers):
        raise ModelError(f"{path}: {' and '.join(Limits._fields)} must be numbers from 0 to 1")
    weights = {name: np.ascontiguousarray(array, np.float32) for name, array in arrays.items()}
    return Model(weights, Limits(*map(float, numbers)))
