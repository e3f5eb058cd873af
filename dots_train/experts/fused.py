"""The routed experts through Triton kernels that fuse what lies between the products; docs/experts.md says how.

Of the forward pass only its inputs, the pre-activation and the plan of rows are kept. The same meaning as
dots_train.experts.reference, but for rounding: here the routing weight is a factor of the activation.

Shapes: T tokens, K experts a token, P rows with those that fill up blocks, E experts, D hidden, F expert width, G = 2F.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, partial
from typing import Any

import torch
import triton
from torch import Tensor
from torch.autograd.function import once_differentiable
from triton.tools.tensor_descriptor import TensorDescriptor

from dots_train.experts import ExpertWeights, Routing, compute_dtype, kernels, late, reference
from dots_train.experts.plan import Blocks, make_blocks
from dots_train.experts.tiles import Tile, Tiles, tiles_for

INTERPRETED = bool(triton.knobs.runtime.interpret)
if INTERPRETED:
    from dots_train.experts import interpreter

    interpreter.correct()
FUSED_SUMS = {"enable_fp_fusion": True}  # a * b + c in one rounding; said, since Triton's default is about to change
GATHER = {"ROWS": 8, "WIDTH": 512, "num_warps": 4}  # what one program of permute and combine moves


def experts(x_TD: Tensor, routing: Routing, weights: ExpertWeights, tiles: Tiles | None = None) -> Tensor:
    """y[t] = sum over k of weight[t, k] * expert[id[t, k]](x[t]), each expert a SwiGLU network.

    Under autocast the products run in its type and the sum over k in float32. Gradients of float32 weights are summed
    and returned in float32. Products of float32 on a GPU are the reference's: the tiles are made for half as many
    bytes. `tiles` are those of the table by default.

    Raises:
        RuntimeError: the tensors are on no GPU, and Triton does not interpret.
    """
    if not (x_TD.is_cuda or INTERPRETED):
        raise RuntimeError(f"the fused experts run on a GPU, but their input is on {x_TD.device}")
    if compute_dtype(x_TD).itemsize > 2 and not INTERPRETED:
        return reference.experts(x_TD, routing, weights)
    chosen = tiles or tiles_for(weights.down_EDF.shape[0], routing.ids_TK.numel())
    y_TD: Tensor = _Experts.apply(x_TD, routing.weights_TK, *weights, routing.ids_TK, chosen)  # type: ignore[no-untyped-call]
    return y_TD


class _Experts(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x_TD: Tensor, factor_TK: Tensor, gate_up_EGD: Tensor, down_EDF: Tensor, ids_TK: Tensor, tiles: Tiles
    ) -> Tensor:
        dtype, factor_TK = compute_dtype(x_TD), factor_TK.contiguous()
        plan = make_blocks(ids_TK, down_EDF.shape[0], tiles.block)
        h_PG, act_PF = up_projection(permute(x_TD, plan, dtype), gate_up_EGD.to(dtype), factor_TK, plan, tiles.up)
        y_PD = product(act_PF, down_EDF.to(dtype).mT, plan, tiles.down)
        ctx.save_for_backward(x_TD, factor_TK, gate_up_EGD, down_EDF, h_PG, *plan)
        ctx.tiles, ctx.queue = tiles, late.queue()
        return combine(y_PD, plan, x_TD.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_TD: Tensor) -> tuple[Tensor | None, ...]:
        x_TD, factor_TK, gate_up_EGD, down_EDF, h_PG, *rest = ctx.saved_tensors
        plan, tiles, dtype = Blocks(*rest), ctx.tiles, h_PG.dtype
        x_needed, factor_needed, up_needed, down_needed = ctx.needs_input_grad[:4]

        # Weights are cast anew: copies that wait from forward to backward would cost more than all that is saved.
        grad_PD = permute(grad_TD, plan, dtype)
        grad_h_PG, act_PF, grad_factor_P = down_dgrad(
            grad_PD, down_EDF.to(dtype), h_PG, factor_TK, plan, tiles.down_dgrad
        )
        grad_x_TD = grad_factor_TK = grad_up_EGD = grad_down_EDF = None
        if factor_needed:
            grad_factor_TK = grad_factor_P.index_select(0, plan.row_TK.flatten()).view_as(factor_TK)
        if down_needed:
            compute = partial(weight_gradient, grad_PD, act_PF, plan, tiles.block, tiles.down_wgrad, down_EDF)
            grad_down_EDF = late.gradient(down_EDF, compute, ctx.queue)
            del compute
        del grad_PD, act_PF  # before as much is made again
        if x_needed:
            grad_x_TD = combine(product(grad_h_PG, gate_up_EGD.to(dtype), plan, tiles.up_dgrad), plan, x_TD.dtype)
        if up_needed:
            compute = partial(_up_gradient, grad_h_PG, x_TD, plan, tiles, gate_up_EGD)
            grad_up_EGD = late.gradient(gate_up_EGD, compute, ctx.queue)
        return grad_x_TD, grad_factor_TK, grad_up_EGD, grad_down_EDF, None, None


def _up_gradient(grad_h_PG: Tensor, x_TD: Tensor, plan: Blocks, tiles: Tiles, gate_up_EGD: Tensor) -> Tensor:
    x_PD = permute(x_TD, plan, grad_h_PG.dtype)
    return weight_gradient(grad_h_PG, x_PD, plan, tiles.block, tiles.up_wgrad, gate_up_EGD)


def permute(x_TD: Tensor, plan: Blocks, dtype: torch.dtype) -> Tensor:
    """[P, D]: each row its token, rows without one zero. Blocks that are not used are left as they are."""
    rows, hidden, top_k = len(plan.slot_P), x_TD.shape[1], plan.row_TK.shape[1]
    x_PD = x_TD.new_empty(rows, hidden, dtype=dtype)
    kernels.permute_kernel[rows // GATHER["ROWS"], triton.cdiv(hidden, GATHER["WIDTH"])](
        x_TD, x_PD, plan.slot_P, plan.edge_X, *x_TD.stride(), E=len(plan.edge_X) - 1, D=hidden, TOP_K=top_k,
        BLOCK=rows // len(plan.expert_B), **GATHER, **FUSED_SUMS,
    )  # fmt: skip
    return x_PD


def combine(y_PD: Tensor, plan: Blocks, dtype: torch.dtype) -> Tensor:
    """[T, D]: the sum of each token's rows, in float32."""
    (tokens, top_k), hidden = plan.row_TK.shape, y_PD.shape[1]
    y_TD = y_PD.new_empty(tokens, hidden, dtype=dtype)
    if tokens:
        kernels.combine_kernel[triton.cdiv(tokens, GATHER["ROWS"]), triton.cdiv(hidden, GATHER["WIDTH"])](
            y_PD, y_TD, plan.row_TK, tokens, D=hidden, TOP_K=top_k, **GATHER, **FUSED_SUMS
        )
    return y_TD


