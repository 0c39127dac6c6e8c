"""How far the sums of the CUDA kernels may be off, from the order they are added up in, against the tolerance rule.

A run of n additions one after another is off by up to (n / 4 + 1) u of itself where the terms are equal, whatever the
value: in the last octave, which has half of them, each is rounded by up to u / 2 of the final sum, all to one side; and
where they lie just between two numbers of one octave, they are numbers of the octave below.  The 1 is for the additions
that go from octave to octave.  Random terms of one sign lose about sqrt(n) / 4 u, up to 2^24 terms, where a run no
longer grows; of zero mean they lose less.  A level of a tree adds at most u.  The rule allows 4 + 2 sqrt(K) for K terms
and 1 more of the result.

The table says for each kernel how many terms lie one after another and in which stages, by its launcher's own slices.
A kernel whose run is as long as the sum is beyond the rule for equal terms from some 90 on, like a matrix product of
BLAS; random ones stay far within it.  Such sizes are in the table, and tests show that they are and that there are no
others.

affine_forward and affine_backward add up in cuBLAS.  It documents no order: if a product is one run, equal terms are
beyond the rule from 87 on, too.  Their biases are channel_sums.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from gpuconv.cuda import (
    average_pool,
    conv,
    conv_slices,
    conv_tensor,
    conv_tiles,
    conv_weight_tensor_float,
    muon,
    reduce,
)

U = 2.0**-24
KERNELS = Path(__file__).parents[1] / "kernels"


class Order(NamedTuple):
    """The terms as (slices, steps, width): a thread adds up the steps of one of `width` places in a row.

    across: how the places become one: "alone" where there is one, "row", "tree", "block" (trees of 32 and a row of
    them), "float64".  wide: the slices are added up in float64, else in a row.
    """

    slices: int
    steps: int
    width: int = 1
    across: str = "alone"
    wide: bool = False

    def bound(self, terms: int) -> float:
        """Return how far the sum of so many equal terms may be off, in u of itself: at most by u for each addition."""
        across = {
            "alone": 0.0,
            "float64": 0.0,
            "row": _row_bound(self.width),
            "tree": np.ceil(np.log2(min(self.width, terms))),
            "block": 5 + _row_bound(self.width // 32),
        }
        stages = (
            _row_bound(min(self.steps, terms)) + across[self.across] + (1 if self.wide else _row_bound(self.slices))
        )
        return min(stages, float(terms - 1))

    def sum(self, values: np.ndarray) -> np.ndarray:
        """Add up along the last axis in this order; what is missing is 0, which rounds nothing."""
        *outer, terms = values.shape
        padded = np.zeros((*outer, self.slices * self.steps * self.width), np.float32)
        padded[..., :terms] = values
        places = _row(padded.reshape(*outer, self.slices, self.steps, self.width), axis=-2)
        if self.across == "float64":
            return places.sum(axis=(-1, -2), dtype=np.float64)
        if self.across == "block":
            places = _row(_tree(places.reshape(*outer, self.slices, self.width // 32, 32)))
        else:
            places = {"alone": _row, "row": _row, "tree": _tree}[self.across](places)
        return places.sum(axis=-1, dtype=np.float64) if self.wide else _row(places)


def _row_bound(terms: int) -> float:
    return terms / 4 + 1 if terms > 1 else 0.0


def _row(values, axis=-1):
    return np.take(np.add.accumulate(values, axis=axis, dtype=np.float32), -1, axis=axis)


def _tree(values):
    while values.shape[-1] > 1:
        half = values.shape[-1] // 2
        values = values[..., :half] + values[..., half:]
    return values[..., 0]


def rule(terms: int) -> float:
    """Return what is allowed where all terms have one sign, in u of the sum."""
    return 4 + 2 * terms**0.5 + 1


# The table ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """The sums of some kernels: their order for so many terms and another size, and the lines that make it so.

    others: that size (elements of dw, tiles, filters).  more: roundings besides the sum, of products, means and biases.
    beyond: for each of the others, the first and last number of terms between which equal ones may be beyond the rule.
    """

    kernels: tuple[str, ...]
    order: Callable[[int, int], Order]
    lines: tuple[tuple[str, str], ...]
    others: tuple[int, ...] = (1,)
    more: float = 0.0
    beyond: tuple[tuple[tuple[int, int | None], ...], ...] = ((),)

    def bound(self, terms: int, other: int) -> float:
        return self.order(terms, other).bound(terms) + self.more


def _one_run(terms: int, _: int) -> Order:
    return Order(1, terms)


def _by_rows(terms: int, columns: int) -> Order:
    return Order(-(-terms // columns), min(terms, columns))


def _sliced(terms: int, elements: int) -> Order:
    slices, length = conv_slices.slices_of(terms, elements)
    return Order(slices, length)


def _tiled(depth: int) -> Callable[[int, int], Order]:
    def order(terms: int, tiles: int) -> Order:
        return Order(*conv_slices.weight_slices(terms, tiles, depth))

    return order


def _bias_planar(terms: int, filters: int) -> Order:
    threads = conv._BIAS_PLANAR.block[0]
    slices, length = conv_slices.slices_of(terms, 32 * filters, threads)
    return Order(slices, -(-length // threads), threads, "block")


def _bias_last(terms: int, filters: int) -> Order:
    slices, length = conv_slices.slices_of(terms, 32 * filters, conv._BIAS_LINES)
    return Order(slices, -(-length // conv._BIAS_LINES), conv._BIAS_LINES, "row")


def _plane(terms: int, _: int) -> Order:
    if terms < average_pool._LARGE_PLANE:
        return Order(1, -(-terms // average_pool._WARP), average_pool._WARP, "tree")
    return Order(1, -(-terms // average_pool._BLOCK), average_pool._BLOCK, "block")


def _plane_last(terms: int, _: int) -> Order:
    return Order(1, -(-terms // 8), 8, "row")


def _warp(terms: int, _: int) -> Order:
    return Order(1, -(-terms // 32), 32, "tree")


def _long_sum(terms: int, _: int) -> Order:
    run = int(re.search(r"constexpr int GROUP_RUN = (\d+);", _text("groupnorm.cu"))[1])
    return Order(-(-terms // (256 * run)), run, 256, "float64", wide=True)


def _channels(rows: bool) -> Callable[[int, int], Order]:
    def order(terms: int, channels: int) -> Order:
        shape = (terms, channels) if rows else (1, channels, terms, 1)
        z = reduce.channels_of(shape, np.dtype(np.float32), rows=rows)
        width = reduce._BLOCK // z.lanes
        return Order(-(-terms // z.chunk), z.chunk // width, width, "tree", wide=True)

    return order


def _chunk(terms: int, _: int) -> Order:
    return Order(-(-terms // muon._CHUNK), min(muon._CHUNK // 256, -(-terms // 256)), 256, "block", wide=True)


def _runs(terms: int, _: int) -> Order:
    run = int(re.search(r"MUON_RUN = (\d+);", _text("muon.cu"))[1])
    return Order(-(-terms // run), run)


def _of_planes(terms: int, axes: int) -> Order:
    """Rows, and rows of rows, of about as many terms each, as a factor has them along every axis."""
    along = terms if axes == 1 else int(np.ceil(terms ** (1 / axes)))
    return Order(along if axes == 3 else 1, along, along if axes > 1 else 1, "row" if axes > 1 else "alone")


def _text(file: str) -> str:
    return (KERNELS / file).read_text(encoding="utf-8")


_OF_CHANNELS = (
    *("channel_sums", "batchnorm_forward_moments", "batchnorm_backward_sums", "groupnorm_backward_weights"),
    *(f"batchnorm_backward_sums_{gradient}" for gradient in ("masked", "gelu", "pooled")),
)
_SLICES = ("conv.cu", "for (int slice = 0; slice < slices; ++slice) sum += partial[slice * length + place];")
_TILE = ("tile.cuh", "sum[i][j] += rows[i / 4].at[i % 4] * columns[j / 4].at[j % 4];")
_BLOCK_SUM = ("common.cuh", "for (int warp = 0; warp < THREADS / 32; ++warp) value += warps[warp];")
_CHANNEL = ("channels.cuh", "constexpr int CHANNEL_VALUES = 16;")
_MERGE = ("reduce.cu", "double sum[1] = {};")

TABLE = {
    "conv_forward": Row(
        (
            *("conv_forward_direct", "conv_forward_tiled", "conv_forward_few"),
            *("conv_volume_forward_direct", "conv_volume_forward_tiled", "conv_volume_forward_few"),
        ),
        _one_run,
        (
            ("conv.cu", "sum += pixel * widen(filter[(c * z.R + r) * z.S + s]);"),
            ("conv_volume.cu", "sum += voxel * widen(*tap++);"),
            _TILE,
        ),
        more=2,
        beyond=(((80, None),),),
    ),
    "conv_dx": Row(
        (
            *("conv_backward_data_direct", "conv_backward_data_tiled"),
            *("conv_volume_backward_data_direct", "conv_volume_backward_data_tiled"),
        ),
        _one_run,
        (
            ("conv.cuh", "sum += gradient * widen(taps[k * channels * window"),
            ("conv_volume.cuh", "sum += widen(dy[place]) * widen(tap[k * channels * window]);"),
            _TILE,
        ),
        more=1,
        beyond=(((87, None),),),
    ),
    "conv_dw_direct": Row(
        ("conv_backward_weight_direct", "conv_volume_backward_weight_direct", "conv_backward_sum"),
        _sliced,
        (
            ("conv.cu", "for (Index j = 0; j < count; ++j) {"),
            ("conv_volume.cu", "for (Index j = 0; j < count; ++j) {"),
            _SLICES,
        ),
        others=(1, 9, 144, 1152, 9216, 2**18, 2**22),
        more=1,
        beyond=((),) * 7,
    ),
    # Of few pixels there is one slice, and as many slices as make 512 blocks with the tiles of dw: of many, too few.
    "conv_dw_tiled": Row(
        ("conv_backward_weight_tiled", "conv_volume_backward_weight_tiled", "conv_backward_sum"),
        _tiled(conv_tiles.LARGE_WEIGHT.depth),
        (("conv_tiled.cuh", "const long long begin = blockIdx.y * length;"), _TILE, _SLICES),
        others=(1, 4, 36, 144, 512),
        more=1,
        beyond=(
            ((87, 768), (16_248_833, None)),
            ((87, 768), (1_015_809, None)),
            ((87, 768), (12_209, None)),
            ((87, None),),
            ((87, None),),
        ),
    ),
    "conv_dw_tiled_small": Row(
        ("conv_backward_weight_tiled", "conv_volume_backward_weight_tiled", "conv_backward_sum"),
        _tiled(conv_tiles.SMALL_WEIGHT.depth),
        (_TILE, _SLICES),
        others=(1, 9),
        more=1,
        beyond=(((87, 992), (16_244_737, None)), ((87, 992), (193_537, None))),
    ),
    "conv_db_planar": Row(
        ("conv_backward_bias_planar", "conv_backward_sum"),
        _bias_planar,
        (("conv.cu", "for (long long i = begin + threadIdx.x; i < end; i += 256) {"), _BLOCK_SUM, _SLICES),
        others=(1, 2, 64, 512, 2048, 2**14),
        beyond=((),) * 6,
    ),
    "conv_db_last": Row(
        ("conv_backward_bias_last", "conv_backward_sum"),
        _bias_last,
        (("conv.cu", "for (long long i = begin + line; i < end; i += 8)"), _SLICES),
        others=(1, 2, 64, 512, 2048, 2**14),
        beyond=((),) * 6,
    ),
    "average_pool": Row(
        ("average_pool_forward_direct", "average_pool_volume_forward_direct"),
        _one_run,
        (
            ("average_pool.cu", "sum[v] += widen(pixel.at[v]);"),
            ("pool_volume.cu", "sum += widen(volume[(row + s * z.dilation_h) * step]);"),
        ),
        more=1,
        beyond=(((87, None),),),
    ),
    "average_pool_dx": Row(
        ("average_pool_backward_direct", "average_pool_volume_backward_direct"),
        _one_run,
        (
            ("average_pool.cu", "sum[v] += widen(gradient.at[v]) * share;"),
            ("pool_volume.cu", "sum += widen(gradients[((o * z.P + p) * z.Q + q) * step]) * share;"),
        ),
        more=2,
        beyond=(((80, None),),),
    ),
    "adaptive_average_pool": Row(
        ("adaptive_average_pool_forward_direct",),
        _by_rows,
        (
            ("adaptive_average_pool.cu", "row[v] += widen(pixel.at[v]);"),
            ("adaptive_average_pool.cu", "sum[v] += row[v];"),
        ),
        others=(1, 3, 10),
        more=1,
        beyond=(((87, None),), ((604, None),), ((6351, None),)),
    ),
    "adaptive_average_pool_dx": Row(
        ("adaptive_average_pool_backward_direct",),
        _by_rows,
        (
            ("adaptive_average_pool.cu", "row[v] += widen(gradient.at[v]) * share;"),
            ("adaptive_average_pool.cu", "sum[v] += row[v];"),
        ),
        others=(1, 3, 10),
        more=2,
        beyond=(((80, None),), ((580, None),), ((6271, None),)),
    ),
    # Of signals, images and volumes.  Weights are off by 2 u along rows, and by u along other axes.
    "upsample_dx": Row(
        ("upsample_backward_nearest", "upsample_backward_linear"),
        _of_planes,
        (
            ("upsample.cu", "of_row[v] += widen(gradient.at[v]);"),
            ("upsample.cu", "of_plane[v] += of_row[v];"),
            ("upsample.cu", "sum[v] += of_plane[v];"),
            ("upsample.cu", "of_row[v] = multiply_add(widen(gradient.at[v]), weight, of_row[v]);"),
            ("upsample.cu", "of_plane[v] = multiply_add(of_row[v], weight, of_plane[v]);"),
            ("upsample.cu", "sum[v] = multiply_add(of_plane[v], weight, sum[v]);"),
        ),
        others=(1, 2, 3),
        more=4,
        beyond=(((65, None),), (), ()),
    ),
    "global_average_pool_planar": Row(
        ("global_average_pool_forward_planar",),
        _plane,
        (("average_pool.cu", "for (long long i = thread; i < pixels; i += THREADS)"), _BLOCK_SUM),
        more=1,
        beyond=(((4_183_553, None),),),
    ),
    "global_average_pool_last": Row(
        ("global_average_pool_forward_last",),
        _plane_last,
        (("average_pool.cu", "for (long long i = line; i < pixels; i += 8)"),),
        more=1,
        beyond=(((4089, None),),),
    ),
    "max_pool_dx": Row(
        ("max_pool_backward_direct", "max_pool_volume_backward_direct"),
        _one_run,
        (
            ("max_pool.cu", "== place) sum[v] += widen(gradient.at[v]);"),
            ("pool_volume.cu", "== place) sum += widen(dy[at]);"),
        ),
        beyond=(((94, None),),),
    ),
    "max_pool_ties_dx": Row(
        ("max_pool_backward_ties_direct", "max_pool_volume_backward_ties_direct"),
        _one_run,
        (("max_pool_ties.cu", "sum += share;"), ("pool_volume.cu", "sum += share;")),
        more=1,
        beyond=(((87, None),),),
    ),
    "softmax": Row(
        ("softmax_cross_entropy", "softmax_cross_entropy_weighted"),
        _warp,
        (("loss.cu", "for (long long j = lane; j < classes; j += 32) {"), ("loss.cu", "total = warp_sum(total);")),
        beyond=(((65_249, None),),),
    ),
    "groupnorm": Row(
        ("groupnorm_forward_direct", "groupnorm_backward_data"),
        _long_sum,
        (("groupnorm.cu", "if (++length == GROUP_RUN) carry();"), ("groupnorm.cu", "double total = 0;")),
        more=1,
    ),
    "channels_planes": Row(
        _OF_CHANNELS,
        _channels(rows=False),
        (_CHANNEL, _MERGE),
        more=1,
    ),
    "channels_rows": Row(
        _OF_CHANNELS,
        _channels(rows=True),
        (_CHANNEL, _MERGE),
        others=(1, 3, 64),
        more=1,
        beyond=((),) * 3,
    ),
    "muon_length": Row(
        ("muon_momentum",),
        _chunk,
        (
            ("muon.cu", "of_u += u * u;"),
            ("muon.cu", "of_w += weight * weight;"),
            _BLOCK_SUM,
            ("muon.cu", "double sum = 0;"),
        ),
        more=1,
    ),
    "muon_product": Row(
        ("muon_product", "muon_gram"),
        _runs,  # of one slice, which is more than those of several and their sum
        (
            _TILE,
            ("muon.cu", "total[i][j] += run.sum[i][j], run.sum[i][j] = 0;"),
            ("muon.cu", "if ((begin + DEPTH) % MUON_RUN == 0 || begin + DEPTH >= end) {"),
            (
                "muon.cu",
                "for (long long slice = 0; slice < slices; ++slice) sum += partial[bank.partial + slice * size + i];",
            ),
        ),
        more=1,
        beyond=(((254_849, None),),),
    ),
}
# Sums in float64 throughout, of one term, or none.
WIDE = {
    "across_coefficients",
    "across_moments",
    "loss_mean",
    "loss_total",
    "sigmoid_cross_entropy",
    "svm_loss",
    "channel_sums_merge",
    "batchnorm_forward_moments_merge",
    "batchnorm_backward_sums_merge",
    "square_sums",
    "step_judge",
    "muon_lengths",
}
# Tensor cores (tests/emulate/runtime/device/tensor_sums.hpp) add 8 products to a sum at once, aligned to the largest and
# cut off one bit behind it: each of the 8 loses up to half a unit, and what comes out one unit more, always to one side.
OF_16_BITS = {"conv_forward_tensor", "conv_backward_data_tensor"}
_TOGETHER, _LOST = 8, 8 / 2 + 1
# Of TF32 they add 4 together.  Three products that keep float32 take 16 terms in 12 such additions and add them to a sum in
# a row: the additions of small parts to the first half lose nothing to speak of, the others 5 times what is lost to the
# last.  What is cut off a factor in two, and the product that is left out, are 2^-21 of a term.
# Runs of 4 sqrt(n) of n pixels, in slices: test_cuda_conv_weight_tensor.py holds long ones of equal terms to the rule.
IN_RUNS = {"conv_backward_weight_tensor", "conv_backward_weight_wgmma"}
# Those of warpgroups, 16 terms together, serve the sizes that conv_tensor.takes: test_cuda_conv_wgmma.py.
OF_WARPGROUPS = {"conv_forward_wgmma", "conv_backward_data_wgmma"}
OF_FLOAT32 = {"conv_backward_weight_tensor_float"}
_TOGETHER_OF_FLOAT32, _LOST_OF_FLOAT32, _SLICE, _PARTS = 4, 4 / 2 + 1, 16, 8.0
NO_SUMS = {
    "across_sum",  # of as many terms as there are processes
    "adam_update",
    "affine_forward_bias",
    "arithmetic_cast",
    "all_finite",
    "arithmetic_add",
    "arithmetic_scale",
    "augment",
    "batchnorm_backward_data",
    "batchnorm_backward_data_gelu",
    "batchnorm_backward_data_masked",
    "batchnorm_backward_data_pooled",
    "batchnorm_backward_joined",
    "batchnorm_forward_fused",
    "batchnorm_forward_pooled",
    "batchnorm_forward_moments_stored",
    "batchnorm_forward_normalise",
    "conv_pack_filters",
    "conv_pad_tensor",
    "conv_turn_tensor",
    "copy_dense",
    "copy_strided",
    "copy_transposed",
    "dropout_backward",
    "dropout_forward",
    "dropout_forward_channels_last",
    "global_average_pool_backward_direct",
    "max_pool_backward_halving",
    "max_pool_forward_direct",
    "max_pool_volume_forward_direct",
    "muon_normalise",
    "muon_step",
    "max_pool_forward_halving",
    "outcome_hits",
    "outcome_part",
    "rmsprop_update",
    "sgd_update",
    "step_begin",
    "step_clip",
    "upsample_forward_linear",  # of 8 terms at most
    "upsample_forward_nearest",
}
CASES = [
    pytest.param(row, other, beyond, id=f"{name}-{other}")
    for name, row in TABLE.items()
    for other, beyond in zip(row.others, row.beyond, strict=True)
]
# Terms to look at: all of a few, and eight to an octave up to a sum over 2^36 pixels.
SIZES = sorted({*range(1, 2049), *(round(2 ** (i / 8)) for i in range(36 * 8))})


def kernels_in_no_table():
    """Return the kernels that the tables here lack, and those that there are no more.

    Those of single elements, which add nothing up, need not be there: they are a call of pointwise.
    """
    kernels, single_elements = set(), set()
    for file in KERNELS.glob("*.cu"):
        text = re.sub(r"//[^\n]*", "", file.read_text(encoding="utf-8"))
        for body in text.split("__global__")[1:]:
            name = re.match(r"\s*(?:void\s+)?(?:__launch_bounds__\([^()]*\)\s*)?(?:void\s+)?(\w+)\s*\(", body)[1]
            kernels.add(name)
            if re.search(r"\{\s*pointwise\(", body):
                single_elements.add(name)
    assert {"relu_forward", "gelu_backward"} <= single_elements
    listed = (
        WIDE
        | NO_SUMS
        | OF_16_BITS
        | OF_WARPGROUPS
        | IN_RUNS
        | OF_FLOAT32
        | {name for row in TABLE.values() for name in row.kernels}
    )
    return sorted(kernels - single_elements - listed), sorted(listed - kernels)


def test_every_kernel_is_in_the_table():
    missing, gone = kernels_in_no_table()
    assert not missing, (
        f"add {', '.join(missing)} to tests/test_long_sums_cuda.py: TABLE, or NO_SUMS if they add nothing up"
    )
    assert not gone, f"remove {', '.join(gone)} from tests/test_long_sums_cuda.py"


@pytest.mark.parametrize("row", TABLE.values(), ids=TABLE.keys())
def test_the_kernels_still_add_up_in_this_order(row):
    assert [line for line in row.lines if line[1] not in _text(line[0])] == []


def test_sums_on_tensor_cores_are_as_long_as_results_of_16_bits_allow():
    """The sum of n equal terms loses most where it ends at 3/2 of a power of 2: then 3/4 of a unit u a step in the mean."""
    steps = conv_tensor.LONGEST_SUM / _TOGETHER
    of_float16 = 2.0**-11 / U
    assert 0.75 * _LOST * steps <= rule(conv_tensor.LONGEST_SUM) - 1 + of_float16
    at_three_halves = sum(
        count * unit for count, unit in ((1 / 3, 4 / 3), *((2 / 3 / 2**i, 4 / 3 / 2**i) for i in (1, 2, 3, 4)))
    )
    assert 0.7 < at_three_halves < 0.75


def _three_products(order: Order, terms: int) -> float:
    """Return how far a sum of equal terms may be off where slices of 16 are added up by three products, in u of itself."""
    return 0.75 * _LOST_OF_FLOAT32 * 5 + _PARTS + order.bound(-(-terms // _SLICE))


def test_sums_by_three_products_hold_the_rule_where_they_are_taken():
    least, most = conv_tensor._TERMS[3]
    for terms in SIZES:
        if least <= terms <= most:
            assert _three_products(Order(1, -(-terms // _SLICE)), terms) <= rule(terms), terms
        for tiles in (1, 9, 100, 512):
            if conv_weight_tensor_float._LEAST_PIXELS <= terms < conv_weight_tensor_float._MOST_PIXELS:
                slices, length = conv_weight_tensor_float.slices_of(terms, tiles, _SLICE, 3)
                assert _three_products(Order(slices, length // _SLICE), terms) <= rule(terms), (terms, tiles)
    assert _three_products(Order(1, 2 * most // _SLICE), 2 * most) > rule(2 * most)


def test_sums_of_rounded_factors_lose_less_than_a_factor():
    for terms in (conv_tensor._TERMS[1][1], conv_weight_tensor_float._LONGEST_OF_ONE_PRODUCT):
        assert 0.75 * _LOST_OF_FLOAT32 * terms / _TOGETHER_OF_FLOAT32 <= 2.0**-11 / U


def test_constants_that_kernels_and_launchers_share():
    assert f"constexpr int CHANNEL_BLOCK = {reduce._BLOCK};" in _text("channels.cuh")
    assert f"constexpr int CHANNEL_VALUES = {reduce._VALUES};" in _text("channels.cuh")
    assert f"__shared__ Sum<T> sums[{conv._BIAS_LINES}][33];" in _text("conv.cu")
    assert "constexpr int GROUP_BLOCK = 256;" in _text("groupnorm.cu")
    assert f"constexpr int MUON_CHUNK = {muon._CHUNK};" in _text("muon.cu")
    assert f"constexpr int MUON_TILE = {muon._TILE}, " in _text("muon.cu")


def test_a_run_of_equal_terms_is_off_by_a_quarter_of_their_number(rng):
    terms = np.arange(1, 4097)
    values = (1 + rng.random(300)).astype(np.float32)
    sums = np.add.accumulate(np.broadcast_to(values[:, None], (300, 4096)), axis=1, dtype=np.float32)
    errors = np.abs(sums / (terms * values[:, None].astype(np.float64)) - 1) / U
    assert (errors <= terms / 4 + 1).all()
    assert errors.max() > 0.9 * 4096 / 4


@pytest.mark.parametrize(("row", "other", "beyond"), CASES)
def test_equal_terms_hold_the_rule_but_at_the_sizes_in_the_table(row, other, beyond):
    def holds(terms):
        return row.bound(terms, other) <= rule(terms)

    def known(terms):
        return any(first <= terms and (last is None or terms <= last) for first, last in beyond)

    assert [terms for terms in SIZES if not holds(terms) and not known(terms)] == []
    for first, last in beyond:
        assert holds(first - 1)
        assert not holds(first)
        assert last is None or (holds(last + 1) and not holds(last))


def _relative_error(row, other, values):
    """Return the error in u of the sum of absolute values."""
    got = row.order(values.size, other).sum(values)
    return abs(got - values.sum(dtype=np.float64)) / (U * np.abs(values).sum(dtype=np.float64))


@pytest.mark.parametrize(("row", "other", "beyond"), CASES)
def test_equal_terms_added_up_in_this_order(row, other, beyond):
    sizes = {first - 1 for first, _ in beyond} | {last + 1 for _, last in beyond if last is not None}
    for terms in sizes or {300, 25_088, 401_408, 2**20 + 1}:
        if terms > 2**23:
            continue
        for value in (0.1, 1.1, 1.9999999):
            error = _relative_error(row, other, np.full(terms, value, np.float32))
            assert error <= row.order(terms, other).bound(terms), (terms, value)
            assert error + row.more <= rule(terms), (terms, value)


@pytest.mark.parametrize(("row", "other", "beyond"), CASES)
def test_random_terms_added_up_in_this_order(rng, row, other, beyond):
    del beyond  # they hold the rule there, too
    for terms in (90, 4608, 25_088, 2**19 + 1):
        assert _relative_error(row, other, rng.random(terms, np.float32)) + row.more <= rule(terms), terms
        signs = np.where(rng.random(terms) < 0.5, np.float32(-0.1), np.float32(0.1))
        for values in (rng.standard_normal(terms, np.float32), signs):
            assert _relative_error(row, other, values) + row.more <= 8, terms


@pytest.mark.parametrize(("row", "other", "beyond"), [case for case in CASES if case.values[2]])
def test_equal_terms_at_the_sizes_in_the_table_break_the_rule(rng, row, other, beyond):
    """Sizes may go from the table where they no longer do."""
    for first, last in beyond:
        terms = 2 * first if last is None else min(2 * first, last)
        if terms > 2**23:
            continue
        values = 1 + rng.random(64 if terms < 2**21 else 4)
        worst = max(_relative_error(row, other, np.full(terms, value, np.float32)) for value in values)
        assert worst > rule(terms), terms
