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


# On the 132 multiprocessors of a Hopper GPU, at the sizes of dots.llm1 (D 4096, F 1408 = 11 x 128): 256 columns where
# that divides the width, since an operand is read least for them. A tile of `up` is one of the gate and one of up.
# Pipelines over all tiles where the sum has the same length in each and no second accumulator breaks them.
MANY = Tiles(
    up=Tile(128, 128, 64),
    down=Tile(128, 256, 64, flatten=True),
    down_dgrad=Tile(128, 128, 64, flatten=True),
    up_dgrad=Tile(128, 256, 64, flatten=True),
    up_wgrad=Tile(128, 256, 64),
    down_wgrad=Tile(256, 128, 64),
)
# So few rows that 11 columns a block would leave a third of the multiprocessors idle at the end.
FEW = MANY._replace(up=Tile(128, 64, 64), down_dgrad=Tile(128, 64, 64, flatten=True))
# So few rows an expert that most of a block of 128 would be filled up.
SHORT = Tiles(
    up=Tile(64, 128, 64, warps=4),
    down=Tile(64, 256, 64, warps=4, flatten=True),
    down_dgrad=Tile(64, 128, 64, warps=4, flatten=True),
    up_dgrad=Tile(64, 256, 64, warps=4, flatten=True),
    up_wgrad=Tile(128, 256, 64),
    down_wgrad=Tile(256, 128, 64),
)
TABLE = (MANY, FEW, SHORT)


def tiles_for(experts: int, rows: int) -> Tiles:
    """Those for `rows` rows that spread over so many experts."""
    if rows <= 128 * experts:
        return SHORT
    return FEW if rows <= 2048 else MANY
