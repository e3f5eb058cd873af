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
def _halves(tile):
    """Its left and right columns: what follows a product needs half the registers and shared memory when it takes one
    after the other."""
    rows: tl.constexpr = tile.shape[0]
    columns: tl.constexpr = tile.shape[1]
    return tile.reshape(rows, 2, columns // 2).permute(0, 2, 1).split()


@triton.jit
def _swiglu_grad(grad_act, h, grad_h, act, factor, row, n, F: tl.constexpr):
    """Columns n of what down_dgrad_kernel makes, and their part of the gradient of the routing weights."""
    inside = (n < F)[None, :]
    at = row.to(tl.int64)[:, None] * (2 * F) + n[None, :]
    gate = tl.load(h + at, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(h + at + F, mask=inside, other=0.0).to(tl.float32)
    share = tl.sigmoid(gate)
    plain = gate * share * up
    partial = tl.sum(grad_act * plain, axis=1)
    at_act = row.to(tl.int64)[:, None] * F + n[None, :]
    tl.store(act + at_act, (plain * factor[:, None]).to(act.dtype.element_ty), mask=inside)
    grad_act *= factor[:, None]
    grad_gate = grad_act * up * share * (1 + gate * (1 - share))
    tl.store(grad_h + at, grad_gate.to(grad_h.dtype.element_ty), mask=inside)
    tl.store(grad_h + at + F, (grad_act * gate * share).to(grad_h.dtype.element_ty), mask=inside)
    return partial


@triton.jit
def permute_kernel(
    x, out, slot_P, edge_X, stride_t, stride_d, E: tl.constexpr, D: tl.constexpr, TOP_K: tl.constexpr,
    BLOCK: tl.constexpr, ROWS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """Row p of `out` is the token of slot_P[p]; zeros where there is none. A block holds a multiple of ROWS."""
    first = tl.program_id(0) * ROWS
    if first < tl.load(edge_X + E) * BLOCK:
        row = first + tl.arange(0, ROWS)
        slot = tl.load(slot_P + row)
        column = tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)[None, :]
        here = x + (slot // TOP_K).to(tl.int64)[:, None] * stride_t + column.to(tl.int64) * stride_d
        value = tl.load(here, mask=(slot >= 0)[:, None] & (column < D), other=0.0)
        tl.store(out + row.to(tl.int64)[:, None] * D + column, value.to(out.dtype.element_ty), mask=column < D)


@triton.jit(do_not_specialize=["tokens"])
def combine_kernel(
    y, out, row_TK, tokens, D: tl.constexpr, TOP_K: tl.constexpr, ROWS: tl.constexpr, WIDTH: tl.constexpr
):
    """Row t of `out` is the sum of the rows row_TK[t] of `y`, in float32 and in the order of k."""
    token = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    column = tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)[None, :]
    inside = (token < tokens)[:, None] & (column < D)
    total = tl.zeros((ROWS, WIDTH), dtype=tl.float32)
    for k in tl.static_range(TOP_K):
        row = tl.load(row_TK + token * TOP_K + k, mask=token < tokens, other=0).to(tl.int64)
        total += tl.load(y + row[:, None] * D + column, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + token.to(tl.int64)[:, None] * D + column, total.to(out.dtype.element_ty), mask=inside)


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
        left_half, right_half = _halves(total)
        out.store([block * BM, column * BN], left_half.to(out.dtype))
        out.store([block * BM, column * BN + BN // 2], right_half.to(out.dtype))


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
        slot = tl.load(slot_P + row)
        factor = tl.load(factor_R + slot, mask=slot >= 0, other=0.0).to(tl.float32)
        left, right = _halves(grad_act)
        n = column * BN + tl.arange(0, BN // 2)
        partial = _swiglu_grad(left, h, grad_h, act, factor, row, n, F)
        partial += _swiglu_grad(right, h, grad_h, act, factor, row, n + BN // 2, F)
        tl.store(grad_factor + row * columns + column, partial)


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
