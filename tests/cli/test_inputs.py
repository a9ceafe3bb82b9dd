# Inputs from recipes: kernels in numpy run on them, attest judges; files are whole, and never replaced unasked.
import functools
import json
import os
import re
import unittest

import h5py
import numpy as np

import make_dump
from make_dump import attest_dump

INFINITY = np.float32(np.inf)


def wide(x):
    return x.astype(np.float32)


def attention(spec, q, k, v, kv_lengths=None, fault=None):
    """In float32, one batch entry after another, so that absent keys are never touched."""
    B, Hq, Sq, _ = q.shape
    group = Hq // k.shape[1]
    o, lse = np.zeros((B, Hq, Sq, v.shape[-1]), q.dtype), np.zeros((B, Hq, Sq), np.float32)
    scale = np.float32(spec["scale"] * (1.05 if fault == "scale" else 1))
    for b in range(B):
        keys = k.shape[2] if kv_lengths is None else kv_lengths[b]
        keys -= fault == "last key"
        kb, vb = (np.repeat(wide(x[b, :, :keys]), group, 0) for x in (k, v))
        if fault == "values":
            vb = np.roll(vb, 1, 1)
        s = scale * (wide(q[b]) @ kb.swapaxes(1, 2))
        if spec["causal"] == "bottom_right":
            i, j = np.arange(Sq)[:, None], np.arange(keys)
            s = np.where(j > i + keys - Sq, -INFINITY, s)
        m = s.max(-1, keepdims=True)
        p = np.exp(s - m)
        total = p.sum(-1, keepdims=True)
        o[b], lse[b] = (p @ vb) / total, (m + np.log(total))[..., 0]
    return dict(o=o, lse=lse)


@np.errstate(all="ignore")
def softmax(spec, x, fault=None):
    s = wide(x)
    m = s.max(-1, keepdims=True)
    p = np.exp(s - m)
    total = p[:, :-1 if fault == "last element" else None].sum(-1, keepdims=True)
    total *= np.float32(1.01 if fault == "sum" else 1)
    return dict(y=(p / total).astype(x.dtype), lse=(m + np.log(total))[..., 0])


def rms_norm(spec, x, weight, fault=None):
    a = wide(x)
    count = x.shape[-1] - (fault == "count")
    mean = (a * a).sum(-1, keepdims=True) / np.float32(count)
    rstd = 1 / np.sqrt(mean + np.float32(0 if fault == "eps" else spec["eps"]))
    return dict(y=(a * rstd * wide(weight)).astype(x.dtype), rstd=rstd[:, 0])


def rope(spec, x, cos=None, sin=None, fault=None):
    half = x.shape[-1] // 2
    if cos is None:
        frequency = 1 / np.float32(spec["theta"]) ** (np.arange(half, dtype=np.float32) / np.float32(half))
        position = np.arange(x.shape[2], dtype=np.float32) + np.float32(spec["position_start"])
        angle = (position + (fault == "position"))[:, None] * frequency
        cos, sin = np.cos(angle.astype(np.float64)), np.sin(angle.astype(np.float64))
    elif fault == "position":
        cos, sin = np.roll(cos, 1, 0), np.roll(sin, 1, 0)
    if fault == "sign":
        sin = -sin
    a, b, cos, sin = wide(x[..., :half]), wide(x[..., half:]), wide(cos), wide(sin)
    return dict(y=np.concatenate([a * cos - b * sin, b * cos + a * sin], -1).astype(x.dtype))


# Kernel, options, faults.
OPS = {
    "attention": (attention, ["--shape", "Hq=2,Hkv=1,Sq=10,Sk=24,D=16"], ("scale", "last key", "values")),
    "softmax": (softmax, ["--shape", "R=6,N=100"], ("last element", "sum")),
    "rms_norm": (rms_norm, ["--shape", "R=6,N=96", "--with", "weight"], ("count",)),
    "rope": (rope, ["--shape", "S=40,D=32"], ("position", "sign")),
}


