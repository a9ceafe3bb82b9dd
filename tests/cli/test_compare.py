# Tests of `attest compare` from outside: pairing, what counts as equal, where differences are, bad files, the page.
# Usage: test_compare.py PATH_TO_ATTEST [unittest options]
import json
import os
import re
import subprocess
import sys
import unittest
from pathlib import Path

import h5py
import numpy as np

from compare_dumps import ATTEST, B, CompareTest, D, H, S, laid_out, run, tensors, write_case

ROOT = Path(__file__).resolve().parents[2]


class Compare(CompareTest):
    # Verdicts

    def test_equal_files_are_equal(self):
        report = self.report(self.write("a.h5", x=self.values), self.write("b.h5", x=self.values), status=0)
        self.assertEqual((report["format"], report["verdict"]), (1, "equal"))
        (case,) = report["compare"]
        self.assertEqual((case["name"], case["verdict"], case["reasons"], case["notes"]), ("x", "equal", [], []))
        self.assertEqual([o["name"] for o in case["outputs"]], ["o", "lse", "dk", "dsink"])
        for output in case["outputs"]:
            self.assertEqual((output["verdict"], output["different"], output["at"]), ("equal", 0, []))

    def test_storage_does_not_matter(self):
        values = {p: t.astype(t.dtype.newbyteorder(">")) for p, t in self.values.items() if t.dtype != bool}
        values["in/mask"] = self.values["in/mask"]
        self.assertEqual(self.one(self.values, values, status=0)["verdict"], "equal")

    def test_one_bit_is_found(self):
        for path, at in ("out/o", (2, 1, 7, 5)), ("out/lse", (3, 2, 9)), ("out/dsink", (1,)):
            def flip(t):
                t.view(np.uint16)[at] ^= 1
            found = self.output(flip, path)
            self.assertEqual((found["verdict"], found["different"], found["ulps"]), ("different", 1, 1))
            self.assertEqual(tuple(found["at"]), at)
            self.assertEqual(found["elements"], self.values[path].size)
            self.assertEqual(found["a"], float(self.values[path][at]))
            self.assertNotEqual(found["a"], found["b"])

    def test_ulps_are_steps_of_the_element_type(self):
        def change(t):
            t[0, 0, 0, :3] = np.nextafter(t[0, 0, 0, :3], t.dtype.type(9))
            t[1, 2, 3, 4] = np.nextafter(np.nextafter(t[1, 2, 3, 4], t.dtype.type(0)), t.dtype.type(0))
        for dtype in np.float16, np.float32, np.float64:
            self.values = tensors(dtype=dtype)
            found = self.output(change)
            self.assertEqual((found["different"], found["ulps"], found["at"]), (4, 2, [0, 0, 0, 0]))

    def test_steps_lead_across_zero_and_to_infinity(self):
        self.values["out/o"][0, 0, 0, :2] = [np.float16(6e-8), np.inf]
        for value, at, steps in (-6e-8, 0, 2), (65504, 1, 1):
            self.assertEqual(self.output(lambda t: t.__setitem__((0, 0, 0, at), value))["ulps"], steps)

    def test_bfloat16_bits_are_a_bfloat16(self):
        def stored(name, bits):
            path = self.write(name, x=self.values)
            with h5py.File(path, "r+") as file:
                del file["x/out/o"]
                file["x/out/o"] = np.full((B, H, S, D), bits, np.uint16)
                file["x/out/o"].attrs["dtype"] = "bfloat16"
            return path
        (case,) = self.report(stored("a.h5", 0x3F80), stored("b.h5", 0x3F85), status=1)["compare"]
        o = case["outputs"][0]
        self.assertEqual((o["dtype"], o["a"], o["b"], o["ulps"]), ("bfloat16", 1, 1 + 5 / 128, 5))

    def test_the_sign_of_zero_is_a_difference_of_no_ulp(self):
        self.values["out/o"][0] = 0
        found = self.output(lambda t: t.__setitem__((0, 1), -0.0))
        self.assertEqual((found["different"], found["zero_signs"], found["ulps"]), (S * D, S * D, 0))
        self.assertIn("80 of 960 elements differ only in the sign of zero\n",
                      run("compare", self.path / "a.h5", self.path / "b.h5").stdout)
        self.assertEqual(np.signbit([found["a"], found["b"]]).tolist(), [False, True])

    def test_nan_equals_nan_and_no_number(self):
        self.values["out/o"][0, 0, 0] = np.nan
        found = self.output(lambda t: t.__setitem__((0, 0, 0, 2), 1))
        self.assertEqual((found["different"], found["at"], found["a"], found["b"], found["ulps"]),
                         (1, [0, 0, 0, 2], "nan", 1, "inf"))
        def payload(t):
            t.view(np.uint16)[0, 0, 0, 3] = 0xFE01
        self.assertEqual(self.output(payload, status=0)["different"], 0)
        case = self.one(self.values, self.values, status=0)
        self.assertIn("out/o is NaN in both at 8 elements", case["notes"][0])

    def test_other_types_and_shapes_are_different(self):
        as_float = self.values | {"out/lse": self.values["out/lse"].astype(np.float32)}
        case = self.one(self.values, as_float, status=1)
        self.assertEqual(case["outputs"][1]["where"], "type float16 against float32")
        self.assertEqual((case["outputs"][1]["at"], case["outputs"][1]["a"]), ([], None))
        cut = self.values | {"out/lse": self.values["out/lse"][..., :-1]}
        case = self.one(self.values, cut, status=1)
        self.assertEqual(case["outputs"][1]["where"], "shape [4, 3, 10] against [4, 3, 9]")
        self.assertEqual(case["outputs"][1]["different"], B * H * S)

    def test_other_inputs_are_inconclusive_whatever_comes_out(self):
        q = self.values["in/q"].copy()
        q[1, 2, 3, 4] += 1
        for change, reason in (({"in/q": q}, r"in/q differs: 1 of 960 elements differs, .* first at \[1, 2, 3, 4\]"),
                               ({"in/q": q, "out/o": q}, "in/q differs"),
                               ({"in/k": self.values["in/k"][:, :, :-1]}, r"in/k differs: shape .* \[4, 3, 9, 8\]"),
                               ({"in/v": self.values["in/v"].astype("f4")}, "in/v differs: type float16 .* float32")):
            case = self.one(self.values, self.values | change, status=4)
            self.assertEqual(case["verdict"], "inconclusive")
            self.assertRegex(case["reasons"][0], reason)
        without = {p: t for p, t in self.values.items() if p != "in/bias"}
        for a, b in (self.values, without), (without, self.values):
            self.assertRegex(self.one(a, b, status=4)["reasons"][0], "/x/in/bias has no counterpart in .*[.]h5: /x$")

    def test_another_spec_is_inconclusive(self):
        for spec, reason in (({"scale": 0.5}, "spec differs in scale (0.25 and 0.5)"),
                             ({"softcap": 30}, f"spec differs in softcap (only in {self.path}/b.h5: /x: 30)")):
            case = self.one(self.values, {"values": self.values, "spec": spec}, status=4)
            self.assertEqual(case["reasons"], [reason])
        a, b = ({"values": self.values, "spec": {"softcap": value}} for value in (30, 30.0))
        self.assertEqual(self.one(a, b, status=0)["reasons"], [])

    def test_a_spec_key_that_says_what_its_absence_says_is_no_difference(self):
        spec = {"layout": "bhsd", "window_left": -1, "softcap": 0.0, "lse_base": "e"}
        self.assertEqual(self.one(self.values, {"values": self.values, "spec": spec}, status=0)["reasons"], [])

    def test_contract_and_about_may_differ_and_are_shown(self):
        a, b = ({"values": self.values, "contract": {"p_dtype": p}, "about": {"device": p + "\nx"}}
                for p in ("float16", "bfloat16"))
        case = self.one(a, b, status=0)
        self.assertEqual(case["notes"], ['contract differs in p_dtype ("float16" and "bfloat16")',
                                         r'about differs in device ("float16\x0ax" and "bfloat16\x0ax")'])

    def test_outputs_in_one_file_are_listed(self):
        only_o = {p: t for p, t in self.values.items() if not p.startswith("out/") or p == "out/o"}
        case = self.one(self.values, only_o, status=0)
        self.assertEqual([o["name"] for o in case["outputs"]], ["o"])
        self.assertEqual(len(case["notes"]), 3)
        only_lse = {p: t for p, t in self.values.items() if not p.startswith("out/") or p == "out/lse"}
        self.assertEqual(self.one(only_o, only_lse, status=4)["reasons"], ["no output was compared"])

    # Where

    def test_the_place_is_told(self):
        def place(index, path="out/o"):
            return self.output(lambda t: t.__setitem__(index, 3), path)["where"]
        self.assertEqual(place(...), "everywhere")
        self.assertEqual(place((slice(None), 1, slice(4, 8))), "all in rows 4..7 of head 1")
        self.assertEqual(place((2,)), "all in batch entry 2")
        self.assertEqual(place((3, 2, 9, 7)), "in column 7 of row 9 of head 2 of batch entry 3")
        self.assertEqual(place((slice(0, None, 2), slice(None), [0, 3, 4])),
                         "all in rows 0, 3..4 of batch entries 0, 2")
        self.assertEqual(place((Ellipsis, slice(0, 9, 2), 0)), "all in column 0 of 5 of the rows 0..8")
        self.assertEqual(place((Ellipsis, 0, slice(None)), "out/dk"), "all in key 0")
        self.assertEqual(place((slice(None), 0, 3), "out/lse"), "all in row 3 of head 0")
        self.assertEqual(place((1,), "out/dsink"), "in head 1")
        def diagonal(t):
            for i in range(S):
                t[i % B, i % H, i, i % D] = 3
        self.assertEqual(self.output(diagonal)["where"], "spread over the whole tensor")

    def test_the_place_is_told_in_every_layout(self):
        index = (slice(None), 1, slice(4, 8))
        changed = self.values["out/o"].copy()
        changed[index] = 3
        for layout in "bshd", "sbhd":
            spec = {"layout": layout}
            a, b = ({"values": laid_out(v, layout), "spec": spec}
                    for v in (self.values, self.values | {"out/o": changed}))
            self.assertEqual(self.one(a, b, status=1)["outputs"][0]["where"], "all in rows 4..7 of head 1")
        spec = {"layout": "bsm", "heads_q": H, "heads_kv": H}
        def merged(values):
            return {p: t.reshape(B, S, H * D) if p[-2:] != "in" and t.ndim == 4 and p != "in/bias" else t
                    for p, t in laid_out(values, "bshd").items()}
        a, b = ({"values": merged(v), "spec": spec} for v in (self.values, self.values | {"out/o": changed}))
        o = self.one(a, b, status=1)["outputs"][0]
        self.assertEqual((o["where"], o["at"]), ("all in rows 4..7 of head 1", [0, 4, 8]))

    # Pairs

    def test_cases_are_paired_by_name(self):
        other = tensors(2)
        a = self.write("a.h5", x=self.values, y=other)
        b = self.write("b.h5", y=other, x=self.values)
        self.assertEqual([c["name"] for c in self.report(a, b, status=0)["compare"]], ["x", "y"])

    def test_single_cases_are_paired_whatever_their_names(self):
        a, b = self.write("a.h5", x=self.values), self.write("b.h5", y=self.values)
        (case,) = self.report(a, b, status=0)["compare"]
        self.assertEqual((case["name"], case["notes"]), ("x", ["against y"]))
        root = str(self.path / "root.h5")
        with h5py.File(root, "w") as file:
            file.attrs["attest_format"] = 1
            write_case(file, self.values)
        self.assertEqual(self.report(root, b, status=0)["compare"][0]["name"], "/")

    def test_a_case_without_counterpart_is_an_error_unless_it_is_not_selected(self):
        a = self.write("a.h5", x=self.values, y=self.values)
        b = self.write("b.h5", x=self.values, z=self.values)
        result = run("compare", a, b)
        self.assertEqual(result.returncode, 3)
        self.assertEqual(result.stderr, f"attest: {a}: /y has no counterpart in {b}; its cases: x, z\n"
                                        f"attest: {b}: /z has no counterpart in {a}; its cases: x, y\n")
        self.assertIn("\n3 cases: 1 equal, 2 invalid\n", result.stdout)
        self.assertEqual(run("compare", a, b, "--case", "x").returncode, 0)
        self.assertEqual(run("compare", a, b, "--case", "[xy]").returncode, 3)
        self.assertEqual(run("compare", a, b, "--case", "y", "--case", "z").returncode, 0)  # a single case in each
        self.assertEqual(run("compare", a, b, "--case", "w").returncode, 2)

    # Bad files, streams

    def test_a_malformed_file_is_invalid(self):
        good = self.write("good.h5", x=self.values)
        cut = self.path / "cut.h5"
        cut.write_bytes(Path(good).read_bytes()[:1000])
        missing = self.path / "missing.h5"
        for a, b, bad in (good, cut, cut), (cut, good, cut), (good, missing, missing), (self.path, good, self.path):
            with self.subTest(a=a, b=b):
                result = run("compare", a, b, "--json")
                self.assertEqual(result.returncode, 3)
                self.assertRegex(result.stderr, r"\Aattest: [^\n]+\n\Z")
                self.assertIn(str(bad), result.stderr)
                (case,) = json.loads(result.stdout)["compare"]
                self.assertEqual((case["name"], case["verdict"]), ("/", "invalid"))
                self.assertEqual(f"attest: {case['error']}\n", result.stderr)
        self.assertEqual(run("compare", cut, missing).returncode, 3)

    def test_a_bad_case_does_not_hide_the_others(self):
        a = self.write("a.h5", x=self.values, y=self.values, z=self.values)
        b = self.write("b.h5", x=self.values, y=self.values, z=self.values)
        with h5py.File(b, "r+") as file:
            file["x"].attrs["op"] = "atention"
            file["y/out/strange"] = np.zeros(3)
        result = run("compare", a, b)
        self.assertEqual(result.returncode, 3)
        self.assertIn("3 cases: 1 equal, 2 invalid", result.stdout)
        self.assertEqual(result.stderr.count("\n"), 2)

    def test_wrong_usage_is_one_line_and_status_2(self):
        a = self.write("a.h5", x=self.values)
        for arguments in [], [a], [a, a, a], [a, a, "--nonsense"], [a, a, "--json="], [a, a, f"--json={a}"], \
                [a, a, f"--json={self.path}/none/r.json"]:
            result = run("compare", *arguments)
            self.assertEqual((result.returncode, result.stdout), (2, ""), arguments)
            self.assertRegex(result.stderr, r"\Aattest: [^\n]+\n\Z")
        text = run("compare", "--help").stdout
        for status in "0  equal", "1  different", "2  usage", "3  invalid", "4  inconclusive", "5  internal":
            self.assertIn(status, text)

    def test_nothing_is_modified(self):
        a, b = self.write("a.h5", x=self.values), self.write("b.h5", x=tensors(2))
        before = Path(a).read_bytes(), Path(b).read_bytes()
        run("compare", a, b)
        self.assertEqual((Path(a).read_bytes(), Path(b).read_bytes()), before)
        self.assertEqual(sorted(p.name for p in self.path.iterdir()), ["a.h5", "b.h5"])

    def test_a_report_file_comes_beside_the_table(self):
        a = self.write("a.h5", x=self.values)
        result = run("compare", a, a, f"--json={self.path}/r.json")
        self.assertIn("1 case: 1 equal\n", result.stdout)
        self.assertEqual(json.loads((self.path / "r.json").read_text())["verdict"], "equal")

    def test_lines_fit_80_columns(self):
        changed = self.values["out/o"].copy()
        changed[:, 1, 4:8] = 3
        a = self.write("a.h5", text_encoder=self.values)
        b = self.write("b.h5", text_encoder=self.values | {"out/o": changed})
        for line in run("compare", "a.h5", "b.h5", cwd=self.path).stdout.splitlines():
            self.assertLessEqual(len(line), 80, line)

    def test_a_closed_pipe_is_no_crash(self):
        a = self.write("a.h5", x=self.values)
        for options in [], ["--json"]:
            reader, writer = os.pipe()
            os.close(reader)
            result = subprocess.run([ATTEST, "compare", a, a, *options], stdout=writer, stderr=subprocess.PIPE,
                                    timeout=300)
            os.close(writer)
            self.assertEqual((result.returncode, result.stderr), (2, b""))

    # Documentation

    def test_every_key_of_the_json_report_is_documented(self):
        documented = set(re.findall(r"`(\w+)`", (ROOT / "docs/compare.md").read_text()))
        a, b = self.write("a.h5", x=self.values, y=self.values), self.write("b.h5", x=tensors(2))

        def check(value):
            if isinstance(value, dict):
                self.assertLessEqual(value.keys(), documented)
                value = list(value.values())
            if isinstance(value, list):
                for entry in value:
                    check(entry)
        check(self.report(a, b, status=3))

    def test_the_example_of_the_documentation_prints_what_it_says(self):
        page = (ROOT / "docs/compare.md").read_text()
        script, shown = re.search(r"```python\n(.*?)```", page, re.S)[1], re.findall(r"```\n(\$.*?)```", page, re.S)
        subprocess.run([sys.executable, "-c", script], cwd=self.path, check=True, timeout=300)
        self.assertTrue(shown)
        for session in shown:
            command, _, expected = session.partition("\n")
            self.assertEqual(run(*command.split()[2:], cwd=self.path).stdout, expected)


if __name__ == "__main__":
    unittest.main()
