# The Python of docs/learn passes `attest verify`, prints what the pages show, and fails once a line of it is wrong.
import pathlib
import subprocess
import sys
import tempfile
import unittest

import h5py
import numpy as np

ATTEST = pathlib.Path(sys.argv.pop()).resolve()
LEARN = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(LEARN))
sys.dont_write_bytecode = True
# A mistake that is easily made, and the outputs that give it away.
MISTAKES = {
    "tiled_forward": {
        "l = factor * l + p.sum(axis=1)": ("l = l + p.sum(axis=1)", {"o", "lse"}),
        "acc = factor[:, None] * acc + p @ v[columns]": ("acc = acc + p @ v[columns]", {"o"}),
        ">= ends[:, None]": ("> ends[:, None]", {"o", "lse"}),
        "return i + keys - queries + 1": ("return i + 1", {"o", "lse"}),
    },
    "tiled_per_step": {
        "added * own_l": ("own_l", {"o", "l"}),
        "(kept * inverse)[:, None] * o": ("kept[:, None] * o", {"o"}),
        "m[rows], l[rows] = m_new, l_new": ("m[rows], l[rows] = own_m, l_new", {"o", "m", "l"}),
    },
    "tiled_backward": {
        "(dp - delta[rows, None])": ("dp", {"dq", "dk"}),
        "scale * ds.T @ q[rows]": ("ds.T @ q[rows]", {"dk"}),
        "dv[columns] += p.T": ("dv[columns] = p.T", {"dv"}),
    },
}


def verify(name, source, folder):
    """(status, text) of the verdict on what the program writes."""
    program = {"__name__": name}
    exec(compile(source, f"{name}.py", "exec"), program)
    program["main"](f"{folder}/{name}.h5")
    run = subprocess.run([ATTEST, "verify", f"{name}.h5"], cwd=folder, capture_output=True, text=True)
    return run.returncode, run.stdout + run.stderr


class Examples(unittest.TestCase):
    def test_they_pass_and_print_what_the_pages_show(self):
        for name in MISTAKES:
            with self.subTest(name), tempfile.TemporaryDirectory() as folder:
                source = (LEARN / f"{name}.py").read_text()
                self.assertLess(source.count("\n"), 100)
                status, text = verify(name, source, folder)
                self.assertEqual(status, 0, text)
                self.assertEqual(text, (LEARN / f"{name}.verdict.txt").read_text())

    def test_mistakes_fail_in_the_outputs_that_they_reach(self):
        for name, mistakes in MISTAKES.items():
            source = (LEARN / f"{name}.py").read_text()
            for right, (wrong, outputs) in mistakes.items():
                with self.subTest(wrong), tempfile.TemporaryDirectory() as folder:
                    self.assertEqual(source.count(right), 1)
                    status, text = verify(name, source.replace(right, wrong), folder)
                    self.assertEqual(status, 1, text)
                    failed = {line.split(":")[0].strip() for line in text.splitlines() if "beyond the bound" in line}
                    self.assertEqual(failed, outputs, text)

    def test_the_forward_pass_agrees_with_a_golden_tensor_to_the_last_bit_of_float16(self):
        forward = {"__name__": "tiled_forward"}
        exec((LEARN / "tiled_forward.py").read_text(), forward)
        with h5py.File(LEARN.parents[1] / "data" / "golden" / "clip_text.h5") as file:
            case = file["clip_text"]
            q, k, v = (case[f"in/{name}"][0].astype(np.float64) for name in "qkv")
            for h in range(len(q)):
                shared = h * len(k) // len(q)
                o, lse = forward["attention"](q[h], k[shared], v[shared], case["spec"].attrs["scale"])
                np.testing.assert_array_equal(o.astype(np.float16), case["out/o"][0, h])
                np.testing.assert_array_equal(lse.astype(np.float32), case["out/lse"][0, h])


if __name__ == "__main__":
    unittest.main()
