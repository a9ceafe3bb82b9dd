# Tests of `attest compare --batch`: a fused batch against its entries.
# Usage: test_compare_batch.py PATH_TO_ATTEST [unittest options]
import unittest

import h5py
import numpy as np

from compare_dumps import B, CompareTest, D, H, S, batch, laid_out, run


class CompareBatch(CompareTest):
    def halves(self, values, layout, edges=(0, 2, 4)):
        return {f"half_{i}": {"values": laid_out(batch(values, first, last), layout), "spec": {"layout": layout}}
                for i, (first, last) in enumerate(zip(edges, edges[1:]))}

    def test_a_fused_batch_equals_its_halves(self):
        for layout in "bhsd", "bshd", "sbhd":
            for edges in (0, 2, 4), (0, 1, 4), (0, 1, 2, 3, 4):
                a = self.write("a.h5", fused={"values": laid_out(self.values, layout), "spec": {"layout": layout}})
                b = self.write("b.h5", **self.halves(self.values, layout, edges))
                (case,) = self.report(a, b, "--batch", status=0)["compare"]
                self.assertEqual((case["name"], case["reasons"]), ("fused", []))
                self.assertEqual([o["name"] for o in case["outputs"]], ["o", "lse", "dk"])
                names = ", ".join(f"half_{i}" for i in range(len(edges) - 1))
                self.assertEqual(case["notes"], [f"against {names}, joined along the batch",
                                                 "out/dsink is not divided along the batch: not compared"])

    def test_a_difference_in_a_half_is_told_in_the_fused_batch(self):
        changed = self.values["out/o"].copy()
        changed[2, 1, 4:8] = 3
        changed[1, 1, 7] = 3
        for layout, at in ("bhsd", [1, 1, 7, 0]), ("bshd", [1, 7, 1, 0]), ("sbhd", [4, 2, 1, 0]):
            a = self.write("a.h5", fused={"values": laid_out(self.values, layout), "spec": {"layout": layout}})
            b = self.write("b.h5", **self.halves(self.values | {"out/o": changed}, layout))
            o = self.report(a, b, "--batch", status=1)["compare"][0]["outputs"][0]
            self.assertEqual((o["at"], o["different"], o["elements"]), (at, 5 * D, B * H * S * D))
            self.assertEqual(o["where"], "all in rows 4..7 of head 1 of batch entries 1..2")

    def test_halves_in_the_wrong_order_or_number_are_inconclusive(self):
        a = self.write("a.h5", fused=self.values)
        halves = self.halves(self.values, "bhsd")
        wrong_order = self.write("b.h5", half_0=halves["half_1"], half_1=halves["half_0"])
        self.assertRegex(self.report(a, wrong_order, "--batch", status=4)["compare"][0]["reasons"][0], "in/q differs")
        one = self.write("c.h5", half_0=halves["half_0"])
        self.assertRegex(self.report(a, one, "--batch", status=4)["compare"][0]["reasons"][0], "in/q differs: shape")
        whole_twice = self.write("d.h5", half_0=self.values, half_1=self.values)
        self.assertRegex(self.report(a, whole_twice, "--batch", status=4)["compare"][0]["reasons"][0], "in/q .*shape")

    def test_halves_of_a_sequence_are_no_batch(self):
        plain = {p: t[:1] for p, t in self.values.items() if p in ("in/q", "in/k", "in/v", "out/o")}
        def cut(rows):
            return {"values": {p: t[rows] for p, t in laid_out(plain, "sbhd").items()}, "spec": {"layout": "sbhd"}}
        a = self.write("a.h5", fused=cut(slice(None)))
        b = self.write("b.h5", half_0=cut(slice(0, 5)), half_1=cut(slice(5, None)))
        self.report(a, b, "--batch", status=4)

    def test_operations_on_rows_are_divided_along_the_first_axis(self):
        x, y = (np.random.default_rng(seed).uniform(1, 2, (B, S, D)).astype("f4") for seed in (1, 2))

        def write(name, y, *edges):
            path = self.path / name
            with h5py.File(path, "w") as file:
                file.attrs["attest_format"] = 1
                for first, last in zip(edges, edges[1:]):
                    group = file.create_group(f"from_{first}")
                    group.attrs["op"] = "rms_norm"
                    group.create_group("spec").attrs["eps"] = 1e-6
                    tensors = {"in/x": x, "in/weight": x[0, 0],
                               "out/y": y, "out/rstd": y[..., 0], "out/dweight": y[0, 0]}
                    for tensor, values in tensors.items():
                        group[tensor] = values[first:last] if values.ndim > 1 else values
            return path

        changed = y.copy()
        changed[2, 5] = 3
        fused, same, other = write("a.h5", y, 0, 4), write("b.h5", y, 0, 1, 4), write("c.h5", changed, 0, 1, 4)
        (case,) = self.report(fused, same, "--batch", status=0)["compare"]
        self.assertEqual([o["name"] for o in case["outputs"]], ["y", "rstd"])
        (case,) = self.report(fused, other, "--batch", status=1)["compare"]
        self.assertEqual([o["where"] for o in case["outputs"]],
                         ["all in row 5 of batch entry 2", "in row 5 of batch entry 2"])

    def test_a_batch_is_selected_by_case(self):
        a = self.write("a.h5", fused=self.values, other=self.values)
        b = self.write("b.h5", **self.halves(self.values, "bhsd"), other=self.values)
        result = run("compare", a, b, "--batch")
        self.assertEqual(result.returncode, 2)
        self.assertRegex(result.stderr, r"\Aattest: --batch [^\n]+chosen: fused, other[^\n]+\n\Z")
        self.report(a, b, "--batch", "--case", "fused", "--case", "half_*", status=0)

    def test_packed_sequences_have_no_batch_axis(self):
        values = {p: t[0].transpose(1, 0, 2) for p, t in self.values.items() if p in ("in/q", "in/k", "in/v", "out/o")}
        values |= {f"in/cu_seqlens_{x}": np.array([0, S], np.int32) for x in "qk"}
        case = {"values": values, "spec": {"layout": "thd"}}
        a, b = self.write("a.h5", x=case), self.write("b.h5", x=case, y=case)
        self.assertEqual(self.report(a, a, status=0)["verdict"], "equal")
        result = run("compare", a, b, "--batch")
        self.assertEqual(result.returncode, 3)
        self.assertIn('layout is "thd"', result.stderr)


if __name__ == "__main__":
    unittest.main()
