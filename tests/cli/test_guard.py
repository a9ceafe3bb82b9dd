# `attest verify --baseline`, `attest baseline` and `attest verify --rows`. Usage: test_guard.py PATH_TO_ATTEST
import json
import os
import re
import subprocess
import unittest
from pathlib import Path

import h5py
import numpy as np

import make_dump
from make_dump import ProgramTest, attention, attest_dump, case_of, rounded, stored

import attest_inputs


def worse(a):
    """The outputs of the problem with weights that were rounded to its type: within the contract."""
    group = a.q.shape[1] // a.k.shape[1]
    s = a.spec["scale"] * np.einsum("bhid,bhjd->bhij", a.q, np.repeat(a.k, group, 1))
    p = np.exp(s - s.max(-1, keepdims=True))
    o = np.einsum("bhij,bhje->bhie", rounded(p, a.dtype), np.repeat(a.v, group, 1)) / p.sum(-1, keepdims=True)
    return dict(o=stored(o, a.dtype), lse=stored(a.lse, "float32"))


def with_gradients(a, laid_out=lambda x: x):
    """Inputs and outputs of an honest dump of the problem and of its backward pass."""
    do = rounded(np.random.default_rng(2).standard_normal(a.o.shape), a.dtype)
    group, scale = a.q.shape[1] // a.k.shape[1], a.spec["scale"]
    k, v = (np.repeat(x, group, 1) for x in (a.k, a.v))
    p = np.exp(scale * np.einsum("bhid,bhjd->bhij", a.q, k) - a.lse[..., None])
    ds = p * (np.einsum("bhie,bhje->bhij", do, v) - np.sum(do * a.o, -1)[..., None])
    dk, dv = (np.einsum("bgnij,bgnid->bgjd", *(x.reshape(len(x), -1, group, *x.shape[2:]) for x in pair))
              for pair in ((scale * ds, a.q), (p, do)))
    def tensors(**values):
        return {name: stored(laid_out(x), a.dtype) for name, x in values.items()}
    return dict(inputs=tensors(q=a.q, k=a.k, v=a.v, do=do),
                outputs=tensors(o=a.o, dk=dk, dv=dv) | dict(lse=stored(a.lse, "float32")))


class Baseline(ProgramTest):
    def setUp(self):
        super().setUp()
        self.baseline = self.path("baseline.json")
        self.a = attention("float16", B=1, Sq=200, Sk=300, D=32, E=32)

    def dump(self, name="dump.h5", **outputs_of):
        """A dump with a case for every name."""
        with attest_dump.File(self.path(name)) as file:
            for case, outputs in outputs_of.items():
                file.case(case, **case_of(self.a, **({"outputs": outputs} if outputs else {})))
        return self.path(name)

    def check_one_complaint(self, result, status, *words):
        self.assertEqual(result.returncode, status, result.stderr)
        self.assertRegex(result.stderr, r"\Aattest: [^\n]+\n\Z")
        for word in words:
            self.assertIn(word, result.stderr)

    def test_error_that_grew_inside_the_bound_fails(self):
        self.assertEqual(self.run_program("baseline", self.baseline, self.dump(case=None)).returncode, 0)
        self.assertEqual(self.run_program("verify", self.dump(case=None), "--baseline", self.baseline).returncode, 0)
        self.assertEqual(self.run_program("verify", self.dump(case=worse(self.a))).returncode, 0)
        result = self.run_program("verify", self.path(), f"--baseline={self.baseline}",
                                  f"--junit={self.path('j.xml')}", f"--json={self.path('r.json')}")
        self.assertEqual(result.returncode, 1, result.stdout)
        self.assertRegex(result.stdout, r"o: error grew: spread \S+, \S+ in the baseline; \S+ is the limit\n")
        with open(self.path("r.json")) as report:
            growth = json.load(report)["cases"][0]["outputs"][0]["growth"]
        self.assertEqual(growth[0]["name"], "spread")
        self.assertGreater(growth[0]["value"], growth[0]["limit"])
        self.assertGreater(growth[0]["limit"], growth[0]["before"])
        with open(self.path("j.xml")) as junit:
            self.assertIn('message="o: error grew: spread', junit.read())

    def test_only_what_passes_is_recorded(self):
        bad = dict(o=np.zeros_like(stored(self.a.o, "float16")))
        result = self.run_program("baseline", self.baseline, self.dump(case=None, bad=bad))
        self.check_one_complaint(result, 1, "was not written")
        self.assertEqual(self.run_program("verify", self.path(), "--baseline", self.baseline).returncode, 3)
        self.assertEqual(self.run_program("baseline", self.baseline, self.path(), "--case", "case").returncode, 0)
        before = Path(self.baseline).read_text()
        self.check_one_complaint(self.run_program("baseline", self.baseline, self.path()), 1, "was not written")
        self.assertEqual(Path(self.baseline).read_text(), before)

    def test_new_and_missing_cases_are_reported(self):
        self.run_program("baseline", self.baseline, self.dump(one=None, two=None))
        result = self.run_program("verify", self.dump(two=None, three=None), "--baseline", self.baseline)
        self.assertEqual(result.returncode, 4)
        self.assertRegex(result.stdout, r"  inconclusive  one\n      reason: in the baseline, but not in the dump\n")
        self.assertRegex(result.stdout, r"three .*\n      remark: not in the baseline\n")
        chosen = self.run_program("verify", self.path(), "--baseline", self.baseline, "--case", "two")
        self.assertEqual(chosen.returncode, 0, chosen.stdout)
        self.run_program("baseline", self.baseline, self.path())
        with open(self.baseline) as report:
            self.assertEqual([c["name"] for c in json.load(report)["cases"]], ["one", "three", "two"])

    def test_other_inputs_are_not_compared(self):
        self.run_program("baseline", self.baseline, self.dump(case=None))
        self.a = attention("float16", B=1, seed=2, Sq=200, Sk=300, D=32, E=32)
        result = self.run_program("verify", self.dump(case=None), "--baseline", self.baseline)
        self.assertEqual(result.returncode, 4)
        self.assertIn("reason: other inputs, spec or rows than in the baseline", result.stdout)

    def test_what_is_no_baseline_is_refused_before_the_work_and_never_replaced(self):
        file = self.dump(case=None)
        self.run_program("baseline", self.baseline, file)
        good = Path(self.baseline).read_text()
        other_version, no_profile = good.replace('"attest": "', '"attest": "9.'), good.replace('"profile"', '"x"')
        for text in "", "{}", good[:-20], other_version, no_profile:
            with open(self.baseline, "w") as damaged:
                damaged.write(text)
            for command in ["verify", file, "--baseline", self.baseline], ["baseline", self.baseline, file]:
                result = self.run_program(*command)
                self.check_one_complaint(result, 3, self.baseline)
                self.assertEqual(result.stdout, "")
                self.assertEqual(Path(self.baseline).read_text(), text)
        dump = Path(file).read_bytes()
        self.check_one_complaint(self.run_program("baseline", file, file), 3, file)
        self.assertEqual(Path(file).read_bytes(), dump)
        with open(self.baseline, "w") as report:
            report.write(good)
        for arguments in [f"--json={self.baseline}"], [f"--junit={self.baseline}"]:
            self.check_one_complaint(
                self.run_program("verify", file, "--baseline", self.baseline, *arguments), 2, "overwrite")
        self.check_one_complaint(self.run_program("verify", file, "--baseline="), 2)
        self.check_one_complaint(self.run_program("baseline", self.path("no/such.json"), file), 2)


