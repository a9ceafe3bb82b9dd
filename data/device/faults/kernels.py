# Attention in Triton, forward and backward, correct or with one of many faults.
"""Kernels take DO, what they do: a text that begins with "correct", or the name of a fault (dump.py)."""

import math

import torch
import triton
import triton.language as tl

LOG2E = tl.constexpr(math.log2(math.e))


@triton.jit
def load_rows(x, head, rows, count, D: tl.constexpr):
    place = x + (head * count + rows)[:, None] * D + tl.arange(0, D)[None, :]
    return tl.load(place, mask=rows[:, None] < count, other=0.0)


@triton.jit
def store_rows(x, head, rows, count, written, values, D: tl.constexpr):
    place = x + (head * count + rows)[:, None] * D + tl.arange(0, D)[None, :]
    tl.store(place, values.to(x.dtype.element_ty), mask=rows[:, None] < written)


@triton.jit
def visible(rows, columns, Sq, Sk, shift):
    """Whether a row sees a key, with a bottom-right causal diagonal so many keys too far."""
    return (columns[None, :] < Sk) & (columns[None, :] <= (rows + Sk - Sq + shift)[:, None])


@triton.jit
def rounded(x, dtype: tl.constexpr):
    return x.to(dtype).to(tl.float32)


@triton.jit
def cut_off(x, dtype: tl.constexpr):
    """To the bits of the type, towards 0."""
    if dtype == tl.float16:
        return (x.to(tl.int32, bitcast=True) & -8192).to(tl.float32, bitcast=True)
    else:
        return (x.to(tl.int32, bitcast=True) & -65536).to(tl.float32, bitcast=True)


@triton.jit
def forward(q_in, k_in, v_in, o_out, lse_out, Sq, Sk, Hq, Hkv, scale,
            D: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, DO: tl.constexpr):
    h = tl.program_id(1)
    block = tl.program_id(0)
    if DO == "heads modulo":
        kv = h % Hkv
    else:
        kv = h // (Hq // Hkv)
    dtype: tl.constexpr = q_in.dtype.element_ty
    rows = block * BM + tl.arange(0, BM)
    q = load_rows(q_in, h, rows, Sq, D)
    unit = scale * LOG2E
    if DO == "scale missing":
        unit = 1.0 * LOG2E
    if DO == "scale times 1.01":
        unit = unit * 1.01
    if DO == "exp2 for exp":
        unit = scale
    if DO == "q times scale stored":
        q = (q.to(tl.float32) * unit).to(dtype)
        unit = 1.0
    m = tl.full([BM], float("-inf"), tl.float32)
    l = tl.zeros([BM], tl.float32)
    acc = tl.zeros([BM, D], tl.float32)
    tiles = tl.cdiv(Sk, BN)
    for n in range(0, tiles):
        t = n
        if DO == "correct, last tile first":
            t = tiles - 1 - n
        columns = t * BN + tl.arange(0, BN)
        k = load_rows(k_in, kv, columns, Sk, D)
        at = columns
        if DO == "v of the tile before":
            at = tl.where((n == 1) & (block == 1), columns - BN, columns)
        if DO == "v of the row before":
            at = tl.maximum(columns - 1, 0)
        v = load_rows(v_in, kv, at, Sk, D)
        s = tl.dot(q, tl.trans(k))
        if DO == "scores in float16":
            s = rounded(s, tl.float16)
        if DO == "scores in bfloat16":
            s = rounded(s, tl.bfloat16)
        seen = visible(rows, columns, Sq, Sk, 0)
        if DO == "causal off by one":
            seen = visible(rows, columns, Sq, Sk, 1)
        if DO == "causal top-left":
            seen = visible(rows, columns, Sq, Sk, Sq - Sk)
        hidden = float("-inf")
        if DO == "hidden keys at -5":
            hidden = -5.0 / scale
        s = tl.where(seen, s, tl.where(columns[None, :] < Sk, hidden, float("-inf")))
        grown = tl.maximum(m, tl.max(s, 1))
        if DO == "correct, maxima stay":
            grown = tl.where((m > float("-inf")) & ((grown - m) * unit <= 8.0), m, grown)
        safe = tl.where(grown == float("-inf"), 0.0, grown)
        if DO == "correct, exp":
            p = tl.exp((s - safe[:, None]) * (unit / LOG2E))
            kept = tl.exp((m - safe) * (unit / LOG2E))
        else:
            p = tl.exp2(s * unit - safe[:, None] * unit)
            kept = tl.exp2((m - safe) * unit)
        if DO == "exp off by 2^-9":
            p = p * (1 + 0.001953125 * tl.cos(8 * p))
        if DO == "exp off by 1e-4":
            p = p * (1 + 0.0001 * tl.cos(8 * p))
        if DO == "p in e5m2":
            p = rounded(p, tl.float8e5)
        if DO == "p in e4m3":
            p = rounded(p, tl.float8e4nv)
        if DO == "p in bfloat16":
            p = rounded(p, tl.bfloat16)
        if DO == "p cut off":
            p = cut_off(p, dtype)
        is_hit = (n == 1) & (block == 1)
        if DO == "tile dropped":
            p = tl.where(is_hit, 0.0, p)
        if DO == "tile twice":
            p = tl.where(is_hit, 2 * p, p)
        kept_of_sum = kept
        if DO == "rescale missed":
            kept = tl.where(m == float("-inf"), 0.0, 1.0)
        if DO == "rescale of the sum missed":
            kept_of_sum = tl.where(m == float("-inf"), 0.0, 1.0)
        l = l * kept_of_sum + tl.sum(p, 1)
        if DO == "row sum in bfloat16":
            l = rounded(l, tl.bfloat16)
        if DO == "row sum in float16":
            l = rounded(l, tl.float16)
        p = p.to(dtype)
        if DO == "pv sum of a tile in float16":
            acc = acc * kept[:, None] + rounded(tl.dot(p, v), tl.float16)
        elif DO == "pv accumulator in float16":
            acc = acc * kept[:, None] + tl.dot(p.to(tl.float16), v.to(tl.float16), out_dtype=tl.float16).to(tl.float32)
        else:
            acc = acc * kept[:, None]
            acc = tl.dot(p, v, acc)
        if DO == "running o in float16":
            acc = rounded(acc, tl.float16)
        if DO == "running o in bfloat16":
            acc = rounded(acc, tl.bfloat16)
        m = grown
    safe_l = tl.where(l == 0, 1.0, l)
    o = acc / safe_l[:, None]
    if DO == "division off by 1e-3":
        o = o * 1.001
    if DO == "not normalised in the last block":
        o = tl.where(block == tl.num_programs(0) - 1, acc, o)
    written = Sq
    if DO == "last rows not written":
        written = Sq // BM * BM
    if DO == "o cut off":
        o = cut_off(o, dtype)
    if DO == "o through bfloat16":
        o = rounded(o, tl.bfloat16)
    if DO == "o through float16":
        o = rounded(o, tl.float16)
    store_rows(o_out, h, rows, Sq, written, o, D)
    lse = m * unit / LOG2E + tl.log(safe_l)
    if DO == "lse in base 2":
        lse = m * unit + tl.log2(safe_l)
    if DO == "lse without the maximum":
        lse = tl.log(safe_l)
    if DO == "lse through bfloat16":
        lse = rounded(lse, tl.bfloat16)
    tl.store(lse_out + h * Sq + rows, lse, mask=rows < Sq)


