# Contracts by name, on dumps of real kernels. Usage: test_presets.py PATH_TO_ATTEST
import shutil
from pathlib import Path

import h5py

import make_dump

DEVICE = Path(__file__).resolve().parents[2] / "data" / "device"
PRESET_OF = {"cudnn": "cudnn", "efficient": "pytorch_efficient", "flash": "flash_attention_2"}
FILES = "h200_fp16_clip_text.h5", "h200_fp16_cross.h5"


class Presets(make_dump.ProgramTest):
    def under(self, file, contract_of, kernels=tuple(PRESET_OF)):
        """The report on the cases of these kernels in the file, each under another contract."""
        path = self.path(file)
        shutil.copy(DEVICE / file, path)
        with h5py.File(path, "r+") as dump:
            for name in [name for name, case in dump.items() if "op" in case.attrs]:
                del dump[name]["contract"]
                dump[name].create_group("contract").attrs.update(contract_of(name))
                if not name.endswith(kernels):
                    del dump[name]
        return self.report(path)

    def test_real_kernels_pass_under_the_preset_that_names_them(self):
        for file in FILES:
            status, report = self.under(file, lambda name: {"preset": PRESET_OF[name.rsplit("_", 1)[1]]})
            self.assertEqual(status, 0)
            for case in report["cases"]:
                preset = PRESET_OF[case["name"].rsplit("_", 1)[1]]
                self.assertTrue(case["contract"].endswith(f" (preset {preset})"), case["contract"])

    def test_and_under_that_of_their_device(self):
        for contract in {"preset": "nvidia_hopper"}, {"preset": "flash_attention_2", "matrix_unit": "hopper"}:
            status, _ = self.under(FILES[0], lambda name: contract, ("flash",))
            self.assertEqual(status, 0)

    def test_and_not_under_one_that_promises_more(self):
        status, report = self.under(FILES[1], lambda name: {"preset": "cpu_float32"}, ("flash",))
        self.assertEqual((status, {case["verdict"] for case in report["cases"]}), (1, {"fail"}))

    def test_what_the_case_sets_wins(self):
        contract = {"preset": "cpu_float32", "p_dtype": "float16", "matrix_unit": "ampere"}
        status, report = self.under(FILES[0], lambda name: contract, ("flash",))
        self.assertEqual(status, 0)
        self.assertTrue(report["cases"][0]["contract"].endswith(" (declared over preset cpu_float32)"))


if __name__ == "__main__":
    make_dump.main()
