"""Attention, forward and backward, and multi-head attention, in mpmath: one row at a time."""

import numpy as np
from mpmath import mp, mpf

import rounding

NAN, INF = float("nan"), float("inf")
ORDERS = {"bhsd": "bhsd", "bshd": "bshd", "bsm": "bshd", "sbhd": "sbhd", "sbm": "sbhd", "thd": "bshd"}


def exact(x):
    """An array of mpf."""
    result = np.empty(x.shape, object)
    result.ravel()[:] = [mpf(value) for value in x.ravel()]
    return result


def sequences(x, spec):
    """Per sequence: b, slice of query rows, slice of key rows, number of keys that are there. [rows, heads, width]."""
    if spec.get("layout") == "thd":
        q, k = x["cu_seqlens_q"].astype(int), x["cu_seqlens_k"].astype(int)
        for n in range(len(q) - 1):
            yield 0, slice(q[n], q[n + 1]), slice(k[n], k[n + 1]), int(k[n + 1] - k[n])
        return
    past = x["past_k"].shape[2] if "past_k" in x else 0
    for b in range(x["q"].shape[0]):
        keys = past + x["k"].shape[2]
        yield b, slice(None), slice(None), int(x["kv_lengths"][b]) if "kv_lengths" in x else keys


def pick(array, b, h, i, j):
    """Of something that broadcasts to [B, H, Sq, Sk]."""
    at = (b, h, i, j)[4 - array.ndim:]
    return array[tuple(0 if n == 1 else a for a, n in zip(at, array.shape))]


def scores(x, spec, b, h, i, diagonal, q, k):
    """j -> score and slope of softcap, of the keys that the row may attend to."""
    left, right, cap = spec.get("window_left", -1), spec.get("window_right", -1), spec.get("softcap", 0)
    result = {}
    for j in range(len(k)):
        after = j - diagonal
        if after > 0 and spec["causal"] != "none":
            continue
        if (left >= 0 and -after > left) or (right >= 0 and after > right):
            continue
        if "mask" in x and not pick(x["mask"], b, h, i, j):
            continue
        bias = pick(x["bias"], b, h, i, j) if "bias" in x else 0.0
        if bias == -INF:
            continue
        s = mpf(spec["scale"]) * mp.fdot(q, k[j])
        slope = mpf(1)
        if cap:
            slope = mp.sech(s / mpf(cap)) ** 2
            s = mpf(cap) * mp.tanh(s / mpf(cap))
        if "alibi_slopes" in x:
            slopes = x["alibi_slopes"]
            s -= mpf(slopes[b, h] if slopes.ndim == 2 else slopes[h]) * abs(after)
        result[j] = (s + mpf(bias), slope)
    return result