class Rows(ProgramTest):
    def test_the_report_says_how_many_rows_and_what_they_are_worth(self):
        file = self.write(**case_of(attention(Sq=400)))
        result = self.run_program("verify", file, "--rows", "5", "--seed=7")
        self.assertEqual(result.returncode, 0, result.stdout)
        self.assertRegex(result.stdout, r"\n      judged: 5 of 400 rows in each of 8 heads, seed 7; they meet a fault "
                                        r"of 1 % of all rows with probability \S+ %, .* one tile of 64 rows ")
        reports = [json.loads(self.run_program("verify", file, "--json", "--rows=5", "--seed", s).stdout)["cases"][0]
                   for s in "778"]
        self.assertEqual(reports[0], reports[1])
        self.assertNotEqual(reports[0]["inputs"], reports[2]["inputs"])
        self.assertEqual(reports[0]["outputs"][0]["elements"], 5 * 8 * 16)
        for everything in ["--rows=all"], ["--rows=400"], []:
            report = json.loads(self.run_program("verify", file, "--json", *everything).stdout)["cases"][0]
            self.assertEqual((report["judged"], report["outputs"][0]["elements"]), ("", 400 * 8 * 16))
        for wrong in "0", "-1", "many", "3.5", "":
            result = self.run_program("verify", file, f"--rows={wrong}")
            self.assertEqual((result.returncode, result.stdout), (2, ""))

    def test_every_layout_gives_the_same_rows(self):
        a = attention(Sq=40, Hq=4, Hkv=2)
        ratios = set()
        for layout, order in dict(bhsd="bhsd", bshd="bshd", sbhd="sbhd", bsm="bshd", sbm="sbhd").items():
            def laid_out(x):
                x = np.einsum(f"bhsd->{order}", x)
                return x.reshape(*x.shape[:2], -1) if layout.endswith("m") else x
            spec = dict(a.spec, layout=layout) | (dict(heads_q=4, heads_kv=2) if layout.endswith("m") else {})
            file = self.write(op="attention", spec=spec, **with_gradients(a, laid_out))
            for rows in 2, 7:
                case = json.loads(self.run_program("verify", file, "--json", f"--rows={rows}").stdout)["cases"][0]
                self.assertEqual(case["verdict"], "pass", (layout, case))
                if rows == 7:
                    ratios.add(tuple(round(o["worst_ratio"], 6) for o in case["outputs"]))
        self.assertEqual(len(ratios), 1, ratios)

    def test_the_report_is_that_of_one_thread_with_any_number(self):
        a = attention(B=3, Sq=120, Sk=150)
        a.o[1, 2:, 60:] += 0.05  # the diagnosis is that of the first head with a failure
        file = self.write(**case_of(a, **with_gradients(a)))
        reports = set()
        for threads in "1", "2", "3", "9":
            result = subprocess.run([self.program, "verify", file, "--json", "--rows=16"], capture_output=True,
                                    text=True, timeout=make_dump.TIMEOUT,
                                    env=dict(os.environ, OMP_NUM_THREADS=threads, OMP_WAIT_POLICY="passive"))
            self.assertEqual(result.returncode, 1, result.stderr)
            reports.add(re.sub(r'"seconds": [^,]*,', "", result.stdout))
        self.assertEqual(len(reports), 1, reports)

    def test_of_several_malformed_heads_the_first_is_named(self):
        a = attention(B=3, Sq=40)
        k = stored(a.k, "float16")
        k[1:, 1, 3, 5] = np.nan
        file = self.write(**case_of(a, inputs=dict(q=stored(a.q, "float16"), k=k, v=stored(a.v, "float16"))))
        for _ in range(5):
            result = self.run_program("verify", file, "--rows=3")
            self.assertEqual(result.returncode, 3)
            self.assertRegex(result.stderr, r"\Aattest: [^\n]*/case/in/k holds NaN at \[0, 0, 3, 5\]; [^\n]*\n\Z")

    def test_described_inputs_are_made_a_head_at_a_time(self):
        heads, tokens, width = 64, 10000, 64
        made = self.run_program("inputs", "attention", "--recipe", "constant_v", "--shape",
                                f"Hq={heads},Hkv=2,Sq={tokens}", "--set", "causal=top_left", "--describe", "-o",
                                self.path())
        self.assertEqual(made.returncode, 0, made.stderr)
        v = attest_inputs.Stream(1, "v")
        with h5py.File(self.path(), "r+") as file:
            o = file.create_dataset("constant_v/out/o", (1, heads, tokens, width), np.float16)
            for h in range(heads):
                o[0, h] = v.normals(h // (heads // 2) * tokens * width, width).astype(np.float16)
        self.limit_memory(320 << 20)  # q alone takes 330 MB as doubles
        result = self.run_program("verify", self.path(), "--rows=2")
        self.assertEqual(result.returncode, 0, result.stdout + result.stderr)

    def test_keys_take_memory_for_blocks_of_rows(self):
        heads, tokens, width = 8, 20000, 64
        values = np.random.default_rng(1).standard_normal((2, 1, 1, tokens, width), np.float32).astype(np.float16)
        zeros = np.zeros((1, 1, tokens, width), np.float16)  # of k, so that all weights of a row are alike
        dv = np.broadcast_to(heads * values[1].astype(np.float64).mean(2, keepdims=True), zeros.shape)
        with h5py.File(self.path(), "w") as file:
            file.attrs["attest_format"] = 1
            file.attrs["op"] = "attention"
            file.create_group("spec").attrs.update(causal="none", scale=0.125)
            for name, x in {"in/q": values[0], "in/do": values[1], "out/o": zeros}.items():
                file[name] = np.broadcast_to(x, (1, heads, tokens, width))
            for name, x in {"in/k": zeros, "in/v": zeros, "out/dk": zeros, "out/dv": dv.astype(np.float16)}.items():
                file[name] = x
            file["out/lse"] = np.full((1, heads, tokens), np.log(tokens), np.float32)
        self.limit_memory(192 << 20)  # q, do and o of the group take 82 MB each as doubles
        result = self.run_program("verify", self.path(), "--rows=2")
        self.assertRegex(result.stdout, r" of dk and dv 2 of 20000 keys")
        self.assertRegex(result.stdout, r"dk 0\S*  dv 0\.")

    def test_memory_is_that_of_one_head(self):
        heads, tokens, width = 16, 20000, 64
        with h5py.File(self.path(), "w") as file:
            file.attrs["attest_format"] = 1
            file.attrs["op"] = "attention"
            file.create_group("spec").attrs.update(causal="top_left", scale=0.125)
            values = np.random.default_rng(1).standard_normal((tokens, width), np.float32).astype(np.float16)
            for name, count in dict(q=heads, k=2, v=2).items():
                data = file.create_dataset(f"in/{name}", (1, count, tokens, width), np.float16)
                for h in range(count):
                    data[0, h] = np.float16(0.5) if name == "v" else values
            file["out/o"] = np.full((1, heads, tokens, width), 0.5, np.float16)
        self.limit_memory(320 << 20)  # q and o take 41 MB each, four times that as doubles
        result = self.run_program("verify", self.path(), "--rows=2")
        self.assertEqual(result.returncode, 0, result.stdout + result.stderr)
        self.assertIn("o 0.", result.stdout)


if __name__ == "__main__":
    make_dump.main()
