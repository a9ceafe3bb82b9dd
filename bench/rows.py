# How long `attest verify --rows` takes, and in how much memory, on a case that no machine judges whole: 51,200 tokens,
# 32 query heads and 8 key/value heads of width 64, causal. Writes a dump of 530 MB, judges it and removes it.
# Usage: rows.py [ROWS] [PATH_TO_ATTEST]
import pathlib
import resource
import subprocess
import sys
import tempfile
import time

import h5py
import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[1]
TOKENS, HEADS, KV_HEADS, WIDTH = 51200, 32, 8, 64


def write(path):
    """Queries of zeros give equal weights, whose outputs are running means: right for every row at little cost."""
    random = np.random.default_rng(1)
    rows = np.arange(1, TOKENS + 1)
    with h5py.File(path, "w") as file:
        file.attrs.update(attest_format=1, op="attention")
        file.create_group("spec").attrs.update(causal="top_left", scale=WIDTH**-0.5)
        file["in/q"] = np.zeros((1, HEADS, TOKENS, WIDTH), np.float16)
        k, v = (file.create_dataset(f"in/{name}", (1, KV_HEADS, TOKENS, WIDTH), np.float16) for name in "kv")
        o = file.create_dataset("out/o", (1, HEADS, TOKENS, WIDTH), np.float16)
        for h in range(KV_HEADS):
            k[0, h] = random.standard_normal((TOKENS, WIDTH)).astype(np.float16)
            v[0, h] = random.standard_normal((TOKENS, WIDTH)).astype(np.float16)
            mean = np.cumsum(v[0, h].astype(float), axis=0) / rows[:, None]
            for shared in range(HEADS // KV_HEADS):
                o[0, h * (HEADS // KV_HEADS) + shared] = mean.astype(np.float16)
        file["out/lse"] = np.broadcast_to(np.log(rows), (1, HEADS, TOKENS)).astype(np.float32)


def main():
    rows = sys.argv[1] if len(sys.argv) > 1 else "32"
    attest = sys.argv[2] if len(sys.argv) > 2 else ROOT / "build/release/attest"
    with tempfile.TemporaryDirectory() as folder:
        write(f"{folder}/long.h5")
        start = time.monotonic()
        status = subprocess.run([attest, "verify", "long.h5", "--rows", rows], cwd=folder).returncode
        seconds = time.monotonic() - start
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(f"{seconds:.0f} s, {used.ru_utime:.0f} s of all cores together, {used.ru_maxrss / 1024:.0f} MiB")
    sys.exit(status)


main()
