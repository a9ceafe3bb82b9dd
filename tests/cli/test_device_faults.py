# Dumps of correct and broken kernels of a real device: verdicts and diagnoses. Needs data/device.
import glob
import json
import os

import h5py

import make_dump

FOLDER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../data/device/faults")
DUMPS = sorted(glob.glob(os.path.join(FOLDER, "*.h5")))
CORRECT, BROKEN = 12, 112  # cases; of the broken kernels those whose fault can be seen


class DeviceFaults(make_dump.ProgramTest):

    def test_correct_kernels_pass_and_faults_are_named(self):
        result = self.run_program("verify", "--json", *DUMPS)
        self.assertEqual((result.returncode, result.stderr), (1, ""))
        cases = {(case["file"], case["name"]): case for case in json.loads(result.stdout)["cases"]}
        correct = broken = 0
        for path in DUMPS:
            with h5py.File(path, "r") as file:
                about = {name: dict(group["about"].attrs) for name, group in file.items()}
            for name, attributes in about.items():
                case = cases[path, name]
                with self.subTest(file=os.path.basename(path), case=name):
                    if name.startswith("correct"):
                        correct += 1
                        self.assertEqual(case["verdict"], "pass")
                    elif "named" in attributes:
                        broken += 1
                        self.assertEqual(case["verdict"], "fail")
                        cause = case["diagnosis"][0]["cause"]
                        self.assertTrue(any(text in cause for text in attributes["named"].split(" | ")), cause)
        self.assertEqual((correct, broken), (CORRECT, BROKEN))


if __name__ == "__main__":
    make_dump.main()
