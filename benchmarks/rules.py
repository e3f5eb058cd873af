"""`make bench-rules`: the verdicts of Gopher, C4 and FineWeb, and their speed, beside datatrove's.

    python -m benchmarks.rules [--input 'crawl/*.warc.gz' 'texts/*.jsonl.gz'] [--most N]

Verdicts: every filter on every text, with the same words on both sides (datatrove's tokenizer swapped for
dots_data.text) and the same thresholds, those of FineWeb-2 in the languages that have them. A disagreement is put
down to the named difference after which datatrove's filter, with one difference after the other built into it,
agrees for good; what none explains is a defect. datatrove's verdicts are kept in build/bench/ for the next run on the
same texts, its times are not.

Speed: documents a CPU second of one process, all four rule sets on every text, datatrove with the tokenizers that it
comes with.
"""

from __future__ import annotations

import argparse
import dataclasses
import gzip
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.texts import OURS, Text, cached, contents, save_result, texts_of
from dots_data import console
from dots_data.judge import Verdict
from dots_data.rules import RulesConfig, clean_and_measure, decide
from dots_data.rules.gopher import DUPLICATE_SIZES, TOP_SIZES
from dots_data.rules.stop_words import STOP_WORDS
from dots_data.text import CHINESE, SOUTHEAST_ASIAN, WITHOUT_SEGMENTER, base_language

PEER = Path(__file__).parent / "peers" / "datatrove_rules.py"
PYTHON = Path("build/peers/datatrove/bin/python")
PIPELINE = "all four"
SETS = ("gopher_repetition", "gopher_quality", "c4", "fineweb")
FOUR = RulesConfig(**dict.fromkeys({field.name for field in dataclasses.fields(RulesConfig)} - set(SETS)))
UNSPACED_LANGUAGES = CHINESE | SOUTHEAST_ASIAN | WITHOUT_SEGMENTER | {"ja"}
# In the order in which the peer builds them in; it describes them.
DIFFERENCES = (
    "words joined",
    "symbols",
    "stop words in any case",
    "words of scripts without spaces",
    "policies in other languages",
)


def arguments(language: str) -> dict[str, dict[str, Any]]:
    """The arguments of datatrove's filters that are our thresholds for a language."""
    repetition, quality, c4, fineweb = (getattr(FOUR, name).thresholds(language) for name in SETS)
    stop_words = STOP_WORDS.get(base_language(language))
    return {
        "gopher_repetition": {
            **{name: repetition[name] for name in ("dup_line_frac", "dup_para_frac")},
            **{name: repetition[name] for name in ("dup_line_char_frac", "dup_para_char_frac")},
            "top_n_grams": [(n, t) for n in TOP_SIZES if (t := repetition[f"top_{n}_gram"]) is not None],
            "dup_n_grams": [(n, t) for n in DUPLICATE_SIZES if (t := repetition[f"dup_{n}_gram"]) is not None],
        },
        "gopher_quality": {
            "min_doc_words": quality["min_words"],
            "max_doc_words": quality["max_words"],
            "min_avg_word_length": quality["min_mean_word_length"],
            "max_avg_word_length": quality["max_mean_word_length"],
            "max_symbol_word_ratio": quality["max_hash_ratio"],
            "max_bullet_lines_ratio": quality["max_bullet_lines"],
            "max_ellipsis_lines_ratio": quality["max_ellipsis_lines"],
            "max_non_alpha_words_ratio": quality["min_alpha_words"],
            "min_stop_words": quality["min_stop_words"] if stop_words else 0,
            "stop_words": sorted(stop_words or ()),
        },
        "c4": {
            "filter_no_terminal_punct": c4["require_terminal_punctuation"],
            "min_num_sentences": c4["min_sentences"],
            # It splits lines at spaces alone: of a language without them it can ask neither.
            "min_words_per_line": -1 if base_language(language) in UNSPACED_LANGUAGES else c4["min_line_words"],
            "max_word_length": -1 if base_language(language) in UNSPACED_LANGUAGES else c4["max_word_length"],
        },
        "fineweb": {
            "line_punct_thr": fineweb["line_punct"],
            "short_line_thr": 1.0 if fineweb["short_line"] is None else fineweb["short_line"],
            "char_duplicates_ratio": fineweb["char_dup"],
            "new_line_ratio": 1e9 if fineweb["newline_ratio"] is None else fineweb["newline_ratio"],
        },
    }


