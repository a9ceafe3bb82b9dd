# What can be wrong with a dump: how an honest one becomes that, and what the message must say.
import zlib

import h5py
import numpy as np


def replace(group, name, data, **options):
    attrs = dict(group[name].attrs) if name in group else {}
    if name in group:
        del group[name]
    dataset = group.create_dataset(name, data=data, **options)
    dataset.attrs.update(attrs)
    return dataset


def cut(group, name, index):
    replace(group, name, group[name][index])


def spoil(group, name, value, at=(0, 1, 2, 3)):
    data = group[name][()]
    data[at] = value
    replace(group, name, data)


def delete(mapping, *names):
    for name in names:
        del mapping[name]


def unwritten(group, name, shape, **options):
    delete(group, name)
    group.create_dataset(name, shape, "f2", **options)


def bomb(group, name):
    """A chunk whose deflate stream is far larger than the chunk."""
    delete(group, name)
    dataset = group.create_dataset(name, (2, 4, 9, 16), "f2", chunks=(2, 4, 9, 16), compression="gzip")
    stream = zlib.compressobj(9)
    parts = [stream.compress(bytes(1 << 20)) for _ in range(1024)]
    dataset.id.write_direct_chunk((0, 0, 0, 0), b"".join([*parts, stream.flush()]))


def sparse_bomb(group, name):
    """One chunk of a dataset of 10^12 elements."""
    unwritten(group, name, (1000000, 1000000), chunks=(1000, 1000), compression="gzip")
    group[name][0, 0] = 1


def narrow_bomb(group, name):
    """A chunk of 4 GB whose stream is cut off after a few bytes."""
    unwritten(group, name, (2, 1000, 1000, 1000), chunks=(2, 1000, 1000, 1000), compression="gzip")
    group[name].id.write_direct_chunk((0, 0, 0, 0), zlib.compress(bytes(4096), 9))


def contiguous(group, name):
    unwritten(group, name, (1000000, 1000000))


def twice_deflated(group, name):
    delete(group, name)
    creation = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    creation.set_chunk((2, 4, 9, 16))
    creation.set_deflate(9)
    creation.set_deflate(9)
    space = h5py.h5s.create_simple((2, 4, 9, 16))
    dataset = h5py.h5d.create(group.id, name.encode(), h5py.h5t.IEEE_F16LE, space, creation)
    dataset.write(h5py.h5s.ALL, h5py.h5s.ALL, np.zeros((2, 4, 9, 16), "f2"))


def strange_filter(group, name):
    delete(group, name)
    creation = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    creation.set_chunk((2, 4, 9, 16))
    creation.set_filter(40000, h5py.h5z.FLAG_OPTIONAL, ())
    space = h5py.h5s.create_simple((2, 4, 9, 16))
    dataset = h5py.h5d.create(group.id, name.encode(), h5py.h5t.IEEE_F16LE, space, creation)
    dataset.write_direct_chunk((0, 0, 0, 0), np.zeros((2, 4, 9, 16), "f2").tobytes())


def external_storage(group, name):
    delete(group, name)
    group.create_dataset(name, (2, 4, 9, 16), "f2", external=[("/etc/passwd", 0, h5py.h5f.UNLIMITED)])


def virtual(group, name):
    source = h5py.VirtualSource("elsewhere.h5", "x", shape=(2, 4, 9, 16))
    layout = h5py.VirtualLayout(shape=(2, 4, 9, 16), dtype="f2")
    layout[...] = source
    delete(group, name)
    group.create_virtual_dataset(name, layout)


def many_axes(group, name):
    replace(group, name, np.zeros((1,) * 9, "f2"))


def strings_in_place(group, name):
    replace(group, name, np.array(["0.5", "1"], object), dtype=h5py.string_dtype())


def arrays(group, name):
    delete(group, name)
    group.create_dataset(name, (2, 4, 9), np.dtype(("f2", (16,))))


def half_of_another_bias(group, name):
    kind = h5py.h5t.IEEE_F16LE.copy()
    kind.set_ebias(16)
    delete(group, name)
    space = h5py.h5s.create_simple((2, 4, 9, 16))
    h5py.h5d.create(group.id, name.encode(), kind, space)


def link(f, name, target):
    del f[name]
    f[name] = target


def mark(f, name, dtype):
    f[name].attrs["dtype"] = dtype


def as_layout(f, layout, axes):
    f["case/spec"].attrs["layout"] = layout
    for path in ("in/q", "in/k", "in/v", "out/o"):
        data = f["case"][path][()].transpose(axes)
        replace(f["case"], path, data.reshape(*data.shape[:2], -1))


