"""The operations in mpmath, from the formulas of docs/ops.md: a second derivation of the values in data/golden.

Each takes the inputs of a case (name -> numpy array of exact float64 values), its spec and its contract, and gives
name -> numpy array of mpf, or of float where the result is NaN, infinite or a zero by definition."""

import numpy as np
from mpmath import mp, mpf

import rounding
from attention_formulas import attention, exact, multihead_attention

NAN, INF = float("nan"), float("inf")


def softmax(x, spec, contract):
    axis = spec.get("axis", -1)
    moved = {n: np.moveaxis(x[n], axis, -1) for n in x}
    shape = moved["x"].shape
    scale, clamp, with_max = mpf(spec.get("scale", 1)), spec.get("clamp", 0), spec.get("subtract_max", True)
    mask = moved.get("mask", np.ones(shape))
    y, dx = np.full(shape, 0.0, object), np.full(shape, 0.0, object)
    lse, m, l = (np.full(shape[:-1], 0.0, object) for _ in range(3))
    for row in np.ndindex(shape[:-1]):
        limited = np.clip(moved["x"][row], -clamp, clamp) if clamp else moved["x"][row]
        present = [j for j in range(shape[-1]) if mask[row][j] and limited[j] != -INF]
        if not present:
            y[row] = dx[row] = NAN if spec.get("empty_row", "zero") == "nan" else 0.0
            lse[row], m[row], l[row] = -INF, -INF if with_max else 0.0, 0.0
            continue
        s = {j: scale * mpf(limited[j]) for j in present}
        top = max(present, key=s.get)
        e = {j: mp.exp(s[j] - s[top]) for j in present}
        others = mp.fsum(e[j] for j in present if j != top)
        total = 1 + others
        m[row], l[row] = (s[top], total) if with_max else (mpf(0), total * mp.exp(s[top]))
        lse[row] = rounding.plus(s[top], mp.log1p(others))
        for j in present:
            y[row][j] = e[j] / total
        if "dy" in x:
            dy = exact(moved["dy"][row])
            for j in present:
                if clamp and abs(moved["x"][row][j]) > clamp:
                    continue
                dx[row][j] = scale * y[row][j] * mp.fsum(y[row][k] * (dy[j] - dy[k]) for k in present)
    back = lambda a: np.moveaxis(a, -1, axis)  # noqa: E731
    return dict(y=back(y), dx=back(dx), lse=lse, m=m, l=l)


def gate(kind, x):
    """g(x), 1 - g(x) and x g'(x) of the activation x g(x)."""
    if kind == "none":
        w = x / mp.sqrt(2)
        return mp.erfc(-w) / 2, mp.erfc(w) / 2, x * mp.npdf(x)
    if kind == "tanh":
        c = mp.sqrt(2 / mp.pi)
        w, slope = 2 * c * (x + mpf("0.044715") * x**3), 2 * c * (1 + mpf("0.134145") * x * x)
    else:
        slope = mpf("1.702") if kind == "quick" else mpf(1)
        w = slope * x
    g, rest = 1 / (1 + mp.exp(-w)), 1 / (1 + mp.exp(w))
    return g, rest, x * slope * g * rest


def activation(kind):
    def formula(x, spec, contract):
        form = spec.get("approximate", "none") if kind == "gelu" else kind
        y, dx = np.empty(x["x"].shape, object), np.empty(x["x"].shape, object)
        for n in np.ndindex(x["x"].shape):
            at, dy = mpf(x["x"][n]), mpf(x["dy"][n])
            if form == "sigmoid":
                y[n] = 1 / (1 + mp.exp(-at))
                dx[n] = dy * y[n] / (1 + mp.exp(at))
                continue
            g, rest, change = gate(form, at)
            if at > 0:
                y[n], dx[n] = rounding.plus(at, -at * rest), rounding.plus(dy, dy * (change - rest))
            else:
                y[n], dx[n] = at * g, dy * (g + change)
        return dict(y=y, dx=dx)

    return formula