@triton.jit
def weights_and_ds(q, k, v, do, lse, delta, rows, columns, Sq, Sk, scale,
                   DO: tl.constexpr):
    s = tl.dot(q, tl.trans(k))
    seen = visible(rows, columns, Sq, Sk, 0)
    if DO == "mask missing, backward":
        seen = visible(rows, columns, Sq, Sk, Sq + Sk)
    if DO == "causal off by one, backward":
        seen = visible(rows, columns, Sq, Sk, -1)
    if DO == "lse of base 2":
        p = tl.exp2(s * scale * LOG2E - lse[:, None])
    elif DO == "lse in bfloat16, backward":
        p = tl.exp2(s * scale * LOG2E - rounded(lse, tl.bfloat16)[:, None] * LOG2E)
    else:
        p = tl.exp2(s * scale * LOG2E - lse[:, None] * LOG2E)
    p = tl.where(seen, p, 0.0)
    dp = tl.dot(do, tl.trans(v))
    if DO == "dp in float16":
        dp = rounded(dp, tl.float16)
    if DO == "dp in bfloat16":
        dp = rounded(dp, tl.bfloat16)
    if DO == "delta missing":
        ds = p * dp
    elif DO == "delta in bfloat16":
        ds = p * (dp - rounded(delta, tl.bfloat16)[:, None])
    elif DO == "correct, ds from stored p":
        ds = p.to(q.dtype).to(tl.float32) * (dp - delta[:, None])
    else:
        ds = p * (dp - delta[:, None])
    if DO == "correct, ds scaled":
        ds = ds * scale
    if DO == "ds times 1.01":
        ds = ds * 1.01
    if DO == "ds in e5m2":
        ds = rounded(ds, tl.float8e5)
    if DO == "ds in bfloat16":
        ds = rounded(ds, tl.bfloat16)
    if DO == "p of dv in e4m3":
        p = rounded(p, tl.float8e4nv)
    return p, ds


