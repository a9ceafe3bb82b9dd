#!/usr/bin/env python3
# A tiled attention backward pass by recomputation, after docs/learn, and a dump of what it gives.
"""usage: tiled_backward.py DUMP

Writes DUMP, which `attest verify DUMP` judges. Needs numpy and h5py.
"""

import sys

import numpy as np

from tiled_forward import attention, causal_range, heads_of, inputs_of, write_dump


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
    scale, inputs = 32**-0.5, inputs_of(1, "q", "k", "v", "do")
    outputs = {name: [] for name in ("o", "lse", "dq", "dk", "dv")}
    for q, k, v, d_o in heads_of(inputs):
        o, lse = attention(q, k, v, scale)
        for heads, tensor in zip(outputs.values(), (o, lse, *attention_backward(q, k, v, o, lse, d_o, scale))):
            heads.append(tensor)
    write_dump(path, "tiled_backward", scale, inputs, outputs)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
