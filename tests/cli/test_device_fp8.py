# Dumps of fp8 attention on a real device: they pass, and tell wrong kernels from right ones. Needs data/device.
import json
import os

import h5py

import make_dump

DUMP = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../data/device/fp8/h200_fp8_e4m3.h5")


class DeviceFp8(make_dump.ProgramTest):

    def verdicts(self, path):
        result = self.run_program("verify", "--json", path)
        self.assertEqual(result.stderr, "")
        return {case["name"]: case["verdict"] for case in json.loads(result.stdout)["cases"]}

    def changed(self, change):
        """Verdicts after change(case group) of every case."""
        with h5py.File(DUMP, "r") as honest, h5py.File(self.path(), "w") as f:
            f.attrs["attest_format"] = 1
            for name in honest:
                honest.copy(name, f, expand_refs=True)
                change(f[name])
        return self.verdicts(self.path())

    def test_what_the_device_computed_passes(self):
        verdicts = self.verdicts(DUMP)
        self.assertEqual(len(verdicts), 18)
        self.assertEqual(set(verdicts.values()), {"pass"})

    def test_without_the_contract_key_some_wrong_kernels_would_pass_too(self):
        def forget(case):
            del case["contract"].attrs["weights"]

        self.assertIn("inconclusive", self.changed(forget).values())
        self.assertNotIn("fail", self.changed(forget).values())

    def test_wrong_kernels_fail(self):
        def misstate_the_scale(case):
            case["spec"].attrs["scale"] *= 1.01

        def lose_the_last_keys(case):
            k, v = case["in/k"][:, :, :350], case["in/v"][:, :, :350]
            for name, x in ("k", k), ("v", v):
                dtype = case[f"in/{name}"].attrs["dtype"]
                del case[f"in/{name}"]
                case[f"in/{name}"] = x
                case[f"in/{name}"].attrs["dtype"] = dtype

        self.assertEqual(set(self.changed(misstate_the_scale).values()), {"fail"})
        self.assertEqual(set(self.changed(lose_the_last_keys).values()), {"fail"})


if __name__ == "__main__":
    make_dump.main()
