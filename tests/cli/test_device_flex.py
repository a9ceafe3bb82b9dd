# Dumps of FlexAttention on a real device: they pass, and under another case's options they fail and say why. Needs
# data/device.
import glob
import json
import os

import h5py

import make_dump

FOLDER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../data/device/flex")
DUMPS = sorted(glob.glob(os.path.join(FOLDER, "*.h5")))
# What the kernel did, what the dump says, and the cause that attest finds. All cases have the same q, k, v and do.
CONFUSED = {
    ("none", "causal"): "causal = none",
    ("causal", "none"): "causal = bottom_right",  # the same as top_left where there are as many queries as keys
    ("causal", "window"): "window_left ignored",
    ("window", "causal"): "window_left = 48",
    ("none", "softcap"): "softcap ignored",
    ("softcap", "none"): "softcap = 2",
    ("softcap", "softcap_window"): "causal mask and window ignored",
    ("window", "softcap_window"): "softcap ignored",
    ("causal", "alibi"): "ALiBi ignored",
    ("none", "bias"): "in/bias ignored",
    ("none", "documents"): "in/mask ignored",
}


class DeviceFlex(make_dump.ProgramTest):

    def test_what_the_device_computed_passes(self):
        self.assertEqual(len(DUMPS), 3)
        result = self.run_program("verify", "--json", *DUMPS)
        self.assertEqual((result.returncode, result.stderr), (0, ""))
        cases = json.loads(result.stdout)["cases"]
        self.assertEqual(len(cases), 27)
        self.assertEqual({case["verdict"] for case in cases}, {"pass"})

    def test_an_option_that_kernel_and_dump_do_not_agree_on_is_named(self):
        for path in DUMPS:
            with h5py.File(path, "r") as honest, h5py.File(self.path(), "w") as f:
                f.attrs["attest_format"] = 1
                for done, said in CONFUSED:
                    honest.copy(said, f, name=f"{done} {said}")
                    del f[f"{done} {said}/out"]
                    honest.copy(f"{done}/out", f[f"{done} {said}"], name="out")
            report = json.loads(self.run_program("verify", "--json", self.path()).stdout)
            for case in report["cases"]:
                with self.subTest(file=os.path.basename(path), case=case["name"]):
                    self.assertEqual(case["verdict"], "fail")
                    self.assertEqual(case["diagnosis"][0]["cause"], CONFUSED[tuple(case["name"].split())])


if __name__ == "__main__":
    make_dump.main()