def norm(is_centred):
    def formula(x, spec, contract):
        shape = x["x"].shape
        width = shape[-1]
        rows = exact(x["x"]).reshape(-1, width)
        if "residual" in x:
            rows = rows + exact(x["residual"]).reshape(-1, width)
            if spec.get("round_sum", False):
                rows = rounding.rounded(rows, x["types"]["residual"])
        weight = exact(x["weight"]) + mpf(spec.get("weight_offset", 0)) if "weight" in x else exact(np.ones(width))
        bias = exact(x["bias"]) if "bias" in x else exact(np.zeros(width))
        mean = rows.sum(axis=1) / width if is_centred else exact(np.zeros(len(rows)))
        d = rows - mean[:, None]
        rstd = np.array([1 / mp.sqrt(mp.fsum(d[i] ** 2) / width + mpf(spec["eps"])) for i in range(len(rows))], object)
        xhat = d * rstd[:, None]
        kept = rounding.rounded(xhat, x["types"]["x"]) if spec.get("cast_before_weight", False) else xhat
        result = dict(y=(weight * kept + bias).reshape(shape), sum=rows.reshape(shape), rstd=rstd.reshape(shape[:-1]),
                      mean=mean.reshape(shape[:-1]))
        if "dy" in x:
            dy = exact(x["dy"]).reshape(-1, width)
            g = weight * dy
            mean_g = (g.sum(axis=1) / width)[:, None] if is_centred else 0
            mean_gx = ((g * xhat).sum(axis=1) / width)[:, None]
            result.update(dx=((g - mean_g - xhat * mean_gx) * rstd[:, None]).reshape(shape),
                          dweight=(dy * xhat).sum(axis=0), dbias=dy.sum(axis=0))
        return result

    return formula


