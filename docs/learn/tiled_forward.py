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


def write_dump(path, name, scale, inputs, outputs):
    """One case: inputs in float16, outputs[name] a list of heads. o and gradients are stored in float16 as well."""
    with h5py.File(path, "w") as file:
        file.attrs["attest_format"] = 1
        case = file.create_group(name)
        case.attrs["op"] = "attention"
        case.create_group("spec").attrs.update(causal="bottom_right", scale=scale)
        for port, tensor in inputs.items():
            case[f"in/{port}"] = tensor[None]  # a batch of one
        for port, heads in outputs.items():
            case[f"out/{port}"] = np.array(heads)[None].astype(np.float32 if port in ("lse", "m", "l") else np.float16)


def inputs_of(seed, *names):
    """Two heads, widths 32 and 24; of 150 rows and 130 keys, so that the first 20 rows see no key."""
    random = np.random.default_rng(seed)
    shapes = dict(q=(2, 150, 32), k=(2, 130, 32), v=(2, 130, 24), do=(2, 150, 24))
    return {name: random.standard_normal(shapes[name]).astype(np.float16) for name in names}


def heads_of(inputs):
    """The inputs of each head in double, so that all rounding is that of the outputs."""
    return zip(*(tensor.astype(np.float64) for tensor in inputs.values()))


def main(path):
    scale, inputs = 32**-0.5, inputs_of(0, "q", "k", "v")
    o, lse = zip(*(attention(*head, scale) for head in heads_of(inputs)))
    write_dump(path, "tiled_forward", scale, inputs, dict(o=o, lse=lse))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