def attention(x, spec, contract):
    layout = spec.get("layout", "bhsd")
    packed, order = layout == "thd", ORDERS[layout]
    split = lambda t, heads: t.reshape(*t.shape[:2], heads, -1) if layout in ("bsm", "sbm") else t  # noqa: E731
    to_bhsd = [order.index(axis) for axis in "bhsd"]
    heads_first = lambda t, heads: (t[None] if packed else split(t, heads)).transpose(to_bhsd)  # noqa: E731
    x = {n: exact(t) if n in ("q", "k", "v", "past_k", "past_v", "do") else t for n, t in x.items()}
    for name in ("q", "k", "v", "past_k", "past_v", "do"):
        if name in x:
            x[name] = heads_first(x[name], spec.get("heads_kv" if name[-1] in "kv" else "heads_q"))
    q, new_k, new_v = x["q"], x["k"], x["v"]
    k = np.concatenate([x["past_k"], new_k], 2) if "past_k" in x else new_k
    v = np.concatenate([x["past_v"], new_v], 2) if "past_v" in x else new_v
    do = x.get("do")
    past, group = k.shape[2] - new_k.shape[2], q.shape[1] // k.shape[1]
    zeros = lambda *shape: np.full(shape, mpf(0), object)  # noqa: E731
    batch, hq, rows, width = q.shape
    o, lse, m, l = zeros(batch, hq, rows, v.shape[3]), *(zeros(batch, hq, rows) for _ in range(3))
    s, p = zeros(batch, hq, rows, k.shape[2]), zeros(batch, hq, rows, k.shape[2])
    s[...] = -INF
    dq, dk, dv = zeros(*q.shape), zeros(*k.shape), zeros(*v.shape)
    dbias = zeros(*x["bias"].shape) if "bias" in x else None
    dsink = zeros(hq)
    empty = spec.get("empty_row", "zero")
    for b, q_rows, k_rows, keys in sequences(x, spec):
        count = len(range(rows)[q_rows])
        for h in range(hq):
            K, V = k[b, h // group, k_rows][:keys], v[b, h // group, k_rows][:keys]
            dK, dV = dk[b, h // group, k_rows], dv[b, h // group, k_rows]  # views
            for n, i in enumerate(range(rows)[q_rows]):
                diagonal = n + (past if spec["causal"] == "top_left" else keys - count)
                visible = scores(x, spec, b, h, n, diagonal, q[b, h, i], K)
                if not visible and "sink" not in x:
                    m[b, h, i], l[b, h, i] = -INF, 0.0
                    lse[b, h, i] = INF if spec.get("lse_empty") == "+inf" else -INF
                    fill = NAN if empty == "nan" else 0.0
                    o[b, h, i] = fill
                    p[b, h, i, :keys] = fill
                    if empty == "nan":
                        dq[b, h, i] = NAN
                        dK[:keys] = NAN
                        dV[:keys] = NAN
                    if empty == "mean_v":
                        p[b, h, i, :keys] = mpf(1) / keys
                        o[b, h, i] = [mp.fsum(column) / keys for column in V.T]
                        if do is not None:
                            dV[:keys] += np.array([g / keys for g in do[b, h, i]], object)
                    continue
                all_scores = {j: score for j, (score, _) in visible.items()}
                if "sink" in x:
                    all_scores[-1] = mpf(x["sink"][h])
                top = max(all_scores, key=all_scores.get)
                e = {j: mp.exp(score - all_scores[top]) for j, score in all_scores.items()}
                others = mp.fsum(value for j, value in e.items() if j != top)
                total = 1 + others
                m[b, h, i], l[b, h, i] = all_scores[top], total
                natural = rounding.plus(all_scores[top], mp.log1p(others))
                lse[b, h, i] = natural / mp.log(2) if spec.get("lse_base") == "2" else natural
                value = lambda j, c: V[j, c] if j >= 0 else mpf(0)  # noqa: E731
                for c in range(V.shape[1]):
                    rest = mp.fsum(e[j] * (value(j, c) - value(top, c)) for j in e) / total
                    o[b, h, i, c] = rounding.plus(value(top, c), rest)
                for j in visible:
                    s[b, h, i, j], p[b, h, i, j] = all_scores[j], e[j] / total
                if do is None:
                    continue
                g = do[b, h, i]
                dp = {j: mp.fdot(g, V[j]) if j >= 0 else mpf(0) for j in e}
                weight = {j: e[j] / total for j in e}
                for j in e:
                    ds = weight[j] * mp.fsum(weight[n2] * (dp[j] - dp[n2]) for n2 in e)
                    if j < 0:
                        dsink[h] += ds
                        continue
                    if dbias is not None:
                        at = (b, h, n, j)[4 - dbias.ndim:]
                        dbias[tuple(0 if d == 1 else a for a, d in zip(at, dbias.shape))] += ds
                    ds *= mpf(spec["scale"]) * visible[j][1]
                    for d in range(width):
                        dq[b, h, i, d] += ds * K[j, d]
                        dK[j, d] += ds * q[b, h, i, d]
                    for c in range(V.shape[1]):
                        dV[j, c] += weight[j] * g[c]

    def back(t):
        t = t.transpose(["bhsd".index(axis) for axis in order])
        return t[0] if packed else t.reshape(*t.shape[:2], -1) if layout in ("bsm", "sbm") else t

    row = (lambda t: t[0]) if packed else (lambda t: t)
    return dict(o=back(o), lse=row(lse), m=row(m), l=row(l), s=s, p=p, dq=back(dq), dk=back(dk[:, :, past:]),
                dv=back(dv[:, :, past:]), dbias=dbias, dsink=dsink)


def multihead_attention(x, spec, contract):
    order = (lambda t: t) if spec["layout"] == "blm" else (lambda t: t.transpose(1, 0, 2))
    query, key, value = (order(x["x"] if "x" in x else x[n]) for n in ("query", "key", "value"))
    weights = np.split(exact(x["in_proj_weight"]), 3)
    biases = np.split(exact(x["in_proj_bias"]), 3)
    heads, width = spec["heads"], query.shape[2]
    q, k, v = (exact(t) @ w.T + c for t, w, c in zip((query, key, value), weights, biases))
    split = lambda t: t.reshape(*t.shape[:2], heads, width // heads).transpose(0, 2, 1, 3)  # noqa: E731
    inner = dict(q=split(q), k=split(k), v=split(v))
    if "mask" in x:
        inner["mask"] = x["mask"]
    scale = spec.get("scale", 1 / mp.sqrt(width // heads))
    result = attention(inner, dict(causal=spec["causal"], scale=scale), {})
    joined = result["o"].transpose(0, 2, 1, 3).reshape(query.shape)
    y = exact(joined) @ exact(x["out_proj_weight"]).T + exact(x["out_proj_bias"])
    p = exact(result["p"])
    return dict(y=order(y), weights=p.sum(axis=1) / heads if spec.get("average_weights", True) else p)
