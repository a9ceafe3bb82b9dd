#!/usr/bin/env python3
# Dumps what the kernels of published libraries compute on a CUDA device.
"""usage: dump.py FOLDER

Writes h200_LIBRARY.h5 for each library below that can be imported. The calls are those of flash_attn 2.8.3, vllm
0.33.0, sglang 0.5.10, liger_kernel 0.8.5, fla-core 0.6.0, flash-attn-triton 0.1.1, flash-attention-softmax-n 0.3.2,
aule-attention 0.5.0 and flashinfer 0.3.1.
Names of cases that break their contract begin with "wrong"; about/named says what a diagnosis should contain, one of
several texts between bars. Needs torch with CUDA, triton, h5py and numpy.
"""

import importlib
import importlib.metadata
import os
import pathlib
import sys
import types

import numpy as np
import torch
import triton

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[3] / "python"))
import attest_dump
import flashinfer_cases
from operands import (BF16, CAUSAL, F16, F32, HEADS, KV_HEADS, NONE, NORM_SHAPES, SCALE, SEED, SINKS, TF32, TRITON,
                      WIDTH, Packed, integers, label, normals)


def bits(tensor):
    return tensor.dtype, tensor.shape, tensor.detach().contiguous().cpu().view(torch.uint8).numpy().tobytes()


def flash_attn():
    from flash_attn.flash_attn_interface import flash_attn_func, flash_attn_with_kvcache
    contract = dict(preset="flash_attention_2", matrix_unit="hopper")
    slopes = torch.tensor([2.0 ** -(2 * h + 1) for h in range(HEADS)]).cuda()
    for name, dtype, causal, window, softcap, alibi in [
            ("causal_fp16", F16, True, -1, 0, False), ("causal_window_bf16", BF16, True, 24, 0, False),
            ("causal_alibi_bf16", BF16, True, -1, 0, True), ("causal_softcap_50_bf16", BF16, True, -1, 50, False),
            ("window_softcap_5_bf16", BF16, False, 16, 5, False), ("causal_empty_rows_bf16", BF16, True, -1, 0, False)]:
        rows, keys = (1, 40, HEADS, WIDTH), (1, 24 if "empty" in name else 60, KV_HEADS, WIDTH)
        q, do, k, v = normals(dtype, rows, rows, keys, keys)
        q *= 3 if softcap else 1  # so that scores reach the cap
        leaves = [x.requires_grad_() for x in (q, k, v)]
        o, lse, _ = flash_attn_func(*leaves, softmax_scale=SCALE, causal=causal, window_size=(window, window),
                                    softcap=softcap, alibi_slopes=slopes if alibi else None, return_attn_probs=True)
        dq, dk, dv = torch.autograd.grad(o, leaves, do)
        spec = dict(CAUSAL if causal else NONE, layout="bshd", scale=SCALE, softcap=softcap, lse_empty="+inf",
                    window_left=window, window_right=-1 if causal else window)
        if causal and alibi:  # the causal kernel adds slope j in place of a distance, which only lse shows
            spec["alibi"] = "position"
        yield dict(name=name, op="attention", spec=spec, contract=contract,
                   inputs=dict(q=q, k=k, v=v, do=do, **(dict(alibi_slopes=slopes) if alibi else {})),
                   outputs=dict(o=o, lse=lse, dq=dq, dk=dk, dv=dv))
    q, k, v = normals(BF16, (1, 1, HEADS, WIDTH), *[(1, 500, 1, WIDTH)] * 2)
    for splits, softcap in ((1, 0), (3, 0), (4, 50)):
        row = q * 3 if softcap else q
        o, lse = flash_attn_with_kvcache(row, k, v, cache_seqlens=500, softmax_scale=SCALE, causal=True,
                                         softcap=softcap, num_splits=splits, return_softmax_lse=True)
        yield dict(name=f"decode_{splits}_splits_bf16" + ("_softcap" if softcap else ""), op="attention",
                   spec=dict(CAUSAL, layout="bshd", scale=SCALE, softcap=softcap), contract=contract,
                   inputs=dict(q=row, k=k, v=v), outputs=dict(o=o, lse=lse))


