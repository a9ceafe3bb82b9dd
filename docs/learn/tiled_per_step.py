#!/usr/bin/env python3
# The answer to an exercise of docs/learn: FlashAttention-1, which keeps o normalised and stores m and l.
"""usage: tiled_per_step.py DUMP

Writes DUMP, which `attest verify DUMP` judges. Needs numpy and h5py.
"""

import sys

import numpy as np

from tiled_forward import causal_range, heads_of, inputs_of, write_dump


# [attention]
def attention_per_step(q, k, v, scale, query_tile=64, key_tile=48):
    """One head, causal: q[Sq, D], k[Sk, D], v[Sk, E] -> o[Sq, E], m[Sq], l[Sq]."""
    queries, keys = len(q), len(k)
    o, m, l = np.zeros((queries, v.shape[1])), np.full(queries, -np.inf), np.zeros(queries)
    ends = np.array([causal_range(row, queries, keys) for row in range(queries)])
    for j in range(0, keys, key_tile):  # keys outside: o, m and l of all rows wait in slow memory
        columns = slice(j, min(j + key_tile, keys))
        for i in range(0, queries, query_tile):
            rows = slice(i, min(i + query_tile, queries))
            if ends[rows][-1] <= columns.start:  # none
                continue
            s = scale * q[rows] @ k[columns].T
            s[np.arange(columns.start, columns.stop) >= ends[rows, None]] = -np.inf
            own_m = s.max(axis=1)  # of this tile alone
            p = np.exp(s - np.where(own_m == -np.inf, 0, own_m)[:, None])
            own_l = p.sum(axis=1)
            m_new = np.maximum(m[rows], own_m)
            reference = np.where(m_new == -np.inf, 0, m_new)  # a row that has seen no key yet
            kept = np.exp(m[rows] - reference) * l[rows]
            added = np.exp(own_m - reference)
            l_new = kept + added * own_l
            inverse = 1 / np.where(l_new == 0, 1, l_new)
            o[rows] = (kept * inverse)[:, None] * o[rows] + (added * inverse)[:, None] * (p @ v[columns])
            m[rows], l[rows] = m_new, l_new
    return o, m, l
# [end]


def main(path):
    scale, inputs = 32**-0.5, inputs_of(2, "q", "k", "v")
    o, m, l = zip(*(attention_per_step(*head, scale) for head in heads_of(inputs)))
    write_dump(path, "tiled_per_step", scale, inputs, dict(o=o, m=m, l=l))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
