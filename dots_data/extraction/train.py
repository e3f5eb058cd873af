"""Train the model of the fast extractor, and say how good it is on sites that it has not seen.

    python -m dots_data.extraction.train --pages 'crawl/*.warc.gz' --gold gold.jsonl --output build/extraction

Passages that people marked are hard labels; on all pages the texts of other extractors are weak ones, soft where
they disagree. Quality is cross-validated with folds by site. torch is needed to train, not to extract.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from dots_data import console
from dots_data.crawl.sources import expand
from dots_data.extraction import FAST_MODEL, cascade_engine, fast_engine, labels, model
from dots_data.extraction import scan as s
from dots_data.extraction.features import FEATURES, VERSION, features, groupings
from dots_data.extraction.labels import LabelledPage
from dots_data.extraction.quality import margin_interval, margins, quality, tallies
from dots_data.extraction.scan import Scan, scan_html

F32 = NDArray[np.float32]

# How much each teacher counts: about by what is published of their precision and recall.
TEACHERS = {"trafilatura": 0.3, "trafilatura precision": 0.3, "readability": 0.2, "resiliparse": 0.2}
# What the model must be better than, and where its threshold is looked for.
PEERS = ("trafilatura", "trafilatura precision")
# Of a model for which nothing is held out to choose its limits by.
UNCHOSEN = model.Limits(0.5, 0.4)
THRESHOLDS = tuple(round(0.3 + 0.0125 * step, 4) for step in range(25))
_NO_LETTER = re.compile(r"[\W_]+")
_SHORT, _WINDOW = 25, 3000


@dataclass(frozen=True)
class TrainConfig:
    """epochs over all pages; learning rate (cosine to 0); weight decay; hidden width; dropout, of
    hidden values and of whole features; weight of marked units; seed; `teachers`: networks that the one which counts
    learns from (0: none).

    A page with more than `most_units` units shows that many in a row, others each time.
    """

    epochs: int = 18
    rate: float = 3e-3
    decay: float = 0.05
    hidden: int = 48
    dropout: float = 0.2
    column_dropout: float = 0.05
    marked_weight: float = 24.0
    pages_a_batch: int = 16
    most_units: int = 400
    seed: int = 1
    teachers: int = 3


class Example(NamedTuple):
    """A page as the network sees it: features [units, FEATURES], groups [2, units], targets and weights [units]."""

    page: LabelledPage
    scan: Scan
    features: F32
    groups: NDArray[np.int64]
    targets: F32
    weights: F32


# ---- labels of units ---------------------------------------------------------------------------------------


def normal(text: str) -> str:
    """Letters and digits in lower case: what two extractors' outputs have in common."""
    return _NO_LETTER.sub("", text.lower())


def contained(units: Sequence[str], text: str) -> NDArray[np.bool_]:
    """Which units (normal forms, in page order) an extractor's text holds.

    A long unit may stand anywhere. A short one must be a line of the text or a cell, or stand between the long
    units around it: "Home" is no main text because some sentence speaks of one.
    """
    whole = normal(text)
    pieces = {normal(piece) for line in text.split("\n") for piece in (line, *line.split("|"))}
    found = np.zeros(len(units), np.bool_)
    starts = np.full(len(units), -1)
    cursor = 0
    for i, unit in enumerate(units):
        if len(unit) >= _SHORT:
            at = whole.find(unit, cursor)
            at = whole.find(unit) if at < 0 else at
            if at >= 0:
                found[i], starts[i], cursor = True, at, at + len(unit)
    long = np.flatnonzero(found)
    for i, unit in enumerate(units):
        if not unit or len(unit) >= _SHORT:
            continue
        after = np.searchsorted(long, i)
        left = starts[long[after - 1]] + len(units[long[after - 1]]) if after else 0
        right = starts[long[after]] if after < len(long) else len(whole)
        near = left <= right <= left + _WINDOW and 0 < after < len(long) and unit in whole[left:right]
        found[i] = near or unit in pieces
    return found


