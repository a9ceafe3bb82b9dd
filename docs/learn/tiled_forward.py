#!/usr/bin/env python3
# A tiled attention forward pass as one can write it after reading docs/learn, and a dump of what it gives.
"""usage: tiled_forward.py DUMP

Writes DUMP, which `attest verify DUMP` judges. Needs numpy and h5py.
"""

import sys

import h5py
import numpy as np


# [attention]
def causal_range(i, queries, keys):
    """Row i sees the keys before this one; the last row sees all keys (bottom_right)."""
    return i + keys - queries + 1


def attention(q, k, v, scale, query_tile=64, key_tile=48):
    """One head, causal: q[Sq, D], k[Sk, D], v[Sk, E] -> o[Sq, E], lse[Sq]."""
    queries, keys = len(q), len(k)
    o, lse = np.zeros((queries, v.shape[1])), np.full(queries, -np.inf)
    for i in range(0, queries, query_tile):
        rows = slice(i, min(i + query_tile, queries))  # the last tile may be shorter
        ends = np.array([causal_range(row, queries, keys) for row in range(rows.start, rows.stop)])
        m = np.full(len(ends), -np.inf)
        l = np.zeros(len(ends))
        acc = np.zeros((len(ends), v.shape[1]))
        for j in range(0, min(keys, ends[-1]), key_tile):  # later tiles are masked for every row: none
            columns = slice(j, min(j + key_tile, keys))
            s = scale * q[rows] @ k[columns].T
            if columns.stop > ends[0]:  # masked for some row: part. Otherwise: all
                s[np.arange(columns.start, columns.stop) >= ends[:, None]] = -np.inf
            m_new = np.maximum(m, s.max(axis=1))
            reference = np.where(m_new == -np.inf, 0, m_new)  # a row that has seen no key yet
            factor = np.exp(m - reference)
            p = np.exp(s - reference[:, None])
            l = factor * l + p.sum(axis=1)
            acc = factor[:, None] * acc + p @ v[columns]
            m = m_new
        seen = l > 0
        o[rows][seen] = acc[seen] / l[seen, None]
        lse[rows][seen] = m[seen] + np.log(l[seen])
    return o, lse
# [end]


def main(path):
    random = np.random.default_rng(0)
    queries, keys, d, e, scale = 150, 130, 32, 24, 32**-0.5  # the first 20 rows see no key
    q, k, v = (random.standard_normal((2, n, width)).astype(np.float16)
               for n, width in ((queries, d), (keys, d), (keys, e)))
    heads = [attention(*(x[h].astype(np.float64) for x in (q, k, v)), scale) for h in range(2)]
    o = np.array([head[0] for head in heads]).astype(np.float16)
    lse = np.array([head[1] for head in heads]).astype(np.float32)
    with h5py.File(path, "w") as file:
        file.attrs["attest_format"] = 1
        case = file.create_group("tiled_forward")
        case.attrs["op"] = "attention"
        case.create_group("spec").attrs.update(causal="bottom_right", scale=scale)
        for name, tensor in {"in/q": q, "in/k": k, "in/v": v, "out/o": o, "out/lse": lse}.items():
            case[name] = tensor[None]  # a batch of one


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
