# What FlashInfer's CUDA kernels are called with: attention, norms, rope, activations and softmax.
import itertools

import torch

from operands import (BF16, CAUSAL, F16, F32, HEADS, KV_HEADS, NONE, NORM_SHAPES, SCALE, SEED, WIDTH, Packed, integers,
                      label, normals)

# The kernels for Ampere add up weights as stored, and their tanh is tanh.approx.f32 (data/device/functions).
FA2 = dict(weights="relative", matrix_unit="hopper", row_sum="stored", tanh_error=2.0**-16)
FA3 = dict(preset="flash_attention_3")
CUDA_CORES = dict(p_dtype="float32", matrix_unit="none", tanh_error=2.0**-16)
FAST_ANGLES = dict(angle_error=2.0**-19, sincos_error=2.0**-21)  # __powf and __sincosf
BASE_2 = dict(lse_base="2")


def prefill(name, contract, dtype, rows=40, keys=64, q_times=1, kv_dtype=None, given=(), **options):
    import flashinfer
    q, k, v = normals(dtype, (rows, HEADS, WIDTH), *[(keys, KV_HEADS, WIDTH)] * 2)
    q *= q_times
    k, v = (x.to(kv_dtype or dtype) for x in (k, v))
    o, lse = flashinfer.single_prefill_with_kv_cache(q, k, v, sm_scale=SCALE, return_lse=True, **options)
    spec = dict(CAUSAL if options.get("causal") else NONE, **BASE_2, scale=SCALE, layout="bshd",
                softcap=options.get("logits_soft_cap", 0), window_left=options.get("window_left", -1))
    return dict(name=name, op="attention", spec=spec, contract=contract,
                inputs=dict(q=q[None], k=k[None], v=v[None], **dict(given)), outputs=dict(o=o[None], lse=lse[None]))


def prefills():
    for backend, contract in (("fa2", FA2), ("fa3", FA3)):
        for dtype in (F16, BF16):
            yield prefill(f"{backend}_causal_{label(dtype)}", contract, dtype, causal=True, backend=backend)
        yield prefill(f"{backend}_window_bfloat16", contract, BF16, causal=True, window_left=24, backend=backend)
        yield prefill(f"{backend}_softcap_float16", contract, F16, q_times=3, causal=True, logits_soft_cap=20.0,
                      backend=backend)
        yield prefill(f"{backend}_long_bfloat16", contract, BF16, rows=9, keys=900, backend=backend)
    mask = torch.rand((40, 64), generator=torch.Generator().manual_seed(SEED)).cuda() < 0.7
    yield prefill("fa2_mask_float16", FA2, F16, given=dict(mask=mask[None, None]), custom_mask=mask, backend="fa2")
    yield prefill("fa2_keys_in_8_bits", FA2, F16, kv_dtype=torch.float8_e4m3fn, causal=True, backend="fa2")


def decoding():
    import flashinfer
    for name, dtype, keys, softcap, window in [("", F16, 110, 0, -1), ("_softcap", F16, 110, 20, -1),
                                               ("_window", BF16, 110, 0, 30), ("_long", BF16, 1200, 0, -1)]:
        q, k, v = normals(dtype, (HEADS, WIDTH), *[(keys, KV_HEADS, WIDTH)] * 2)
        q *= 3 if softcap else 1
        for unit, contract in (("cuda_cores", CUDA_CORES), ("tensor_cores", FA2)):
            o, lse = flashinfer.single_decode_with_kv_cache(q, k, v, use_tensor_cores=unit == "tensor_cores",
                                                            sm_scale=SCALE, logits_soft_cap=softcap,
                                                            window_left=window, return_lse=True)
            if unit + name == "cuda_cores_long":  # keys are split, and o of each part is in the type of o
                contract = dict(contract, split_dtype="bfloat16")
            yield dict(name=f"decode_{unit}{name}", op="attention", contract=contract,
                       spec=dict(CAUSAL, **BASE_2, scale=SCALE, layout="bshd", softcap=softcap, window_left=window),
                       inputs=dict(q=q[None, None], k=k[None], v=v[None]),
                       outputs=dict(o=o[None, None], lse=lse[None, None]))