def layer_norm_qkv(x, spec, contract):
    y = norm(True)(dict(x=x["x"], weight=x["weight"], bias=x["bias"]), dict(eps=spec["eps"]), {})["y"]
    if contract["intermediate_dtype"] != "float64":
        y = rounding.rounded(y, contract["intermediate_dtype"])
    all_three = y @ exact(x["qkv_weight"]).T + exact(x["qkv_bias"])
    batch, tokens, width = x["x"].shape
    parts = np.split(all_three, 3, axis=2)
    heads = spec["heads"]
    return {name: part.reshape(batch, tokens, heads, width // heads).transpose(0, 2, 1, 3)
            for name, part in zip("qkv", parts)}


def inverse_frequencies(spec, rotary_dim, in_float32):
    theta, factor = mpf(spec["theta"]), mpf(spec.get("factor", 1))
    scaling, trained = spec.get("scaling", "none"), mpf(spec.get("original_max_position_embeddings", 0))
    if scaling in ("ntk", "dynamic_ntk"):  # in double, which is the rule
        times, base = spec["factor"], spec["factor"]
        if scaling == "dynamic_ntk":
            m = spec["original_max_position_embeddings"]
            base = times * max(spec["sequence_length"], m) / m - (times - 1)
        growth = rounding.rounded(mpf(base) ** mpf(rotary_dim / (rotary_dim - 2)), "float64")
        theta = rounding.rounded(theta * growth, "float64")
    all_pairs = []
    for k in range(rotary_dim // 2):
        exponent = mpf(2 * k) / rotary_dim
        if in_float32:
            exponent = rounding.rounded(exponent, "float32")
        f = theta**-exponent
        keep = mpf(1)
        if scaling == "linear":
            keep = mpf(0)
        if scaling == "yarn":
            pair = lambda turns: rotary_dim * mp.log(trained / (turns * 2 * mp.pi)) / (2 * mp.log(theta))  # noqa: E731
            low = max(mp.floor(pair(spec.get("beta_fast", 32))), 0)
            high = min(mp.ceil(pair(spec.get("beta_slow", 1))), rotary_dim - 1)
            keep = 1 - min(max((k - low) / (high - low), mpf(0)), mpf(1))
        if scaling == "llama3":
            low, high = mpf(spec["low_freq_factor"]), mpf(spec["high_freq_factor"])
            keep = min(max((trained * f / (2 * mp.pi) - low) / (high - low), mpf(0)), mpf(1))
        all_pairs.append(f * (keep + (1 - keep) / factor))
    return all_pairs


def rope_table(x, spec, rows, positions, rotary_dim):
    """cos and sin, [rows, rotary_dim] in the order of the columns."""
    half = spec["style"] == "half"
    pairs = rotary_dim // 2
    spread = (lambda t: np.concatenate([t, t], 1)) if half else (lambda t: np.repeat(t, 2, 1))
    if "cos" in x:
        tables = []
        for name in ("cos", "sin"):
            table = x[name].reshape(-1, x[name].shape[-1])
            if positions is not None:
                table = table[np.array(positions, int)]
            table = exact(np.tile(table, (rows // len(table), 1)))
            tables.append(spread(table) if table.shape[1] == pairs else table)
        return tables
    in_float32 = spec.get("angle_dtype", "float32") == "float32"
    f = list(exact(x["inv_freq"])) if "inv_freq" in x else inverse_frequencies(spec, rotary_dim, in_float32)
    angle = np.outer(exact(np.array(positions, float)), np.array(f, object))
    if in_float32:
        f = rounding.rounded(np.array(f, object), "float32")
        angle = rounding.rounded(np.outer(rounding.rounded(exact(np.array(positions, float)), "float32"), f), "float32")
    factor = mpf(spec["attention_factor"]) if "attention_factor" in spec else mpf(1)
    if spec.get("scaling") == "yarn" and "attention_factor" not in spec:
        factor = mp.log(mpf(spec["factor"])) / 10 + 1
    return [spread(factor * np.vectorize(f, otypes=[object])(angle)) for f in (mp.cos, mp.sin)]


def rope(x, spec, contract):
    packed = spec.get("layout") == "thd"
    rows_of = (lambda t: t) if packed else (lambda t: t.transpose(0, 2, 1, 3).reshape(-1, *t.shape[1::2]))
    shape = x["x"].shape
    batch, length = (1, shape[0]) if packed else (shape[0], shape[2])
    start = spec.get("position_start", 0)
    positions = None
    if "cu_seqlens" in x:
        ends = x["cu_seqlens"].astype(int)
        positions = [start + n for a, b in zip(ends, ends[1:]) for n in range(b - a)]
    elif "positions" in x:
        positions = list(np.broadcast_to(x["positions"], (batch, length)).ravel())
    elif "position_start" in spec:
        positions = list(range(start, start + length)) * batch
    rotary_dim = spec.get("rotary_dim", shape[-1])
    cos, sin = rope_table(x, spec, batch * length, positions, rotary_dim)
    half = spec["style"] == "half"
    partner = [(d + rotary_dim // 2) % rotary_dim if half else d ^ 1 for d in range(rotary_dim)]
    sign = [-1 if (d < rotary_dim // 2 if half else d % 2 == 0) else 1 for d in range(rotary_dim)]

    def turned(tensor, is_backward):
        t = rows_of(exact(tensor)).copy()
        result = t.copy()
        for d, p in enumerate(partner):
            # forward: y_d = x_d cos_d + sign_d x_p sin_d; backward is the transposed map
            across = sign[p] * t[:, :, p] * sin[:, p, None] if is_backward else sign[d] * t[:, :, p] * sin[:, d, None]
            result[:, :, d] = t[:, :, d] * cos[:, d, None] + across
        if packed:
            return result
        return result.reshape(batch, length, *result.shape[1:]).transpose(0, 2, 1, 3)

    return dict(y=turned(x["x"], False), dx=turned(x["dy"], True))


OPS = dict(attention=attention, softmax=softmax, gelu=activation("gelu"), silu=activation("silu"),
           sigmoid=activation("sigmoid"), rms_norm=norm(False), layer_norm=norm(True), layer_norm_qkv=layer_norm_qkv,
           rope=rope, multihead_attention=multihead_attention)
