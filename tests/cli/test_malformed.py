# Malformed dumps: one line that names file and object, exit status 3, no crash, no verdict, an unchanged file.
import os
import random
import shutil
import unittest
import zlib

import h5py
import numpy as np

import make_dump
from malformed_edits import EDITS, unwritten
from make_dump import attention, case_of

INVALID = 3
KIB = 1024
# Bytes of address space. The honest dump passes within it; a file that declares terabytes must not need more.
MEMORY_LIMIT = 200_000 * KIB


class Malformed(make_dump.ProgramTest):
    environment = {"ASAN_OPTIONS": "detect_leaks=0"}  # HDF5 itself leaks on damaged metadata

    def expect_invalid(self, path, said):
        before = make_dump.fingerprint(path)
        result = self.run_program("verify", path)
        self.assertEqual(result.returncode, INVALID, result.stdout + result.stderr)
        self.assertEqual(result.stderr.count("\n"), 1, result.stderr)
        self.assertIn(os.path.basename(path) + ":", result.stderr)
        self.assertIn(said, result.stderr)
        self.assertNotRegex(result.stdout, r"(?m)^\s*pass\b")
        self.assertGreaterEqual(self.run_program("inspect", path).returncode, 0)
        self.assertEqual(make_dump.fingerprint(path), before)

    def honest(self, name="dump.h5", a=None):
        return self.write(name, **case_of(a or attention()))

    def test_edited_dumps(self):
        self.limit_memory(MEMORY_LIMIT)
        for title, (edit, said) in EDITS.items():
            with self.subTest(title):
                path = self.honest(title.replace(" ", "_").replace("/", "_") + ".h5")
                with h5py.File(path, "a") as file:
                    edit(file)
                self.expect_invalid(path, said)
                os.remove(path)

    def test_the_honest_dump_passes_within_the_same_memory(self):
        self.limit_memory(MEMORY_LIMIT)
        self.assertEqual(self.run_program("verify", self.honest()).returncode, 0)

    def test_a_tensor_that_memory_cannot_hold(self):
        self.limit_memory(MEMORY_LIMIT)
        if self.memory is None:
            self.skipTest("the program runs without a limit to its memory")
        path = self.honest()
        with h5py.File(path, "a") as file:
            unwritten(file["case/in"], "q", (2, 4, 8192, 8192), chunks=(1, 1, 1024, 1024), compression="gzip")
            stream = zlib.compress(bytes(2 << 20), 9)
            for index in np.ndindex(2, 4, 8, 8):
                start = (*index[:2], 1024 * index[2], 1024 * index[3])
                file["case/in/q"].id.write_direct_chunk(start, stream)
        self.expect_invalid(path, "/case/in/q of shape [2, 4, 8192, 8192] does not fit into memory")

    def test_what_is_no_hdf5_file(self):
        contents = {"empty.h5": (b"", "is empty"), "text.h5": (b"not HDF5\n" * 99, "is not HDF5"),
                    "zeros.h5": (bytes(5000), "is not HDF5"), "signature.h5": (b"\x89HDF\r\n\x1a\n", "")}
        for name, (content, said) in contents.items():
            with self.subTest(name):
                with open(self.path(name), "wb") as file:
                    file.write(content)
                self.expect_invalid(self.path(name), said)

    def test_what_is_no_file(self):
        os.mkdir(self.path("folder.h5"))
        self.expect_invalid(self.path("folder.h5"), "is a directory")
        self.expect_invalid(self.path("missing.h5"), "there is no such file")
        os.symlink(self.path("loop.h5"), self.path("loop.h5"))
        self.expect_invalid(self.path("loop.h5"), "cannot be looked up")
        os.mkfifo(self.path("pipe.h5"))
        self.expect_invalid(self.path("pipe.h5"), "is not a regular file")

    def test_truncated_files(self):
        path = self.honest("whole.h5")
        size = os.path.getsize(path)
        for length in [*range(1, 9), *(size * part // 32 for part in range(1, 32)), size - 1]:
            with self.subTest(length=length):
                short = shutil.copy(path, self.path("short.h5"))
                os.truncate(short, length)
                self.expect_invalid(short, "truncated" if length > 2000 else "")

    def test_damaged_files_get_a_verdict_or_a_message(self):
        rng = random.Random(20240229)
        path = self.honest(a=attention(B=1, Hq=2, Hkv=1, Sq=3, Sk=4, D=4, E=4))
        with open(path, "rb") as file:
            data = file.read()
        for variant in range(100):
            with self.subTest(variant=variant):
                damaged = bytearray(data)
                for _ in range(rng.choice((1, 2, 4, 16, 64))):
                    value = rng.choice((0, 1, 127, 128, 255, rng.randrange(256)))
                    damaged[rng.randrange(len(damaged))] = value
                name = self.path("damaged.h5")
                with open(name, "wb") as file:
                    file.write(damaged)
                before = make_dump.fingerprint(name)
                for command in ("verify", "inspect"):
                    result = self.run_program(command, name)
                    self.assertIn(result.returncode, (0, 1, 3, 4), result.stderr)
                    lines = int(result.returncode == INVALID)
                    self.assertEqual(result.stderr.count("\n"), lines, result.stderr)
                self.assertEqual(make_dump.fingerprint(name), before)

    def test_a_bad_case_does_not_hide_a_good_one(self):
        path = self.path()
        with make_dump.attest_dump.File(path) as file:
            file.case("bad", **case_of(attention(), spec=dict(causal="none")))
            file.case("good", **case_of(attention()))
        status, report = self.report(path)
        self.assertEqual(status, INVALID)
        self.assertEqual([case["verdict"] for case in report["cases"]], ["invalid", "pass"])
        self.assertIn("/bad/spec attribute scale is missing", report["cases"][0]["error"])


if __name__ == "__main__":
    make_dump.main()