def mark(units: Sequence[str], passages: Iterable[str]) -> NDArray[np.bool_]:
    """Which units (plain texts) a passage touches, whole words only."""
    spaced = [" ".join(unit.lower().split()) for unit in units]
    starts = np.cumsum([0, *(len(unit) + 1 for unit in spaced)])
    whole = " ".join(spaced)
    touched = np.zeros(len(units), np.bool_)
    for passage in passages:
        wanted = " ".join(passage.lower().split())
        if not wanted:
            continue
        for match in re.finditer(rf"(?<!\w){re.escape(wanted)}(?!\w)", whole):
            first, last = np.searchsorted(starts, [match.start(), match.end() - 1], "right") - 1
            touched[first : last + 1] = True
    return touched


def trust(page: LabelledPage, text: str) -> float:
    """How far a teacher's text may label a marked page: 1 where it agrees with all marks, little where it does not."""
    marks = len(page.required) + len(page.forbidden)
    if not marks:
        return 1.0
    score = quality([page], [text])
    right = score.recall * len(page.required) + score.rejection * len(page.forbidden)
    return max(0.02, (right / marks) ** 4)


def example(page: LabelledPage, marked_weight: float) -> Example:
    """Features and labels of a page."""
    serialised = fast_engine.parse(page.html)
    scanned = scan_html(serialised)
    texts = fast_engine.texts(scanned)
    normals = [normal(text) for text in texts]
    votes, total = np.zeros(len(texts), np.float32), 0.0
    for teacher, share in TEACHERS.items():
        if page.texts.get(teacher):
            share *= trust(page, page.texts[teacher])
            votes += np.float32(share) * contained(normals, page.texts[teacher])
            total += share
    targets = votes / np.float32(max(total, 1e-6))
    # Long units matter more, but not by their length; units on which the teachers disagree teach less.
    weights = np.log1p(_lengths(scanned) / 10) * (0.3 + 0.7 * np.abs(2 * targets - 1)) * (total > 0.1)
    wanted, unwanted = mark(texts, page.required), mark(texts, page.forbidden)
    # A wanted passage that stands twice is wanted once, where some teacher took it.
    if (wanted & (targets > 0.3)).any():
        wanted &= targets > 0.1
    unwanted &= ~wanted
    targets = np.where(wanted, 1.0, np.where(unwanted, 0.0, targets))
    weights = np.where(wanted | unwanted, marked_weight, weights)
    return Example(
        page,
        scanned,
        features(scanned, len(serialised)),
        groupings(scanned),
        targets.astype(np.float32),
        weights.astype(np.float32),
    )


def _lengths(scanned: Scan) -> NDArray[np.float64]:
    """Of every unit, in letters: a character of a script without spaces weighs two and a half."""
    lengths: NDArray[np.float64] = scanned.units[:, s.CHARS] + 1.5 * scanned.units[:, s.UNSPACED]
    return lengths


# ---- the network ---------------------------------------------------------------------------------------------


class Neighbours(nn.Module):
    """A convolution of three taps, as one product: several times faster here than the library's own."""

    def __init__(self, width: int, dilation: int) -> None:
        super().__init__()
        self.taps = nn.Linear(width, 3 * width, bias=False)
        self.bias = nn.Parameter(torch.zeros(width))
        nn.init.uniform_(self.taps.weight, -((3 * width) ** -0.5), (3 * width) ** -0.5)
        self.dilation = dilation

    def forward(self, hidden: Tensor) -> Tensor:
        """[pages, units, width] to the same."""
        before, here, after = self.taps(hidden).chunk(3, -1)
        reach = min(self.dilation, hidden.shape[1])
        before = functional.pad(before[:, : hidden.shape[1] - reach], (0, 0, reach, 0))
        after = functional.pad(after[:, reach:], (0, 0, 0, reach))
        out: Tensor = before + here + after + self.bias
        return out