def up_projection(
    x_PD: Tensor, gate_up_EGD: Tensor, factor_TK: Tensor, plan: Blocks, tile: Tile
) -> tuple[Tensor, Tensor]:
    """The pre-activation [P, G] and the activation [P, F] times the routing weight."""
    rows, (count, both, hidden) = len(x_PD), gate_up_EGD.shape
    h_PG, act_PF = x_PD.new_empty(rows, both), x_PD.new_empty(rows, both // 2)
    halves = gate_up_EGD.contiguous().view(2 * count, both // 2, hidden)
    kernels.up_kernel[_programs(x_PD, rows // tile.m * triton.cdiv(both // 2, tile.n))](
        _blocks_of(x_PD, tile.m, tile.k), _blocks_of(halves, 1, tile.n, tile.k), h_PG, act_PF, factor_TK,
        plan.slot_P, plan.expert_B, plan.edge_X, E=count, D=hidden, F=both // 2, **_constants(tile, x_PD),
    )  # fmt: skip
    return h_PG, act_PF


def product(a_PK: Tensor, weight_EKN: Tensor, plan: Blocks, tile: Tile) -> Tensor:
    """[P, N]: each row times the weight of its expert, which may be a transposed view."""
    rows, (count, k, n) = len(a_PK), weight_EKN.shape
    transposed = weight_EKN.stride(1) == 1 and weight_EKN.stride(2) != 1
    weight = (weight_EKN.mT if transposed else weight_EKN).contiguous()
    shape = (1, tile.n, tile.k) if transposed else (1, tile.k, tile.n)
    out_PN = a_PK.new_empty(rows, n)
    kernels.product_kernel[_programs(a_PK, rows // tile.m * triton.cdiv(n, tile.n))](
        _blocks_of(a_PK, tile.m, tile.k), _blocks_of(weight, *shape), _blocks_of(out_PN, tile.m, tile.n // 2),
        plan.expert_B, plan.edge_X, E=count, N=n, K=k, TRANSPOSED=transposed, **_constants(tile, a_PK),
    )  # fmt: skip
    return out_PN


def down_dgrad(
    grad_PD: Tensor, down_EDF: Tensor, h_PG: Tensor, factor_TK: Tensor, plan: Blocks, tile: Tile
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradient of the pre-activation [P, G], the weighted activation [P, F], the gradient of each row's routing
    weight [P]."""
    rows, (count, hidden, width) = len(grad_PD), down_EDF.shape
    columns = triton.cdiv(width, tile.n)
    grad_h_PG, act_PF = torch.empty_like(h_PG), h_PG.new_empty(rows, width)
    partial_PN = h_PG.new_empty(rows, columns, dtype=torch.float32)
    kernels.down_dgrad_kernel[_programs(grad_PD, rows // tile.m * columns)](
        _blocks_of(grad_PD, tile.m, tile.k), _blocks_of(down_EDF.contiguous(), 1, tile.k, tile.n), h_PG, grad_h_PG,
        act_PF, partial_PN, factor_TK, plan.slot_P, plan.expert_B, plan.edge_X, E=count, D=hidden, F=width,
        **_constants(tile, grad_PD),
    )  # fmt: skip
    return grad_h_PG, act_PF, partial_PN.sum(1)


def weight_gradient(
    left_PM: Tensor, right_PN: Tensor, plan: Blocks, block: int, tile: Tile, like: Tensor, into: Tensor | None = None
) -> Tensor:
    """[E, M, N], of the type of `like`: for each expert left.T @ right over its rows, summed in float32.

    `into`: a tensor that it is added to and that is returned.
    """
    count, (m, n) = len(plan.edge_X) - 1, (left_PM.shape[1], right_PN.shape[1])
    out_EMN = like.new_empty(count, m, n) if into is None else into
    kernels.wgrad_kernel[_programs(left_PM, count * triton.cdiv(m, tile.m) * triton.cdiv(n, tile.n))](
        _blocks_of(left_PM, tile.k, tile.m), _blocks_of(right_PN, tile.k, tile.n), out_EMN, plan.edge_X, E=count, M=m,
        N=n, BLOCK=block, ADD=into is not None, **_constants(tile, left_PM),
    )  # fmt: skip
    return out_EMN


def _blocks_of(tensor: Tensor, *shape: int) -> TensorDescriptor:
    return TensorDescriptor.from_tensor(tensor, list(shape))


def _constants(tile: Tile, operand: Tensor) -> dict[str, Any]:
    """What a kernel is compiled for. Products of float32 stay float32: rounding them to TF32 is for others to ask."""
    precision = "ieee" if operand.dtype == torch.float32 else "tf32"
    sizes = {"BM": tile.m, "BN": tile.n, "BK": tile.k, "GROUP": tile.group, "FLATTEN": tile.flatten}
    return {**sizes, "PRECISION": precision, "num_warps": tile.warps, "num_stages": tile.stages, **FUSED_SUMS}


def _programs(tensor: Tensor, tiles: int) -> Sequence[int]:
    """One for each multiprocessor, each of which takes one tile after another."""
    return (min(tiles, _multiprocessors(tensor.device)),)


@cache
def _multiprocessors(device: torch.device) -> int:
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 3
