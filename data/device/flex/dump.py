#!/usr/bin/env python3
# Dumps what PyTorch's FlexAttention computes on a CUDA device with every option of a score.
"""usage: dump.py FOLDER

Writes h200_flex_fp16.h5, h200_flex_bf16.h5 and h200_flex_fp32.h5: the Triton kernels that torch.compile makes for one
option after the other, forward and backward, on the same inputs from a fixed seed. Needs torch with CUDA, h5py and numpy.
"""

import pathlib
import sys

import torch
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[3] / "python"))
import attest_dump

SEED = 20261123
TYPES = dict(fp16=torch.float16, bf16=torch.bfloat16, fp32=torch.float32)
HEADS, KV_HEADS, ROWS, WIDTH = 4, 2, 130, 32
WINDOW, SOFTCAP = 48, 2.0
DOCUMENTS = [50, 3, 77]  # rows of each


def options(slopes, bias, document):
    """Spec, inputs, score modification and mask of each case."""
    def causal(b, h, i, j):
        return i >= j

    def window(b, h, i, j):
        return (i >= j) & (i - j <= WINDOW)

    def same_document(b, h, i, j):
        return document[i] == document[j]

    def capped(s, b, h, i, j):
        return SOFTCAP * torch.tanh(s / SOFTCAP)

    def tilted(s, b, h, i, j):
        return s + slopes[h] * (j - i)

    def biased(s, b, h, i, j):
        return s + bias[0, h, i, j]

    none, top_left = dict(causal="none"), dict(causal="top_left")
    same = (document[:, None] == document[None, :])[None, None]
    return {
        "none": (none, {}, None, None),
        "causal": (top_left, {}, None, causal),
        "window": (dict(top_left, window_left=WINDOW), {}, None, window),
        "softcap": (dict(none, softcap=SOFTCAP), {}, capped, None),
        "softcap_window": (dict(top_left, window_left=WINDOW, softcap=SOFTCAP), {}, capped, window),
        "alibi": (top_left, dict(alibi_slopes=slopes), tilted, causal),
        "bias": (none, dict(bias=bias), biased, None),
        "documents": (none, dict(mask=same), None, same_document),
    }


def main(folder):
    torch._dynamo.config.recompile_limit = 1000
    compiled = torch.compile(flex_attention, dynamic=False)
    generator = torch.Generator().manual_seed(SEED)
    about = dict(device=torch.cuda.get_device_name(), library=f"torch {torch.__version__}, flex_attention", seed=SEED)
    slopes = torch.tensor([2.0 ** -(2 * h + 1) for h in range(HEADS)]).cuda()
    bias = torch.randn(1, HEADS, ROWS, ROWS, generator=generator).cuda()
    document = torch.repeat_interleave(torch.tensor(DOCUMENTS)).cuda()
    for short, dtype in TYPES.items():
        q, k, v, do = (torch.randn(1, heads, ROWS, WIDTH, generator=generator).cuda().to(dtype)
                       for heads in (HEADS, KV_HEADS, KV_HEADS, HEADS))
        with attest_dump.File(pathlib.Path(folder) / f"h200_flex_{short}.h5") as f:
            stored = {}  # inputs of the first case, which the others share
            for name, (spec, inputs, score_mod, mask_mod) in options(slopes, bias, document).items():
                mask = mask_mod and create_block_mask(mask_mod, None, None, ROWS, ROWS, device="cuda")
                leaves = [x.detach().requires_grad_() for x in (q, k, v)]
                o, lse = compiled(*leaves, score_mod=score_mod, block_mask=mask, enable_gqa=True, return_lse=True,
                                  kernel_options=dict(num_stages=1))
                dq, dk, dv = torch.autograd.grad(o, leaves, do)
                group = f.case(name, op="attention", spec=dict(spec, scale=WIDTH**-0.5),
                               inputs=dict(stored or dict(q=q, k=k, v=v, do=do), **inputs),
                               outputs=dict(o=o, lse=lse, dq=dq, dk=dk, dv=dv), about=about)
                stored = stored or {x: group[f"in/{x}"] for x in ("q", "k", "v", "do")}
            keys = [torch.randn(2, KV_HEADS, 700, WIDTH, generator=generator).cuda().to(dtype) for _ in range(2)]
            row = torch.randn(2, HEADS, 1, WIDTH, generator=generator).cuda().to(dtype)
            o, lse = compiled(row, *keys, score_mod=options(slopes, bias, document)["softcap"][2], enable_gqa=True,
                              return_lse=True)
            f.case("decoding", op="attention", spec=dict(causal="none", softcap=SOFTCAP, scale=WIDTH**-0.5),
                   inputs=dict(q=row, k=keys[0], v=keys[1]), outputs=dict(o=o, lse=lse), about=about)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
