# The JUnit report, and how much `attest verify` prints. Usage: test_junit.py PATH_TO_ATTEST [unittest options]
import json
import re
import unittest
import xml.etree.ElementTree as ET

import numpy as np

import make_dump
from make_dump import ProgramTest, attention, attest_dump, case_of

COUNTS = {"tests": int, "failures": int, "errors": int, "skipped": int, "time": float}
# What may stand in an element: attributes and their types, elements. All attributes are required.
SCHEMA = {
    "testsuites": ({"name": str, **COUNTS}, {"testsuite"}),
    "testsuite": ({"name": str, **COUNTS}, {"testcase"}),
    "testcase": ({"name": str, "classname": str, "file": str, "time": float}, {"failure", "error", "system-out"}),
    "failure": ({"type": str, "message": str}, set()),
    "error": ({"type": str, "message": str}, set()),
    "system-out": ({}, set()),
}


class JUnit(ProgramTest):
    def dump(self, name="dump.h5", **outputs_of):
        """A dump with a case for every name, from right outputs to those that the function makes of them."""
        a = attention()
        with attest_dump.File(self.path(name)) as file:
            for case, change in outputs_of.items():
                arguments = case_of(a)
                change(arguments)
                file.case(case, **arguments)
        return self.path(name)

    @staticmethod
    def right(arguments):
        pass

    @staticmethod
    def wrong(arguments):
        arguments["outputs"]["o"][0, 1, 7, 15] = np.nan

    @staticmethod
    def weak(arguments):  # the values all but cancel: zeros are as good an answer
        q, v = arguments["inputs"]["q"], arguments["inputs"]["v"]
        q[:] = 0
        v[:, :, 1::2] = np.nextafter(-v[:, :, :12:2], np.float16(0))
        v[:, :, -1] = 0
        o = arguments["outputs"]["o"]
        mean = v.astype(np.float64).mean(axis=2, keepdims=True)  # all weights are equal
        arguments["outputs"] = dict(o=np.broadcast_to(mean.repeat(o.shape[1] // v.shape[1], axis=1), o.shape).astype(o.dtype))

    @staticmethod
    def unknown(arguments):
        arguments["op"] = "atention"

    def check_schema(self, element):
        attributes, children = SCHEMA[element.tag]
        self.assertEqual(element.attrib.keys(), attributes.keys())
        for name, kind in attributes.items():
            kind(element.attrib[name])
        if element.tag in ("testsuites", "testsuite"):
            cases = list(element.iter("testcase"))
            self.assertEqual(int(element.get("tests")), len(cases))
            self.assertEqual(int(element.get("failures")), sum(c.find("failure") is not None for c in cases))
            self.assertEqual(int(element.get("errors")), sum(c.find("error") is not None for c in cases))
        for child in element:
            self.assertIn(child.tag, children)
            self.check_schema(child)

    def junit(self, *files):
        result = self.run_program("verify", *files, "--junit", self.path("junit.xml"))
        root = ET.parse(self.path("junit.xml")).getroot()
        self.assertEqual(root.tag, "testsuites")
        self.check_schema(root)
        return result, root

    def test_every_verdict_has_its_element(self):
        first = self.dump(right=self.right, wrong=self.wrong, weak=self.weak, unknown=self.unknown)
        second = self.dump("second.h5", right=self.right)
        missing = self.path("missing.h5")
        result, root = self.junit(first, second, missing)
        self.assertEqual(result.returncode, 3)
        self.assertEqual([suite.get("name") for suite in root], [first, second, missing])
        found = {}
        for case in root[0]:
            problems = case.findall("failure") + case.findall("error")
            found[case.get("name")] = [(p.tag, p.get("type")) for p in problems]
        self.assertEqual(found, {"right": [], "wrong": [("failure", "fail")], "weak": [("failure", "inconclusive")],
                                 "unknown": [("error", "invalid")]})
        wrong = root.find(".//testcase[@name='wrong']")
        self.assertEqual(wrong.get("file"), first)
        self.assertNotIn(".", wrong.get("classname").removeprefix("attest."))
        self.assertRegex(wrong.find("failure").get("message"), r"\Ao: 1 of \d+ elements beyond the bound")
        self.assertIn("worst at [0,1,7,15]: got nan", wrong.find("failure").text)
        self.assertIn("contract: p float16", wrong.find("system-out").text)
        self.assertIn("reason: zeros in place of out/o", root.find(".//testcase[@name='weak']/failure").text)
        self.assertIn("atention", root.find(".//testcase[@name='unknown']/error").get("message"))
        self.assertIn("missing.h5", root[2][0].find("error").get("message"))

    def test_names_of_any_bytes_give_well_formed_xml(self):
        for name in "a&b<c>\"d'.h5", "tab\tand\nline.h5", "\x01\x1b[31m.h5", "\udcff\udcfe.h5", "ünï￿.h5", "]]>.h5":
            with self.subTest(name):
                _, root = self.junit(self.dump(name, wrong=self.wrong))
                shown = root[0].get("name")
                self.assertTrue(shown.endswith(".h5"), shown)
                if name.isprintable() and "￿" not in name:
                    self.assertEqual(shown, self.path(name))

    def test_it_comes_beside_the_table_and_json_and_is_whole_or_not_there(self):
        file = self.dump(wrong=self.wrong)
        report, junit = self.path("r.json"), self.path("j.xml")
        result = self.run_program("verify", file, f"--json={report}", f"--junit={junit}")
        self.assertIn("1 case: 1 fail\n", result.stdout)
        with open(report) as text:
            self.assertEqual(json.load(text)["verdict"], "fail")
        self.check_schema(ET.parse(junit).getroot())
        for bad in [f"--junit={file}"], [f"--junit={self.folder}"], ["--junit=/no/such/folder/j.xml"], ["--junit="], \
                [f"--junit={junit}", f"--json={junit}"], ["--junit=/dev/full"]:
            with self.subTest(bad):
                result = self.run_program("verify", file, *bad)
                self.assertEqual(result.returncode, 2, result.stderr)
                self.assertRegex(result.stderr, r"\Aattest: [^\n]+\n\Z")

    # How much is printed

    def test_quiet_shows_what_did_not_pass_and_the_counts(self):
        good = self.dump("good.h5", right=self.right, too=self.right)
        bad = self.dump("bad.h5", right=self.right, wrong=self.wrong)
        for flag in "-q", "--quiet":
            self.assertEqual(self.run_program("verify", good, flag).stdout, "2 cases: 2 pass\n")
        result = self.run_program("verify", good, bad, "-q")
        self.assertEqual(result.returncode, 1)
        self.assertTrue(result.stdout.startswith(f"{bad}\n  fail  wrong "), result.stdout)
        self.assertNotIn("right", result.stdout)
        self.assertTrue(result.stdout.endswith("\n4 cases: 3 pass, 1 fail\n"), result.stdout)
        self.assertEqual(len(json.loads(self.run_program("verify", good, "-q", "--json").stdout)["cases"]), 2)

    def test_verbose_shows_the_evidence_of_a_pass(self):
        file = self.dump(right=self.right)
        for flag in "-v", "--verbose":
            text = self.run_program("verify", file, flag).stdout
            for line in (r"      o: float16 \[2,4,9,16\], 1152 elements, 0 beyond the bound\n",
                         r"         worst at \[[\d,]+\]: got \S+, want \S+; \|error\| \S+, bound \S+\n",
                         r"         \|error\| / bound \S+, / rigorous bound \S+; rms of error / sigma \S+\n",
                         r"         spread \S+ \(limit \S+\), gain \S+ \(limit \S+\)\n",
                         r"      lse: float32 \[2,4,9\], 72 elements", r"      contract: p float16, "):
                self.assertRegex(text, line)
        self.assertNotRegex(self.run_program("verify", file).stdout, "worst at")
        self.assertEqual(self.run_program("verify", file, "-q", "-v").returncode, 2)
        self.assertTrue(re.search(r"-q.*-v", self.run_program("verify", "--help").stdout, re.DOTALL))


if __name__ == "__main__":
    make_dump.main()