def set_spec(**attributes):
    return lambda f: f["case/spec"].attrs.update(attributes)


def unset_spec(name):
    return lambda f: delete(f["case/spec"].attrs, name)


def at_in(function, name, *arguments, **options):
    return lambda f: function(f["case/in"], name, *arguments, **options)


NAN, INF = float("nan"), float("inf")

# What is wrong: how an honest dump (a file with one case, /case) becomes that, and what the message must say.
EDITS = {
    # the file and its groups
    "no attest_format": (lambda f: delete(f.attrs, "attest_format"), "/ attribute attest_format is missing"),
    "version 2": (lambda f: f.attrs.update(attest_format=2), "/ attribute attest_format is 2"),
    "version as text": (lambda f: f.attrs.update(attest_format="1"), "/ attribute attest_format"),
    "version as an array": (lambda f: f.attrs.update(attest_format=[1, 1]), "/ attribute attest_format"),
    "unknown root attribute": (lambda f: f.attrs.update(author="me"), '/ has an attribute "author"'),
    "no case": (lambda f: delete(f, "case"), "/ holds no case"),
    "only a store": (lambda f: f.move("case/in", "store") or delete(f, "case"), "/ holds no case"),
    "no op": (lambda f: delete(f["case"].attrs, "op"), "/case has no attribute op"),
    "an empty group": (lambda f: f.create_group("other"), "/other has no attribute op"),
    "unknown op": (
        lambda f: f["case"].attrs.update(op="atention"), "op is \"atention\"; accepted: attention"),
    "op is a number": (lambda f: f["case"].attrs.update(op=1), "/case attribute op is not text"),
    "op is not UTF-8": (
        lambda f: f["case"].attrs.update(op=np.bytes_(b"\xff\xfe")), "/case attribute op is not UTF-8"),
    "a dataset at the root": (lambda f: f.create_dataset("x", data=[1.0]), "/x is a dataset"),
    "a datatype at the root": (lambda f: f.__setitem__("x", np.dtype("f4")), "/x is a named datatype"),
    "unknown case attribute": (lambda f: f["case"].attrs.update(scale=1.0), '/case has an attribute "scale"'),
    "unknown group in a case": (
        lambda f: f.create_group("case/inn"), "/case/inn is not known; accepted: spec"),
    "unknown dataset in a case": (
        lambda f: f["case"].create_dataset("q", data=[1.0]), "/case/q is not known"),
    "in is a dataset": (lambda f: replace(f["case"], "in", [1.0]), "/case/in is a dataset"),
    "out is a dataset": (lambda f: replace(f["case"], "out", [1.0]), "/case/out is a dataset"),
    "spec is a dataset": (lambda f: replace(f["case"], "spec", [1.0]), "/case/spec is a dataset"),
    "about holds a dataset": (
        lambda f: f.create_dataset("case/about/x", data=1.0), '/case/about holds the object "x"'),
    "attribute on in": (lambda f: f["case/in"].attrs.update(scale=1.0), '/case/in has an attribute "scale"'),
    "attribute on a dataset": (
        lambda f: f["case/in/q"].attrs.update(scale=2.0), '/case/in/q has an attribute "scale"'),
    "no in": (lambda f: delete(f["case"], "in"), "/case/in is missing"),
    "no out": (lambda f: delete(f["case"], "out"), "/case/out is missing"),
    "empty in": (lambda f: delete(f["case/in"], "q", "k", "v"), "/case/in is empty"),
    "empty out": (lambda f: delete(f["case/out"], "o", "lse"), "/case/out is empty"),
    "no in/q": (lambda f: delete(f["case/in"], "q"), "/case/in/q is missing"),
    "unknown input": (
        lambda f: f["case/in"].create_dataset("qq", data=f["case/in/q"][()]), "/case/in/qq is not known"),
    "unknown output": (lambda f: f["case/out"].create_dataset("oo", data=[1.0]), "/case/out/oo is not known"),
    "a group in in": (lambda f: f.create_group("case/in/deep"), "/case/in/deep is not a dataset"),
    "name with a line break": (lambda f: f.create_group("case/a\nb"), r'/case holds a name "a\x0ab"'),
    "case name not UTF-8": (lambda f: f.move(b"case", b"c\xff"), "/ holds a name that is not UTF-8"),
    # links
    "cyclic soft links": (
        lambda f: link(f, "case/in/q", h5py.SoftLink("/case/in/q")), "/case/in/q is a soft link"),
    "dangling link": (
        lambda f: link(f, "case/in/q", h5py.SoftLink("/no/where")), "/case/in/q is a soft link that leads"),
    "external link": (
        lambda f: link(f, "case/in/q", h5py.ExternalLink("x.h5", "/q")), "/case/in/q is an external link"),
    "external link as a case": (
        lambda f: link(f, "case", h5py.ExternalLink("x.h5", "/c")), "/case is an external link"),
    "group inside itself": (lambda f: f["case"].__setitem__("self", f["case"]), "/case/self is not known"),
    "root inside itself": (lambda f: f.__setitem__("self", f["/"]), "/self has no attribute op"),
    "in inside in": (
        lambda f: f["case/in"].__setitem__("self", f["case/in"]), "/case/in/self is not a dataset"),
    # spec and contract
    "no spec": (lambda f: delete(f["case"], "spec"), "/case/spec attribute causal is missing"),
    "unknown spec key": (set_spec(causl="none"), "/case/spec attribute causl is not known; accepted:"),
    "unknown contract key": (
        lambda f: f.create_group("case/contract").attrs.update(p_type="float16"), "/case/contract"),
    "unknown contract type": (
        lambda f: f.create_group("case/contract").attrs.update(p_dtype="half"), "attribute p_dtype"),
    "no causal": (unset_spec("causal"), "/case/spec attribute causal is missing"),
    "causal misspelled": (
        set_spec(causal="topleft"), 'causal is "topleft"; accepted: none, top_left, bottom_right'),
    "causal a boolean": (
        set_spec(causal=True),
        "attribute causal is true; a text is expected: none, top_left, bottom_right"),
    "causal with a NUL": (
        set_spec(causal=np.void(b"none\0x")), "/case/spec attribute causal is an opaque type"),
    "no scale": (unset_spec("scale"), "/case/spec attribute scale is missing; there are: causal"),
    "scale as text": (set_spec(scale="0.25"), "/case/spec attribute scale is the text"),
    "scale NaN": (set_spec(scale=NAN), "/case/spec attribute scale is nan"),
    "scale infinite": (set_spec(scale=INF), "/case/spec attribute scale is inf"),
    "scale an array": (set_spec(scale=[0.25, 0.25]), "/case/spec attribute scale is an array of 2 elements"),
    "scale empty": (set_spec(scale=h5py.Empty("f8")), "/case/spec attribute scale is an array of 0 elements"),
    "scale compound": (
        set_spec(scale=np.array((1.0, 2), "f8,i4")), "/case/spec attribute scale is a compound type"),
    "scale a reference": (
        lambda f: f["case/spec"].attrs.update(scale=f["case"].ref), "attribute scale is references"),
    "a long text": (set_spec(causal="x" * 1000000), "/case/spec attribute causal is longer than 65536 bytes"),
    "unknown layout": (set_spec(layout="bhds"), '/case/spec attribute layout is "bhds"; accepted: bhsd'),
    "window of -2": (set_spec(window_left=-2), "/case/spec attribute window_left is -2"),
    "heads_q missing": (
        lambda f: as_layout(f, "bsm", (0, 2, 1, 3)), "/case/spec attribute heads_q is missing"),
    # shapes
    "q of rank 3": (lambda f: cut(f["case/in"], "q", 0), "/case/in/q has shape [4, 9, 16]"),
    "q a scalar": (at_in(replace, "q", np.float16(1)), "/case/in/q is a scalar or has no elements"),
    "q empty": (at_in(replace, "q", h5py.Empty("f2")), "/case/in/q is a scalar or has no elements"),
    "q of rank 9": (at_in(many_axes, "q"), "/case/in/q has shape [1, 1, 1, 1, 1, 1, 1, 1, 1] of 9 axes"),
    "Hq = 3, Hkv = 2": (lambda f: cut(f["case/in"], "q", np.s_[:, :3]), "Hq must be a multiple of Hkv"),
    "D of q and k": (lambda f: cut(f["case/in"], "k", np.s_[..., :15]), "/case/in/k has D = 15"),
    "Sk of k and v": (lambda f: cut(f["case/in"], "v", np.s_[:, :, :12]), "/case/in/v has Sk = 12"),
    "B of q and k": (lambda f: cut(f["case/in"], "k", np.s_[:1]), "/case/in/k has B = 1"),
    "o too short": (lambda f: cut(f["case/out"], "o", np.s_[:, :, :8]), "/case/out/o has Sq = 8"),
    "lse of rank 2": (lambda f: cut(f["case/out"], "lse", 0), "/case/out/lse has shape [4, 9]"),
    "no rows": (lambda f: cut(f["case/in"], "q", np.s_[:, :, :0]), "/case/in/q has shape [2, 4, 0, 16]"),
    "no keys": (lambda f: cut(f["case/in"], "k", np.s_[:, :, :0]), "/case/in/k has shape [2, 2, 0, 16]"),
    "dq without do": (lambda f: f["case/out"].create_dataset("dq", data=f["case/in/q"][()]), "/case/out/dq"),
    # values and element types
    "NaN in q": (at_in(spoil, "q", NAN), "/case/in/q"),
    "NaN in k": (at_in(spoil, "k", NAN), "/case/in/k"),
    "NaN in v": (at_in(spoil, "v", NAN), "/case/in/v"),
    "NaN in do": (lambda f: replace(f["case/in"], "do", np.full((2, 4, 9, 16), NAN, "f2")), "/case/in/do"),
    "infinity in q": (at_in(spoil, "q", INF), "/case/in/q"),
    "q of integers": (at_in(replace, "q", np.ones((2, 4, 9, 16), "i4")), "/case/in/q holds int32"),
    "bits without a type": (
        at_in(replace, "q", np.ones((2, 4, 9, 16), "u2")),
        "holds uint16; a floating-point type is expected, or the attribute dtype = bfloat16 if these are"),
    "q of text": (at_in(strings_in_place, "q"), "/case/in/q holds text"),
    "q compound": (at_in(replace, "q", np.zeros((2, 4, 9, 16), "c8")), "/case/in/q holds a compound type"),
    "q of long double": (
        at_in(replace, "q", np.zeros((2, 4, 9, 16), "g")), "/case/in/q holds a 128-bit float type"),
    "q of an unknown bias": (
        at_in(half_of_another_bias, "q"), "/case/in/q holds a 16-bit float type of an unknown layout"),
    "q of arrays": (at_in(arrays, "q"), "/case/in/q holds an array type"),
    "float kv_lengths": (at_in(replace, "kv_lengths", np.full(2, 13.0)), "/case/in/kv_lengths holds float64"),
    "negative kv_lengths": (at_in(replace, "kv_lengths", np.array([13, -1])), "/case/in/kv_lengths"),
    "kv_lengths beyond Sk": (at_in(replace, "kv_lengths", np.array([13, 14])), "/case/in/kv_lengths"),
    "kv_lengths beyond 2^53": (
        at_in(replace, "kv_lengths", np.array([13, 2**53 + 1])),
        "/case/in/kv_lengths element 1 is 9007199254740993"),
    "dtype contradicts float16": (
        lambda f: mark(f, "case/in/q", "bfloat16"), '/case/in/q is stored as float16 and'),
    "dtype unknown": (
        lambda f: replace(f["case/in"], "q", np.ones((2, 4, 9, 16), "u2")).attrs.update(dtype="bf16"),
        '/case/in/q is stored as uint16 and its attribute dtype is "bf16"'),
    "dtype of the wrong size": (
        lambda f: replace(f["case/in"], "q", np.ones((2, 4, 9, 16), "u1")).attrs.update(dtype="bfloat16"),
        "/case/in/q is stored as uint8"),
    "dtype a number": (lambda f: mark(f, "case/in/q", 16), "/case/in/q attribute dtype is no text"),
    # storage
    "not written, chunked": (
        at_in(unwritten, "q", (10**6, 10**6), chunks=(1000, 1000)), "/case/in/q of shape [1000000"),
    "not written, contiguous": (at_in(contiguous, "q"), "/case/in/q of shape [1000000, 1000000] declares"),
    "overflowing shape": (
        at_in(unwritten, "q", (2**62, 2**62 - 1, 4), chunks=(1, 1, 1)), "/case/in/q of shape"),
    "one chunk of many": (at_in(sparse_bomb, "q"), "1 of 1000000 chunks"),
    "a chunk of 4 GB in 30 bytes": (
        at_in(narrow_bomb, "q"), "/case/in/q of shape [2, 1000, 1000, 1000] declares"),
    "a deflate bomb": (
        at_in(bomb, "q"), "/case/in/q of shape [2, 4, 9, 16] declares 2304 bytes and stores 10"),
    "deflate twice": (at_in(twice_deflated, "q"), "/case/in/q passes through filter 1"),
    "unknown filter": (at_in(strange_filter, "q"), "/case/in/q needs the HDF5 filter 40000"),
    "external storage": (at_in(external_storage, "q"), "/case/in/q keeps its data outside the file"),
    "virtual dataset": (at_in(virtual, "q"), "/case/in/q keeps its data outside the file"),
}
