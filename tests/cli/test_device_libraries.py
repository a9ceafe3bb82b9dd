# Dumps of kernels of published libraries on a real device: they pass under what their sources say, and fail, by name,
# without it. Needs data/device.
import glob
import json
import os

import h5py

import make_dump

FOLDER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../data/device/libraries")
DUMPS = sorted(glob.glob(os.path.join(FOLDER, "*.h5")))
# File, case, group and attribute that is taken away, and what the diagnosis says then.
UNDECLARED = [
    ("flash_attn", "causal_alibi_bf16", "spec", "alibi", "ALiBi by position"),
    ("vllm", "tf32_unified", "contract", "matrix_unit", "products in tf32"),
    ("sglang", "tf32_extend", "contract", "matrix_unit", "products in tf32"),
    ("flash_attn", "window_softcap_5_bf16", "contract", "preset", "exponentials, scores or row sums"),
    ("flash_attn_triton", "causal_float16", "contract", "backward_k_factor", "contract key backward_k_factor"),
    ("flash_attention_softmax_n", "float16", "contract", "q_factor", "contract key q_factor"),
    ("aule", "causal_float16", "contract", "matrix_unit", None),  # o alone says little of how it is wrong
    ("flashinfer", "decode_cuda_cores_long", "contract", "split_dtype", "o of split keys stored in bfloat16"),
    ("flashinfer", "rope_at_5000", "contract", "angle_error", "contract keys angle_error, sincos_error"),
]


class DeviceLibraries(make_dump.ProgramTest):

    def cases(self, *paths):
        result = self.run_program("verify", "--json", *paths)
        self.assertEqual(result.stderr, "")
        return json.loads(result.stdout)["cases"]

    def test_what_the_libraries_computed_passes_but_for_two_known_faults(self):
        self.assertEqual(len(DUMPS), 9)
        cases = self.cases(*DUMPS)
        self.assertEqual(len(cases), 92)
        for case in cases:
            with self.subTest(case["name"]):
                if case["name"].startswith("wrong"):
                    self.assertEqual(case["verdict"], "fail")
                    self.assertTrue(any(name.strip() in case["diagnosis"][0]["cause"]
                                        for name in case["about"]["named"].split("|")), case["diagnosis"])
                else:
                    self.assertEqual(case["verdict"], "pass")

    def test_without_what_their_sources_say_they_fail(self):
        with h5py.File(self.path(), "w") as f:
            f.attrs["attest_format"] = 1
            for library, name, group, attribute, _ in UNDECLARED:
                with h5py.File(os.path.join(FOLDER, f"h200_{library}.h5"), "r") as honest:
                    honest.copy(name, f, name=f"{library} {name}", expand_refs=True)
                del f[f"{library} {name}"][group].attrs[attribute]
        cases = {case["name"]: case for case in self.cases(self.path())}
        for library, name, _, _, cause in UNDECLARED:
            with self.subTest(library, case=name):
                case = cases[f"{library} {name}"]
                self.assertEqual(case["verdict"], "fail")
                if cause:
                    self.assertIn(cause, case["diagnosis"][0]["cause"])


if __name__ == "__main__":
    make_dump.main()