class Network(nn.Module):
    """The network of model.py in torch; input [pages, units, FEATURES], mask [pages, units]."""

    def __init__(self, config: TrainConfig) -> None:
        super().__init__()
        width = config.hidden
        self.first = nn.Linear(FEATURES, width)
        self.page = nn.Linear(2 * width, width)
        self.like = nn.Linear(2 * width, width)
        neighbours = [Neighbours(width, dilation) for dilation in model.DILATIONS]
        self.neighbours: Sequence[Neighbours] = nn.ModuleList(neighbours)  # type: ignore[assignment]
        self.last = nn.Linear(width, 1)
        self.drop = nn.Dropout(config.dropout)
        self.columns = config.column_dropout

    def forward(self, units: Tensor, mask: Tensor, groups: Tensor) -> Tensor:
        """Logits [pages, units]."""
        here = mask[..., None]
        # Whole columns are dropped, a page at a time: no answer may hang on one feature of a site.
        columns = functional.dropout(torch.ones(len(units), 1, FEATURES), self.columns, self.training)
        hidden = torch.relu(self.first(units * columns)) * here
        count = here.sum(1).clamp(min=1)
        page = torch.cat([hidden.sum(1) / count, hidden.amax(1)], -1)
        context = torch.relu(self.page(page))
        for index, neighbours in enumerate(self.neighbours):
            after = neighbours(self.drop(hidden))
            after = torch.relu(after + context[:, None] if index == 0 else after) * here
            hidden = after if index == 0 else hidden + after
            if index == 0:
                like = torch.cat([_group_means(hidden, groups[0], mask), _group_means(hidden, groups[1], mask)], -1)
                hidden = hidden + torch.relu(self.like(like)) * here
        logits: Tensor = self.last(hidden)[..., 0]
        return logits

    def export(self) -> dict[str, F32]:
        """The weights as model.Model wants them."""
        out: dict[str, Tensor] = {
            "w0": self.first.weight.T,
            "b0": self.first.bias,
            "wp": self.page.weight.T,
            "bp": self.page.bias,
            "wg": self.like.weight.T,
            "bg": self.like.bias,
            "wo": self.last.weight[0],
            "bo": self.last.bias,
        }
        for k, neighbours in enumerate(self.neighbours, 1):
            out |= {f"w{k}": neighbours.taps.weight.T, f"b{k}": neighbours.bias}
        return {name: np.ascontiguousarray(value.detach().numpy(), np.float32) for name, value in out.items()}


def _group_means(hidden: Tensor, groups: Tensor, mask: Tensor) -> Tensor:
    """model.group_means for a batch: `groups` [pages, units] are rows of the flattened batch."""
    flat, rows = hidden.flatten(0, 1), groups.flatten()
    sums = torch.zeros_like(flat).index_add(0, rows, flat)
    sizes = torch.zeros(len(flat)).index_add(0, rows, mask.flatten()).clamp(min=1)
    return (sums / sizes[:, None])[rows].view_as(hidden)


def train(examples: Sequence[Example], config: TrainConfig, log: Callable[[str], None] = lambda _: None) -> model.Model:
    """Fit a network; the same examples and configuration give the same weights on the same machine.

    It learns from the mean of some others besides the labels: alone, one differs from the next by half a percent.
    """
    teachers = [fit(examples, config, config.seed + 1 + k, log) for k in range(config.teachers)]
    return fit([softened(one, teachers, config) for one in examples], config, config.seed, log)


def softened(one: Example, teachers: Sequence[model.Model], config: TrainConfig) -> Example:
    """An example whose labels are half its own and half what the teachers think; people's marks stay."""
    if not teachers or not len(one.targets):
        return one
    marked = one.weights >= np.float32(config.marked_weight)
    thought = np.mean([teacher.score(one.features, one.groups) for teacher in teachers], 0, dtype=np.float32)
    targets = np.where(marked, one.targets, (one.targets + thought) / 2).astype(np.float32)
    # Where the extractors disagreed there is an answer now: all units teach.
    weights = np.where(marked, one.weights, np.log1p(_lengths(one.scan) / 10)).astype(np.float32)
    return one._replace(targets=targets, weights=weights)


