# Dumps of a real device: they pass, and wrong answers in place of their outputs do not. Needs data/device.
import glob
import json
import os
import resource
import subprocess
import sys
import time
import unittest

import h5py
import numpy as np

import make_dump
from make_dump import attest_dump

DUMPS = sorted(glob.glob(os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../data/device/*.h5")))
CASES = 15
ROWS = 128
TIMEOUT = 900  # seconds, several times what a run takes


def attention(x, scale, causal):
    """Exact o, lse and the gradients of one case, by name. x: q, k, v, do as [B, H, S, D] in float64."""
    queries, keys = x["q"].shape[2], x["k"].shape[2]
    s = scale * np.einsum("bhid,bhjd->bhij", x["q"], x["k"])
    if causal != "none":
        diagonal = np.arange(queries) + (keys - queries if causal == "bottom_right" else 0)
        s[..., np.arange(keys) > diagonal[:, None]] = -np.inf
    m = s.max(-1, keepdims=True)
    p = np.exp(s - m)
    total = p.sum(-1, keepdims=True)
    p /= total
    o = p @ x["v"]
    ds = p * (x["do"] @ x["v"].swapaxes(2, 3) - (x["do"] * o).sum(-1, keepdims=True))
    return dict(o=o, lse=(m + np.log(total))[..., 0], dq=scale * ds @ x["k"],
                dk=scale * ds.swapaxes(2, 3) @ x["q"], dv=p.swapaxes(2, 3) @ x["do"])


def wrong_answers(x, spec):
    """Name of a fault -> what a kernel with it writes, by output; everything in float64."""
    right = attention(x, spec["scale"], spec["causal"])
    wrong = {"zeros": {name: np.zeros_like(value) for name, value in right.items()},
             "scale": attention(x, 1.01 * spec["scale"], spec["causal"]),
             "mean_v": dict(o=np.broadcast_to(x["v"].mean(2, keepdims=True), right["o"].shape))}
    for causal in ("none", "top_left", "bottom_right"):
        answer = attention(x, spec["scale"], causal)
        if not np.array_equal(answer["lse"], right["lse"]):
            wrong["causal_" + causal] = answer
    return wrong


class DeviceDumps(make_dump.ProgramTest):

    def verify(self, *paths, threads=2):
        """The exit status and the JSON report."""
        result = subprocess.run([self.program, "verify", *paths, "--json"], capture_output=True, text=True,
                                timeout=TIMEOUT, env={**os.environ, "OMP_NUM_THREADS": str(threads)})
        self.assertEqual(result.stderr, "")
        return result.returncode, result.stdout

    def test_what_the_device_computed_passes_with_any_number_of_threads(self):
        start = time.monotonic()
        status, report = self.verify(*DUMPS)
        seconds = time.monotonic() - start
        memory = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
        print(f"{CASES} cases: {seconds:.1f} s, at most {memory:.0f} MiB", file=sys.stderr)
        cases = json.loads(report)["cases"]
        self.assertEqual(len(cases), CASES)
        for case in cases:
            with self.subTest(case["name"]):
                self.assertEqual(case["verdict"], "pass")
                self.assertEqual([output["name"] for output in case["outputs"]], ["o", "lse", "dq", "dk", "dv"])
                for output in case["outputs"]:
                    self.assertLessEqual(output["worst_ratio"], 1, output["name"])
                    # The device rounds to 16 bits: an error far below the bound would mean a bound too wide.
                    if output["name"] != "lse":
                        self.assertGreater(output["worst_ratio"], 0.1, output["name"])
        self.assertEqual(status, 0)
        self.assertEqual(self.verify(*DUMPS, threads=1), (status, report))

    def test_wrong_answers_in_place_of_an_output_fail(self):
        """The first rows of one head a case, to be quick. Forward and backward outputs are replaced in separate cases, so that a
        gradient is judged beside the o and lse of the device that it was computed from."""
        replaced = {}  # case -> names of the outputs that are wrong
        with attest_dump.File(self.path()) as target:
            for path in DUMPS:
                with h5py.File(path) as source:
                    for name, group in source.items():
                        self.write_faults(target, name, group, replaced)
        status, report = self.verify(self.path())
        self.assertEqual(status, 1)
        sources = set()
        for case in json.loads(report)["cases"]:
            verdicts = {output["name"]: output["verdict"] for output in case["outputs"]}
            with self.subTest(case["name"]):
                self.assertEqual(case["verdict"], "fail")
                for output in replaced[case["name"]]:
                    self.assertEqual(verdicts.pop(output), "fail", output)
                self.assertNotIn("fail", verdicts.values())
            sources.add(case["name"].split("__")[0])
            del replaced[case["name"]]
        self.assertEqual(replaced, {})
        self.assertEqual(len(sources), CASES)

    def write_faults(self, target, name, group, replaced):
        spec, contract = dict(group["spec"].attrs), dict(group["contract"].attrs)
        inputs = {key: data[:1, :1] if key in "kv" else data[:1, :1, :ROWS] for key, data in group["in"].items()}
        honest = {key: group["out"][key][:1, :1, :ROWS] for key in ("o", "lse")}
        exact_inputs = {key: data.astype(np.float64) for key, data in inputs.items()}
        for fault, answer in wrong_answers(exact_inputs, spec).items():
            for part, outputs in dict(forward=("o", "lse"), backward=("dq", "dk", "dv")).items():
                wrong = {key: answer[key].astype(group["out"][key].dtype) for key in outputs if key in answer}
                if not wrong:
                    continue
                kept = ("o", "lse") if part == "backward" else [key for key in outputs if key not in wrong]
                case = f"{name}__{fault}__{part}"
                read = {key: data for key, data in inputs.items() if part == "backward" or key != "do"}
                target.case(case, op="attention", spec=spec, contract=contract, inputs=read,
                            outputs={**{key: honest[key] for key in kept}, **wrong})
                replaced[case] = list(wrong)


if __name__ == "__main__":
    make_dump.main()
