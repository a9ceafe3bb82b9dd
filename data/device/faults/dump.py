#!/usr/bin/env python3
# Dumps what correct and broken Triton attention kernels compute on a CUDA device.
"""usage: dump.py FOLDER

Writes h200_triton_fp16.h5 and h200_triton_bf16.h5. Cases are named after what is wrong with the kernel; those of correct
kernels begin with "correct". about/named says what a diagnosis should contain, one of several texts between bars; a case
of a broken kernel that lacks it is too small for its fault to show. Needs torch with CUDA, triton, h5py and numpy.
"""

import pathlib
import sys

import torch
import triton

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[3] / "python"))
import attest_dump
from kernels import attention

CORRECT = ["correct", "correct, last tile first", "correct, maxima stay", "correct, exp", "correct, ds from stored p",
           "correct, ds scaled"]
# What is wrong, and what a diagnosis should contain
FORWARD = {
    "heads modulo": "query head h reads key/value head h mod Hkv",
    "causal off by one": "a causal diagonal one key too far",
    "causal top-left": "top_left | wrong corner",
    "scale missing": "no scale",
    "scale times 1.01": "a scale 1 %",
    "exp2 for exp": "exp2 for exp",
    "q times scale stored": "q multiplied by the scale and stored in",
    "v of the tile before": "rows of V of keys 32..63 stale",
    "v of the row before": "rows of V of the key before",
    "scores in float16": "scores stored in float16",
    "scores in bfloat16": "scores stored in bfloat16",
    "hidden keys at -5": "masked keys take weight, as with a score of -5",
    "exp off by 2^-9": "exponentials, scores or row sums | the row sum",
    "exp off by 1e-4": "exponentials, scores or row sums | the row sum",
    "p in e5m2": "weights P rounded to float8_e5m2 before the row sum adds them",
    "p in e4m3": "weights P rounded to float8_e4m3fn before the row sum adds them",
    "p in bfloat16": "weights P rounded to bfloat16 before the row sum adds them",
    "p cut off": "weights P cut off before the row sum adds them",
    "tile dropped": "keys 32..63 missing",
    "tile twice": "keys 32..63 counted twice",
    "rescale missed": "P.V not rescaled when the maximum rises",
    "rescale of the sum missed": "the row sum not rescaled when the maximum rises",
    "row sum in bfloat16": "the row sum accumulated in bfloat16",
    "row sum in float16": "the row sum accumulated in float16",
    "pv sum of a tile in float16": "P.V accumulated",
    "pv accumulator in float16": "P.V accumulated",
    "running o in float16": "P.V accumulated",
    "running o in bfloat16": "P.V accumulated",
    "division off by 1e-3": "o multiplied by 1.0",
    "not normalised in the last block": "o not divided by the row sum",
    "last rows not written": "nothing written",
    "o cut off": "o cut off instead of rounded",
    "o through bfloat16": "o stored in bfloat16 on the way",
    "lse in base 2": "lse in base 2",
    "lse without the maximum": "lse without the maximum",
    "lse through bfloat16": "lse stored in bfloat16 on the way",
}
BACKWARD = {
    "lse of base 2": "a natural lse read as of base 2",
    "lse in bfloat16, backward": "lse rounded to bfloat16",
    "mask missing, backward": "causal = none",
    "causal off by one, backward": "a causal diagonal one key short",
    "dp in float16": "dP accumulated in float16",
    "dp in bfloat16": "dP accumulated in bfloat16",
    "delta missing": "delta = rowsum(do o) missing",
    "delta in bfloat16": "delta stored in bfloat16",
    "delta of the row before": "delta of the row before",
    "ds times 1.01": "multiplied by 1.0 | a scale 1 % off",
    "ds in e5m2": "dS stored in float8_e5m2",
    "ds in bfloat16": "dS stored in bfloat16",
    "p of dv in e4m3": "weights P stored in float8_e4m3fn",
    "dv loses a block of rows": "query rows 32..63 of each head missing from dv",
    "dk adds a block of rows twice": "query rows 32..63 of each head counted twice in dk",
    "last head of the group only": "only the last query head of a group reaches dk and dv",
    "dk and dv sums in float16": "accumulated in float16",
    "dk and dv sums in bfloat16": "accumulated in bfloat16",
    "dk without the scale": "dq or dk without the scale",
    "dq loses a tile": "keys 32..63 missing from dq",
    "dq adds a tile twice": "keys 32..63 counted twice in dq",
    "dq sum in float16": "dq accumulated in float16",
    "dq in memory in bfloat16": "dq accumulated in bfloat16",
    "dq scaled twice": "dq or dk multiplied by the scale twice",
}
TYPES = dict(fp16=torch.float16, bf16=torch.bfloat16)
NO_FAULT_IN = dict(fp16=[], bf16=["p in bfloat16", "o through bfloat16", "ds in bfloat16"])
# float16 has eight times the precision of the weights there.
HIDDEN_IN = dict(fp16=[], bf16=["pv sum of a tile in float16", "pv accumulator in float16", "running o in float16",
                                "dk and dv sums in float16", "dq sum in float16"])
HEADS, KV_HEADS, QUERIES, KEYS, WIDTH, TILE = 4, 2, 70, 90, 32, 32
SEED = 20261122


def bits(tensor):
    return tensor.shape, tensor.cpu().view(torch.uint8).numpy().tobytes()


def main(folder):
    generator = torch.Generator().manual_seed(SEED)
    for short, dtype in TYPES.items():
        q, k, v, do = (torch.randn(1, heads, rows, WIDTH, generator=generator).to(dtype).cuda()
                       for heads, rows in ((HEADS, QUERIES), (KV_HEADS, KEYS), (KV_HEADS, KEYS), (HEADS, QUERIES)))
        inputs, written = dict(q=q, k=k, v=v, do=do), {}
        with attest_dump.File(pathlib.Path(folder) / f"h200_triton_{short}.h5") as f:
            for what in [*CORRECT, *FORWARD, *BACKWARD]:
                if what in NO_FAULT_IN[short]:
                    continue
                about = dict(device=torch.cuda.get_device_name(), library=f"triton {triton.__version__}", seed=SEED)
                if what not in CORRECT and what not in HIDDEN_IN[short]:
                    about["named"] = (FORWARD | BACKWARD)[what]
                names = ["q", "k", "v"] if what in FORWARD else ["q", "k", "v", "do"]
                outputs = attention(q, k, v, None if what in FORWARD else do, TILE, what)
                group = f.case(what.replace(",", "").replace(" ", "_"), op="attention",
                               spec=dict(causal="bottom_right", scale=WIDTH**-0.5),
                               inputs={name: inputs[name] for name in names},
                               outputs={name: written.get(bits(x), x) for name, x in outputs.items()}, about=about)
                # Tensors of equal bits are stored once.
                written |= {bits(x): group["out/" + name] for name, x in outputs.items() if bits(x) not in written}
                if what == CORRECT[0]:
                    inputs = {name: group["in/" + name] for name in inputs}


if __name__ == "__main__":
    main(sys.argv[1])
