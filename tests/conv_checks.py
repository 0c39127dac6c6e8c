"""What tests of convolution share, on signals, images and volumes: arrays of a case, results, and the oracle's."""

import itertools
from math import prod

import numpy as np
from compare import absolute, assert_close

import gpuconv
from gpuconv import naive
from gpuconv.shapes import conv_sizes, image_of_signal, signal_of_image


def positive(rng, shape, dtype):
    return rng.uniform(0, 1, shape).astype(dtype)


def channels_last(a):
    return np.moveaxis(np.ascontiguousarray(np.moveaxis(a, 1, -1)), -1, 1)


def arrays_of(case, rng, dtype, make):
    """Return x, w, b, dy of a case, (x, w, options), filled by `make`, and the sizes."""
    x_shape, w_shape, options = case
    z = conv_sizes(np.empty(x_shape), np.empty(w_shape), None, **options)
    y_shape = z.out if len(x_shape) > 3 else z.out[:2] + z.out[3:]
    return *(make(rng, shape, dtype) for shape in (x_shape, w_shape, (z.K,), y_shape)), z


def computed(device, arrays, options, **wanted):
    """Return y, dx, dw, db for x, w, b, dy, as NumPy arrays; the inputs must come out as they went in."""
    before = [None if a is None else a.copy() for a in arrays]
    dev_x, dev_w, dev_b, dev_dy = map(device.array, arrays)
    y, cache = gpuconv.conv_forward(dev_x, dev_w, dev_b, **options)
    grads = gpuconv.conv_backward(dev_dy, cache, **wanted)
    for array, copy in zip((dev_x, dev_w, dev_b, dev_dy), before, strict=True):
        if copy is not None:
            np.testing.assert_array_equal(device.numpy(array), copy, "an input was changed")
    return tuple(None if a is None else device.numpy(a) for a in (y, *grads))


def by_oracle(x, w, b, dy, z):
    """Return y, dx, dw, db as the oracle has them."""
    if x.ndim == 3:
        results = by_oracle(*map(image_of_signal, (x, w)), b, image_of_signal(dy), z)
        return *map(signal_of_image, results[:3]), results[3]
    y = naive.conv_forward(x, w, b, z)
    return y, *naive.conv_backward(dy, x, w, z, input_grad=True, bias_grad=b is not None)


def check_close(got, x, w, b, dy, z, *, zero_mean=True):
    """Hold y, dx, dw, db to the oracle by the tolerance rule."""
    refs = by_oracle(x, w, b, dy, z)
    scales = by_oracle(*absolute(x, w, b, dy), z)
    taps, outputs = prod(w.shape[2:]), dy[:, 0].size
    lengths = (z.C // z.groups * taps + 1, z.K // z.groups * taps, outputs, outputs)
    for actual, ref, scale, terms in zip(got, refs, scales, lengths, strict=True):
        if ref is None:
            assert actual is None
        else:
            assert_close(actual, ref, scale=scale, dtype=x.dtype, terms=terms, zero_mean=zero_mean)


# Complex arrays, by the oracle on their parts ---------------------------------------------------------------------------

PARTS = {"complex64": "float32", "complex128": "float64"}


def complex_of(make):
    """Return what makes complex arrays of two real ones."""

    def parts(rng, shape, dtype):
        return (make(rng, shape, PARTS[dtype]) + 1j * make(rng, shape, PARTS[dtype])).astype(dtype)

    return parts


def by_parts(oracle, x, w, b, dy, z, *, signs=(1, -1)):
    """Return y, dx, dw, db as ((real, imaginary), ...), made of an oracle's results on parts.

    With the signs (1, 1), of absolute values, these are the sizes of the terms.
    """
    plus, minus = signs

    def of(which, x, w, dy):
        return oracle(x, w, None, dy, z)[which]

    (xr, xi), (wr, wi), (dyr, dyi) = ((a.real, a.imag) for a in (x, w, dy))
    bias = b.reshape(-1, *[1] * (x.ndim - 2))
    y = (
        of(0, xr, wr, dyr) + minus * of(0, xi, wi, dyr) + bias.real,
        of(0, xr, wi, dyr) + plus * of(0, xi, wr, dyr) + bias.imag,
    )
    dx = of(1, xr, wr, dyr) + plus * of(1, xr, wi, dyi), of(1, xr, wr, dyi) + minus * of(1, xr, wi, dyr)
    dw = of(2, xr, wr, dyr) + plus * of(2, xi, wr, dyi), of(2, xr, wr, dyi) + minus * of(2, xi, wr, dyr)
    others = (0, *range(2, dy.ndim))
    return y, dx, dw, (dyr.sum(axis=others, dtype="float64"), dyi.sum(axis=others, dtype="float64"))


def sizes_of_parts(oracle, x, w, b, dy, z):
    """Return the sizes of the terms of y, dx, dw, db likewise."""
    return by_parts(oracle, *(np.abs(a.real) + 1j * np.abs(a.imag) for a in (x, w, b, dy)), z, signs=(1, 1))


# The oracle where its loops would take minutes ------------------------------------------------------------------------


def exact_forward(x, w, b, z):
    """Return y of images or volumes, tap by tap in float64."""
    y = np.zeros(z.out) + b.astype(np.float64).reshape(-1, *[1] * len(z.window))
    for tap, group in itertools.product(np.ndindex(z.window), range(z.groups)):
        mine, its = _of_group(group, z)
        pixels = _under(tap, _padded(x, z), z)[:, mine]
        y[:, its] += np.einsum("kc,nc...->nk...", w[(its, slice(None), *tap)].astype(np.float64), pixels)
    return y


def exact_backward(dy, x, w, z):
    """Return dx and dw, tap by tap in float64."""
    padded, dw = _padded(x, z), np.zeros(w.shape)
    dx = np.zeros(padded.shape)
    for tap, group in itertools.product(np.ndindex(z.window), range(z.groups)):
        mine, its = _of_group(group, z)
        gradients, pixels = dy[:, its].astype(np.float64), _under(tap, padded, z)[:, mine]
        of_tap = (its, slice(None), *tap)
        dw[of_tap] = np.tensordot(gradients, pixels, [[0, *range(2, x.ndim)]] * 2)
        _under(tap, dx, z)[:, mine] += np.einsum("kc,nk...->nc...", w[of_tap].astype(np.float64), gradients)
    return dx[(..., *(slice(p, p + n) for p, n in zip(z.pad, z.image[2:], strict=True)))], dw


def _of_group(group, z):
    """Return the channels and the filters of a group, as slices."""
    return tuple(slice(group * n // z.groups, (group + 1) * n // z.groups) for n in (z.C, z.K))


def _padded(x, z):
    axes = zip(z.pad, z.padded, z.image[2:], strict=True)
    return np.pad(x.astype(np.float64), ((0, 0), (0, 0), *((p, padded - p - n) for p, padded, n in axes)))


def _under(tap, padded, z):
    """Return the pixel that a tap of every window meets: a view of the padded images."""
    axes = zip(tap, z.dilation, z.stride, z.out[2:], strict=True)
    return padded[(..., *(slice(t * d, t * d + (n - 1) * step + 1, step) for t, d, step, n in axes))]
