# Honest attention dumps for the tests of the program, and how these tests run it.
import hashlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import unittest
from types import SimpleNamespace

import numpy as np

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "python"))
import attest_dump  # noqa: E402

# Significand bits p, smallest normal exponent and bias of the types that numpy lacks.
FORMATS = {"bfloat16": (8, -126, 127), "float8_e4m3fn": (4, -6, 7), "float8_e5m2": (3, -14, 15)}
TIMEOUT = 1500  # seconds: diagnoses with sanitizers take minutes; an endless loop fails a test, not all


def rounded(x, dtype):
    """x to the nearest value of the type, as float64. No value overflows."""
    x = np.asarray(x, np.float64)
    if dtype not in FORMATS:
        return x.astype(dtype).astype(np.float64)
    precision, emin, _ = FORMATS[dtype]
    exponent = np.maximum(np.frexp(x)[1] - 1, emin)
    return np.ldexp(np.rint(np.ldexp(x, precision - 1 - exponent)), exponent - precision + 1)


def stored(x, dtype):
    """Values of the type as attest_dump takes them: an array, or Bits."""
    x = rounded(x, dtype)
    if dtype not in FORMATS:
        return x.astype(dtype)
    precision, emin, bias = FORMATS[dtype]
    exponent = np.maximum(np.frexp(x)[1] - 1, emin)
    significand = np.ldexp(np.abs(x), precision - 1 - exponent).astype(np.int64)
    hidden = 1 << (precision - 1)
    field = np.where(significand >= hidden, exponent + bias, 0)
    bits = 16 if dtype == "bfloat16" else 8
    sign = np.signbit(x).astype(np.int64) << (bits - 1)
    patterns = sign | (field << (precision - 1)) | (significand % hidden)
    return attest_dump.Bits(patterns.astype(f"uint{bits}"), dtype)


def attention(dtype="float16", seed=1, B=2, Hq=4, Hkv=2, Sq=9, Sk=13, D=16, E=16):
    """A problem in layout bhsd, its inputs values of the type, and its exact o and lse."""
    rng = np.random.default_rng(seed)
    shapes = (B, Hq, Sq, D), (B, Hkv, Sk, D), (B, Hkv, Sk, E)
    q, k, v = (rounded(2 * rng.standard_normal(shape), dtype) for shape in shapes)
    spec = dict(causal="none", scale=0.25)
    group = Hq // Hkv
    s = spec["scale"] * np.einsum("bhid,bhjd->bhij", q, np.repeat(k, group, 1))
    m = s.max(-1, keepdims=True)
    p = np.exp(s - m)
    total = p.sum(-1, keepdims=True)
    o = np.einsum("bhij,bhje->bhie", p / total, np.repeat(v, group, 1))
    return SimpleNamespace(dtype=dtype, spec=spec, q=q, k=k, v=v, o=o, lse=(m + np.log(total))[..., 0])


def case_of(a, **changes):
    """Arguments of attest_dump.File.case for an honest dump of the problem; changes replace some of them."""
    lse_type = "float64" if a.dtype == "float64" else "float32"
    arguments = dict(
        op="attention", spec=dict(a.spec), inputs={name: stored(getattr(a, name), a.dtype) for name in "qkv"},
        outputs=dict(o=stored(a.o, a.dtype), lse=stored(a.lse, lse_type)))
    return {**arguments, **changes}


def sha256(path):
    with open(path, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()


def fingerprint(path):
    """What must not change when the program reads the file; None for what is no regular file."""
    return (sha256(path), os.stat(path).st_mtime_ns) if os.path.isfile(path) else None


class ProgramTest(unittest.TestCase):
    """Has self.folder, a temporary directory, and runs the program named on the command line."""

    program = None
    environment = {}
    memory = None  # bytes of address space that the program may take, None for any number

    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.folder = directory.name

    def limit_memory(self, limit):
        """From now on, unless the program is built with a sanitizer, which reserves terabytes."""
        self.memory = limit
        if self.run_program("--version").returncode != 0:
            self.memory = None

    def path(self, name="dump.h5"):
        return os.path.join(self.folder, name)

    def write(self, name="dump.h5", **case):
        """A dump with one case, `/case`."""
        with attest_dump.File(self.path(name)) as file:
            file.case("case", **case)
        return self.path(name)

    def run_program(self, *arguments):
        def limit():
            resource.setrlimit(resource.RLIMIT_AS, (self.memory, self.memory))

        # Every thread's stack counts as memory.
        environment = dict(os.environ, **self.environment, OMP_NUM_THREADS="2")
        return subprocess.run(
            [self.program, *arguments], capture_output=True, text=True, errors="replace", timeout=TIMEOUT,
            env=environment, preexec_fn=limit if self.memory else None)

    def report(self, path):
        """The exit status and the JSON report."""
        result = self.run_program("verify", path, "--json")
        self.assertIn(result.returncode, (0, 1, 3, 4), result.stderr)
        return result.returncode, json.loads(result.stdout)


def main():
    if len(sys.argv) < 2:
        sys.exit(f"usage: {sys.argv[0]} PATH_TO_ATTEST [unittest arguments]")
    ProgramTest.program = os.path.abspath(sys.argv.pop(1))
    unittest.main(module="__main__")
