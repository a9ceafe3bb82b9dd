# Every way to store the same values in a dump gives the same verdict and the same figures.
import unittest

import h5py
import numpy as np

import make_dump
from make_dump import attest_dump, attention, case_of, stored

TYPES = ("float16", "bfloat16", "float32", "float64", "float8_e4m3fn", "float8_e5m2")


def custom_float(dtype, order="<"):
    """bfloat16 or fp8 as an HDF5 float type: size, sign, exponent and fraction positions, bias."""
    precision, _, bias = make_dump.FORMATS[dtype]
    size = 2 if dtype == "bfloat16" else 1
    base = h5py.h5t.IEEE_F32BE if order == ">" else h5py.h5t.IEEE_F32LE
    kind = base.copy()
    fraction, exponent = precision - 1, 8 * size - precision
    kind.set_fields(8 * size - 1, fraction, exponent, 0, fraction)
    kind.set_ebias(bias)
    kind.set_precision(8 * size)
    kind.set_size(size)
    return kind


def write_raw(group, name, kind, patterns):
    """A dataset of an HDF5 type, from its bytes."""
    space = h5py.h5s.create_simple(patterns.shape)
    dataset = h5py.h5d.create(group.id, name.encode(), kind, space)
    dataset.write(h5py.h5s.ALL, h5py.h5s.ALL, np.ascontiguousarray(patterns), mtype=kind)