@triton.jit
def backward_keys(q_in, k_in, v_in, do_in, lse_in, delta_in, dk_out, dv_out, Sq, Sk, Hq, Hkv, scale, D: tl.constexpr,
                  BM: tl.constexpr, BN: tl.constexpr, DO: tl.constexpr):
    kv = tl.program_id(1)
    dtype: tl.constexpr = q_in.dtype.element_ty
    columns = tl.program_id(0) * BN + tl.arange(0, BN)
    k = load_rows(k_in, kv, columns, Sk, D)
    v = load_rows(v_in, kv, columns, Sk, D)
    dk = tl.zeros([BN, D], tl.float32)
    dv = tl.zeros([BN, D], tl.float32)
    group = Hq // Hkv
    first = 0
    if DO == "last head of the group only":
        first = group - 1
    for g in range(first, group):
        h = kv * group + g
        for n in range(0, tl.cdiv(Sq, BM)):
            rows = n * BM + tl.arange(0, BM)
            q = load_rows(q_in, h, rows, Sq, D)
            do = load_rows(do_in, h, rows, Sq, D)
            lse = tl.load(lse_in + h * Sq + rows, mask=rows < Sq, other=0.0)
            delta = tl.load(delta_in + h * Sq + rows, mask=rows < Sq, other=0.0)
            p, ds = weights_and_ds(q, k, v, do, lse, delta, rows, columns, Sq, Sk, scale, DO)
            if DO == "dv loses a block of rows":
                p = tl.where(n == 1, 0.0, p)
            if DO == "dk adds a block of rows twice":
                ds = tl.where(n == 1, 2 * ds, ds)
            dv += tl.dot(tl.trans(p.to(dtype)), do)
            dk += tl.dot(tl.trans(ds.to(dtype)), q)
            if DO == "dk and dv sums in float16":
                dk = rounded(dk, tl.float16)
                dv = rounded(dv, tl.float16)
            if DO == "dk and dv sums in bfloat16":
                dk = rounded(dk, tl.bfloat16)
                dv = rounded(dv, tl.bfloat16)
    if DO != "correct, ds scaled" and DO != "dk without the scale":
        dk = dk * scale
    store_rows(dk_out, kv, columns, Sk, Sk, dk, D)
    store_rows(dv_out, kv, columns, Sk, Sk, dv, D)


@triton.jit
def backward_queries(q_in, k_in, v_in, do_in, lse_in, delta_in, dq_out, Sq, Sk, Hq, Hkv, scale, D: tl.constexpr,
                     BM: tl.constexpr, BN: tl.constexpr, DO: tl.constexpr):
    h = tl.program_id(1)
    kv = h // (Hq // Hkv)
    dtype: tl.constexpr = q_in.dtype.element_ty
    rows = tl.program_id(0) * BM + tl.arange(0, BM)
    q = load_rows(q_in, h, rows, Sq, D)
    do = load_rows(do_in, h, rows, Sq, D)
    lse = tl.load(lse_in + h * Sq + rows, mask=rows < Sq, other=0.0)
    delta = tl.load(delta_in + h * Sq + rows, mask=rows < Sq, other=0.0)
    dq = tl.zeros([BM, D], tl.float32)
    for n in range(0, tl.cdiv(Sk, BN)):
        columns = n * BN + tl.arange(0, BN)
        k = load_rows(k_in, kv, columns, Sk, D)
        v = load_rows(v_in, kv, columns, Sk, D)
        p, ds = weights_and_ds(q, k, v, do, lse, delta, rows, columns, Sq, Sk, scale, DO)
        if DO == "dq loses a tile":
            ds = tl.where(n == 1, 0.0, ds)
        if DO == "dq adds a tile twice":
            ds = tl.where(n == 1, 2 * ds, ds)
        dq += tl.dot(ds.to(dtype), k)
        if DO == "dq sum in float16":
            dq = rounded(dq, tl.float16)
        if DO == "dq in memory in bfloat16":
            dq = rounded(dq, tl.bfloat16)
    if DO == "dq scaled twice":
        dq = dq * scale
    if DO != "correct, ds scaled":
        dq = dq * scale
    store_rows(dq_out, h, rows, Sq, Sq, dq, D)


def attention(q, k, v, do, tile, what):
    """o, lse and, if do is given, dq, dk, dv; q, k, v, do: [1, heads, rows, width]."""
    hq, sq, d = q.shape[1:]
    hkv, sk = k.shape[1:3]
    sizes = (sq, sk, hq, hkv, d**-0.5)
    options = dict(D=d, BM=tile, BN=tile, DO=what, num_stages=1, num_warps=4)
    row_blocks, key_blocks = triton.cdiv(sq, tile), triton.cdiv(sk, tile)
    o, lse = torch.zeros_like(q), torch.zeros(1, hq, sq, device=q.device)
    forward[(row_blocks, hq)](q, k, v, o, lse, *sizes, **options)
    if do is None:
        return dict(o=o, lse=lse)
    dq, dk, dv = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
    delta = (o.float() * do.float()).sum(-1)
    if what == "delta of the row before":
        delta = delta.roll(1, -1).contiguous()
    backward_keys[(key_blocks, hkv)](q, k, v, do, lse, delta, dk, dv, *sizes, **options)
    backward_queries[(row_blocks, hq)](q, k, v, do, lse, delta, dq, *sizes, **options)
    return dict(o=o, lse=lse, dq=dq, dk=dk, dv=dv)