def fit(examples: Sequence[Example], config: TrainConfig, seed: int, log: Callable[[str], None]) -> model.Model:
    """Fit one network to the examples' labels."""
    torch.manual_seed(seed)
    random = np.random.default_rng(seed)
    network = Network(config)
    optimizer = torch.optim.AdamW(network.parameters(), lr=config.rate, weight_decay=config.decay)
    examples = [one for one in examples if len(one.targets) and one.weights.any()]
    # Pages of like length go together, so that little is padding.
    order = sorted(range(len(examples)), key=lambda i: len(examples[i].targets))
    batches = [order[i : i + config.pages_a_batch] for i in range(0, len(order), config.pages_a_batch)]
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, config.rate, total_steps=config.epochs * len(batches), pct_start=0.1
    )
    for epoch in range(config.epochs):
        network.train()
        total = 0.0
        for index in random.permutation(len(batches)):
            units, mask, groups, targets, weights = _padded(
                [examples[i] for i in batches[index]], config.most_units, random
            )
            logits = network(units, mask, groups)
            losses = functional.binary_cross_entropy_with_logits(logits, targets, reduction="none")
            loss = (losses * weights).sum() / weights.sum()
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            total += float(loss.detach())
        log(f"epoch {epoch + 1} of {config.epochs}: loss {total / len(batches):.4f}")
    network.eval()
    return model.Model(network.export(), UNCHOSEN)


