# The inputs that a dump describes by a recipe, in numpy: the bits that `attest inputs` would write. Needs numpy.
"""What verify/inputs/attention_*.cpp make, for machines without attest:

    tensors = attest_inputs.make("attention", spec, recipe)  # dicts of the attributes in spec and recipe

maps names to (array, dtype): dtype is None, or the element type whose bits the array has. Tensors are made head by
head, so that memory is little more than what they take themselves.
"""

import math

import numpy as np

GENERATOR = 1  # of `attest inputs`; another one makes other bits
# Significand bits, smallest normal exponent and largest value; bits and bias of the types that numpy lacks.
FORMATS = {"float64": (53, -1022, np.finfo(np.float64).max), "float32": (24, -126, np.finfo(np.float32).max),
           "float16": (11, -14, 65504.0), "bfloat16": (8, -126, (2 - 2.0**-7) * 2.0**127),
           "float8_e4m3fn": (4, -6, 448.0), "float8_e5m2": (3, -14, 57344.0)}
ENCODED = {"bfloat16": (16, 127, 0x7FC0), "float8_e4m3fn": (8, 7, 0x7F), "float8_e5m2": (8, 15, 0x7E)}  # with NaN
ORDERS = {"bhsd": "bhs", "bshd": "bsh", "bsm": "bsh", "sbhd": "sbh", "sbm": "sbh", "thd": "bsh"}


def polynomial(coefficients, x):
    total = coefficients[0]
    for c in coefficients[1:]:
        total = total * x + c
    return total


def logarithm(x):
    m, exponent = np.frexp(x)
    m, exponent = 2 * m, exponent - 1
    high = m > 1.4142135623730951
    m, exponent = np.where(high, m / 2, m), exponent + high
    s = (m - 1) / (m + 1)
    return exponent * 0.69314718055994530942 + 2 * s * polynomial([1 / n for n in range(23, 0, -2)], s * s)


# Wichura, "Algorithm AS 241", PPND16, as verify/inputs/random_stream.cpp has it: no function but a square root.
CENTRE = ((2.5090809287301226727e+3, 3.3430575583588128105e+4, 6.7265770927008700853e+4, 4.5921953931549871457e+4,
           1.3731693765509461125e+4, 1.9715909503065514427e+3, 1.3314166789178437745e+2, 3.3871328727963666080e+0),
          (5.2264952788528545610e+3, 2.8729085735721942674e+4, 3.9307895800092710610e+4, 2.1213794301586595867e+4,
           5.3941960214247511077e+3, 6.8718700749205790830e+2, 4.2313330701600911252e+1, 1.0))
TAIL = ((7.74545014278341407640e-4, 2.27238449892691845833e-2, 2.41780725177450611770e-1, 1.27045825245236838258e+0,
         3.64784832476320460504e+0, 5.76949722146069140550e+0, 4.63033784615654529590e+0, 1.42343711074968357734e+0),
        (1.05075007164441684324e-9, 5.47593808499534494600e-4, 1.51986665636164571966e-2, 1.48103976427480074590e-1,
         6.89767334985100004550e-1, 1.67638483018380384940e+0, 2.05319162663775882187e+0, 1.0))


def normal_quantile(words):
    q = (words + 0.5) * 2.0**-32 - 0.5
    r = 0.180625 - q * q
    x = q * polynomial(CENTRE[0], r) / polynomial(CENTRE[1], r)
    far = np.abs(q) > 0.425
    r = np.sqrt(-logarithm(0.5 - np.abs(q[far]))) - 1.6
    x[far] = np.copysign(polynomial(TAIL[0], r) / polynomial(TAIL[1], r), q[far])
    return x


