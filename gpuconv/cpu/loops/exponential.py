"""exp in float32, which becomes vectors."""

from __future__ import annotations

import numpy as np
from numba import float32, int32

from .jit import loop

# exp(a) = 2^n exp(r), r = a - n log 2 in two steps, |r| <= log 2 / 2; the coefficients are those of expf in Cephes.
_LOWEST, _HIGHEST = float32(-104.0), float32(89.0)  # 0 and infinity begin there
_PER_LOG_2 = float32(1.44269504088896341)
_ROUNDING = float32(1.5 * 2**23)  # numbers of this size have no fraction
_LOG_2, _LOG_2_REST = float32(0.693359375), float32(-2.12194440e-4)
_P = tuple(
    map(
        float32,
        (1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1),
    )
)
_ONE = float32(1)


@loop
def exponential(a):
    """Return exp(a), float32, to two units or so."""
    b = a if a > _LOWEST else _LOWEST  # of NaN, too
    b = b if b < _HIGHEST else _HIGHEST
    n = (b * _PER_LOG_2 + _ROUNDING) - _ROUNDING  # the nearest whole number
    r = b - n * _LOG_2
    r = r - n * _LOG_2_REST
    p = ((((_P[0] * r + _P[1]) * r + _P[2]) * r + _P[3]) * r + _P[4]) * r + _P[5]
    p = p * (r * r) + r + _ONE
    # In two factors: 2^n may be no normal number.
    whole = int32(n)
    half = whole >> int32(1)
    power = np.int32((half + int32(127)) << int32(23)).view(np.float32) * p
    power = power * np.int32((whole - half + int32(127)) << int32(23)).view(np.float32)
    return power if a == a else a
