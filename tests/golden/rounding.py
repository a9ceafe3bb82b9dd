"""Element types, and rounding mpmath's numbers to them in integer arithmetic."""

import math

import numpy as np
from mpmath import mp, mpf

# name: significand bits, smallest exponent of a normal number, largest finite value, has infinities
FORMATS = {
    "float64": (53, -1022, (2**53 - 1) * 2**971, True),
    "float32": (24, -126, (2**24 - 1) * 2**104, True),
    "float16": (11, -14, 65504, True),
    "bfloat16": (8, -126, 255 * 2**120, True),
    "float8_e4m3fn": (4, -6, 448, False),
    "float8_e5m2": (3, -14, 57344, True),
}
DOUBTFUL = 80  # of the bits that formulas are evaluated with, mp.prec, the last that are not relied on


def plus(base, rest):
    """base + rest, kept apart from base also where rest is far too small."""
    least = abs(base) * mpf(2) ** (DOUBTFUL + 20 - mp.prec)
    if rest == 0 or abs(rest) >= least:
        return base + rest
    return base + (least if rest > 0 else -least)


def nearest(x, name):
    """The nearest value of the type, as a float. What is halfway but for the doubtful bits counts as halfway."""
    if isinstance(x, float):
        if math.isinf(x) and not FORMATS[name][3]:
            return math.nan
        if not math.isfinite(x) or x == 0:
            return x
        sign, (fraction, exp) = math.copysign(1, x), math.frexp(abs(x))
        man, exp = int(fraction * 2**53), exp - 53
    else:
        if mp.isnan(x):  # NaN plus a number
            return math.nan
        if x == 0:
            return 0.0
        is_negative, man, exp, _ = x._mpf_
        sign = -1 if is_negative else 1
    precision, emin, largest, has_infinity = FORMATS[name]
    place = max(exp + man.bit_length() - 1, emin) - (precision - 1)
    shift = place - exp
    if shift <= 0:
        units = man << -shift
    elif shift > man.bit_length() + 1:
        units = 0
    else:
        units, rest, half = man >> shift, man & ((1 << shift) - 1), 1 << (shift - 1)
        doubt = man >> (mp.prec - DOUBTFUL)
        is_halfway = abs(rest - half) <= doubt
        units += units & 1 if is_halfway else rest > half
    value = units * 2**place if place >= 0 else None
    if (value if value is not None else units / 2**-place if -place < 1000 else 0) > largest:
        return sign * math.inf if has_infinity else math.nan
    return sign * math.ldexp(units, place)


def rounded(x, name):
    """Of an mpf or an array of them, as mpf."""
    if isinstance(x, np.ndarray):
        return np.vectorize(lambda v: mpf(nearest(v, name)), otypes=[object])(x)
    return mpf(nearest(x, name))