class Inputs(make_dump.ProgramTest):

    def recipes(self, op):
        return re.findall(r"^  ([a-z]\w*)  ", self.run_program("inputs", op).stdout, re.MULTILINE)

    def make(self, *arguments, status=0):
        result = self.run_program("inputs", *arguments)
        self.assertEqual(result.returncode, status, result.stderr)
        return result.stderr

    def verdicts(self, path):
        result = self.run_program("verify", "--json", path)
        self.assertNotIn(result.returncode, (3, 5), result.stderr)
        return {case["name"]: case for case in json.loads(result.stdout)["cases"]}

    def test_recipes_pass_honest_kernels_and_fail_wrong_ones(self):
        for op, (kernel, options, faults) in OPS.items():
            recipes = self.recipes(op)
            self.assertGreater(len(recipes), 7)
            for dtype in ("float32", "float16"):
                path = self.path(f"{op}_{dtype}.h5")
                self.make(op, "--dtype", dtype, *options, *(x for r in recipes for x in ("--recipe", r)), "-o", path)
                attest_dump.run(path, kernel, about=dict(device="numpy"))
                cases = self.verdicts(path)
                self.assertEqual(set(cases), set(recipes))
                for name, case in cases.items():
                    with self.subTest(op=op, dtype=dtype, recipe=name):
                        self.assertEqual((case["verdict"], case["reasons"]), ("pass", []))
                        self.assertEqual(case["about"]["recipe"], name)
                        self.assertEqual((case["about"]["seed"], case["about"]["device"]), ("1", "numpy"))
            caught = set()
            for fault in faults:  # on the last file, in float16
                attest_dump.run(path, functools.partial(kernel, fault=fault))
                verdicts = {name: case["verdict"] for name, case in self.verdicts(path).items()}
                self.assertEqual(verdicts["normal"], "fail", (op, fault))
                caught |= {name for name in recipes if verdicts[name] == "fail"}
            self.assertEqual(caught, set(recipes))

    def test_exact_cases_are_judged_bit_for_bit_in_float16(self):
        for op, (kernel, options, _) in OPS.items():
            path = self.path(f"{op}.h5")
            self.make(op, "--recipe", "exact", *options, "-o", path)
            for towards in (0, np.inf, None):
                attest_dump.run(path, kernel)
                if towards is not None:
                    with h5py.File(path, "r+") as f:
                        y = f["exact/out"]["o" if op == "attention" else "y"]
                        values = y[()]
                        at = np.argmax(values.ravel() > 0)
                        values.flat[at] = np.nextafter(values.flat[at], np.float16(towards))
                        y[...] = values
                verdict = self.verdicts(path)["exact"]["verdict"]
                self.assertEqual((op, towards, verdict), (op, towards, "pass" if towards is None else "fail"))

    def test_a_file_is_replaced_only_if_asked_to_be(self):
        path = self.path("case.h5")
        arguments = ["softmax", "--recipe", "normal", "--shape", "R=2,N=8", "-o", path]
        self.make(*arguments)
        first = make_dump.fingerprint(path)
        self.assertIn("exists already; --force", self.make(*arguments, status=2))
        self.assertEqual(make_dump.fingerprint(path), first)
        self.make(*arguments, "--force", "--seed", "2")
        self.assertNotEqual(make_dump.fingerprint(path)[0], first[0])
        self.assertEqual(os.listdir(self.folder), ["case.h5"])

    def test_the_same_request_makes_the_same_file(self):
        paths = [self.path(name) for name in ("a.h5", "b.h5")]
        for path in paths:
            self.make("attention", "--recipe", "padding", "--with", "do,mask", "--dtype", "bfloat16", "-o", path)
        self.assertEqual(*map(make_dump.sha256, paths))

    def test_nothing_is_left_of_a_file_that_cannot_be_made(self):
        path = self.path("case.h5")
        error = self.make("rms_norm", "--recipe", "normal", "--recipe", "overflow", "--dtype", "float8_e4m3fn",
                          "-o", path, status=2)
        self.assertIn("another --dtype is needed", error)
        self.make("softmax", "--recipe", "normal", "-o", self.path("none/case.h5"), status=2)
        self.make("softmax", "--recipe", "normal", "-o", self.folder, status=2)
        self.assertEqual(os.listdir(self.folder), [])

    def test_requests_that_make_no_sense_are_usage_errors_that_say_what_there_is(self):
        path = self.path("case.h5")
        for arguments, said in (
                (["atention", "--recipe", "normal"], "there are: attention, softmax"),
                (["softmax", "--recipe", "padding"], "softmax has no recipe padding; there are: normal"),
                (["softmax"], "--recipe is missing"),
                (["softmax", "--recipe", "normal", "--recipe", "normal"], "given twice"),
                (["attention", "--recipe", "normal", "--shape", "N=3"], "there are: B, Hq, Hkv, Sq, Sk"),
                (["attention", "--recipe", "normal", "--set", "causal=yes"], "none, top_left, bottom_right"),
                (["attention", "--recipe", "exact", "--with", "sink"], "would not be a row of v"),
                (["--suite", "attention", "--recipe", "normal"], "the suite's own"),
                (["--suite", "attention", "--case", "nothing*"], "there are: causal."),
                (["--suite", "gelu", "--case", "nothing*"], "there are: plain.normal, plain.large, tanh."),
                (["--suite", "gelus"], "there are: attention, softmax")):
            self.assertIn(said, self.make(*arguments, "-o", path, status=2), arguments)
        self.assertIn("-o FILE is missing", self.make("softmax", "--recipe", "normal", status=2))
        self.assertEqual(os.listdir(self.folder), [])

    def test_types_and_attributes_are_those_of_the_dump_format(self):
        path = self.path("case.h5")
        for dtype, stored in (("bfloat16", "uint16"), ("float8_e5m2", "uint8"), ("float16", "float16"),
                              ("float64", "float64")):
            self.make("attention", "--force", "--recipe", "normal", "--dtype", dtype, "--with", "mask", "--set",
                      "causal=top_left", "--set", "contract/row_sum=stored", "--set", "window_left=5", "-o", path)
            with h5py.File(path) as f:
                case = f["normal"]
                self.assertEqual((case.attrs["op"], case["spec"].attrs["causal"]), ("attention", "top_left"))
                self.assertEqual((case["spec"].attrs["scale"], case["spec"].attrs["window_left"]), (0.125, 5))
                self.assertEqual(case["contract"].attrs["row_sum"], "stored")
                self.assertEqual((case["in/q"].dtype, case["in/mask"].dtype), (stored, bool))
                self.assertEqual(case["in/q"].attrs.get("dtype", dtype), dtype)

    def describe(self, *arguments):
        """The same cases twice: with stored inputs, and described."""
        stored, described = self.path("stored.h5"), self.path("described.h5")
        self.make(*arguments, "--force", "-o", stored)
        self.make(*arguments, "--force", "--describe", "-o", described)
        return stored, described

    def test_described_inputs_give_the_report_of_stored_ones(self):
        for op, (kernel, options, faults) in OPS.items():
            recipes = [x for r in self.recipes(op) for x in ("--recipe", r)]
            stored, described = self.describe(op, *options, *recipes)
            with h5py.File(described) as file:
                self.assertFalse([name for name in file if "in" in file[name]])
            attest_dump.run(stored, kernel)
            attest_dump.run(stored, lambda spec, **x: kernel(spec, fault=faults[0], **x), case="normal")
            with h5py.File(stored) as a, h5py.File(described, "r+") as b:
                for name, case in a.items():
                    a.copy(case["out"], b[name])
            for more in ([], ["--rows=3"]):
                reports = [self.run_program("verify", "--json", path, *more) for path in (stored, described)]
                self.assertIn(reports[0].returncode, (1, 4))
                self.assertEqual(re.sub(r'"seconds": [^,]*,', "", reports[0].stdout).replace(stored, described),
                                 re.sub(r'"seconds": [^,]*,', "", reports[1].stdout), op)
        self.assertIn("recipe    dtype      float16", self.run_program("inspect", described).stdout)
        self.assertEqual(self.run_program("compare", stored, described).returncode, 0)

    def test_numpy_makes_the_bits_that_the_program_stores(self):
        recipes = [x for r in self.recipes("attention") for x in ("--recipe", r)]
        shape = ["--shape", "B=3,Hq=4,Hkv=2,Sq=9,Sk=14,D=20,E=17"]
        for arguments in (
                [*recipes, *shape, "--set", "causal=bottom_right", "--with", "do", "--seed", "1234567890123456789"],
                [*recipes, *shape, "--set", "layout=sbm", "--set", "scale=0.3", "--dtype", "bfloat16"],
                [*recipes, *shape, "--set", "layout=bshd", "--dtype", "float8_e4m3fn", "--set", "window_left=3"],
                ["--recipe", "exact", "--recipe", "spiky", *shape, "--set", "layout=thd", "--set", "causal=top_left"],
                ["--recipe", "padding", "--shape", "B=2,Sq=5,Sk=6,Sp=7", "--dtype", "float64", "--set",
                 "causal=top_left", "--set", "window_right=0"],
                ["--recipe", "normal", "--with", "mask,bias,sink,alibi_slopes,do", *shape, "--dtype", "float32"]):
            with h5py.File(self.describe("attention", *arguments)[0]) as a, h5py.File(self.path("described.h5")) as b:
                for name in a:
                    stored, made = (attest_dump.inputs_of(file[name]) for file in (a, b))
                    self.assertEqual(list(stored), sorted(made))
                    for key, x in stored.items():
                        y = made[key]
                        if isinstance(x, attest_dump.Bits):
                            self.assertEqual(x.dtype, y.dtype)
                            x, y = x.patterns, y.patterns
                        self.assertEqual((x.dtype, x.shape, x.tobytes()), (y.dtype, y.shape, y.tobytes()), (name, key))

    def test_a_described_case_runs_on_a_device_without_the_program(self):
        path = self.describe("attention", "--recipe", "spiky", *OPS["attention"][1])[1]
        attest_dump.run(path, attention)
        self.assertEqual(self.verdicts(path)["spiky"]["verdict"], "pass")
        path = self.describe("softmax", "--recipe", "normal")[1]
        with self.assertRaisesRegex(ValueError, "without --describe stores them"):
            attest_dump.run(path, softmax)
        with h5py.File(self.describe("attention", "--recipe", "normal")[1], "r+") as f:
            f["normal/recipe"].attrs["generator"] = 2
            with self.assertRaisesRegex(ValueError, "needs generator 2"):
                attest_dump.inputs_of(f["normal"])

    def test_a_description_that_contradicts_itself_is_invalid_and_says_why(self):
        good = self.describe("attention", "--recipe", "normal", *OPS["attention"][1])[1]
        attest_dump.run(good, attention)
        self.assertEqual(self.run_program("verify", good).returncode, 0)

        def edited(edit):
            with h5py.File(good) as a, h5py.File(self.path("edited.h5"), "w") as b:
                b.attrs.update(a.attrs)
                a.copy("normal", b)
                edit(b["normal"])
            result = self.run_program("verify", self.path("edited.h5"))
            self.assertEqual((result.returncode, result.stderr.count("\n")), (3, 1), result.stderr)
            return result.stderr

        def attribute(key, value):
            return lambda case: case["recipe"].attrs.__setitem__(key, value)

        shape = "B=1,D=16,E=16,Hkv=1,Hq=2,Sk=24,Sp=0,Sq=10"
        for edit, said in (
                (attribute("name", "nomal"), "/normal/recipe: attention has no recipe nomal; there are: normal,"),
                (attribute("generator", 7), "attribute generator is 7; this program has version 1"),
                (attribute("shape", shape.replace("Sq=10", "Sq=11")), "Sq = 1"),
                (attribute("shape", shape.replace("Sq=10", "Sq=0")), "/normal/recipe: shape Sq=0: a whole number"),
                (attribute("shape", shape.replace("Sk=24", "Sk=268435456").replace("D=16", "D=65536")),
                 "in/k: its values need"),
                (attribute("dtype", "float12"), "dtype float12 is no element type"),
                (attribute("dtype", 16), "attribute dtype is 16; a text is expected"),
                (attribute("sede", 1), "attribute sede is not known; accepted: dtype, generator,"),
                (lambda case: case["spec"].attrs.__setitem__("scale", "one"), "spec attribute scale is the text"),
                (lambda case: case.create_dataset("in/q", data=np.zeros((1, 2, 10, 16), np.float16)),
                 "/normal/recipe is given beside in; a case either holds its inputs or describes them"),
                (lambda case: [case["recipe"].attrs.__delitem__(key) for key in list(case["recipe"].attrs)],
                 "/normal/recipe is empty"),
                (lambda case: case["recipe"].create_dataset("q", data=[1.0]), 'holds the object "q"'),
                (lambda case: case.__delitem__("recipe"), "/normal/in is missing")):
            self.assertIn(said, edited(edit))


if __name__ == "__main__":
    make_dump.main()