def _padded(
    examples: Sequence[Example], most_units: int, random: np.random.Generator
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    longest = min(most_units, max(len(one.targets) for one in examples))
    units = torch.zeros(len(examples), longest, FEATURES)
    mask, targets, weights = (torch.zeros(len(examples), longest) for _ in range(3))
    groups = torch.arange(len(examples) * longest).repeat(2, 1).view(2, len(examples), longest)
    for i, one in enumerate(examples):
        count = min(longest, len(one.targets))
        start = int(random.integers(len(one.targets) - count + 1))
        part = slice(start, start + count)
        units[i, :count] = torch.from_numpy(one.features[part])
        mask[i, :count] = 1
        # Of a group that begins before the part shown, the first unit shown stands for it.
        for k in range(2):
            _, first, group = np.unique(one.groups[k, part], return_index=True, return_inverse=True)
            groups[k, i, :count] = torch.from_numpy(first[group] + i * longest)
        targets[i, :count] = torch.from_numpy(one.targets[part])
        # A page counts by the root of its size: a list of a thousand links is not a thousand pages.
        weights[i, :count] = torch.from_numpy(one.weights[part]) / max(1.0, float(one.weights.sum())) ** 0.5
    return units, mask, groups, targets, weights


# ---- quality -------------------------------------------------------------------------------------------------


def fold_of(site: str, folds: int) -> int:
    """The fold of a site: by hash, so that it never changes."""
    return int.from_bytes(hashlib.blake2b(site.encode(), digest_size=4).digest(), "big") % folds


def held_out(
    examples: Sequence[Example], config: TrainConfig, folds: int, folder: Path, log: Callable[[str], None]
) -> list[F32]:
    """Each example's scores by a model that saw no page of its site.

    The models of the folds are kept in `folder`, and taken from there for the same examples and configuration.
    """
    scores = [np.zeros(0, np.float32)] * len(examples)
    key = _digest(examples, config)
    for fold in range(folds):
        path = folder / f"fold-{key}-{fold}of{folds}.npz"
        if not path.exists():
            seen = [one for one in examples if fold_of(one.page.site, folds) != fold]
            folder.mkdir(parents=True, exist_ok=True)
            model.save(path, train(seen, config))
            log(f"fold {fold + 1} of {folds}: trained on {len(seen):,} pages")
        fitted = model.load(path)
        for i, one in enumerate(examples):
            if fold_of(one.page.site, folds) == fold:
                scores[i] = fitted.score(one.features, one.groups)
    return scores


def held_out_texts(examples: Sequence[Example], scores: Sequence[F32], folds: int) -> dict[str, list[str]]:
    """Each example's text by `fast` and by `cascade`, their limits chosen without the pages of its fold."""
    fold = np.array([fold_of(one.page.site, folds) for one in examples])
    limits = choose_limits(examples, scores, [fold != k for k in range(folds)])
    texts: dict[str, list[str]] = {"fast": [], "cascade": []}
    for one, score, k in zip(examples, scores, fold.tolist(), strict=True):
        texts["fast"].append(fast_engine.text_of(one.page.html, one.scan, score, limits[k].threshold))
        texts["cascade"].append(cascade_engine.choose(limits[k], one.scan, score, one.page.html, one.page.url))
    return texts


def choose_limits(
    examples: Sequence[Example], scores: Sequence[F32], seen: Sequence[NDArray[np.bool_]]
) -> list[model.Limits]:
    """For each choice of examples in `seen`, [examples] each, the limits that fit them; scores are held-out ones.

    The threshold is that at which recall and rejection of people's marks both lie furthest beyond PEERS; the doubt is
    the one that a page in twenty exceeds.
    """
    marked = [i for i, one in enumerate(examples) if one.page.marked]
    pages = [examples[i].page for i in marked]
    peers = [tallies(pages, [page.texts.get(name, "") for page in pages]) for name in PEERS]
    ours = np.stack([tallies(pages, _texts_at(examples, scores, marked, threshold)) for threshold in THRESHOLDS])
    doubts = np.array([cascade_engine.doubt(one.scan, score) for one, score in zip(examples, scores, strict=True)])
    out = []
    for chosen in seen:
        here = chosen[marked]
        reached = margins(ours[:, here], [peer[here] for peer in peers]).min(-1)
        doubt = round(float(np.quantile(doubts[chosen], 0.95)), 3)
        out.append(model.Limits(THRESHOLDS[int(np.argmax(reached))], doubt))
    return out


def _texts_at(examples: Sequence[Example], scores: Sequence[F32], which: Sequence[int], limit: float) -> list[str]:
    return [fast_engine.text_of(examples[i].page.html, examples[i].scan, scores[i], limit) for i in which]


def _digest(examples: Sequence[Example], config: TrainConfig) -> str:
    """16 hexadecimal digits over all that a fold's model is made from, this module's text included."""
    digest = hashlib.blake2b(f"{config} {VERSION}".encode() + Path(__file__).read_bytes(), digest_size=8)
    for one in examples:
        for array in (one.features, one.groups, one.targets, one.weights):
            digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


# ---- the command ---------------------------------------------------------------------------------------------


def labelled(inputs: Sequence[str], gold: Path | None, folder: Path) -> list[LabelledPage]:
    """Pages with labels, from `folder` if they were made there before from the same input by the same tools."""
    facts = [(source.name, Path(source.path).stat().st_size) for source in expand(list(inputs))]
    tools = [version(name) for name in ("trafilatura", "resiliparse")]
    marks = gold.read_bytes() if gold else b""
    key = hashlib.blake2b(repr((facts, tools, labels.PAGES_A_SITE)).encode() + marks, digest_size=8).hexdigest()
    path = folder / f"labelled-{key}.jsonl.gz"
    if not path.exists():
        labels.save(labels.label(labels.sample(inputs, gold)), path)
    return labels.load(path)


def margin_rows(pages: Sequence[LabelledPage], texts: dict[str, list[str]], name: str) -> list[tuple[str, ...]]:
    """By language: how far `name` lies beyond the best of PEERS, recall and rejection, each with its 90% interval."""
    marked = [i for i, page in enumerate(pages) if page.marked]
    rows = []
    for language in ("", "de", "en"):
        chosen = [i for i in marked if pages[i].language.startswith(language)]
        here = [pages[i] for i in chosen]
        if not here:
            continue
        ours, *peers = (tallies(here, [texts[one][i] for i in chosen]) for one in (name, *PEERS))
        low, high = margin_interval(ours, peers, [page.site for page in here])
        told = (f"{m:+.3f} ({a:+.3f} to {b:+.3f})" for m, a, b in zip(margins(ours, peers), low, high, strict=True))
        rows.append((language or "all", f"{len(here):,}", *told))
    return rows


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = [columns, ["---", *["--:"] * (len(columns) - 1)]]
    return "\n".join(f"| {' | '.join(row)} |" for row in (*head, *rows))


def card(
    examples: Sequence[Example], config: TrainConfig, limits: model.Limits, texts: dict[str, list[str]], folds: int
) -> str:
    """What the model is, made from what, how good and where not: the text beside the model's file."""
    pages = [one.page for one in examples]
    marked = [page for page in pages if page.marked]
    passages = sum(len(page.required) + len(page.forbidden) for page in marked)
    scores = {name: quality(pages, found) for name, found in texts.items()}
    rows = [(name, f"{q.pages:,}", f"{q.recall:.3f}", f"{q.rejection:.3f}") for name, q in scores.items()]
    beyond = margin_rows(pages, texts, "fast") if texts else []
    return f"""# Model of the fast extractor

Scores each line of an HTML page by the probability that it is main text. A convolutional network of width
{config.hidden} over {FEATURES} features a line and its neighbours (dots_data/extraction/model.py, features.py; features
{VERSION}); no text and no class name is stored in it.
A line is kept from a score of {limits.threshold} on; the cascade asks trafilatura about pages of a doubt above
{limits.max_doubt}. Both numbers lie in the file.

Made by `python -m dots_data.extraction.train` from {len(examples):,} pages of {len({page.site for page in pages}):,}
sites: {passages:,} passages that people marked on {len(marked):,} pages as hard labels, and on all pages the agreement
of {", ".join(TEACHERS)} (trafilatura {version("trafilatura")}, resiliparse {version("resiliparse")}) as weak ones.
Configuration: {config}.

Quality by {folds}-fold cross-validation, folds by site, threshold and doubt chosen on the other folds: share of the
marked passages that are wanted and kept, that are unwanted and refused.

{_table(("extractor", "pages", "with", "without"), rows)}

How far `fast` lies beyond the better of {" and ".join(PEERS)}, each figure against its better one, with the 90%
interval of a bootstrap over sites:

{_table(("language", "pages", "with", "without"), beyond)}

Limits. People marked mostly German and English news and blogs; for other languages and kinds of page (manuals, forums,
lists) the labels are those of other extractors, with their faults: comments count as boilerplate, and so do many short
lines. Of Chinese pages none is marked: there the extractor is as good as the agreement of others. Pages that are drawn
by scripts have no text to score.
"""


def main() -> int:
    arguments = argparse.ArgumentParser(prog="python -m dots_data.extraction.train", description=__doc__)
    arguments.add_argument("--pages", nargs="+", required=True, help="WARC files")
    arguments.add_argument("--gold", type=Path, help="marked passages (labels.read_gold tells their form)")
    arguments.add_argument(
        "--output", type=Path, default=Path("build/extraction"), help="folder (default: %(default)s)"
    )
    arguments.add_argument("--folds", type=int, default=5, help="of the cross-validation; 0: none")
    options = arguments.parse_args()
    torch.set_num_threads(1)
    config = TrainConfig()
    pages = labelled(options.pages, options.gold, options.output)
    examples = [example(page, config.marked_weight) for page in pages]
    texts: dict[str, list[str]] = {}
    limits = UNCHOSEN
    if options.folds:
        scores = held_out(examples, config, options.folds, options.output, console.console.print)
        texts = held_out_texts(examples, scores, options.folds)
        texts |= {name: [page.texts[name] for page in pages] for name in TEACHERS}
        [limits] = choose_limits(examples, scores, [np.ones(len(examples), np.bool_)])
    fitted = model.Model(train(examples, config, console.console.print).weights, limits)
    options.output.mkdir(parents=True, exist_ok=True)
    target = options.output / FAST_MODEL.name
    model.save(target, fitted)
    target.with_suffix(".md").write_text(card(examples, config, limits, texts, options.folds), encoding="utf-8")
    console.console.print(f"written: {target}, {target.with_suffix('.md')}; use them by copying both over those in")
    console.console.print(f"  {FAST_MODEL.parent}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
