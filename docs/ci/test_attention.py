# Guards an attention kernel with pytest: dump what it reads and writes, judge it, fail with attest's own words.
# Needs pytest, numpy and h5py, attest on the PATH (or its path in ATTEST), and python/attest_dump.py (its folder on
# PYTHONPATH). Kernels that need torch are skipped where it is missing.
import os
import subprocess

import attest_dump
import numpy as np
import pytest

ATTEST = os.environ.get("ATTEST", "attest")
BASELINE = os.environ.get("ATTEST_BASELINE")  # a file that `attest baseline` wrote; optional


def numpy_kernel(q, k, v, scale):
    """Stands for the kernel that you want to guard: weights in the element type, everything else in float32."""
    s = np.einsum("bhid,bhjd->bhij", q, k, dtype=np.float32) * np.float32(scale)
    m = s.max(-1, keepdims=True)
    p = np.exp(s - m)
    l = p.sum(-1, keepdims=True)
    o = np.einsum("bhij,bhje->bhie", p.astype(q.dtype).astype(np.float32), v.astype(np.float32)) / l
    return dict(o=o.astype(q.dtype), lse=(m + np.log(l))[..., 0])


def torch_kernel(q, k, v, scale):
    torch = pytest.importorskip("torch")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    q, k, v = (torch.from_numpy(x).to(device) for x in (q, k, v))
    return dict(o=torch.nn.functional.scaled_dot_product_attention(q, k, v, scale=scale))


def judge(path):
    options = ["--quiet", f"--junit={path}.xml"] + ([f"--baseline={BASELINE}"] if BASELINE else [])
    result = subprocess.run([ATTEST, "verify", path, *options], capture_output=True, text=True)
    assert result.returncode == 0, f"attest verify: exit status {result.returncode}\n{result.stdout}{result.stderr}"


@pytest.mark.parametrize("kernel", [numpy_kernel, torch_kernel])
@pytest.mark.parametrize("queries, keys, width", [(77, 77, 64), (257, 300, 80), (1, 1000, 64)])
def test_attention_is_as_accurate_as_its_arithmetic_allows(kernel, queries, keys, width, tmp_path):
    random = np.random.default_rng(queries)  # the same inputs every time: a baseline needs that
    q, k, v = (random.standard_normal((1, 4, rows, width)).astype(np.float16) for rows in (queries, keys, keys))
    scale = width**-0.5
    path = tmp_path / f"attention_{queries}_{keys}_{width}.h5"
    with attest_dump.File(path) as f:
        f.case(kernel.__name__, op="attention", spec=dict(causal="none", scale=scale),
               inputs=dict(q=q, k=k, v=v), outputs=kernel(q, k, v, scale))
    judge(path)
