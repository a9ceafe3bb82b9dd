#!/usr/bin/env python3
# A tiled attention backward pass by recomputation, after docs/learn, and a dump of what it gives.
"""usage: tiled_backward.py DUMP

Writes DUMP, which `attest verify DUMP` judges. Needs numpy and h5py.
"""

import sys

import h5py
import numpy as np

from tiled_forward import attention, causal_range


# [backward]
def attention_backward(q, k, v, o, lse, d_o, scale, query_tile=64, key_tile=48):
    """One head, causal; o and lse of the forward pass, the gradient d_o of o -> dq, dk, dv."""
    queries, keys = len(q), len(k)
    dq, dk, dv = np.zeros_like(q), np.zeros_like(k), np.zeros_like(v)
    delta = (d_o * o).sum(axis=1)
    ends = np.array([causal_range(row, queries, keys) for row in range(queries)])
    lse = np.where(lse == -np.inf, np.inf, lse)  # a row that saw no key: p = e^-inf = 0
    for j in range(0, keys, key_tile):
        columns = slice(j, min(j + key_tile, keys))
        for i in range(0, queries, query_tile):
            rows = slice(i, min(i + query_tile, queries))
            if ends[rows][-1] <= columns.start:  # none: masked for every row
                continue
            s = scale * q[rows] @ k[columns].T
            s[np.arange(columns.start, columns.stop) >= ends[rows, None]] = -np.inf
            p = np.exp(s - lse[rows, None])  # recomputed, and normalised at once
            dp = d_o[rows] @ v[columns].T
            ds = p * (dp - delta[rows, None])
            dv[columns] += p.T @ d_o[rows]
            dk[columns] += scale * ds.T @ q[rows]
            dq[rows] += scale * ds @ k[columns]
    return dq, dk, dv
# [end]


def main(path):
    random = np.random.default_rng(1)
    queries, keys, d, e, scale = 150, 130, 32, 24, 32**-0.5  # the first 20 rows see no key
    q, k, v, d_o = (random.standard_normal((2, n, width)).astype(np.float16)
                    for n, width in ((queries, d), (keys, d), (keys, e), (queries, e)))
    outputs = {name: [] for name in ("o", "lse", "dq", "dk", "dv")}
    for head in zip(q, k, v, d_o):
        in_double = [x.astype(np.float64) for x in head]
        o, lse = attention(*in_double[:3], scale)
        gradients = attention_backward(*in_double[:3], o, lse, in_double[3], scale)
        for name, tensor in zip(outputs, (o, lse, *gradients)):
            outputs[name].append(tensor.astype(np.float32 if name == "lse" else np.float16))
    with h5py.File(path, "w") as file:
        file.attrs["attest_format"] = 1
        case = file.create_group("tiled_backward")
        case.attrs["op"] = "attention"
        case.create_group("spec").attrs.update(causal="bottom_right", scale=scale)
        for name, tensor in {"q": q, "k": k, "v": v, "do": d_o}.items():
            case[f"in/{name}"] = tensor[None]  # a batch of one
        for name, heads in outputs.items():
            case[f"out/{name}"] = np.array(heads)[None]


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
