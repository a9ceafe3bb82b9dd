# Tests of `attest trace`: what it writes is attention, and what it is told wrongly it says.
# Usage: test_trace.py PATH_TO_ATTEST [unittest options]
import json
import platform
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

import numpy as np

ATTEST = sys.argv.pop(1)
CLOSE = {"rtol": 1e-12, "atol": 1e-12}  # a few hundred operations in double on numbers of magnitude one


def run(*arguments):
    return subprocess.run([ATTEST, "trace", *arguments], capture_output=True, text=True)


@unittest.skipIf(platform.machine() not in ("x86_64", "AMD64"), "attest trace needs an x86-64 machine")
class Trace(unittest.TestCase):
    def trace(self, *arguments):
        result = run(*arguments)
        self.assertEqual((result.returncode, result.stderr), (0, ""))
        return json.loads(result.stdout)

    def test_results_are_attention_and_its_gradients(self):
        t = self.trace("--shape", "7x9x5x3", "--tile", "3x4", "--causal", "bottom_right", "--backward")
        q, k, v, d_o = (np.array(t[name]) for name in ("q", "k", "v", "do"))
        scale = t["spec"]["scale"]
        sees = np.tril(np.ones((7, 9)), 2)
        p = np.where(sees, np.exp(scale * q @ k.T), 0)
        l = p.sum(axis=1, keepdims=True)
        p /= l
        o = p @ v
        ds = p * (d_o @ v.T - (d_o * o).sum(axis=1, keepdims=True))
        for name, want in {"o": o, "lse": np.log(l[:, 0]), "dq": scale * ds @ k, "dk": scale * ds.T @ q,
                           "dv": p.T @ d_o}.items():
            np.testing.assert_allclose(np.array(t[name]), want, err_msg=name, **CLOSE)
        for step in t["backward"]:
            if step["kind"] == "none":
                continue
            rows, keys = slice(step["row"], step["row"] + 3), slice(step["key"], step["key"] + 4)
            np.testing.assert_allclose(step["p"], p[rows, keys], **CLOSE)
            np.testing.assert_allclose(step["ds"], ds[rows, keys], **CLOSE)
            np.testing.assert_array_equal(step["sees"], sees[rows, keys])

    def test_every_tile_is_there_once(self):
        t = self.trace("--shape", "8x7x2x2", "--tile", "3x2")
        places = [(step["row"], step["key"]) for step in t["forward"]]
        self.assertEqual(places, [(row, key) for row in (0, 3, 6) for key in (0, 2, 4, 6)])
        kinds = {place: step["kind"] for place, step in zip(places, t["forward"])}
        self.assertEqual([kinds[0, 0], kinds[0, 2], kinds[0, 4], kinds[6, 0]], ["part", "part", "none", "all"])
        self.assertNotIn("backward", t)

    def test_a_file_holds_what_would_have_been_printed(self):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "trace.json"
            result = run("-o", str(path))
            self.assertEqual((result.returncode, result.stdout, result.stderr), (0, "", ""))
            self.assertEqual(path.read_text(), run().stdout)

    def test_digits_shorten_every_number(self):
        full, short = self.trace("--backward"), self.trace("--backward", "--digits", "3")
        self.assertEqual(short["dk"], [[float(f"{x:.3g}") for x in row] for row in full["dk"]])
        self.assertNotEqual(short["dk"], full["dk"])

    def test_seeds_give_different_inputs(self):
        self.assertNotEqual(self.trace()["q"], self.trace("--seed", "2")["q"])

    def test_wrong_options_are_named(self):
        for arguments, message in (
                (["--shape", "8x8"], "--shape is '8x8'; expected SQxSKxDxE, at most 64x64x64x64"),
                (["--shape", "8x65x1x1"], "--shape is '8x65x1x1'; expected"),
                (["--shape", "8x8x4x4x"], "--shape is '8x8x4x4x'; expected"),
                (["--tile", "7x2"], "--tile is '7x2'; expected ROWSxKEYS, at most 6x64"),
                (["--tile", "0x2"], "--tile is '0x2'; expected"),
                (["--causal", "left"], "--causal is 'left'; expected none, top_left or bottom_right"),
                (["--digits", "0"], "--digits is 0; expected 1 to 17"),
                (["-o", "/nowhere/x.json"], "cannot write /nowhere/x.json: No such file or directory")):
            with self.subTest(arguments=arguments):
                result = run(*arguments)
                self.assertEqual((result.returncode, result.stdout), (2, ""))
                self.assertIn(message, result.stderr)


if __name__ == "__main__":
    unittest.main()