def peer(texts: Sequence[Text], words: str, differences: Sequence[str] = (), judge: str = "each pipeline") -> Any:
    """datatrove's reasons for each text, by filter, and the facts of its run."""
    task, lines = _task(texts, words, differences, judge)
    return _read(_run(task, lines).splitlines())


def known_peer(texts: Sequence[Text], differences: Sequence[str] = ()) -> Any:
    """datatrove's reasons for each text on our words, from build/bench/ if it judged the same texts before: with the
    same thresholds, in the same environment, on words of the same code."""
    task, lines = _task(texts, "ours", differences, "each pipeline")
    code = [*contents([PEER, *OURS.glob("*.py"), *(OURS / "rules").glob("*.py")])]
    environment = sorted(path.name for path in PYTHON.parents[1].glob("lib/*/site-packages/*.dist-info"))
    parts = [task.encode(), lines.encode(), *code, *map(str.encode, environment)]
    with gzip.open(cached("rules", parts, lambda: _run(task, lines)), "rt", encoding="utf-8") as answer:
        return _read(answer.readlines())[0]


def _task(texts: Sequence[Text], words: str, differences: Sequence[str], judge: str) -> tuple[str, str]:
    """What the peer reads: its task, and the texts."""
    task = {
        "thresholds": {text.language: arguments(text.language) for text in texts},
        "words": words,
        "differences": differences,
        "each": "each" in judge,
        "pipeline": "pipeline" in judge,
    }
    lines = (json.dumps({"language": text.language, "text": text.text}) + "\n" for text in texts)
    return json.dumps(task), "".join(lines)


def _run(task: str, lines: str) -> str:
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        file.write(task)
        file.flush()
        command = [str(PYTHON), str(PEER), file.name]
        return subprocess.run(command, input=lines, stdout=subprocess.PIPE, text=True, check=True).stdout


def _read(rows: Sequence[str]) -> Any:
    *verdicts, facts = map(json.loads, rows)
    return [verdict["rules"] for verdict in verdicts], facts


def ours(texts: Sequence[Text]) -> list[dict[str, str | None]]:
    """Our reasons for each text: of each set on the text as it came, and of the four as the pipeline runs them."""
    configs = {name: dataclasses.replace(FOUR, **{other: None for other in SETS if other != name}) for name in SETS}
    configs[PIPELINE] = FOUR
    verdicts = []
    for text in texts:
        judged = {name: judge_text(text, config) for name, config in configs.items()}
        verdicts.append({name: verdict.rule if verdict else None for name, verdict in judged.items()})
    return verdicts


def judge_text(text: Text, config: RulesConfig) -> Verdict | None:
    """What the rules stage says of a text."""
    return decide(clean_and_measure(text.text, text.language, config).measures, text.language, config)


def disagreements(texts: Sequence[Text]) -> tuple[list[dict[str, Any]], Counter[str]]:
    """Every text and set on which one side keeps what the other drops, with the difference that explains it; and
    how many texts both sides drop, by set."""
    mine, theirs = ours(texts), known_peer(texts)

    def differ(i: int, name: str, verdict: dict[str, Any]) -> bool:
        return (mine[i][name] is None) != (verdict[name] is None)

    found = [(i, name) for i in range(len(texts)) for name in (*SETS, PIPELINE) if differ(i, name, theirs[i])]
    some = sorted({i for i, _ in found})
    # last[i, name]: with how many differences built in the verdicts still differed.
    last = dict.fromkeys(found, 0)
    for count in range(1, len(DIFFERENCES) + 1):
        again = dict(zip(some, known_peer([texts[i] for i in some], DIFFERENCES[:count]) if some else (), strict=True))
        last |= {(i, name): count for i, name in found if differ(i, name, again[i])}
    because = (*DIFFERENCES, "not explained")
    differing = [
        {
            "set": name,
            "source": texts[i].source,
            "language": texts[i].language,
            "ours": mine[i][name],
            "datatrove": theirs[i][name],
            "because": because[last[i, name]],
            "text": texts[i].text[:2000],
        }
        for i, name in found
    ]
    dropped = Counter(name for a, b in zip(mine, theirs, strict=True) for name in a if a[name] and b[name])
    return differing, dropped


