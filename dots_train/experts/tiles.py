"""Which part of a product one program of a kernel computes: fixed by table, never tuned while training, so that all
ranks agree and nothing stalls."""

from __future__ import annotations

from typing import NamedTuple


class Tile(NamedTuple):
    m: int
    """Rows of the result."""
    n: int
    k: int
    """Elements of the sum that one step takes."""
    stages: int = 4
    """Steps whose operands are in shared memory at once."""
    warps: int = 8
    group: int = 8
    """Rows of tiles that are walked down before the next column."""
    flatten: bool = False
    """One pipeline over all tiles of a program: the next tile's operands come in while this one is written."""


class Tiles(NamedTuple):
    """One for each product of a layer. `m` of the first four is the block that an expert's rows begin on, and a
    multiple of `k` of the weight gradients."""

    up: Tile
    down: Tile
    down_dgrad: Tile
    up_dgrad: Tile
    up_wgrad: Tile
    down_wgrad: Tile

    @property
    def block(self) -> int:
        return self.up.m


WIDE = Tile(128, 256, 64, stages=4)
PAIR = Tile(128, 128, 64, stages=4)
TABLE = (
    # Up to so many rows an expert.
    (1 << 62, Tiles(up=PAIR, down=WIDE, down_dgrad=PAIR, up_dgrad=WIDE, up_wgrad=WIDE, down_wgrad=WIDE)),
)


def tiles_for(experts: int, rows: int) -> Tiles:
    """Those for `rows` rows that spread over so many experts."""
    return next(tiles for most, tiles in TABLE if rows <= most * experts)
