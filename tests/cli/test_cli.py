# Tests of the program from outside: exit statuses, options, what goes to which stream, terminals.
# Usage: test_cli.py PATH_TO_ATTEST [unittest options]
import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import sys
import tempfile
import termios
import unittest
from pathlib import Path

import h5py
import numpy as np

ATTEST = str(Path(sys.argv.pop(1)).resolve()) if len(sys.argv) > 1 else "attest"
ROOT = Path(__file__).resolve().parents[2]


def write_case(group, fault=None):
    """A small attention whose output is right, but for the fault: fail, inconclusive or invalid."""
    random = np.random.default_rng(7)
    q, k, v = (random.standard_normal((1, 2, 8, 16)).astype(np.float32) for _ in range(3))
    if fault == "inconclusive":  # the values all but cancel: zeros are as good an answer
        q[:] = 0
        v[:, :, 1::2] = np.nextafter(-v[:, :, ::2], np.float32(0))
    scores = np.einsum("bhid,bhjd->bhij", q.astype(float), k.astype(float)) / 4
    p = np.exp(scores - scores.max(-1, keepdims=True))
    o = (p / p.sum(-1, keepdims=True) @ v.astype(float)).astype(np.float32)
    if fault == "fail":
        o[0, 1, 7, 15] = np.nan
    group.attrs["op"] = "atention" if fault == "invalid" else "attention"
    group.create_group("spec").attrs.update({"causal": "none", "scale": 0.25})
    group.create_group("about").attrs["device"] = "none"
    for name, values in {"in/q": q, "in/k": k, "in/v": v, "out/o": o}.items():
        group[name] = values


def write_dump(path, cases):
    with h5py.File(path, "w") as file:
        file.attrs["attest_format"] = 1
        for name, fault in cases.items():
            write_case(file.create_group(name), fault)
    return str(path)


def run(*arguments, **options):
    return subprocess.run([ATTEST, *map(str, arguments)], capture_output=True, text=True, timeout=300, **options)


def run_on_terminal(*arguments, columns=80, **environment):
    """What the program writes to a terminal of so many columns, carriage returns removed."""
    controller, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    variables = {k: v for k, v in os.environ.items() if k != "NO_COLOR"} | {"TERM": "xterm"} | environment
    process = subprocess.Popen([ATTEST, *map(str, arguments)], stdout=terminal, stderr=subprocess.DEVNULL,
                               stdin=subprocess.DEVNULL, env=variables)
    os.close(terminal)
    written = b""
    while True:
        try:
            part = os.read(controller, 65536)
        except OSError:  # how Linux tells that the other end is closed
            break
        if not part:
            break
        written += part
    os.close(controller)
    process.wait(timeout=300)
    return written.decode().replace("\r", "")


