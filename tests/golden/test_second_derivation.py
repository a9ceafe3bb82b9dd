"""Every value of the small golden files, computed once more with mpmath from the formulas: the same bits.

Usage: test_second_derivation.py data/golden NAME..."""

import math
import sys
from pathlib import Path

import h5py
import numpy as np

try:
    from mpmath import mp
except ImportError:
    print("skipped: the Python package mpmath is missing")
    sys.exit(77)

import formulas
import rounding


def types_of(dataset):
    if "dtype" in dataset.attrs:
        name = dataset.attrs["dtype"]
        return name.decode() if isinstance(name, bytes) else str(name)
    return dataset.dtype.name


def decoded(dataset):
    """Exact float64 values."""
    name = types_of(dataset)
    bits = dataset[()]
    if name == "bfloat16":
        return (bits.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    if name == "float8_e5m2":
        return (bits.astype(np.uint16) << 8).view(np.float16).astype(np.float64)
    if name == "float8_e4m3fn":
        return np.vectorize(e4m3, otypes=[float])(bits)
    return bits.astype(np.float64)


def e4m3(bits):
    bits = int(bits)
    field, fraction = bits >> 3 & 15, bits & 7
    if field == 15 and fraction == 7:
        return math.nan
    value = math.ldexp(fraction, -9) if field == 0 else math.ldexp(8 + fraction, field - 10)
    return -value if bits & 128 else value


def attributes(group):
    plain = {}
    for key, value in group.attrs.items():
        value = value.decode() if isinstance(value, bytes) else value
        plain[key] = value.item() if isinstance(value, np.generic) else value
    return plain


def same(a, b):
    return (math.isnan(a) and math.isnan(b)) or (a == b and (a != 0 or math.copysign(1, a) == math.copysign(1, b)))


def check_case(file, name):
    """How many values agreed; a message on the first that does not."""
    case, stored = file[name], file[name + ".float64"]
    x = {n: decoded(d) for n, d in case["in"].items()}
    op = attributes(case)["op"]
    if op in ("rms_norm", "layer_norm"):
        x["types"] = {n: types_of(d) for n, d in case["in"].items()}
    # Next to 0, gates differ from one half by less than the smallest double.
    mp.prec = 1400 if op in ("gelu", "silu", "sigmoid") and types_of(case["in/x"]) == "float64" else 400
    results = formulas.OPS[op](x, attributes(case["spec"]), attributes(case["contract"]))
    count = 0
    for output in (name for name in stored if "." not in name):
        want, doubles = results[output], stored[output][()]
        if want.shape != doubles.shape:
            return count, f"{name}/{output} has shape {doubles.shape}, mpmath's {want.shape}"
        dataset = case["out"].get(output)  # o and lse of gradients are not written
        written = (types_of(dataset), decoded(dataset)) if dataset else (None, None)
        exceptions = {t: decoded(stored[f"{output}.{t}"]) for t in rounding.FORMATS if f"{output}.{t}" in stored}
        for at in np.ndindex(want.shape):
            for t in rounding.FORMATS:
                value = rounding.nearest(want[at], t)
                if t == "float64":
                    got = doubles[at]
                elif t in exceptions:
                    got = exceptions[t][at]
                else:
                    got = rounding.nearest(float(doubles[at]), t)
                if not same(got, value):
                    return count, f"{name}/{output}{list(at)} in {t}: {got!r}, mpmath says {value!r}"
                if t == written[0] and not same(written[1][at], value):
                    return count, f"{name}/out/{output}{list(at)}: {written[1][at]!r}, mpmath says {value!r}"
                count += 1
    return count, None


def main():
    folder, names = Path(sys.argv[1]), sys.argv[2:]
    failures = total = 0
    for name in names:
        with h5py.File(folder / f"{name}.h5") as file:
            for case in file:
                if case.endswith(".float64"):
                    continue
                count, message = check_case(file, case)
                total += count
                if message:
                    failures += 1
                    print(f"{name}.h5: {message}")
    print(f"{total} roundings agree, {failures} cases do not")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
