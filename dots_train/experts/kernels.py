"""Triton kernels of the routed experts, for Hopper; what they compute is said in docs/experts.md.

Every expert's rows begin on a block, so a tile of a product belongs to one expert and needs no masks between experts.
Operands of products come through tensor descriptors (TMA), which read zeros behind the last row or column; weights stay
as they lie in a checkpoint. No kernel adds with atomics, and every sum has one order: the same bits each time.

Shapes: P rows with those that fill up blocks, D hidden, E experts, F expert width, G = 2F, K experts a token.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _place(tile, rows, columns: tl.constexpr, GROUP: tl.constexpr):
    """Row and column of a tile. GROUP rows are walked down before the next column: what runs at once shares operands
    in the L2 cache."""
    first = tile // (GROUP * columns) * GROUP
    height = min(rows - first, GROUP)
    inside = tile % (GROUP * columns)
    return first + inside % height, inside // height


@triton.jit
def permute_kernel(
    x, out, slot_P, edge_X, stride_t, stride_d, E: tl.constexpr, D: tl.constexpr, TOP_K: tl.constexpr,
    BLOCK: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """Row p of `out` is the token of slot_P[p]; zeros where there is none."""
    row = tl.program_id(0).to(tl.int64)
    if row < tl.load(edge_X + E) * BLOCK:
        slot = tl.load(slot_P + row)
        column = tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
        token = (slot // TOP_K).to(tl.int64)
        value = tl.load(x + token * stride_t + column * stride_d, mask=column < tl.where(slot >= 0, D, 0), other=0.0)
        tl.store(out + row * D + column, value.to(out.dtype.element_ty), mask=column < D)


@triton.jit
def combine_kernel(y, out, row_TK, D: tl.constexpr, TOP_K: tl.constexpr, WIDTH: tl.constexpr):
    """Row t of `out` is the sum of the rows row_TK[t] of `y`, in float32 and in the order of k."""
    token = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
    total = tl.zeros((WIDTH,), dtype=tl.float32)
    for k in tl.static_range(TOP_K):
        row = tl.load(row_TK + token * TOP_K + k).to(tl.int64)
        total += tl.load(y + row * D + column, mask=column < D, other=0.0).to(tl.float32)
    tl.store(out + token * D + column, total.to(out.dtype.element_ty), mask=column < D)


@triton.jit
def up_kernel(
    x, weight, h, act, factor_R, slot_P, expert_B, edge_X, E: tl.constexpr, D: tl.constexpr, F: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, GROUP: tl.constexpr, FLATTEN: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """h = x @ gate_up.T and act = factor * silu(gate) * up.

    `weight` is gate_up_EGD seen as [2E, F, D]: a tile of the gate and its tile of up share one tile of x.
    """
    blocks = tl.load(edge_X + E)
    columns: tl.constexpr = (F + BN - 1) // BN
    for tile in tl.range(tl.program_id(0), blocks * columns, tl.num_programs(0), flatten=FLATTEN):
        block, column = _place(tile, blocks, columns, GROUP)
        expert = tl.load(expert_B + block)
        gate = tl.zeros((BM, BN), dtype=tl.float32)
        up = tl.zeros((BM, BN), dtype=tl.float32)
        for k in range(0, D, BK):
            a = x.load([block * BM, k])
            b = weight.load([2 * expert, column * BN, k]).reshape(BN, BK)
            gate = tl.dot(a, b.T, gate, input_precision=PRECISION)
            b = weight.load([2 * expert + 1, column * BN, k]).reshape(BN, BK)
            up = tl.dot(a, b.T, up, input_precision=PRECISION)

        row = block * BM + tl.arange(0, BM)
        n = column * BN + tl.arange(0, BN)
        slot = tl.load(slot_P + row)
        factor = tl.load(factor_R + slot, mask=slot >= 0, other=0.0).to(tl.float32)
        # What the backward pass will read is what the activation is made of.
        gate_h = gate.to(h.dtype.element_ty)
        up_h = up.to(h.dtype.element_ty)
        inside = (n < F)[None, :]
        at = row.to(tl.int64)[:, None] * (2 * F) + n[None, :]
        tl.store(h + at, gate_h, mask=inside)
        tl.store(h + at + F, up_h, mask=inside)
        gate = gate_h.to(tl.float32)
        value = gate * tl.sigmoid(gate) * up_h.to(tl.float32) * factor[:, None]
        at = row.to(tl.int64)[:, None] * F + n[None, :]
        tl.store(act + at, value.to(act.dtype.element_ty), mask=inside)


@triton.jit
def product_kernel(
    a, weight, out, expert_B, edge_X, E: tl.constexpr, N: tl.constexpr, K: tl.constexpr, TRANSPOSED: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, GROUP: tl.constexpr, FLATTEN: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """out = a @ weight of its expert, [K, N]; or @ its transpose, where it lies as [N, K]."""
    blocks = tl.load(edge_X + E)
    columns: tl.constexpr = (N + BN - 1) // BN
    for tile in tl.range(tl.program_id(0), blocks * columns, tl.num_programs(0), flatten=FLATTEN):
        block, column = _place(tile, blocks, columns, GROUP)
        expert = tl.load(expert_B + block)
        total = tl.zeros((BM, BN), dtype=tl.float32)
        for k in range(0, K, BK):
            left = a.load([block * BM, k])
            if TRANSPOSED:
                right = weight.load([expert, column * BN, k]).reshape(BN, BK).T
            else:
                right = weight.load([expert, k, column * BN]).reshape(BK, BN)
            total = tl.dot(left, right, total, input_precision=PRECISION)
        out.store([block * BM, column * BN], total.to(out.dtype))


@triton.jit
def down_dgrad_kernel(
    grad, weight, h, grad_h, act, grad_factor, factor_R, slot_P, expert_B, edge_X, E: tl.constexpr, D: tl.constexpr,
    F: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, GROUP: tl.constexpr, FLATTEN: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """From the gradient of the down-projection's output: those of the pre-activation and of the routing weights (a
    partial sum a tile of columns), and the weighted activation once more, which the weight gradient needs."""
    blocks = tl.load(edge_X + E)
    columns: tl.constexpr = (F + BN - 1) // BN
    for tile in tl.range(tl.program_id(0), blocks * columns, tl.num_programs(0), flatten=FLATTEN):
        block, column = _place(tile, blocks, columns, GROUP)
        expert = tl.load(expert_B + block)
        grad_act = tl.zeros((BM, BN), dtype=tl.float32)
        for k in range(0, D, BK):
            right = weight.load([expert, k, column * BN]).reshape(BK, BN)
            grad_act = tl.dot(grad.load([block * BM, k]), right, grad_act, input_precision=PRECISION)

        row = block * BM + tl.arange(0, BM)
        n = column * BN + tl.arange(0, BN)
        slot = tl.load(slot_P + row)
        factor = tl.load(factor_R + slot, mask=slot >= 0, other=0.0).to(tl.float32)[:, None]
        inside = (n < F)[None, :]
        at = row.to(tl.int64)[:, None] * (2 * F) + n[None, :]
        gate = tl.load(h + at, mask=inside, other=0.0).to(tl.float32)
        up = tl.load(h + at + F, mask=inside, other=0.0).to(tl.float32)
        share = tl.sigmoid(gate)
        plain = gate * share * up
        tl.store(grad_factor + row * columns + column, tl.sum(grad_act * plain, axis=1))
        at_act = row.to(tl.int64)[:, None] * F + n[None, :]
        tl.store(act + at_act, (plain * factor).to(act.dtype.element_ty), mask=inside)
        grad_act *= factor
        grad_gate = grad_act * up * share * (1 + gate * (1 - share))
        tl.store(grad_h + at, grad_gate.to(grad_h.dtype.element_ty), mask=inside)
        tl.store(grad_h + at + F, (grad_act * gate * share).to(grad_h.dtype.element_ty), mask=inside)


@triton.jit
def wgrad_kernel(
    left, right, out, edge_X, E: tl.constexpr, M: tl.constexpr, N: tl.constexpr, BLOCK: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, GROUP: tl.constexpr, FLATTEN: tl.constexpr, ADD: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """out[e] = left.T @ right over the rows of expert e, zeros where it has none; ADD: added to what is there."""
    rows: tl.constexpr = (M + BM - 1) // BM
    columns: tl.constexpr = (N + BN - 1) // BN
    for tile in tl.range(tl.program_id(0), E * rows * columns, tl.num_programs(0), flatten=FLATTEN):
        expert = tile // (rows * columns)
        row, column = _place(tile % (rows * columns), rows, columns, GROUP)
        total = tl.zeros((BM, BN), dtype=tl.float32)
        for k in range(tl.load(edge_X + expert) * BLOCK, tl.load(edge_X + expert + 1) * BLOCK, BK):
            a = left.load([k, row * BM])
            total = tl.dot(a.T, right.load([k, column * BN]), total, input_precision=PRECISION)
        m = row * BM + tl.arange(0, BM)
        n = column * BN + tl.arange(0, BN)
        inside = (m < M)[:, None] & (n < N)[None, :]
        at = out + expert.to(tl.int64) * (M * N) + m[:, None] * N + n[None, :]
        if ADD:
            total += tl.load(at, mask=inside, other=0.0)
        tl.store(at, total.to(out.dtype.element_ty), mask=inside)