def pages_and_parts():
    import flashinfer
    buffer = torch.zeros(128 << 20, dtype=torch.uint8).cuda()
    for backend, contract in (("fa2", FA2), ("fa3", FA3)):
        b = Packed(BF16, [(40, 64), (1, 40), (7, 700)])
        k, v, table = b.pages(16)
        counts = [-(-keys // 16) for keys in b.keys]
        indices = torch.cat([table[n, :count] for n, count in enumerate(counts)])
        last = integers([(keys - 1) % 16 + 1 for keys in b.keys])
        wrapper = flashinfer.BatchPrefillWithPagedKVCacheWrapper(buffer, "NHD", backend=backend)
        wrapper.plan(b.cu_q, integers([0, *itertools.accumulate(counts)]), indices, last, HEADS, KV_HEADS, WIDTH, 16,
                     causal=True, sm_scale=SCALE, q_data_type=BF16)
        o, lse = wrapper.run(b.q, (k.nan_to_num(), v.nan_to_num()), return_lse=True)
        yield b.case(f"{backend}_pages_bfloat16", contract, o, BASE_2, lse)
    b = Packed(F16, [(20, 300)])
    (o, lse), second = (flashinfer.single_prefill_with_kv_cache(b.q, k, v, sm_scale=SCALE, return_lse=True,
                                                                backend="fa2")
                        for k, v in zip(b.k.split(150), b.v.split(150)))
    o, lse = flashinfer.merge_state(o, lse, *second)
    yield b.case("merged_states_float16", dict(FA2, split_dtype="float16"), o, dict(NONE, **BASE_2), lse)
    # Latent attention: values are the first columns of the keys, which are split.
    q, latent = normals(BF16, (2, 16, 576), (2 * 192, 1, 576))
    wrapper = flashinfer.mla.BatchMLAPagedAttentionWrapper(buffer, backend="fa2")
    wrapper.plan(integers([0, 1, 2]), integers([0, 192, 384]), torch.arange(384, dtype=torch.int32).cuda(),
                 integers([192, 192]), 16, 512, 64, 1, False, 576**-0.5, BF16, BF16)
    o, lse = wrapper.run(*(x.contiguous() for whole in (q, latent) for x in whole.split([512, 64], -1)),
                         return_lse=True)
    k = latent.view(2, 192, 1, 576)
    yield dict(name="latent_bfloat16", op="attention", contract=dict(FA2, split_dtype="bfloat16"),
               spec=dict(NONE, **BASE_2, scale=576**-0.5, layout="bshd"),
               inputs=dict(q=q[:, None], k=k, v=k[..., :512].contiguous()),
               outputs=dict(o=o[:, None], lse=lse[:, None]))


def norms():
    import flashinfer as fi
    for dtype in (F16, BF16):
        x, residual, weight, _ = (t[..., :256].contiguous() for t in normals(dtype, *NORM_SHAPES))
        x, residual = x * 0.002, residual * 0.002  # so that eps matters
        for name, norm, fused, offset in (("", fi.rmsnorm, fi.fused_add_rmsnorm, 0.0),
                                          ("gemma_", fi.gemma_rmsnorm, fi.gemma_fused_add_rmsnorm, 1.0)):
            spec = dict(eps=1e-6, weight_offset=offset)
            yield dict(name=f"{name}rms_norm_{label(dtype)}", op="rms_norm", spec=spec,
                       inputs=dict(x=x, weight=weight), outputs=dict(y=norm(x, weight, 1e-6)))
            y, total = x.clone(), residual.clone()
            fused(y, total, weight, 1e-6)
            yield dict(name=f"{name}rms_norm_residual_{label(dtype)}", op="rms_norm", spec=dict(spec, round_sum=False),
                       inputs=dict(x=x, residual=residual, weight=weight), outputs=dict(y=y, sum=total))


def rope():
    import flashinfer
    q, k = normals(F16, (10, HEADS, WIDTH), (10, KV_HEADS, WIDTH))
    start = integers([0, 10])

    def case(name, y, spec, style="half", contract=(), **table):
        return dict(name=name, op="rope", spec=dict(spec, style=style, layout="bshd"), contract=dict(contract),
                    inputs=dict(x=q[None], **table), outputs=dict(y=y.view(1, *q.shape)))

    angle = torch.arange(6000.0)[:, None] * 10000.0 ** (-torch.arange(0, WIDTH, 2) / WIDTH)
    cos, sin = angle.cos().cuda(), angle.sin().cuda()
    for style, suffix in (("half", ""), ("interleaved", "_interleaved")):
        for position in (0, 500, 5000):
            y, _ = flashinfer.apply_rope(q, k, start, integers([position]), interleave=style == "interleaved",
                                         rope_theta=1e4)
            yield case(f"rope_at_{position}{suffix}", y, dict(theta=1e4, position_start=position), style, FAST_ANGLES)
        y, _ = flashinfer.apply_rope_with_cos_sin_cache(torch.arange(5000, 5010).cuda(), q.view(10, -1),
                                                        k.view(10, -1), WIDTH, torch.cat((cos, sin), -1),
                                                        is_neox=style == "half")
        yield case(f"rope_cache{suffix}", y, {}, style, cos=cos[5000:5010], sin=sin[5000:5010])
    y, _ = flashinfer.apply_llama31_rope(q, k, start, integers([300]))
    llama3 = dict(scaling="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
                  original_max_position_embeddings=8192)
    yield case("rope_llama3", y, dict(llama3, theta=5e5, position_start=300), contract=FAST_ANGLES)


def element_wise():
    import flashinfer
    x = 3 * normals(F16, (50, 256))[0]
    gates = torch.cat((x, torch.ones_like(x)), -1)  # of gated units with ones for the other factor
    yield dict(name="silu_float16", op="silu", inputs=dict(x=x), outputs=dict(y=flashinfer.silu_and_mul(gates)))
    yield dict(name="gelu_float16", op="gelu", inputs=dict(x=x), outputs=dict(y=flashinfer.gelu_and_mul(gates)))
    yield dict(name="gelu_tanh_float16", op="gelu", spec=dict(approximate="tanh"), contract=dict(gate_error=2.0**-17),
               inputs=dict(x=x), outputs=dict(y=flashinfer.gelu_tanh_and_mul(gates)))
    x, = normals(F32, (4, 5000))
    yield dict(name="softmax_temperature_float32", op="softmax", spec=dict(scale=1 / 0.7), inputs=dict(x=x),
               outputs=dict(y=flashinfer.softmax(x, temperature=0.7)))


def cases():
    """It compiles each kernel when it is first called."""
    for part in (prefills, decoding, pages_and_parts, norms, rope, element_wise):
        yield from part()
