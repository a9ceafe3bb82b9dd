# What the tests of `attest compare` share: small dumps whose values only have to be told apart. Takes the path of
# attest from the command line.
import json
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

import h5py
import numpy as np

ATTEST = str(Path(sys.argv.pop(1)).resolve()) if len(sys.argv) > 1 else "attest"
B, H, S, D = 4, 3, 10, 8
LAID_OUT = {"q", "k", "v", "do", "o", "dk"}  # their axes follow the layout


def tensors(seed=1, dtype=np.float16):
    """Inputs and outputs in layout bhsd."""
    random = np.random.default_rng(seed)
    shapes = {"in/q": (B, H, S, D), "in/k": (B, H, S, D), "in/v": (B, H, S, D), "in/sink": (H,),
              "in/mask": (S, S), "in/bias": (B, 1, S, S), "in/kv_lengths": (B,), "in/do": (B, H, S, D),
              "out/o": (B, H, S, D), "out/lse": (B, H, S), "out/dk": (B, H, S, D), "out/dsink": (H,)}
    values = {path: random.uniform(1, 2, shape).astype(dtype) for path, shape in shapes.items()}
    values["in/mask"] = np.ones((S, S), bool)
    values["in/kv_lengths"] = np.arange(B, dtype=np.int32)
    return values


def laid_out(values, layout):
    order = {"bhsd": (0, 1, 2, 3), "bshd": (0, 2, 1, 3), "sbhd": (2, 0, 1, 3)}[layout]
    return {path: t.transpose(order) if path.split("/")[1] in LAID_OUT else t for path, t in values.items()}


def batch(values, first, last):
    """Entries first to last of a batch in layout bhsd."""
    return {path: t if t.shape[0] != B else t[first:last] for path, t in values.items()}


def write_case(group, values, spec=(), contract=(), about=()):
    group.attrs["op"] = "attention"
    group.create_group("spec").attrs.update({"causal": "none", "scale": 0.25} | dict(spec))
    group.create_group("contract").attrs.update(dict(contract))
    group.create_group("about").attrs.update(dict(about))
    for path, tensor in values.items():
        group[path] = tensor


def run(*arguments, **options):
    return subprocess.run([ATTEST, *map(str, arguments)], capture_output=True, text=True, timeout=300, **options)


class CompareTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path = Path(folder.name)
        self.values = tensors()

    def write(self, name, **cases):
        """A file of the cases, each the tensors or a dictionary of write_case's arguments."""
        path = self.path / name
        with h5py.File(path, "w") as file:
            file.attrs["attest_format"] = 1
            for case, values in cases.items():
                write_case(file.create_group(case), **(values if "values" in values else {"values": values}))
        return str(path)

    def report(self, a, b, *arguments, status):
        result = run("compare", a, b, "--json", *arguments)
        self.assertEqual(result.returncode, status, result.stdout + result.stderr)
        return json.loads(result.stdout)

    def one(self, a, b, *arguments, status):
        (case,) = self.report(self.write("a.h5", x=a), self.write("b.h5", x=b), *arguments, status=status)["compare"]
        return case

    def output(self, change, path="out/o", status=1, **options):
        """What is said of an output after the change, against how it was."""
        changed = {p: t.copy() for p, t in self.values.items()}
        change(changed[path])
        case = self.one(options | {"values": self.values}, options | {"values": changed}, status=status)
        return {o["name"]: o for o in case["outputs"]}[path.split("/")[1]]