def summary(texts: Sequence[Text], differing: Sequence[dict[str, Any]], dropped: Counter[str]) -> list[dict[str, Any]]:
    """For each set, and for the four in turn, how many verdicts are equal, and why the others are not."""
    lines = []
    for name in (*SETS, PIPELINE):
        because = Counter(one["because"] for one in differing if one["set"] == name)
        lines.append(
            {
                "set": name,
                "texts": len(texts),
                "equal": 1 - because.total() / len(texts),
                "dropped_by_both": dropped[name] / len(texts),
                "because": dict(because.most_common()),
            }
        )
    return lines


def speed(texts: Sequence[Text], judge: str) -> dict[str, Any]:
    """Texts a CPU second of both sides, interleaved, the better of two runs each: all four sets on every text
    ("each"), or each text only until a set drops it, on datatrove's side ("pipeline")."""
    theirs, mine = [], []
    versions: dict[str, str] = {}
    for _ in range(2):
        facts = peer(texts, "own", judge=judge)[1]
        theirs.append(facts["cpu_seconds"])
        versions = facts["versions"]
        started = time.process_time()
        for text in texts:
            judge_text(text, FOUR)
        mine.append(time.process_time() - started)
    megabytes = sum(len(text.text.encode()) for text in texts) / 1e6
    rates = {"ours": len(texts) / min(mine), "datatrove": len(texts) / min(theirs)}
    return {
        "language": texts[0].language,
        "judged": judge,
        "texts": len(texts),
        "megabytes": megabytes,
        "docs_per_cpu_second": rates,
        "megabytes_per_cpu_second": {"ours": megabytes / min(mine), "datatrove": megabytes / min(theirs)},
        "ratio": rates["ours"] / rates["datatrove"],
        "versions": versions,
    }


def show(verdicts: list[dict[str, Any]], speeds: list[dict[str, Any]]) -> None:
    """The two tables."""
    rows = [
        (
            one["set"],
            one["texts"],
            f"{one['equal']:.3%}",
            f"{one['dropped_by_both']:.1%}",
            ", ".join(f"{n} {why}" for why, n in one["because"].items()),
        )
        for one in verdicts
    ]
    console.table("verdicts", ("set", "texts", "equal", "dropped by both", "disagreements"), rows, left=1)
    speed_rows = [
        (
            one["language"],
            one["judged"],
            one["texts"],
            one["docs_per_cpu_second"]["ours"],
            one["docs_per_cpu_second"]["datatrove"],
            one["ratio"],
        )
        for one in speeds
    ]
    console.table(
        "all four sets",
        ("language", "datatrove judges", "texts", "ours, docs a CPU s", "datatrove", "ratio"),
        speed_rows,
        left=2,
    )


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rules", description=__doc__)
    parser.add_argument("--input", nargs="+", required=True, help="WARC files, JSON lines, parquet; globs")
    parser.add_argument("--most", type=int, default=1000, help="texts of a file at most (default: %(default)s)")
    parser.add_argument("--speed", type=int, default=300, help="texts of a language for speed (default: %(default)s)")
    parser.add_argument("--disagreements", help="write the texts that are judged differently to this file")
    options = parser.parse_args()
    texts = [text for path in options.input for text in texts_of(path, options.most)]
    differing, dropped = disagreements(texts)
    verdicts = summary(texts, differing, dropped)
    speeds = []
    for language, ways in (("en", ("each", "pipeline")), ("zh", ("each",)), ("de", ("each",))):
        # Every n-th, so that all sources have their share.
        spoken = [text for text in texts if text.language == language]
        some = spoken[:: max(1, len(spoken) // options.speed)][: options.speed]
        speeds += [speed(some, way) for way in ways if some]
    show(verdicts, speeds)
    if options.disagreements:
        Path(options.disagreements).write_text(json.dumps(differing, ensure_ascii=False, indent=1))
    save_result("rules", texts, verdicts=verdicts, speed=speeds)
    return 0


if __name__ == "__main__":
    sys.exit(main())
