# Dumps of a real device for the operations beside attention: they pass, and outputs that are a little off do not.
import glob
import json
import os
import unittest

import h5py
import numpy as np

import make_dump

FOLDER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../data/device/ops")
DUMPS = sorted(glob.glob(os.path.join(FOLDER, "*.h5")))
CASES = 24


class DeviceOps(make_dump.ProgramTest):

    def cases(self, paths, status):
        result = self.run_program("verify", "--json", *paths)
        self.assertEqual((result.returncode, result.stderr), (status, ""))
        return json.loads(result.stdout)["cases"]

    def test_what_the_device_computed_passes(self):
        cases = self.cases(DUMPS, 0)
        self.assertEqual([case["verdict"] for case in cases], ["pass"] * CASES)

    def test_an_output_that_is_2_percent_off_in_one_element_fails(self):
        path = self.path()
        wrong = set()
        with h5py.File(path, "w") as target:
            target.attrs["attest_format"] = 1
            for source_path in DUMPS:
                with h5py.File(source_path) as source:
                    for name in source:
                        for output in source[name]["out"]:
                            copy = f"{name}__{output}"
                            source.copy(name, target, copy)
                            self.change(target[copy]["out"][output])
                            wrong.add((copy, output))
        failed = {(case["name"], output["name"]) for case in self.cases([path], 1)
                  for output in case["outputs"] if output["verdict"] == "fail"}
        self.assertLessEqual(wrong, failed)

    @staticmethod
    def change(dataset):
        """Moves the largest element by 2 % or more: 5 steps of bfloat16 or 41 of float16."""
        values = dataset[()]
        if values.dtype == np.uint16:
            magnitude = values & 0x7FFF
            at = np.unravel_index(np.argmax(magnitude), values.shape)
            values[at] -= 5
        else:
            at = np.unravel_index(np.argmax(np.abs(values)), values.shape)
            values[at] *= values.dtype.type(0.98)
        dataset[...] = values


if __name__ == "__main__":
    make_dump.main()
