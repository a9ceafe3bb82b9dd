#!/usr/bin/env python3
# Measures PyTorch's attention on the CPU at the shapes of attest_bench.
"""usage: torch_attention.py [--rounds N] [--threads N ...] [--attest PATH]

Prints how fast torch.nn.functional.scaled_dot_product_attention is, forward and backward, in Gflop/s and as a
share of torch's own product of two 2048 x 2048 matrices of the same type, which is measured before and after
each sample: the median of the shares, and the fastest sample. --attest PATH runs that attest_bench in the same
call and prints its Gflop/s beside torch's. attest_bench's own shares are of the multiply-add peak.
"""

import argparse
import json
import math
import statistics
import subprocess
import sys
import tempfile
import time

try:
    import torch
except ImportError:
    print("torch_attention.py needs the Python package torch", file=sys.stderr)
    sys.exit(2)

# As bench/shapes.hpp: name, batch, heads, length, width, is causal.
SHAPES = (
    ("CLIP-L image 1x16x577x64", 1, 16, 577, 64, False),
    ("CLIP text 8x12x77x64 causal", 8, 12, 77, 64, True),
    ("ViT-H 1x16x257x80", 1, 16, 257, 80, False),
    ("EVA 1x16x257x112", 1, 16, 257, 112, False),
    ("1x8x2048x128 causal", 1, 8, 2048, 128, True),
    ("1x8x4096x64 causal", 1, 8, 4096, 64, True),
    ("1x1x16384x64 causal", 1, 1, 16384, 64, True),
)
TYPES = {"fp32": torch.float32, "fp64": torch.float64}
SIDE = 2048
SAMPLE_SECONDS = 0.004


def seconds_of(call):
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


class Product:
    """torch's own matrix product, in operations per second."""

    def __init__(self, dtype):
        self.a = torch.randn(SIDE, SIDE, dtype=dtype)
        self.b = torch.randn(SIDE, SIDE, dtype=dtype)
        self.out = torch.empty(SIDE, SIDE, dtype=dtype)

    def rate(self):
        return 2 * SIDE**3 / seconds_of(lambda: torch.mm(self.a, self.b, out=self.out))


def passes(shape, dtype):
    """(pass, operations, call) of one shape; the backward pass alone, of one forward pass."""
    _, batch, heads, length, width, is_causal = shape
    size = (batch, heads, length, width)
    q, k, v = (torch.randn(size, dtype=dtype, requires_grad=True) for _ in range(3))
    d_o = torch.randn(size, dtype=dtype)
    attention = torch.nn.functional.scaled_dot_product_attention
    operations = 4 * batch * heads * length**2 * width * (0.5 if is_causal else 1)

    def forward():
        with torch.no_grad():
            attention(q, k, v, is_causal=is_causal)

    o = attention(q, k, v, is_causal=is_causal)

    def backward():
        torch.autograd.grad(o, (q, k, v), d_o, retain_graph=True)

    return ("forward", operations, forward), ("backward", 2.5 * operations, backward)


def measure(operations, call, product, rounds):
    """Median share of the product's rate, and the fastest rate."""
    repetitions = max(1, math.ceil(SAMPLE_SECONDS / seconds_of(call)))

    def repeated():
        for _ in range(repetitions):
            call()

    shares, rates = [], []
    for _ in range(rounds):
        before = product.rate()
        rates.append(operations * repetitions / seconds_of(repeated))
        shares.append(rates[-1] / ((before + product.rate()) / 2))
    return statistics.median(shares), max(rates)


def attest_rates(path, rounds, threads):
    """Operations per second by (type, pass, threads, shape), of the fastest level."""
    with tempfile.NamedTemporaryFile(suffix=".json") as file:
        command = [path, "--rounds", str(rounds), "--threads", *map(str, threads), "--json", file.name]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        rows = json.load(file)["rows"]
    rates = {}
    for row in rows:
        if row["by"] in ("v2", "v3", "v4"):  # in this order
            rates[row["type"], row["what"], row["threads"], row["shape"]] = row["per_second"]
    return rates


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[2],
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--attest", metavar="PATH")
    options = parser.parse_args()

    attest = attest_rates(options.attest, options.rounds, options.threads) if options.attest else {}
    print(f"torch {torch.__version__}")
    print(f"{'type':4} {'pass':8} {'th':>2}  {'shape':28} {'of mm':>6} {'Gflop/s':>8}"
          + (f" {'attest':>8} {'ratio':>6}" if attest else ""))
    for name, dtype in TYPES.items():
        product = Product(dtype)
        for shape in SHAPES:
            for threads in options.threads:
                torch.set_num_threads(threads)
                for what, operations, call in passes(shape, dtype):
                    share, rate = measure(operations, call, product, options.rounds)
                    line = f"{name:4} {what:8} {threads:2}  {shape[0]:28} {share:6.3f} {rate / 1e9:8.1f}"
                    own = attest.get((name, what, threads, shape[0]))
                    print(line + (f" {own / 1e9:8.1f} {own / rate:6.2f}" if own else ""), flush=True)


main()
