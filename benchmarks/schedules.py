"""`make plan-schedules`: the pipelines of the released model on paper, into docs/overlap.md.

    python -m benchmarks.schedules

Nothing is measured: every number is that of `dots plan dots1 --layout ... --schedule`, for several layouts and two
speeds of the wire.
"""

from __future__ import annotations

import sys
from pathlib import Path

from dots_train import schedule_plan
from dots_train.config import load_job
from dots_train.cost import GPUS
from dots_train.plan import make_plan
from dots_train.schedule_plan import Assumed, play

PAGE, PICTURE = Path("docs/overlap.md"), Path("docs/pipeline.svg")
BEGIN, END = "<!-- make plan-schedules -->", "<!-- end -->"
LAYOUTS = [(8, 2, 16), (8, 4, 16), (8, 4, 32), (16, 2, 16), (16, 2, 32), (16, 3, 32)]
SHARDS = 128
WIRES = (50.0, 150.0)  # GB/s: a NIC of 400 Gbit/s for each GPU; NVLink of an H800
EFFICIENCY = 0.45


def lines() -> list[str]:
    """The table in Markdown."""
    measures = [f"{what}, {wire:g} GB/s" for wire in WIRES for what in ("step s", "waits", "empty")]
    table = [["layout", "schedule", *measures, "GB held"], ["---", "---", *["--:"] * 7]]
    for pp, vpp, ep in LAYOUTS:
        job = load_job("dots1", [*_layout(pp, vpp, SHARDS, ep), "curriculum.batch_multiple=4096"])
        plan = make_plan(job, job.layout, GPUS["H800"], 0.2)
        by_wire = [play(plan, Assumed(EFFICIENCY, wire)) for wire in WIRES]
        for found in zip(*by_wire, strict=True):
            name = f"**{found[0].name}**" if found[0].name == "overlapped" else found[0].name
            numbers = [
                text
                for one in found
                for text in (f"{one.result.makespan:.1f}", f"{one.result.waiting:.0%}", f"{one.result.bubble:.1%}")
            ]
            where = f"PP {pp}, VPP {found[0].parts}, EP {ep}"
            table.append([where, name, *numbers, f"{found[0].gigabytes:.0f}"])
    return [f"| {' | '.join(row)} |" for row in table]


def main() -> int:
    text = PAGE.read_text()
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    PAGE.write_text("\n".join([before + BEGIN, *lines(), END + after]))
    job = load_job("dots1", [*_layout(4, 2, 1024, 16), "curriculum.batch_multiple=8192"])
    small = make_plan(job, job.layout, GPUS["H800"], 0.2)
    played = [one for one in play(small, Assumed(EFFICIENCY, 100)) if one.name in ("interleaved 1F1B", "overlapped")]
    schedule_plan.draw(small, played, PICTURE)
    return 0


def _layout(pp: int, vpp: int, shards: int, ep: int) -> list[str]:
    values = {"pp": pp, "vpp": vpp, "dp_shard": shards, "ep": ep, "schedule": "overlapped"}
    return [f"layout.{key}={value}" for key, value in values.items()]


if __name__ == "__main__":
    sys.exit(main())