class Stream:
    """Philox4x32-10 with the seed as key and (number of the block, hash of the name) as counter."""

    def __init__(self, seed, name):
        self.key = seed & 0xFFFFFFFF, seed >> 32
        self.name = 2166136261  # FNV-1a
        for byte in name.encode():
            self.name = (self.name ^ byte) * 16777619 & 0xFFFFFFFF

    def words(self, first, count):
        blocks = np.arange(first // 4, (first + count + 3) // 4, dtype=np.uint64)
        low, half = np.uint64(0xFFFFFFFF), np.uint64(32)
        c = [blocks & low, blocks >> half, np.full_like(blocks, self.name), np.zeros_like(blocks)]
        k = list(self.key)
        for _ in range(10):
            a, b = c[0] * np.uint64(0xD2511F53), c[2] * np.uint64(0xCD9E8D57)
            c = [b >> half ^ c[1] ^ np.uint64(k[0]), b & low, a >> half ^ c[3] ^ np.uint64(k[1]), a & low]
            k = [(k[0] + 0x9E3779B9) & 0xFFFFFFFF, (k[1] + 0xBB67AE85) & 0xFFFFFFFF]
        return np.stack(c, -1).reshape(-1)[first % 4:][:count]

    def normals(self, first, count):
        return normal_quantile(self.words(first, count).astype(np.float64))

    def uniforms(self, first, count):
        return (self.words(first, count) + 0.5) * 2.0**-32

    def below(self, first, count, limit):
        """Of 0 .. limit - 1; limit may be an array of `count`."""
        return (self.words(first, count) * np.asarray(limit, np.uint64) >> np.uint64(32)).astype(np.int64)


def stored(x, dtype):
    """Doubles rounded once to the element type: an array of it or of its bits."""
    precision, emin, largest = FORMATS[dtype]
    with np.errstate(over="ignore", invalid="ignore"):
        if dtype not in ENCODED:
            result = rounded = x.astype(dtype)
        else:
            bits, bias, nan = ENCODED[dtype]
            exponent = np.maximum(np.frexp(x)[1] - 1, emin)
            significand = np.rint(np.ldexp(np.abs(x), precision - 1 - exponent))
            rounded = np.ldexp(significand, exponent - precision + 1)
            # Carried into the next binade, the significand's leading bit adds to the exponent.
            field = np.where(significand < 1 << (precision - 1), 0, exponent + bias - 1) * (1 << (precision - 1))
            field = field + np.nan_to_num(significand).astype(np.int64)
            result = np.where(np.isnan(x), nan, np.signbit(x) * (1 << (bits - 1)) + field).astype(f"uint{bits}")
    if np.any(np.isfinite(x) & ~(np.abs(rounded) <= largest)):
        raise ValueError(f"the recipe needs {np.nanmax(np.abs(x)):.3g}, which is beyond the largest {dtype}")
    return result


class Attention:
    """Rows of q, k and v by head: [rows, width], in doubles."""

    def __init__(self, spec, recipe):
        n = {symbol: int(extent) for symbol, extent in (part.split("=") for part in recipe["shape"].split(","))}
        self.spec, self.name, self.dtype, self.seed = spec, recipe["name"], recipe["dtype"], int(recipe["seed"])
        self.layout = spec.get("layout", "bhsd")
        self.packed = self.layout == "thd"
        self.sequences, self.batch = n["B"], 1 if self.packed else n["B"]
        self.past, self.queries, self.keys = n["Sp"], n["Sq"], n["Sk"] + n["Sp"]
        self.q_heads, self.kv_heads, self.width, self.v_width = n["Hq"], n["Hkv"], n["D"], n["E"]
        self.streams = {name: Stream(self.seed, name) for name in ("q", "k", "v", "do", "target")}

    def draw(self, name, b, head, kind="normals"):
        heads, rows, width = dict(
            q=(self.q_heads, self.queries, self.width), do=(self.q_heads, self.queries, self.v_width),
            k=(self.kv_heads, self.keys, self.width), v=(self.kv_heads, self.keys, self.v_width))[name]
        at = (b * heads + head) * rows * width
        return getattr(self.streams[name], kind)(at, rows * width).reshape(rows, width)

    def cuts(self, total):
        count = self.sequences
        return np.array([total * n * (n + 1) // (count * (count + 1)) for n in range(count)] + [total])

    def lengths(self):
        if self.name != "padding":
            return np.full(self.batch, self.keys)
        return np.array([max(1, self.keys * (b + 1) // (self.batch + 1)) for b in range(self.batch)])

    def visible_key(self, b, head):
        """For each row a key that it may attend to, chosen at random; -1 if there is none."""
        i = np.arange(self.queries)
        first_q, queries, first_k, keys = 0, self.queries, 0, self.lengths()[b]
        if self.packed:
            q, k = self.cuts(self.queries), self.cuts(self.keys)
            of_row = np.searchsorted(q, i, "right") - 1
            first_q, queries, first_k, keys = q[of_row], np.diff(q)[of_row], k[of_row], np.diff(k)[of_row]
        causal = self.spec.get("causal", "none")
        diagonal = i - first_q + (self.past if causal == "top_left" else keys - queries)
        left, right = (self.spec.get(f"window_{side}", -1) for side in ("left", "right"))
        first, last = np.zeros_like(i), np.zeros_like(i) + keys - 1
        if causal != "none":
            last = np.minimum(last, diagonal)
        if left >= 0:
            first = np.maximum(first, diagonal - left)
        if right >= 0:
            last = np.minimum(last, diagonal + right)
        count = np.maximum(last - first + 1, 0)
        chosen = self.streams["target"].below((b * self.q_heads + head) * self.queries, self.queries, count)
        return np.where(count > 0, first_k + first + chosen, -1)

    def codes(self, numbers, value):
        """The rows that recipe exact writes for these numbers of keys."""
        for digits in range(1, self.width + 1):
            base = 2 * (self.width // digits)
            if base**digits >= self.keys:
                break
        rows = np.zeros((len(numbers), self.width))
        for n in range(digits):
            digit = numbers // base**n % base
            rows[np.arange(len(numbers)), (n * base + digit) // 2] = np.where(digit % 2 == 0, value, -value)
        return rows

    def code_sizes(self):
        scale, (precision, _, _) = self.spec["scale"], FORMATS[self.dtype]
        product = 24 / abs(scale)
        k = math.ldexp(1.0, int((math.frexp(product)[1] - 1) / 2))
        unit = math.ldexp(1.0, math.frexp(product / k)[1] - precision)
        q = round(product / k / unit) * unit
        if q * k < product:
            q += math.ldexp(1.0, math.frexp(q)[1] - precision)
        return math.copysign(q, scale), k

    def q(self, b, h):
        if self.name == "uniform":
            return 3.4 * self.draw("q", b, h, "uniforms") - 1.7
        if self.name == "exact":
            return self.codes(np.maximum(self.visible_key(b, h), 0), self.code_sizes()[0])
        x = self.draw("q", b, h)
        if self.name == "spiky":
            keys = self.draw("k", b, h * self.kv_heads // self.q_heads)
            return 1.2 * keys[np.maximum(self.visible_key(b, h), 0)] + 0.3 * x
        if self.name == "cancellation":
            return 20 + 0.1 * x
        return enlarged(x, 20) if self.name == "outliers" else self.factor(6, 0.3, 110, -2) * x

    def k(self, b, g):
        if self.name == "uniform":
            return 3.4 * self.draw("k", b, g, "uniforms") - 1.7
        if self.name == "exact":
            return self.codes(np.arange(self.keys), self.code_sizes()[1])
        x = self.draw("k", b, g)
        if self.name == "ties":
            return x[self.streams["target"].below(0, self.keys, 4) % self.keys]
        if self.name == "cancellation":
            return 20 * alternating(self.width) + 0.1 * x
        if self.name == "subnormals":
            return 2.0**(-FORMATS[self.dtype][1] - 1) * x
        return self.padded(enlarged(x, 4) if self.name == "outliers" else self.factor(6, 0.3, 110, None) * x, b)

    def v(self, b, g):
        if self.name == "uniform":
            return self.draw("v", b, g, "uniforms")
        if self.name == "exact":
            smallest = 1 << (min(FORMATS[self.dtype][0], 11) - 1)
            at = (b * self.kv_heads + g) * self.keys * self.v_width
            x = self.streams["v"].below(at, self.keys * self.v_width, smallest).reshape(self.keys, self.v_width)
            return np.where(x % 2 == 0, smallest + x // 2, -(smallest + x // 2)).astype(np.float64)
        x = self.draw("v", b, g)
        if self.name == "cancellation":
            return 100 * alternating(self.keys)[:, None] + 0.01 * x
        if self.name in ("near_uniform", "ties"):
            return 1 + (0.1 if self.name == "near_uniform" else 0.2) * x
        if self.name == "constant_v":
            return np.broadcast_to(x[0], x.shape)
        if self.name == "subnormals":
            x[:, ::2] *= 2.0**(FORMATS[self.dtype][1] - 2)
        return self.padded(enlarged(x, 60) if self.name == "outliers" else 30 * x if self.name == "large" else x, b)

    def factor(self, large, near_uniform, overflow, subnormals):
        if self.name == "subnormals":
            return 2.0**(FORMATS[self.dtype][1] + subnormals)
        return dict(large=large, near_uniform=near_uniform, overflow=overflow).get(self.name, 1)

    def padded(self, x, b):
        x[self.lengths()[b]:] = np.nan
        return x

    def tensor(self, rows, heads, first, count, width):
        """rows(b, head) of every head from row `first` on, in the layout."""
        kept = np.empty((self.batch, heads, count, width), f"uint{ENCODED[self.dtype][0]}"
                        if self.dtype in ENCODED else self.dtype)
        for b in range(self.batch):
            for head in range(heads):
                kept[b, head] = stored(rows(b, head)[first:first + count], self.dtype)
        order = ["bhs".index(axis) for axis in ORDERS[self.layout]]
        laid_out = kept[0].swapaxes(0, 1) if self.packed else kept.transpose(*order, 3)
        if self.layout in ("bsm", "sbm"):
            laid_out = laid_out.reshape(*laid_out.shape[:2], -1)
        return np.ascontiguousarray(laid_out), self.dtype if self.dtype in ENCODED else None

    def tensors(self, wanted):
        fresh, past = self.keys - self.past, self.past
        made = dict(q=self.tensor(self.q, self.q_heads, 0, self.queries, self.width),
                    k=self.tensor(self.k, self.kv_heads, past, fresh, self.width),
                    v=self.tensor(self.v, self.kv_heads, past, fresh, self.v_width))
        if past > 0:
            made |= dict(past_k=self.tensor(self.k, self.kv_heads, 0, past, self.width),
                         past_v=self.tensor(self.v, self.kv_heads, 0, past, self.v_width))
        if self.name == "padding":
            made["kv_lengths"] = self.lengths().astype(np.int32), None
        if self.packed:
            made |= dict(cu_seqlens_q=(self.cuts(self.queries).astype(np.int32), None),
                         cu_seqlens_k=(self.cuts(self.keys).astype(np.int32), None))
        return made | {name: self.optional(name) for name in wanted}

    def optional(self, name):
        if name == "do":
            return self.tensor(lambda b, h: self.draw("do", b, h), self.q_heads, 0, self.queries, self.v_width)
        stream, square = Stream(self.seed, name), (self.queries, self.keys)
        if name == "mask":
            count = self.batch * self.queries * self.keys
            seen = (stream.below(0, count, 4) > 0).reshape(self.batch, 1, *square)
            if self.queries > 1:
                seen[:, :, self.queries // 2] = False
            return seen, None
        if name == "bias":
            values = stream.normals(0, self.queries * self.keys).reshape(1, 1, *square)
            return stored(values, self.dtype), self.dtype if self.dtype in ENCODED else None
        if name == "alibi_slopes":
            return np.ldexp(1.0, -(np.arange(self.q_heads) % 8) - 1).astype(np.float32), None
        return (1 + stream.normals(0, self.q_heads)).astype(np.float32), None  # sink


def alternating(count):
    return np.where(np.arange(count) % 2 == 0, 1.0, -1.0)


def enlarged(x, factor):
    last = x.shape[1] - 1
    for column in {0} | ({last // 2} if last > 1 else set()) | ({last} if last > 0 else set()):
        x[:, column] *= factor
    return x


def make(op, spec, recipe):
    if op != "attention":
        raise ValueError(f"inputs of {op} are made by attest alone: attest inputs without --describe stores them")
    if int(recipe["generator"]) != GENERATOR:
        raise ValueError(f"the recipe needs generator {recipe['generator']}; this is {GENERATOR}")
    return Attention(spec, recipe).tensors(name for name in recipe.get("with", "").split(",") if name)
