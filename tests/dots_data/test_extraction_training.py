"""Labels, network and quality of the fast extractor's training."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from dots_data.extraction import model, quality, train
from dots_data.extraction.features import FEATURES
from dots_data.extraction.labels import LabelledPage, load, read_gold, save, site_of

TINY = train.TrainConfig(teachers=2, epochs=60, hidden=8, pages_a_batch=2, dropout=0.0, column_dropout=0.0, rate=1e-2)
SENTENCE = "The harbour was rebuilt after the storm, and its new walls have kept the town dry since then, year {k}. "


def made_page(number: int) -> LabelledPage:
    paragraphs = [SENTENCE.format(k=k + number) * 2 for k in range(4)]
    menu = "".join(f"<li><a href=/{k}>Section {k}</a></li>" for k in range(5))
    html = f"<ul class=menu>{menu}</ul><div>" + "".join(f"<p>{text}</p>" for text in paragraphs) + "</div>"
    texts = dict.fromkeys(train.TEACHERS, "\n".join(paragraphs))
    return LabelledPage(
        f"r{number}", f"http://site{number}.example/", f"site{number}.example", html, "en", (), (), texts
    )


@pytest.mark.parametrize(
    ("url", "site"),
    [
        ("https://www.example.com/a", "example.com"),
        ("http://news.example.co.uk/", "example.co.uk"),
        ("http://example.de", "example.de"),
        ("http://a.b.org.cn/x", "b.org.cn"),
    ],
)
def test_site_of(url: str, site: str) -> None:
    assert site_of(url) == site


def test_which_units_an_extractor_kept() -> None:
    sentence = train.normal(SENTENCE)
    other = train.normal("Quite another sentence about a lighthouse and nothing else.")
    units = ["home", sentence, "short", other, "home", ""]
    text = f"{SENTENCE}\nshort\nQuite another sentence about a lighthouse, and nothing else. Home sweet home\n"
    assert train.contained(units, text).tolist() == [False, True, True, True, False, False]
    assert train.contained(["a1", "b2"], "- a1\nx | b2").tolist() == [True, True]
    assert train.contained(["a", "b"], "").tolist() == [False, False]


def test_which_units_a_passage_marks() -> None:
    units = ["Menu", "The harbour was", "rebuilt  after all", "harbours"]
    assert train.mark(units, ["Harbour was rebuilt after"]).tolist() == [False, True, True, False]
    assert train.mark(units, ["harbour"]).tolist() == [False, True, False, False]
    assert not train.mark(units, ["absent", ""]).any()


def test_marks_overrule_teachers() -> None:
    page = replace(made_page(1), required=("Section 3",), forbidden=("dry since then, year 2",))
    found = train.example(page, 8.0)
    texts = [bytes(found.scan.text[u[0] : u[1]]).decode() for u in found.scan.units]
    assert found.targets[texts.index("Section 3")] == 1 and found.weights[texts.index("Section 3")] == 8
    wrong = next(k for k, text in enumerate(texts) if "year 2" in text)
    assert found.targets[wrong] == 0 and found.weights[wrong] == 8


def test_quality() -> None:
    page = replace(made_page(1), required=("a b", "c"), forbidden=("x", "y"))
    assert quality.quality([page, made_page(2)], ["a\nb x", ""]) == (1, 0.5, 0.5)


def test_margins_are_against_the_best_of_each() -> None:
    ours, one, other = (np.array(rows) for rows in ([[9, 10, 6, 10]], [[8, 10, 2, 10]], [[1, 10, 7, 10]]))
    assert quality.margins(ours, [one, other]) == pytest.approx([0.1, -0.1])
    assert quality.margins(np.stack([ours, one]), [one, other]) == pytest.approx(np.array([[0.1, -0.1], [0, -0.5]]))


def test_intervals_draw_whole_sites() -> None:
    ours, other = np.array([[1, 1, 0, 1], [0, 1, 1, 1]] * 8), np.array([[0, 1, 0, 1]] * 16)
    # Two pages of one site are one draw: every draw has the same shares.
    low, high = quality.margin_interval(ours, [other], [f"s{k // 2}" for k in range(16)])
    assert low == pytest.approx([0.5, 0.5]) and high == pytest.approx([0.5, 0.5])
    low, high = quality.margin_interval(ours, [other], [f"s{k}" for k in range(16)])
    assert (low < 0.5).all() and (high > 0.5).all() and (low > 0.1).all() and (high < 0.9).all()


def test_limits_are_chosen_without_the_fold() -> None:
    pages = [replace(made_page(k), required=("The harbour was rebuilt",), forbidden=("Section 3",)) for k in range(6)]
    pages = [replace(page, texts=dict.fromkeys((*train.TEACHERS, *train.PEERS), "")) for page in pages]
    examples = [train.example(page, 8.0) for page in pages]
    # On the pages of the first half menus score .3 and text .4, on those of the second .5 and .6.
    scores = [(0.3 + 0.2 * (k > 2) + 0.1 * (one.targets > 0.5)).astype(np.float32) for k, one in enumerate(examples)]
    first = np.arange(6) < 3
    limits = train.choose_limits(examples, scores, [first, ~first])
    assert 0.3 < limits[0].threshold <= 0.4 and 0.5 < limits[1].threshold <= 0.6


def test_the_network_learns_the_same_twice() -> None:
    examples = [train.example(made_page(number), 8.0) for number in range(6)]
    fitted = train.train(examples[:5], TINY)
    again = train.train(examples[:5], TINY)
    assert all(np.array_equal(fitted.weights[name], again.weights[name]) for name in fitted.weights)
    scores = fitted.score(examples[5].features, examples[5].groups)
    assert ((scores > 0.5) == (examples[5].targets > 0.5)).all()
    assert fitted.limits == train.UNCHOSEN


def test_teachers_answer_where_labels_do_not() -> None:
    one = train.example(replace(made_page(1), required=("Section 3",)), TINY.marked_weight)
    teacher = train.fit([train.example(made_page(2), 8.0)], TINY, 1, lambda _: None)
    soft = train.softened(one, [teacher, teacher], TINY)
    marked, thought = one.weights == TINY.marked_weight, teacher.score(one.features, one.groups)
    assert marked.any() and (soft.targets[marked] == one.targets[marked]).all()
    assert soft.targets[~marked] == pytest.approx((one.targets + thought)[~marked] / 2, abs=1e-6)
    assert (soft.weights > 0).all() and train.softened(one, [], TINY) is one


def test_numpy_and_torch_compute_the_same() -> None:
    torch.manual_seed(1)
    network = train.Network(TINY).eval()
    exported = model.Model(network.export(), train.UNCHOSEN)
    examples = [train.example(made_page(number), 8.0) for number in (1, 2)]
    short = examples[0]._replace(
        features=examples[0].features[:2],
        groups=np.zeros((2, 2), np.int64),
        targets=examples[0].targets[:2],
        weights=examples[0].weights[:2],
    )
    units, mask, groups, _, _ = train._padded([short, examples[1]], 100, np.random.default_rng(1))
    assert units.shape[2] == FEATURES
    with torch.no_grad():
        logits = network(units, mask, groups)
    for row, one in enumerate((short, examples[1])):
        expected = torch.sigmoid(logits[row, : len(one.targets)]).numpy()
        assert exported.score(one.features, one.groups) == pytest.approx(expected, abs=1e-5)


def test_pages_are_written_and_read_again(tmp_path: Path) -> None:
    pages = [replace(made_page(1), required=("a",)), made_page(2)]
    save(iter(pages), tmp_path / "pages.jsonl.gz")
    assert load(tmp_path / "pages.jsonl.gz") == pages


def test_gold_of_other_kinds_is_left_out(tmp_path: Path) -> None:
    rows = [
        {"kind": "segments", "record_id": "a", "with": ["x"], "without": [], "lang": "de_CH"},
        {"kind": "fulltext", "record_id": "b", "text": "x"},
    ]
    (tmp_path / "gold.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert read_gold(tmp_path / "gold.jsonl") == {"a": (("x",), (), "de")}


def test_folds_never_split_a_site() -> None:
    assert {train.fold_of("example.com", 5) for _ in range(9)} == {train.fold_of("example.com", 5)}
    assert {train.fold_of(f"site{k}.com", 4) for k in range(60)} == {0, 1, 2, 3}