class DumpFormat(make_dump.ProgramTest):
    def figures(self, path, name="case"):
        """Of one case that must pass: the worst ratio of each output."""
        status, report = self.report(path)
        (case,) = [case for case in report["cases"] if case["name"] == name]
        self.assertEqual((status, case["verdict"], report["format"]), (0, "pass", 1), report)
        return {output["name"]: output["worst_ratio"] for output in case["outputs"]}

    def expect_same(self, path, a, name="case", outputs=("lse", "o")):
        want = self.figures(self.write("plain.h5", **case_of(a)))
        got = self.figures(path, name)
        self.assertEqual(got, {output: want[output] for output in outputs})
        self.assertGreater(want["o"], 0)

    def raw_dump(self, a, change):
        """A dump whose tensors `change(group, name, array_or_bits)` writes."""
        case = case_of(a)
        path = self.path()
        with h5py.File(path, "w") as file:
            file.attrs["attest_format"] = 1
            group = file.create_group("case")
            group.attrs["op"] = "attention"
            group.create_group("spec").attrs.update(case["spec"])
            for part, tensors in (("in", case["inputs"]), ("out", case["outputs"])):
                for name, tensor in tensors.items():
                    change(group.require_group(part), name, tensor)
        return path

    def test_element_types_pass(self):
        for dtype in TYPES:
            with self.subTest(dtype):
                path = self.write(**case_of(attention(dtype)))
                self.figures(path)
                outputs = self.report(path)[1]["cases"][0]["outputs"]
                self.assertEqual([output["dtype"] for output in outputs if output["name"] == "o"], [dtype])

    def test_layouts_hold_the_same_tensor(self):
        order = {"bhsd": (0, 1, 2, 3), "bshd": (0, 2, 1, 3), "sbhd": (2, 0, 1, 3)}
        order.update(bsm=order["bshd"], sbm=order["sbhd"])
        a = attention()
        for layout, axes in order.items():
            for own_rows in (False, True):  # lse as [B,Hq,Sq], or in the order of the layout
                with self.subTest(layout, own_rows=own_rows):
                    def laid_out(name):
                        x = getattr(a, name).transpose(axes)
                        return stored(x.reshape(*x.shape[:2], -1) if layout.endswith("m") else x, a.dtype)

                    lse = a.lse.transpose(axes[:3]) if own_rows else a.lse
                    heads = dict(heads_q=4, heads_kv=2) if layout.endswith("m") else {}
                    spec = dict(a.spec, layout=layout, **heads)
                    path = self.write(**case_of(
                        a, spec=spec, inputs={name: laid_out(name) for name in "qkv"},
                        outputs=dict(o=laid_out("o"), lse=stored(lse, "float32"))))
                    self.expect_same(path, a)

    def test_packed_sequences_hold_the_same_tensor(self):
        a = attention(B=3)

        def packed(name):
            x = getattr(a, name)
            return stored(x.transpose(0, 2, 1, 3).reshape(-1, x.shape[1], x.shape[3]), a.dtype)

        starts = np.arange(4, dtype=np.int32)
        lengths = dict(cu_seqlens_q=9 * starts, cu_seqlens_k=13 * starts)
        lse = a.lse.transpose(1, 0, 2).reshape(4, -1)
        for rows in (lse, lse.T):
            path = self.write(**case_of(
                a, spec=dict(a.spec, layout="thd"), inputs=dict(lengths, **{name: packed(name) for name in "qkv"}),
                outputs=dict(o=packed("o"), lse=stored(rows, "float32"))))
            self.expect_same(path, a)

    def test_custom_floats_equal_marked_integers(self):
        for dtype in make_dump.FORMATS:
            for order in "<>":
                with self.subTest(dtype, order=order):
                    def write(group, name, tensor):
                        if isinstance(tensor, attest_dump.Bits):
                            patterns = tensor.patterns.astype(tensor.patterns.dtype.newbyteorder(order))
                            write_raw(group, name, custom_float(dtype, order), patterns)
                        else:
                            group[name] = tensor

                    a = attention(dtype)
                    self.expect_same(self.raw_dump(a, write), a)

    def test_byte_orders(self):
        for dtype in TYPES:
            with self.subTest(dtype):
                def write(group, name, tensor):
                    array, mark = attest_dump.as_array(tensor)
                    group[name] = array.astype(array.dtype.newbyteorder(">"))
                    if mark:
                        group[name].attrs["dtype"] = mark

                a = attention(dtype)
                self.expect_same(self.raw_dump(a, write), a)

    def test_storage(self):
        choices = {
            "contiguous": dict(),
            "chunked": dict(chunks=(1, 2, 4)),
            "gzip": dict(chunks=(1, 2, 4), compression="gzip", compression_opts=9),
            "shuffle, gzip, checksum": dict(compression="gzip", shuffle=True, fletcher32=True),
            "resizable": dict(maxshape=True),
        }
        a = attention()
        for name, options in choices.items():
            with self.subTest(name):
                def write(group, key, tensor):
                    chosen = dict(options)
                    if "chunks" in chosen:
                        chosen["chunks"] = chosen["chunks"] + tensor.shape[3:]
                    if "maxshape" in chosen:
                        chosen["maxshape"] = (None,) * tensor.ndim
                    group.create_dataset(key, data=tensor, **chosen)

                self.expect_same(self.raw_dump(a, write), a)

    def test_compact_storage(self):
        def write(group, name, tensor):
            creation = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
            creation.set_layout(h5py.h5d.COMPACT)
            space = h5py.h5s.create_simple(tensor.shape)
            kind = h5py.h5t.py_create(tensor.dtype)
            dataset = h5py.h5d.create(group.id, name.encode(), kind, space, creation)
            dataset.write(h5py.h5s.ALL, h5py.h5s.ALL, tensor)

        a = attention()
        self.expect_same(self.raw_dump(a, write), a)

    def test_file_formats_of_the_library(self):
        a = attention()
        for version in ("earliest", "v108", "latest"):
            for block in (0, 512):  # a user block shifts every address in the file
                with self.subTest(version, block=block):
                    path = self.path()
                    with h5py.File(self.write("plain.h5", **case_of(a))) as source:
                        with h5py.File(path, "w", libver=version, userblock_size=block) as file:
                            file.attrs["attest_format"] = 1
                            source.copy("case", file)
                    self.expect_same(path, a)

    def test_cases_share_datasets_by_links(self):
        a = attention()
        for is_soft in (False, True):
            path = self.path()
            with attest_dump.File(path) as file:
                first = file.case("first", **case_of(a))
                inputs = {name: first["in/" + name] for name in "qkv"}
                if is_soft:
                    second = file.case("second", **case_of(a))
                    for name in inputs:
                        del second["in/" + name]
                        second["in/" + name] = h5py.SoftLink("/first/in/" + name)
                    del second["spec"]
                    second["spec"] = h5py.SoftLink("/first/spec")
                else:
                    file.case("second", **case_of(a, inputs=inputs))
            self.expect_same(path, a, "first")
            self.expect_same(path, a, "second")

    def test_a_store_is_no_case(self):
        a = attention()
        path = self.write(**case_of(a))
        with h5py.File(path, "a") as file:
            for name in "qkv":
                file.move(f"case/in/{name}", f"shared/{name}")
                file[f"case/in/{name}"] = h5py.SoftLink(f"/shared/{name}")
        self.assertEqual(len(self.report(path)[1]["cases"]), 1)
        self.expect_same(path, a)

    def test_the_root_may_be_the_case(self):
        a = attention()
        path = self.path()
        with attest_dump.File(path) as file:
            file.case("/", **case_of(a))
        self.expect_same(path, a, "/")

    def test_any_subset_of_the_outputs(self):
        a = attention()
        for name in ("o", "lse"):
            outputs = {name: case_of(a)["outputs"][name]}
            self.expect_same(self.write(**case_of(a, outputs=outputs)), a, outputs=(name,))

    def test_booleans_of_two_kinds(self):
        a = attention()
        for mask in (np.ones((1, 1, 9, 13), bool), np.ones((13,), np.uint8)):
            path = self.write(**case_of(a, inputs={**case_of(a)["inputs"], "mask": mask}))
            self.expect_same(path, a)

    def test_integers_of_every_width_and_order(self):
        a = attention()
        for kind in ("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", ">i4", ">u8"):
            with self.subTest(kind):
                lengths = np.full(2, 13, kind)
                path = self.write(**case_of(a, inputs={**case_of(a)["inputs"], "kv_lengths": lengths}))
                self.expect_same(path, a)

    def test_attributes_of_every_kind(self):
        a = attention()
        texts = ("none", np.bytes_("none"), np.array(["none"], object), np.array([b"none"]))
        scales = (0.25, np.float32(0.25), np.float16(0.25), np.array([0.25]), np.array(0.25, ">f8"))
        windows = (-1, np.int8(-1), np.array([-1], ">i2"), -1.0)
        for n in range(max(map(len, (texts, scales, windows)))):
            spec = dict(causal=texts[n % 4], scale=scales[n % 5], window_left=windows[n % 4])
            with self.subTest(spec=spec):
                path = self.write(**case_of(a))
                with h5py.File(path, "a") as file:
                    for key, value in spec.items():
                        file["case/spec"].attrs.pop(key, None)
                        file["case/spec"].attrs[key] = value
                self.expect_same(path, a)

    def test_text_padded_with_blanks(self):
        a = attention()
        path = self.write(**case_of(a))
        for padding in (h5py.h5t.STR_SPACEPAD, h5py.h5t.STR_NULLPAD, h5py.h5t.STR_NULLTERM):
            with h5py.File(path, "a") as file:
                del file["case/spec"].attrs["causal"]
                kind = h5py.h5t.C_S1.copy()
                kind.set_size(9)
                kind.set_strpad(padding)
                fill = b" " if padding == h5py.h5t.STR_SPACEPAD else b"\0"
                space = h5py.h5s.create(h5py.h5s.SCALAR)
                attribute = h5py.h5a.create(file["case/spec"].id, b"causal", kind, space)
                attribute.write(np.array(b"none".ljust(9, fill), "S9"), mtype=kind)
            self.expect_same(path, a)

    def test_about_is_echoed(self):
        a = attention()
        about = dict(device="a device", version=3, note="two\nlines, µ and 注意", tuned=np.bool_(True))
        report = self.report(self.write(**case_of(a, about=about)))[1]
        self.assertEqual(report["cases"][0]["about"], {**about, "tuned": True})

    def test_a_name_with_a_slash_is_refused(self):
        with attest_dump.File(self.path()) as file, self.assertRaisesRegex(ValueError, "'a/b'.*accepted"):
            file.case("a/b", **case_of(attention()))

    def test_a_value_that_no_attribute_can_have_is_named(self):
        for part, key, value in (("spec", "scale", None), ("spec", "scale", [1, 2]), ("contract", "p_dtype", np.float16),
                                 ("about", "tuning", dict(warps=4)), ("about", "count", 2**70)):
            with self.subTest(key, value=value), attest_dump.File(self.path()) as file:
                with self.assertRaisesRegex(TypeError, f"case 'a': {part} {key} is .*; accepted: text, a number or a boolean"):
                    file.case("a", **case_of(attention(), **{part: {key: value}}))
                self.assertEqual(list(file.h5), [])

    def test_a_run_of_no_case_says_which_there_are(self):
        path = self.write(**case_of(attention()))
        with self.assertRaisesRegex(ValueError, "no case matches 'nope'; there are: case"):
            attest_dump.run(path, None, case="nope")
        with self.assertRaisesRegex(TypeError, "case 'case': about device is None"):
            attest_dump.run(path, lambda spec, q, k, v: dict(o=q), about=dict(device=None))
        self.expect_same(path, attention())  # nothing is written

    def test_either_byte_order_is_read_in_large_tensors_too(self):
        a = attention("float16", B=1, Hq=4, Hkv=4, Sq=600, Sk=600, D=32, E=32)
        little = case_of(a)
        big = {part: {name: x.astype(x.dtype.newbyteorder(">")) for name, x in little[part].items()}
               for part in ("inputs", "outputs")}
        reports = [self.report(self.write(**{**little, **change}))[1]["cases"] for change in ({}, big)]
        self.assertEqual(reports[0][0]["verdict"], "pass")
        self.assertEqual(reports[0], reports[1])


if __name__ == "__main__":
    make_dump.main()
