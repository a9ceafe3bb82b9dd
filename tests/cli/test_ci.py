# What docs/ci has to copy works, as far as that can be seen here. Usage: test_ci.py PATH_TO_ATTEST
import importlib.util
import os
import re
import subprocess
import sys
import unittest
import xml.etree.ElementTree as ET
from pathlib import Path

import make_dump
from make_dump import ProgramTest, attention, case_of

ROOT = Path(__file__).resolve().parents[2]


def has(module):
    return importlib.util.find_spec(module) is not None


class ContinuousIntegration(ProgramTest):
    @unittest.skipUnless(has("pytest"), "pytest is not installed")
    def test_the_pytest_example_judges_numpy_and_skips_torch_where_it_is_missing(self):
        environment = dict(os.environ, ATTEST=self.program, PYTHONPATH=str(ROOT / "python"))
        result = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junit-xml={self.path('pytest.xml')}",
             f"--basetemp={self.path('pytest')}", str(ROOT / "docs/ci/test_attention.py")],
            capture_output=True, text=True, env=environment, cwd=self.folder)
        self.assertEqual(result.returncode, 0, result.stdout)
        suite = ET.parse(self.path("pytest.xml")).getroot()[0]
        self.assertEqual((suite.get("tests"), suite.get("skipped")), ("6", "0" if has("torch") else "3"))

    @unittest.skipUnless(has("pytest"), "pytest is not installed")
    def test_the_pytest_example_fails_for_a_wrong_kernel(self):
        code = (ROOT / "docs/ci/test_attention.py").read_text()
        wrong = code.replace("np.float32(scale)", "np.float32(1.01 * scale)")
        self.assertNotEqual(wrong, code)
        Path(self.path("test_wrong.py")).write_text(wrong)
        environment = dict(os.environ, ATTEST=self.program, PYTHONPATH=str(ROOT / "python"))
        result = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "numpy_kernel", "test_wrong.py"],
            capture_output=True, text=True, env=environment, cwd=self.folder)
        self.assertEqual(result.returncode, 1, result.stdout)
        self.assertIn("attest verify: exit status 1", result.stdout)

    @unittest.skipUnless(has("yaml"), "PyYAML is not installed")
    def test_the_workflow_judges_as_it_says(self):
        import yaml

        workflow = yaml.safe_load((ROOT / "docs/ci/github_actions.yml").read_text())
        steps = {step.get("name"): step for step in workflow["jobs"]["attest"]["steps"]}
        for step in steps.values():
            if "run" in step:
                self.assertEqual(subprocess.run(["bash", "-n", "-c", step["run"]]).returncode, 0, step["run"])
        for package in re.findall(r"[\w+]+(?:-\w+)+", steps["Build attest"]["run"].split("cmake -S")[0]):
            if package not in ("apt-get", "no-install-recommends"):
                self.assertIn(package, (ROOT / "cmake/setup.sh").read_text())

        os.makedirs(self.path("dumps"))
        os.makedirs(self.path("tests"))
        os.makedirs(self.path("attest/build"))
        os.symlink(self.program, self.path("attest/build/attest"))
        self.write("dumps/kernel.h5", **case_of(attention()))
        self.run_program("baseline", self.path("tests/attest_baseline.json"), self.path("dumps/kernel.h5"))
        judge = ["bash", "-e", "-c", steps["Judge them"]["run"]]
        result = subprocess.run(judge, cwd=self.folder, capture_output=True, text=True)
        self.assertEqual(result.returncode, 0, result.stdout + result.stderr)
        self.write("dumps/kernel.h5", **case_of(attention(), spec=dict(causal="top_left", scale=0.25)))
        result = subprocess.run(judge, cwd=self.folder, capture_output=True, text=True)
        self.assertEqual(result.returncode, 1, result.stdout + result.stderr)
        for report in steps["Keep the reports"]["with"]["path"].split():
            self.assertTrue(os.path.exists(self.path(report)), report)
        self.assertIsNotNone(ET.parse(self.path("attest.xml")).getroot().find(".//failure"))


if __name__ == "__main__":
    make_dump.main()
