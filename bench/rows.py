# How long `attest verify` takes, and in how much memory, on long cases: 51,200 tokens, width 64, causal, with 32 query
# heads on 8 key/value heads, with 8 times 32 heads, and with one, whose inputs are described, not stored; and with a
# backward pass, of 8 query heads on 2.
# Usage: rows.py [--tokens TOKENS] [--rows ROWS] [--only NAME] [PATH_TO_ATTEST]
import argparse
import os
import pathlib
import subprocess
import sys
import tempfile
import time
import zlib

import h5py
import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "python"))
import attest_inputs  # noqa: E402

WIDTH = 64
CASES = {"32 on 8": (1, 32, 8), "8 x 32": (8, 32, 32), "one head": (1, 1, 1)}  # batch, query heads, key/value heads
BACKWARD = {"backward, 8 on 2": (8, 2)}


def write(attest, path, tokens, batch, heads, kv_heads):
    """All keys of a head have the same value, in which every row of o is right: a device at no cost."""
    shape = f"B={batch},Hq={heads},Hkv={kv_heads},Sq={tokens},D={WIDTH}"
    subprocess.run([attest, "inputs", "attention", "--recipe", "constant_v", "--shape", shape, "--set",
                    "causal=bottom_right", "--describe", "-o", path], check=True, stdout=subprocess.DEVNULL)
    v = attest_inputs.Stream(1, "v")
    with h5py.File(path, "r+") as file:
        rows = tokens // 8  # of a chunk; all chunks of a head are alike
        o = file.create_dataset("constant_v/out/o", (batch, heads, tokens, WIDTH), np.float16, compression=1,
                                chunks=(1, 1, rows, WIDTH))
        for b, h in np.ndindex(batch, heads):
            head = b * kv_heads + h * kv_heads // heads
            value = v.normals(head * tokens * WIDTH, WIDTH).astype(np.float16)
            chunk = zlib.compress(np.broadcast_to(value, (rows, WIDTH)).tobytes(), 1)
            for first in range(0, tokens, rows):
                o.id.write_direct_chunk((b, h, first, 0), chunk)


def write_backward(path, tokens, heads, kv_heads):
    """All keys of a head are the same, so that all weights of a row are alike and all outputs are running sums."""
    random, group, scale = np.random.default_rng(1), heads // kv_heads, WIDTH ** -0.5
    count = np.arange(1, tokens + 1)[:, None]  # of the keys that a row sees
    with h5py.File(path, "w") as file:
        file.attrs["attest_format"] = 1
        case = file.create_group("equal_keys")
        case.attrs["op"] = "attention"
        case.create_group("spec").attrs.update(causal="bottom_right", scale=scale)
        for name in "in/q", "in/do", "out/o":
            case.create_dataset(name, (1, heads, tokens, WIDTH), np.float16)
        for name in "in/k", "in/v", "out/dk", "out/dv":
            case.create_dataset(name, (1, kv_heads, tokens, WIDTH), np.float16)
        case.create_dataset("out/lse", (1, heads, tokens), np.float32)

        def store(name, head, x):
            stored = np.asarray(x, case[name].dtype)  # by numpy: HDF5 halves what it rounds up to 2^n
            case[name][0, head] = stored
            return stored.astype(np.float64)
        for g in range(kv_heads):
            key = store("in/k", g, np.tile(random.standard_normal(WIDTH), (tokens, 1)))[0]
            v = store("in/v", g, random.standard_normal((tokens, WIDTH)))
            dk, dv = np.zeros_like(v), np.zeros_like(v)
            for h in range(g * group, (g + 1) * group):
                q, do = (store(name, h, random.standard_normal(v.shape)) for name in ("in/q", "in/do"))
                o = store("out/o", h, np.cumsum(v, 0) / count)
                store("out/lse", h, scale * (q @ key) + np.log(count[:, 0]))
                dv += from_here(do / count)
                dk -= scale * from_here(np.sum(do * o, 1, keepdims=True) * q / count)
                for e in range(WIDTH):
                    dk += scale * v[:, e:e + 1] * from_here(do[:, e:e + 1] * q / count)
            store("out/dk", g, dk)
            store("out/dv", g, dv)


def from_here(x):
    """Sums over a row and all later ones."""
    return np.cumsum(x[::-1], 0)[::-1]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--tokens", type=int, default=51200)
    parser.add_argument("--rows", help="of each head; without it what attest takes a minute to be")
    parser.add_argument("--only", choices=CASES | BACKWARD)
    parser.add_argument("attest", nargs="?", default=ROOT / "build/release/attest")
    options = parser.parse_args()
    for name, sizes in (CASES | BACKWARD).items():
        if options.only not in (None, name):
            continue
        with tempfile.TemporaryDirectory() as folder:
            if name in CASES:
                write(options.attest, f"{folder}/long.h5", options.tokens, *sizes)
            else:
                write_backward(f"{folder}/long.h5", options.tokens, *sizes)
            rows = ["--rows", options.rows] if options.rows else []
            command = [os.path.abspath(options.attest), "verify", "long.h5", *rows]
            start, process = time.monotonic(), subprocess.Popen(command, cwd=folder)
            _, status, used = os.wait4(process.pid, 0)
            seconds = time.monotonic() - start
        print(f"{name}: {seconds:.0f} s, {used.ru_utime + used.ru_stime:.0f} s of all cores together, "
              f"{used.ru_maxrss / 1024:.0f} MiB\n", flush=True)
        if status != 0:
            sys.exit(f"attest ended with status {status}")


main()