def vllm():
    from vllm.v1.attention.ops.prefix_prefill import context_attention_fwd as prefix_prefill
    from vllm.v1.attention.ops.triton_decode_attention import decode_attention_fwd
    from vllm.v1.attention.ops.triton_prefill_attention import context_attention_fwd as prefill
    from vllm.v1.attention.ops.triton_unified_attention import unified_attention
    context, decoding = [(40, 64), (1, 40)], [(1, 110), (1, 45)]
    for name, b, contract, window, softcap, sinks in [
            ("context_bf16", Packed(BF16, context), TRITON, -1, 0, None),
            ("window_bf16", Packed(BF16, context), TRITON, 24, 0, None),
            ("softcap_bf16", Packed(BF16, context, q_times=3), TRITON, -1, 20, None),
            ("sinks_bf16", Packed(BF16, context), TRITON, -1, 0, SINKS),
            ("tf32", Packed(F32, [(40, 60)], 1, 1), TF32, -1, 0, None)]:
        k, v, table = b.pages(16)
        o, sink = torch.empty_like(b.q), dict(sink=torch.tensor(sinks).to(b.q)) if sinks else {}
        unified_attention(b.q, k, v, o, b.cu_q, max(b.rows), b.n_k, max(b.keys), SCALE, True, (window, 0), table,
                          softcap, None, None, None, sinks=sink.get("sink"))
        yield b.case("tf32_unified" if name == "tf32" else "unified_" + name, contract, o,
                     dict(window_left=window, softcap=softcap), **sink)
    b, one = Packed(BF16, context), torch.ones(()).cuda()
    k, v, table = b.pages(16)
    k = k.reshape(*k.shape[:3], WIDTH // 8, 8).permute(0, 2, 3, 1, 4).contiguous()  # 16 bytes side by side
    v, o = v.permute(0, 2, 3, 1).contiguous(), torch.empty_like(b.q)
    prefix_prefill(b.q, b.old_and_new(b.k)[1], b.old_and_new(b.v)[1], o, "auto", k, v, table, b.cu_q, b.n_k,
                   max(b.keys), max(b.rows), one, one, sliding_window=25, sm_scale=SCALE)
    # This window counts the row's own key.
    yield b.case("prefix_prefill_window_bf16", TRITON, o, dict(window_left=24))
    for name, dtype in (("prefill_sinks_in_32_bits", F32), ("wrong_prefill_sinks_in_16_bits", BF16)):
        b, sinks = Packed(BF16, [(40, 40)]), torch.tensor(SINKS).cuda().to(dtype)
        o = torch.empty_like(b.q)
        prefill(b.q, b.k, b.v, o, b.cu_q[:-1], b.n_q, max(b.rows), softmax_scale=SCALE, sinks=sinks)
        # It multiplies sinks by log2(e) in their own type.
        yield b.case(name, TRITON, o, sink=sinks, named="sink | o multiplied by 0.9" if "wrong" in name else None)

    def decode(b, splits, softcap=0):
        k, v, table = b.pages(16)
        o, lse = torch.empty_like(b.q), b.q.new_empty(b.q.shape[:2], dtype=F32)
        parts = o.new_empty(len(b.rows), b.q.shape[1], splits, WIDTH + 1, dtype=F32)
        decode_attention_fwd(b.q, k, v, o, lse, table, b.n_k, parts, splits, SCALE, 16, logit_cap=softcap)
        return o, lse.t()

    for name, softcap in (("decode_4_splits_fp16", 0), ("decode_4_splits_softcap_fp16", 20)):
        b = Packed(F16, decoding, q_times=3 if softcap else 1)
        o, lse = decode(b, 4, softcap)
        yield b.case(name, TRITON, o, dict(softcap=softcap), lse)
    b = Packed(F16, decoding, heads=KV_HEADS)
    o, lse = decode(b, 4)
    # Without grouped heads q * k and its sum are in the type of q, and P stays in float32.
    contract = dict(p_dtype="float32", matrix_unit="none")
    yield b.case("decode_qk_in_16_bits_declared", dict(contract, qk_accumulate="float16"), o, lse=lse)
    yield b.case("wrong_decode_qk_in_16_bits", contract, o, lse=lse,
                 named="q.k accumulated in | scores stored in float16 | scores or row sums less precise")


def sglang():
    from sglang.srt.layers.attention.triton_ops.decode_attention import decode_attention_fwd
    from sglang.srt.layers.attention.triton_ops.extend_attention import extend_attention_fwd
    from sglang.srt.layers.attention.triton_ops.prefill_attention import context_attention_fwd as prefill
    context, decoding = [(40, 64), (1, 40)], [(1, 110), (1, 45)]
    b = Packed(F16, [(40, 40), (7, 7)])
    o = torch.empty_like(b.q)
    prefill(b.q, b.k, b.v, o, b.cu_q[:-1], b.n_q, max(b.rows))
    # This kernel divides P by the row sum so far before it casts.
    yield b.case("prefill_fp16", dict(matrix_unit="hopper"), o)
    for name, b, contract, window in [
            ("extend_context_bf16", Packed(BF16, context), TRITON, -1),
            ("extend_window_bf16", Packed(BF16, context), TRITON, 24),
            ("tf32_extend", Packed(F32, [(40, 60)], 1, 1), TF32, -1)]:
        (old_k, new_k), (old_v, new_v), o = b.old_and_new(b.k), b.old_and_new(b.v), torch.empty_like(b.q)
        slots = torch.arange(len(old_k)).cuda()
        extend_attention_fwd(b.q, new_k, new_v, o, old_k, old_v, b.cu_q, b.cu_k - b.cu_q, slots, None, True, None,
                             max(b.rows), 1.0, 1.0, sm_scale=SCALE, sliding_window_size=window)
        yield b.case(name, contract, o, dict(window_left=window))
    for name, splits, softcap in [("4_splits_fp16", 4, 0), ("1_split_fp16", 1, 0), ("4_splits_softcap_fp16", 4, 20)]:
        b = Packed(F16, decoding, q_times=3 if softcap else 1)
        o, parts = torch.empty_like(b.q), b.q.new_empty(2, HEADS, splits, WIDTH, dtype=F32)
        lse, slots = b.q.new_empty(2, HEADS, splits, dtype=F32), torch.arange(len(b.k)).cuda()
        decode_attention_fwd(b.q, b.k, b.v, o, b.cu_k, slots, parts, lse, integers([splits] * 2), splits, SCALE, 1.0,
                             1.0, logit_cap=softcap)
        # With several splits lse is that of each.
        yield b.case("decode_" + name, TRITON, o, dict(softcap=softcap), lse[:, :, 0].t() if splits == 1 else None)


def liger_kernel():
    from liger_kernel.ops.layer_norm import layer_norm_backward, layer_norm_forward
    from liger_kernel.ops.rms_norm import rms_norm_backward, rms_norm_forward
    from liger_kernel.ops.rope import rope_backward, rope_forward
    llama, gemma = dict(cast_before_weight=True), dict(weight_offset=1.0)
    for mode, dtype, spec in (("llama", F16, llama), ("llama", BF16, llama), ("gemma", BF16, gemma)):
        (x, dy, weight, _), offset, eps = normals(dtype, *NORM_SHAPES), spec.get("weight_offset", 0.0), 1e-6
        x *= 0.002  # so that eps matters
        y, _, rstd, block, warps, code = rms_norm_forward(x, weight, eps, offset, mode, None)
        dx, dweight = rms_norm_backward(dy.clone(), x, weight, rstd, offset, code, block, warps, False, None)
        yield dict(name=f"rms_norm_{mode}_{label(dtype)}", op="rms_norm", spec=dict(spec, eps=eps),
                   inputs=dict(x=x, dy=dy, weight=weight), outputs=dict(y=y, rstd=rstd, dx=dx, dweight=dweight))
    (x, dy, weight, bias), eps = normals(F16, *NORM_SHAPES), 1e-5
    x = x * 0.01 + 0.03
    y, _, mean, rstd, *_ = layer_norm_forward(x, weight, bias, eps)
    dx, dweight, dbias = layer_norm_backward(dy, x, weight, bias, mean, rstd)
    yield dict(name="layer_norm_float16", op="layer_norm", spec=dict(eps=eps),
               inputs=dict(x=x, dy=dy, weight=weight, bias=bias),
               outputs=dict(y=y, mean=mean, rstd=rstd, dx=dx, dweight=dweight, dbias=dbias))
    angle = torch.arange(5000.0, 5010.0)[:, None] * 10000.0 ** (-torch.arange(0, WIDTH, 2) / WIDTH)
    for dtype, table_dtype in ((F16, F32), (BF16, BF16)):
        cos, sin = (torch.cat((x, x), -1).cuda().to(table_dtype) for x in (angle.cos(), angle.sin()))
        q, k, dq, dk = normals(dtype, *[(2, 10, HEADS, WIDTH), (2, 10, KV_HEADS, WIDTH)] * 2)
        y, _, *_ = rope_forward(*(x.clone().transpose(1, 2) for x in (q, k)), cos[None], sin[None])
        dx, _ = rope_backward(*(x.clone().transpose(1, 2) for x in (dq, dk)), cos[None], sin[None])
        # The kernel casts x to the type of the table.
        yield dict(name=f"rope_{label(dtype)}_table_{label(table_dtype)}", op="rope",
                   spec=dict(style="half", layout="bshd"), contract=dict(compute_dtype=label(table_dtype)),
                   inputs=dict(x=q, dy=dq, cos=cos, sin=sin), outputs=dict(y=y.transpose(1, 2), dx=dx.transpose(1, 2)))


def fla():
    from fla.modules.layernorm import layer_norm_bwd, layer_norm_fwd
    from fla.ops.attn.parallel import RCP_LN2, parallel_attn_bwd, parallel_attn_fwd
    b = Packed(BF16, [(40, 40), (7, 7)])
    for name, window, sinks in [("causal", None, None), ("window", 20, None), ("sinks", None, [2.0, -1.0, 0.5, 4.0])]:
        sink = dict(sink=torch.tensor(sinks).cuda()) if sinks else {}
        # parallel_attn, which does not return lse, does the same.
        options = dict(q=b.q[None], k=b.k[None], v=b.v[None], g_cumsum=None, scale=SCALE, window_size=window,
                       cu_seqlens=b.cu_q.long(), sink_bias=sink["sink"] * RCP_LN2 if sinks else None)
        o, lse = parallel_attn_fwd(**options)
        dq, dk, dv, _, dsink = parallel_attn_bwd(o=o, lse=lse, do=b.do[None], **options)
        case = b.case(f"attention_{name}_bf16", TRITON, o[0], lse=lse[0], do=b.do, **sink,
                      spec=dict(causal="top_left", window_left=window - 1 if window else -1, lse_base="2"))
        case["outputs"] |= {key: x[0].to(BF16) for key, x in dict(dq=dq, dk=dk, dv=dv).items()}
        case["outputs"] |= dict(dsink=dsink) if sinks else {}
        yield case
    for op, dtype, has_residual in (("layer_norm", BF16, False), ("layer_norm", F16, True), ("rms_norm", F16, True)):
        (x, dy, weight, bias), eps = normals(dtype, *NORM_SHAPES), 1e-5
        x *= 0.01
        given = dict(residual=normals(F32, 1, x.shape)[1] * 0.01) if has_residual else {}
        y, mean, rstd, total = layer_norm_fwd(x, weight, bias, eps, **given, is_rms_norm=op == "rms_norm")
        dx, dweight, dbias, _ = layer_norm_bwd(dy, total, weight, bias, mean=mean, rstd=rstd, x_dtype=dtype,
                                               has_residual=has_residual, is_rms_norm=op == "rms_norm")
        outputs = dict(y=y, rstd=rstd, dx=dx, dweight=dweight, dbias=dbias) | (
            dict(mean=mean) if op == "layer_norm" else {}) | (dict(sum=total) if has_residual else {})
        yield dict(name=f"{op}_{label(dtype)}" + ("_residual_float32" if has_residual else ""), op=op,
                   spec=dict(eps=eps), inputs=dict(x=x, dy=dy, weight=weight, bias=bias, **given), outputs=outputs)
    for op in ("layer_norm", "rms_norm"):  # the sum is stored in 16 bits, its statistics are those before the store
        (x, dy, weight, bias), residual = normals(F16, *NORM_SHAPES), normals(F16, 1, (5, 260))[1]
        _, mean, rstd, total = layer_norm_fwd(x, weight, bias, 1e-5, residual=residual, is_rms_norm=op == "rms_norm")
        statistics = dict(rstd=rstd) | (dict(mean=mean) if op == "layer_norm" else {})
        dx, dweight, dbias, _ = layer_norm_bwd(dy, total, weight, bias, mean=mean, rstd=rstd, x_dtype=F16,
                                               has_residual=True, is_rms_norm=op == "rms_norm")
        yield dict(name=f"{op}_float16_gradients_of_stored_statistics", op=op, spec={},
                   inputs=dict(x=total, dy=dy, weight=weight, bias=bias, **statistics),
                   outputs=dict(dx=dx, dweight=dweight, dbias=dbias))


def log2_scale(*factors):
    """Their product with log2(e), in float32."""
    return float(np.prod(np.float32([*factors, 1.4426950408889634]), dtype=np.float32))


def flash_attn_triton():
    from flash_attn_triton.flash_attn_interface import flash_attn_func
    for dtype in (F16, BF16):  # like Triton's tutorial, it stores k times scale log2(e) for its backward pass
        *leaves, do = normals(dtype, *[(1, 70, 2, WIDTH)] * 4)
        leaves = [x.requires_grad_() for x in leaves]
        o = flash_attn_func(*leaves, softmax_scale=SCALE, causal=True)
        dq, dk, dv = torch.autograd.grad(o, leaves, do)
        yield dict(name=f"causal_{label(dtype)}", op="attention", spec=dict(CAUSAL, layout="bshd", scale=SCALE),
                   contract=dict(TRITON, backward_k_factor=log2_scale(SCALE)),
                   inputs=dict(zip(("q", "k", "v", "do"), (*leaves, do))), outputs=dict(o=o, dq=dq, dk=dk, dv=dv))


def flash_attention_softmax_n():
    from flash_attention_softmax_n.core.flash_attn_triton import _FlashAttentionN
    q, k, v = normals(F16, *[(1, 1, 128, WIDTH)] * 3)
    saved = []
    o = _FlashAttentionN.forward(types.SimpleNamespace(save_for_backward=lambda *x: saved.extend(x)), q, k, v, False,
                                 SCALE, 0.0)
    # Like Triton's tutorial of 2023, it stores q times scale log2(e).
    yield dict(name="float16", op="attention", spec=dict(NONE, scale=SCALE, lse_base="2"), inputs=dict(q=q, k=k, v=v),
               contract=dict(TRITON, q_factor=log2_scale(SCALE)), outputs=dict(o=o, lse=saved[4].view(1, 1, -1)))


def aule():
    from aule.triton_flash import flash_attention_triton
    for dtype in (F16, BF16):  # every operand is converted to float32, and so to tf32
        q, k, v = normals(dtype, *[(1, 2, 70, WIDTH)] * 3)
        yield dict(name=f"causal_{label(dtype)}", op="attention", spec=dict(CAUSAL, scale=SCALE),
                   contract=dict(TF32, p_dtype="float32"), inputs=dict(q=q, k=k, v=v),
                   outputs=dict(o=flash_attention_triton(q, k, v, True, SCALE)))


# Name of the distribution, cases
LIBRARIES = {"flash_attn": ("flash-attn", flash_attn), "vllm": ("vllm", vllm), "sglang": ("sglang", sglang),
             "liger_kernel": ("liger-kernel", liger_kernel), "fla": ("fla-core", fla),
             "flash_attn_triton": ("flash-attn-triton", flash_attn_triton),
             "flash_attention_softmax_n": ("flash-attention-softmax-n", flash_attention_softmax_n),
             "aule": ("aule-attention", aule), "flashinfer": ("flashinfer-python", flashinfer_cases.cases)}


def write(f, stored, inputs, outputs, **case):
    """Adds a case; tensors of equal bits are stored once."""
    group = f.case(inputs={key: stored.get(bits(x), x) for key, x in inputs.items()},
                   outputs={key: stored.get(bits(x), x) for key, x in outputs.items()}, **case)
    for part, tensors in (("in", inputs), ("out", outputs)):
        for key, x in tensors.items():
            stored.setdefault(bits(x), group[f"{part}/{key}"])


def main(folder):
    os.environ["FLA_DISABLE_BACKEND_DISPATCH"] = "1"  # fla: its Triton kernels, whatever else is installed
    for package, (distribution, cases) in LIBRARIES.items():
        try:
            importlib.import_module(package)
        except ImportError as error:
            print(f"{package} is left out: {error}")
            continue
        about = dict(device=torch.cuda.get_device_name(), seed=SEED, torch=str(torch.__version__),
                     triton=triton.__version__, library=f"{distribution} {importlib.metadata.version(distribution)}")
        with attest_dump.File(pathlib.Path(folder) / f"h200_{package.removesuffix('_kernel')}.h5") as f:
            stored = {}
            for case in cases():
                write(f, stored, **case | dict(about=about | case.get("about", {})))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
