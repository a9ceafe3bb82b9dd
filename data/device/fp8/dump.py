#!/usr/bin/env python3
# Dumps what a Triton attention kernel with operands in float8_e4m3fn computes on a CUDA device.
"""usage: dump.py FOLDER

Writes h200_fp8_e4m3.h5: q, k, v and the weights in float8_e4m3fn, o in bfloat16. The tensor core adds up all tiles, or
each tile on its own; weights are stored relative to the running maximum, as they are or times 256. Needs torch with
CUDA, triton, h5py and numpy.
"""

import math
import pathlib
import sys

import torch
import triton
import triton.language as tl

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[3] / "python"))
import attest_dump

SEED = 20261122
HEADS, ROWS, KEYS, WIDTH, TILE = 2, 64, 700, 32, 64
LOG2E = tl.constexpr(math.log2(math.e))


@triton.jit
def forward(q_in, k_in, v_in, o_out, lse_out, Sq, Sk, scale, unit, CAUSAL: tl.constexpr, IN_UNIT: tl.constexpr,
            D: tl.constexpr, B: tl.constexpr):
    head = tl.program_id(1)
    rows = tl.program_id(0) * B + tl.arange(0, B)
    width = tl.arange(0, D)
    q = tl.load(q_in + (head * Sq + rows)[:, None] * D + width[None, :], mask=rows[:, None] < Sq, other=0.0)
    m = tl.full([B], float("-inf"), tl.float32)
    l = tl.zeros([B], tl.float32)
    o = tl.zeros([B, D], tl.float32)
    for first in range(0, Sk, B):
        keys = first + tl.arange(0, B)
        k = tl.load(k_in + (head * Sk + keys)[None, :] * D + width[:, None], mask=keys[None, :] < Sk, other=0.0)
        s = tl.dot(q, k) * (scale * LOG2E)
        sees = (keys[None, :] < Sk) & (rows[:, None] >= 0)
        if CAUSAL:
            sees = sees & (keys[None, :] <= rows[:, None] + Sk - Sq)
        s = tl.where(sees, s, float("-inf"))
        m_new = tl.maximum(m, tl.max(s, 1))
        p = tl.exp2(s - m_new[:, None])
        kept = tl.exp2(m - m_new)
        l = l * kept + tl.sum(p, 1)
        m = m_new
        v = tl.load(v_in + (head * Sk + keys)[:, None] * D + width[None, :], mask=keys[:, None] < Sk, other=0.0)
        stored = (p * unit).to(tl.float8e4nv)
        if IN_UNIT:
            o = tl.dot(stored, v, o * kept[:, None])
        else:
            o = o * kept[:, None] + tl.dot(stored, v)
    place = o_out + (head * Sq + rows)[:, None] * D + width[None, :]
    tl.store(place, (o / (l * unit)[:, None]).to(o_out.dtype.element_ty), mask=rows[:, None] < Sq)
    tl.store(lse_out + head * Sq + rows, (m + tl.log2(l)) / LOG2E, mask=rows < Sq)


def main(folder):
    generator = torch.Generator().manual_seed(SEED)
    about = dict(device=torch.cuda.get_device_name(), library=f"triton {triton.__version__}", seed=SEED)

    def normal(rows):
        return torch.randn(1, HEADS, rows, WIDTH, generator=generator)

    tensors = {"normal": (normal(ROWS), normal(KEYS), normal(KEYS)),
               "large": (3 * normal(ROWS), 3 * normal(KEYS), 3 * normal(KEYS)),
               "positive_v": (normal(ROWS), normal(KEYS), normal(KEYS).abs())}
    with attest_dump.File(pathlib.Path(folder) / "h200_fp8_e4m3.h5") as f:
        for name, values in tensors.items():
            q, k, v = (x.cuda().to(torch.float8_e4m3fn) for x in values)
            inputs = dict(q=q, k=k, v=v)
            for causal in ("none", "bottom_right"):
                for unit, in_unit in ((1, True), (1, False), (256, True)):
                    o = torch.empty(1, HEADS, ROWS, WIDTH, dtype=torch.bfloat16, device="cuda")
                    lse = torch.empty(1, HEADS, ROWS, device="cuda")
                    forward[(triton.cdiv(ROWS, TILE), HEADS)](q, k, v, o, lse, ROWS, KEYS, WIDTH**-0.5, float(unit),
                                                              causal != "none", in_unit, WIDTH, TILE)
                    sums = "all_tiles" if in_unit else "each_tile"
                    weights = "relative" if unit == 1 else f"relative_{unit}"
                    group = f.case(f"{name}_{causal}_{sums}_{weights}", op="attention",
                                   spec=dict(causal=causal, scale=WIDTH**-0.5), contract=dict(weights=weights),
                                   inputs=inputs, outputs=dict(o=o, lse=lse), about=about)
                    inputs = {x: group[f"in/{x}"] for x in inputs}


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
