# `attest verify --fit`. Usage: test_fit.py PATH_TO_ATTEST
import json
import os
import pty
import subprocess

import h5py
import numpy as np

import make_dump
from make_dump import ProgramTest, attention, attest_dump, case_of, rounded, stored


def with_weights_in(dtype, a):
    """Outputs of the problem by a kernel that stores its weights in that type."""
    group = a.q.shape[1] // a.k.shape[1]
    s = a.spec["scale"] * np.einsum("bhid,bhjd->bhij", a.q, np.repeat(a.k, group, 1))
    p = np.exp(s - s.max(-1, keepdims=True))
    o = np.einsum("bhij,bhje->bhie", rounded(p, dtype), np.repeat(a.v, group, 1)) / p.sum(-1, keepdims=True)
    return dict(o=stored(o, a.dtype), lse=stored(a.lse, "float32"))


ROUGH = "fit: passes with p_dtype bfloat16 instead of float16; rms of error / sigma: o "


class Fit(ProgramTest):
    def setUp(self):
        super().setUp()
        self.a = attention("float16", B=1, Hq=2, Hkv=1, Sq=40, Sk=60)
        with attest_dump.File(self.path()) as file:
            for name, dtype in dict(fine="float16", rough="bfloat16").items():
                file.case(name, **case_of(self.a, outputs=with_weights_in(dtype, self.a)))
            file.case("wrong", **case_of(self.a, outputs=dict(o=np.full_like(stored(self.a.o, "float16"), np.nan))))

    def fits(self, *arguments):
        """The exit status, and the JSON cases by name."""
        result = self.run_program("verify", self.path(), "--json", "--fit", *arguments)
        self.assertEqual(result.stderr, "")
        return result.returncode, {case["name"]: case for case in json.loads(result.stdout)["cases"]}

    def test_it_names_what_a_case_satisfies_and_changes_no_verdict(self):
        status, cases = self.fits()
        plain_status, plain = self.report(self.path())
        self.assertEqual(status, plain_status)
        for case in plain["cases"]:
            with_fit = dict(cases[case["name"]])
            fit = with_fit.pop("fit")
            self.assertEqual(with_fit, case)
            self.assertEqual(fit["verdict"], case["verdict"])
            self.assertEqual(fit["contract"], dict(
                p_dtype="float16", qk_accumulate="float32", pv_accumulate="float32", softmax_dtype="float32",
                matrix_unit="ampere", row_sum="computed", scores_dtype="float32", split_dtype="float32"))
            self.assertTrue(0 < fit["judged"] <= 30 and fit["is_minimal"])
        fine, rough, wrong = (cases[name]["fit"] for name in ("fine", "rough", "wrong"))
        self.assertEqual((fine["weaker"], fine["too_weak"]), ([], []))
        self.assertEqual(rough["weaker"][0]["changes"], {"p_dtype": "bfloat16"})
        for contract in rough["weaker"]:
            self.assertTrue(0 < max(o["worst_ratio"] for o in contract["outputs"]) <= 1, contract)
        self.assertEqual((wrong["weaker"], wrong["stricter"]), ([], []))

    def test_a_fit_is_a_contract_that_the_case_passes_under(self):
        rough = self.fits("--case", "rough")[1]["rough"]["fit"]
        for contract in rough["weaker"]:
            with h5py.File(self.path(), "r+") as dump:
                group = dump["rough"].require_group("contract")
                group.attrs.update(contract["changes"])
            result = self.run_program("verify", self.path(), "--case=rough", "--json")
            self.assertEqual(result.returncode, 0)
            outputs = json.loads(result.stdout)["cases"][0]["outputs"]
            for found, shown in zip(outputs, contract["outputs"], strict=True):
                self.assertEqual({key: found[key] for key in shown}, shown)
            with h5py.File(self.path(), "r+") as dump:
                del dump["rough/contract"]

    def test_the_table_says_it_and_warns(self):
        result = self.run_program("verify", self.path(), "--fit")
        self.assertEqual(result.returncode, 1)
        self.assertIn("\n      " + ROUGH, result.stdout)
        self.assertIn("\n      fit: no weaker contract that still rejects wrong answers\n", result.stdout)
        self.assertIn("\nfit: no diagnosis", result.stdout)
        result = self.run_program("verify", self.path(), "--fit", "--case=fine")
        self.assertEqual(result.returncode, 0)
        self.assertIn("\n      fit: satisfies its contract", result.stdout)
        self.assertNotIn("no diagnosis", result.stdout)
        self.assertNotIn("fit:", self.run_program("verify", self.path()).stdout)

    def test_it_fits_a_terminal(self):
        leader, terminal = pty.openpty()
        run = subprocess.Popen([self.program, "verify", self.path(), "--fit"], stdout=terminal,
                               stderr=subprocess.DEVNULL, env=dict(os.environ, COLUMNS="80"))
        os.close(terminal)
        text = b""
        try:
            while chunk := os.read(leader, 65536):
                text += chunk
        except OSError:  # the other end has been closed
            pass
        run.wait()
        os.close(leader)
        lines = text.decode().splitlines()
        self.assertTrue(any("fit: " in line for line in lines), lines)
        for line in lines:
            if "fit" in line:
                self.assertLessEqual(len(line), 80, line)

    def test_rows_are_fitted_too(self):
        _, cases = self.fits("--case=rough", "--rows=20")
        self.assertIn("judged: 20 of 40 rows", cases["rough"]["judged"])
        self.assertIn({"p_dtype": "bfloat16"}, [c["changes"] for c in cases["rough"]["fit"]["weaker"]])

    def test_a_baseline_takes_no_part_in_it(self):
        baseline = self.path("baseline.json")
        self.assertEqual(self.run_program("baseline", baseline, self.path(), "--case=fine").returncode, 0)
        with attest_dump.File(self.path("worse.h5")) as file:
            file.case("fine", **case_of(self.a, outputs=with_weights_in("float16", self.a)))
        os.replace(self.path("worse.h5"), self.path())
        status, cases = self.fits("--baseline", baseline)
        self.assertEqual((status, cases["fine"]["fit"]["verdict"]), (0, "pass"))

    def test_files_have_it(self):
        for option in "--junit", "--html":
            self.run_program("verify", self.path(), "--fit", option, self.path("report"))
            with open(self.path("report")) as report:
                self.assertIn(ROUGH, report.read(), option)

    def test_a_case_that_is_not_judged_has_none(self):
        with h5py.File(self.path(), "r+") as dump:
            dump["rough/spec"].attrs["causal"] = "diagonal"
        result = self.run_program("verify", self.path(), "--json", "--fit", "--case=rough")
        self.assertEqual(result.returncode, 3)
        self.assertNotIn("fit", json.loads(result.stdout)["cases"][0])

    def test_other_operations(self):
        x = rounded(np.random.default_rng(1).standard_normal(500), "float16")
        wide, narrow = 1 + np.exp(-x), rounded(1 + rounded(np.exp(-x), "float16"), "float16")
        with attest_dump.File(self.path()) as file:
            for name, divisor in dict(float32=wide, float16=narrow).items():
                file.case(name, op="silu", inputs=dict(x=stored(x, "float16")),
                          outputs=dict(y=stored(x / divisor, "float16")))
        _, cases = self.fits()
        self.assertEqual(cases["float32"]["verdict"], "pass")
        self.assertEqual(cases["float16"]["verdict"], "fail")
        self.assertEqual([c["changes"] for c in cases["float16"]["fit"]["weaker"]], [{"compute_dtype": "float16"}])


if __name__ == "__main__":
    make_dump.main()