class CommandLine(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        cls.path = path = Path(cls.folder.name)
        cls.good = write_dump(path / "good.h5", {"fp32_first": None, "fp32_second": None, "other": None})
        cls.bad = write_dump(path / "bad.h5", {"broken": "invalid", "right": None, "wrong": "fail"})
        cls.wrong = write_dump(path / "wrong.h5", {"right": None, "weak": "inconclusive", "wrong": "fail"})
        cls.weak = write_dump(path / "weak.h5", {"right": None, "weak": "inconclusive"})
        cls.missing = str(path / "missing.h5")

    @classmethod
    def tearDownClass(cls):
        cls.folder.cleanup()

    def check_one_complaint(self, result, status):
        self.assertEqual(result.returncode, status, result.stderr)
        self.assertRegex(result.stderr, r"\Aattest: [^\n]+\n\Z")

    # Exit statuses

    def test_the_exit_status_is_that_of_the_gravest_case(self):
        for file, status in (self.good, 0), (self.wrong, 1), (self.bad, 3), (self.weak, 4):
            with self.subTest(file):
                self.assertEqual(run("verify", file).returncode, status)

    def test_wrong_usage_is_one_line_and_status_2(self):
        for arguments in [], ["verify"], ["inspect"], ["judge", "x"], ["verify", self.good, "--nonsense"], \
                ["verify", self.good, "--json="], ["verify", self.good, "--case"]:
            with self.subTest(arguments):
                result = run(*arguments)
                self.check_one_complaint(result, 2)
                self.assertEqual(result.stdout, "")

    def test_help_and_version_go_to_standard_output(self):
        for arguments in ["--help"], ["verify", "--help"]:
            result = run(*arguments)
            self.assertEqual((result.returncode, result.stderr), (0, ""))
            for status in "0  pass", "1  fail", "2  usage", "3  invalid", "4  inconclusive", "5  internal":
                self.assertIn(status, result.stdout)
        self.assertRegex(run("--version").stdout, r"\Aattest \d+\.\d+\.\d+\n\Z")

    # Bad input beside good

    def test_a_bad_case_does_not_hide_the_others(self):
        result = run("verify", self.bad)
        self.check_one_complaint(result, 3)
        self.assertRegex(result.stdout, r"(?m)^  invalid  broken$")
        self.assertRegex(result.stdout, r"(?m)^  fail     wrong ")
        self.assertTrue(result.stdout.endswith("\n3 cases: 1 pass, 1 fail, 1 invalid\n"), result.stdout)

    def test_a_missing_file_does_not_hide_the_others(self):
        result = run("verify", self.good, self.missing, self.wrong)
        self.check_one_complaint(result, 3)
        self.assertIn(self.missing, result.stderr)
        self.assertTrue(
            result.stdout.endswith("\n7 cases: 4 pass, 1 inconclusive, 1 fail, 1 invalid\n"), result.stdout)

    def test_a_file_that_is_cut_short_is_invalid(self):
        whole = Path(self.good).read_bytes()
        for size in 0, 7, 100, len(whole) // 2, len(whole) - 1:
            with self.subTest(size):
                cut = self.path / "cut.h5"
                cut.write_bytes(whole[:size])
                result = run("verify", cut)
                self.assertEqual(result.returncode, 3, result.stderr)
                self.assertIn(str(cut), result.stderr)

    # Selection

    def test_globs_select_cases(self):
        def judged(*arguments):
            cases = json.loads(run("verify", *arguments, "--json").stdout)["cases"]
            return [case["name"] for case in cases]

        self.assertEqual(judged(self.good, "--case", "fp32_*"), ["fp32_first", "fp32_second"])
        self.assertEqual(judged("--case", "other", "--case=*_first", self.good), ["fp32_first", "other"])
        self.assertEqual(judged(self.good, self.wrong, "--case", "[ow]*t*"), ["other"])
        self.assertEqual(run("verify", self.bad, "--case", "right").returncode, 0)

    def test_a_glob_that_matches_nothing_is_a_usage_error_that_lists_the_names(self):
        for globs in ["--case", "fp16*"], ["--case", "other", "--case", "fp16*"]:
            result = run("verify", self.good, self.weak, *globs)
            self.check_one_complaint(result, 2)
            self.assertEqual(result.stdout, "")
            for name in "fp16*", "fp32_first", "fp32_second", "other", "right", "weak":
                self.assertIn(name, result.stderr)

    # JSON

    def test_json_alone_puts_nothing_else_on_standard_output(self):
        for arguments in ["--json", self.bad], [self.bad, "--json"], ["--json", "-", self.bad], ["--json=-", self.bad]:
            with self.subTest(arguments):
                result = run("verify", *arguments)
                self.check_one_complaint(result, 3)
                report = json.loads(result.stdout)
                self.assertEqual((report["format"], report["verdict"]), (1, "invalid"))
                self.assertEqual([case["verdict"] for case in report["cases"]], ["invalid", "pass", "fail"])
                self.assertEqual(report["cases"][0]["error"], result.stderr[len("attest: "):-1])
                worst = report["cases"][2]["outputs"][0]
                self.assertEqual((worst["got"], worst["worst_ratio"], worst["at"]), ("nan", "inf", [0, 1, 7, 15]))
                self.assertEqual((worst["elements"], worst["beyond"]), (256, 1))
                self.assertEqual(report["cases"][1]["about"], {"device": "none"})

    def test_every_key_of_the_json_report_is_documented(self):
        documented = set(re.findall(r"`(\w+)`", (ROOT / "docs/report_json.md").read_text()))

        def check(value):
            if isinstance(value, dict):
                self.assertLessEqual(value.keys() - {"device"}, documented)
                value = list(value.values())
            if isinstance(value, list):
                for entry in value:
                    check(entry)

        check(json.loads(run("verify", self.bad, "--json").stdout))

    def test_json_to_a_file_comes_beside_the_table(self):
        for arguments in (["--json={}"], ["--json", "{}"]):
            report = self.path / "report.json"
            report.write_text("an earlier report")
            result = run("verify", self.wrong, *[a.format(report) for a in arguments])
            self.assertEqual(result.returncode, 1)
            self.assertIn("3 cases: 1 pass, 1 inconclusive, 1 fail\n", result.stdout)
            self.assertEqual(json.loads(report.read_text())["verdict"], "fail")
            report.unlink()
            self.assertEqual(list(self.path.glob("*.tmp")), [])

    def test_a_report_that_cannot_be_written_is_an_error_before_the_work(self):
        for report in self.path / "no_such_folder/r.json", self.path, Path("/proc/r.json"), Path(self.good) / "r.json":
            with self.subTest(report):
                result = run("verify", self.good, f"--json={report}")
                self.check_one_complaint(result, 2)
                self.assertIn(str(report), result.stderr)
                self.assertEqual(result.stdout, "")

    def test_a_report_never_replaces_a_dump(self):
        before = Path(self.good).read_bytes()
        self.check_one_complaint(run("verify", self.good, f"--json={self.good}"), 2)
        link = self.path / "link.json"
        link.symlink_to(self.good)
        self.check_one_complaint(run("verify", self.good, "--json", link), 2)
        self.assertEqual(Path(self.good).read_bytes(), before)

    def test_a_report_goes_through_a_link_and_to_a_device(self):
        target, link = self.path / "target.json", self.path / "to_target.json"
        link.symlink_to(target)
        target.write_text("")
        self.assertEqual(run("verify", self.good, f"--json={link}").returncode, 0)
        self.assertTrue(link.is_symlink())
        self.assertEqual(json.loads(target.read_text())["verdict"], "pass")
        self.assertEqual(run("verify", self.good, "--json=/dev/null").returncode, 0)
        self.assertTrue(Path("/dev/null").is_char_device())

    # Streams

    def test_piped_text_is_plain_and_whole(self):
        long_name = "a_name_that_is_longer_than_any_terminal_is_wide_" * 3
        file = write_dump(self.path / "long.h5", {long_name: "fail"})
        result = run("verify", file, env=os.environ | {"COLUMNS": "40", "TERM": "xterm"})
        self.assertNotIn("\x1b", result.stdout + result.stderr)
        self.assertIn(long_name, result.stdout)

    def test_a_terminal_gets_colour_and_lines_that_fit(self):
        file = write_dump(self.path / "long.h5", {"a_name_that_is_longer_than_any_terminal_is_" * 3: "fail", "b": None})
        for columns in 60, 80, 120:
            written = run_on_terminal("verify", file, self.wrong, columns=columns)
            self.assertIn("\x1b[31mfail\x1b[0m", written)
            self.assertIn("\x1b[32mpass\x1b[0m", written)
            for line in re.sub(r"\x1b\[\d*m", "", written).splitlines():
                self.assertLessEqual(len(line), columns, line)

    def test_a_terminal_without_colour_gets_no_escapes(self):
        self.assertNotIn("\x1b", run_on_terminal("verify", self.wrong, NO_COLOR="1"))
        self.assertNotIn("\x1b", run_on_terminal("verify", self.wrong, TERM="dumb"))

    def test_a_closed_pipe_is_no_crash(self):
        for command in ["verify"], ["verify", "--json"], ["inspect"], ["--help"]:
            with self.subTest(command):
                files = [] if command == ["--help"] else [self.good, self.wrong]
                reader, writer = os.pipe()
                os.close(reader)
                result = subprocess.run([ATTEST, *command, *files], stdout=writer, stderr=subprocess.PIPE, timeout=300)
                os.close(writer)
                self.assertIn(result.returncode, (1, 2))
                self.assertEqual(result.stderr, b"")

    def test_a_full_disk_is_reported(self):
        report = self.path / "report.json"
        with open("/dev/full", "w") as full:
            result = subprocess.run([ATTEST, "verify", self.good, f"--json={report}"], stdout=full,
                                    stderr=subprocess.PIPE, text=True, timeout=300)
        self.check_one_complaint(result, 2)
        self.assertEqual(json.loads(report.read_text())["verdict"], "pass")
        self.check_one_complaint(run("verify", self.good, "--json=/dev/full"), 2)

    # Inspect

    def test_inspect_lists_cases_and_datasets(self):
        result = run("inspect", self.good)
        self.assertEqual((result.returncode, result.stderr), (0, ""))
        for line in "  fp32_first  attention", "    in        k  float32  [1,2,8,16]", "    spec      causal  none":
            self.assertIn(line + "\n", result.stdout)

    def test_inspect_goes_on_after_a_bad_file(self):
        result = run("inspect", self.missing, self.good)
        self.check_one_complaint(result, 3)
        self.assertIn("fp32_second", result.stdout)

    # What the project ships

    def test_a_shipped_device_dump_passes(self):
        dumps = sorted((ROOT / "data/device").glob("*.h5"), key=lambda path: path.stat().st_size)
        self.assertTrue(dumps)
        result = run("verify", dumps[0])
        self.assertEqual((result.returncode, result.stderr), (0, ""), result.stdout)


if __name__ == "__main__":
    unittest.main()
