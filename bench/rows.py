# How long `attest verify` takes, and in how much memory, on cases that no machine judges whole: 51,200 tokens, width 64,
# causal, with 32 query heads on 8 key/value heads, and with 8 times 32 heads. Their inputs are described, not stored.
# Usage: rows.py [--rows ROWS] [--only NAME] [PATH_TO_ATTEST]
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

TOKENS, WIDTH = 51200, 64
CASES = {"32 on 8": (1, 32, 8), "8 x 32": (8, 32, 32)}  # batch, query heads, key/value heads


def write(attest, path, batch, heads, kv_heads):
    """All keys of a head have the same value, in which every row of o is right: a device at no cost."""
    shape = f"B={batch},Hq={heads},Hkv={kv_heads},Sq={TOKENS},D={WIDTH}"
    subprocess.run([attest, "inputs", "attention", "--recipe", "constant_v", "--shape", shape, "--set",
                    "causal=bottom_right", "--describe", "-o", path], check=True, stdout=subprocess.DEVNULL)
    v = attest_inputs.Stream(1, "v")
    with h5py.File(path, "r+") as file:
        rows = TOKENS // 8  # of a chunk; all chunks of a head are alike
        o = file.create_dataset("constant_v/out/o", (batch, heads, TOKENS, WIDTH), np.float16, compression=1,
                                chunks=(1, 1, rows, WIDTH))
        for b, h in np.ndindex(batch, heads):
            head = b * kv_heads + h * kv_heads // heads
            value = v.normals(head * TOKENS * WIDTH, WIDTH).astype(np.float16)
            chunk = zlib.compress(np.broadcast_to(value, (rows, WIDTH)).tobytes(), 1)
            for first in range(0, TOKENS, rows):
                o.id.write_direct_chunk((b, h, first, 0), chunk)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", help="of each head; without it what attest takes a minute to be")
    parser.add_argument("--only", choices=CASES)
    parser.add_argument("attest", nargs="?", default=ROOT / "build/release/attest")
    options = parser.parse_args()
    for name, sizes in CASES.items():
        if options.only not in (None, name):
            continue
        with tempfile.TemporaryDirectory() as folder:
            write(options.attest, f"{folder}/long.h5", *sizes)
            command = [options.attest, "verify", "long.h5", *(["--rows", options.rows] if options.rows else [])]
            start, process = time.monotonic(), subprocess.Popen(command, cwd=folder)
            _, status, used = os.wait4(process.pid, 0)
            seconds = time.monotonic() - start
        print(f"{name}: {seconds:.0f} s, {used.ru_utime + used.ru_stime:.0f} s of all cores together, "
              f"{used.ru_maxrss / 1024:.0f} MiB\n", flush=True)
        if status != 0:
            sys.exit(f"attest ended with status {status}")


main()
