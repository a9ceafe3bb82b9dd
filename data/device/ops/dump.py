#!/usr/bin/env python3
# Dumps what PyTorch's kernels beside attention compute on a CUDA device.
"""usage: dump.py FOLDER

Writes h200_ops_fp16.h5 and h200_ops_bf16.h5: softmax, activations, norms, rotary embeddings and multi-head attention, forward, and
backward where autograd has a kernel of its own, on inputs from a fixed seed. Needs torch with CUDA, h5py and numpy.
"""

import pathlib
import sys

import torch
import torch.nn.functional as F

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[3] / "python"))
import attest_dump

SEED = 20261121
TYPES = {"fp16": torch.float16, "bf16": torch.bfloat16}


def main(folder):
    generator = torch.Generator().manual_seed(SEED)
    about = dict(device=torch.cuda.get_device_name(), library=f"torch {torch.__version__}", seed=SEED)
    for short, dtype in TYPES.items():
        with attest_dump.File(pathlib.Path(folder) / f"h200_ops_{short}.h5") as f:
            dump(f, short, dtype, generator, about)


def dump(f, short, dtype, generator, about):
    def normal(*shape, dtype):
        return torch.randn(*shape, generator=generator).cuda().to(dtype)

    def case(name, op, inputs, outputs, spec=None, contract=None):
        f.case(name, op=op, spec=spec, contract=contract, inputs=inputs, outputs=outputs, about=about)

    x, dy = normal(12, 333, dtype=dtype).requires_grad_(), normal(12, 333, dtype=dtype)
    for name, op, spec, function in [
            ("softmax", "softmax", {}, lambda t: torch.softmax(t, -1)),
            ("gelu", "gelu", {}, F.gelu),
            ("gelu_tanh", "gelu", dict(approximate="tanh"), lambda t: F.gelu(t, approximate="tanh")),
            ("silu", "silu", {}, F.silu),
            ("sigmoid", "sigmoid", {}, torch.sigmoid)]:
        y = function(x)
        dx, = torch.autograd.grad(y, x, dy)
        case(f"{short}_{name}", op, dict(x=x, dy=dy), dict(y=y, dx=dx), spec)

    x, dy = normal(20, 256, dtype=dtype).requires_grad_(), normal(20, 256, dtype=dtype)
    weight = (1 + 0.2 * normal(256, dtype=torch.float32)).to(dtype).requires_grad_()
    bias = (0.2 * normal(256, dtype=torch.float32)).to(dtype).requires_grad_()
    y, mean, rstd = torch.native_layer_norm(x, (256,), weight, bias, 1e-5)
    dx, dweight, dbias = torch.autograd.grad(y, (x, weight, bias), dy)
    case(f"{short}_layer_norm", "layer_norm", dict(x=x, weight=weight, bias=bias, dy=dy),
         dict(y=y, mean=mean, rstd=rstd, dx=dx, dweight=dweight, dbias=dbias), dict(eps=1e-5))
    y = F.rms_norm(x, (256,), weight, 1e-6)
    dx, dweight = torch.autograd.grad(y, (x, weight), dy)
    case(f"{short}_rms_norm", "rms_norm", dict(x=x, weight=weight, dy=dy),
         dict(y=y, dx=dx, dweight=dweight), dict(eps=1e-6))
    # As model code writes it: float32 statistics, a cast, then the weight.
    h = x.detach().float()
    h = (h * torch.rsqrt(h.pow(2).mean(-1, keepdim=True) + 1e-6)).to(dtype)
    case(f"{short}_rms_norm_cast", "rms_norm", dict(x=x, weight=weight), dict(y=weight.detach() * h),
         dict(eps=1e-6, cast_before_weight=True))

    start, width = 100000, 64
    frequency = 1.0 / (10000.0 ** (torch.arange(0, width, 2).float().cuda() / width))
    angle = torch.arange(start, start + 40).float().cuda()[:, None] * frequency
    cos, sin = torch.cat((angle, angle), -1).cos(), torch.cat((angle, angle), -1).sin()
    q = normal(1, 2, 40, width, dtype=dtype)
    turned = torch.cat((-q[..., width // 2:], q[..., :width // 2]), -1)
    case(f"{short}_rope_theta", "rope", dict(x=q), dict(y=(q.float() * cos + turned.float() * sin).to(dtype)),
         dict(style="half", theta=10000.0, position_start=start))
    case(f"{short}_rope_table", "rope", dict(x=q, cos=cos.to(dtype), sin=sin.to(dtype)),
         dict(y=q * cos.to(dtype) + turned * sin.to(dtype)), dict(style="half"),
         dict(compute_dtype=str(dtype).removeprefix("torch.")))

    attention = torch.nn.MultiheadAttention(64, 4, batch_first=True, device="cuda", dtype=dtype)
    tensors = {name: (normal(*t.shape, dtype=torch.float32) / 8).to(dtype)
               for name, t in dict(in_proj_weight=attention.in_proj_weight, in_proj_bias=attention.in_proj_bias,
                                   out_proj_weight=attention.out_proj.weight,
                                   out_proj_bias=attention.out_proj.bias).items()}
    attention.load_state_dict({name.replace("out_proj_", "out_proj."): t for name, t in tensors.items()})
    x = normal(2, 30, 64, dtype=dtype)
    mask = torch.nn.Transformer.generate_square_subsequent_mask(30, device="cuda", dtype=dtype)
    with torch.no_grad():
        y, weights = attention(x, x, x, attn_mask=mask)
    case(f"{short}_multihead_attention", "multihead_attention", dict(x=x, **tensors),
         dict(y=y, weights=weights), dict(heads=4, causal="top_left", layout="blm"))
    with torch.no_grad():
        weight, bias = 1 + tensors["out_proj_bias"], tensors["out_proj_bias"] / 2
        qkv = F.linear(F.layer_norm(x, (64,), weight, bias, 1e-5), tensors["in_proj_weight"],
                       tensors["in_proj_bias"]).reshape(2, 30, 3, 4, 16).permute(2, 0, 3, 1, 4)
    case(f"{short}_layer_norm_qkv", "layer_norm_qkv",
         dict(x=x, weight=weight, bias=bias, qkv_weight=tensors["in_proj_weight"],
              qkv_bias=tensors["in_proj_bias"]),
         dict(q=qkv[0], k=qkv[1], v=qkv[2]), dict(eps=1e-5, heads=4))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
