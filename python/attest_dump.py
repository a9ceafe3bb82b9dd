# Writes dumps for `attest verify` from numpy arrays and torch tensors, and runs kernels on inputs that `attest
# inputs` wrote. Needs h5py and numpy.
"""Dump what a kernel read and wrote:

    import attest_dump

    with attest_dump.File("dump.h5") as f:
        f.case("my_kernel", op="attention", spec=dict(causal="none", scale=0.125),
               inputs=dict(q=q, k=k, v=v), outputs=dict(o=o, lse=lse), about=dict(device="..."))

Tensors are stored bit by bit in their own element type; copy them before a later kernel writes over them.
bfloat16 and fp8 come from torch tensors, from numpy arrays of the types of ml_dtypes, or as Bits.

Run a kernel on the inputs of a file, and write its outputs beside them:

    attest_dump.run("case.h5", lambda spec, q, k, v: dict(o=my_kernel(q, k, v, spec["scale"])))
"""

import sys
from fnmatch import fnmatchcase
from typing import NamedTuple

import h5py
import numpy as np

FORMAT = 1
STORED_AS_BITS = {"bfloat16": "uint16", "float8_e4m3fn": "uint8", "float8_e5m2": "uint8"}


class Bits(NamedTuple):
    """Bit patterns (uint16 or uint8) of an element type that numpy lacks."""

    patterns: np.ndarray
    dtype: str  # a key of STORED_AS_BITS


def as_array(tensor):
    """A numpy array, and the name of its element type if that is stored as bits, else None."""
    if isinstance(tensor, Bits):
        patterns, dtype = np.asarray(tensor.patterns), tensor.dtype
        if STORED_AS_BITS.get(dtype) != patterns.dtype.name:
            raise TypeError(f"{dtype} cannot be stored as {patterns.dtype}; accepted: {STORED_AS_BITS}")
        return patterns, dtype
    if hasattr(tensor, "detach"):  # torch is loaded already if there is a tensor of it
        tensor = tensor.detach().cpu().contiguous()
        name = str(tensor.dtype).removeprefix("torch.")
        if name in STORED_AS_BITS:
            same_size = "int16" if STORED_AS_BITS[name] == "uint16" else "uint8"
            bits = tensor.view(getattr(sys.modules["torch"], same_size)).numpy()
            return bits.view(STORED_AS_BITS[name]), name
        return tensor.numpy(), None
    array = np.ascontiguousarray(tensor) if np.ndim(tensor) else np.asarray(tensor)
    name = array.dtype.name
    return (array.view(STORED_AS_BITS[name]), name) if name in STORED_AS_BITS else (array, None)


def read(dataset):
    """A dataset as a numpy array, or as Bits where numpy lacks its element type."""
    dtype = dataset.attrs.get("dtype")
    return Bits(dataset[()], dtype) if dtype else dataset[()]


def inputs_of(group):
    """The tensors in `in` of a case, or those that its recipe describes, as read() has them."""
    if "recipe" not in group:
        return {key: read(dataset) for key, dataset in group["in"].items()}
    import attest_inputs
    made = attest_inputs.make(group.attrs["op"], dict(group["spec"].attrs), dict(group["recipe"].attrs))
    return {key: Bits(array, dtype) if dtype else array for key, (array, dtype) in made.items()}


def check_attributes(case, part, attributes):
    for key, value in (attributes or {}).items():
        array = np.asarray(value)
        if array.dtype.kind not in "biufSU" or array.size != 1:
            raise TypeError(f"case {case!r}: {part} {key} is {value!r}; accepted: text, a number or a boolean")


def run(path, kernel, case="*", about=None):
    """Calls kernel(spec, **inputs) for the cases of the file whose names match `case`, and writes the tensors
    of the dict that it returns to `out`, in place of what was there.

    spec is a dict; inputs are numpy arrays, and Bits where numpy lacks the element type:
    torch.from_numpy(q.patterns.view("int16")).view(torch.bfloat16) is a torch tensor of these.
    """
    with h5py.File(path, "r+", libver="earliest") as h5:
        cases = {"/": h5} if "op" in h5.attrs else {name: group for name, group in h5.items() if "op" in group.attrs}
        chosen = {name: group for name, group in cases.items() if fnmatchcase(name, case)}
        if not chosen:
            raise ValueError(f"{path}: no case matches {case!r}; there are: {', '.join(cases) or 'none'}")
        for name, group in chosen.items():
            check_attributes(name, "about", about)
            spec = dict(group["spec"].attrs) if "spec" in group else {}
            outputs = kernel(spec, **inputs_of(group))
            if "out" in group:
                del group["out"]
            for key, tensor in outputs.items():
                File._write(group.require_group("out"), key, tensor)
            group.require_group("about").attrs.update(about or {})


class File:
    """A new dump at `path`, replacing what was there. Use it in a `with` statement, or call close()."""

    def __init__(self, path):
        self.h5 = h5py.File(path, "w", libver="earliest")
        self.h5.attrs["attest_format"] = FORMAT

    def case(self, name, op, inputs, outputs, spec=None, contract=None, about=None):
        """Adds a case and returns its group; name "/" makes it the only one.

        inputs and outputs map names to tensors, or to datasets of this file (such as group["in/q"] of another
        case), which are linked instead of copied. The rest maps keys to text, numbers or booleans.
        """
        if name != "/" and "/" in name:
            raise ValueError(f"{self.h5.filename}: a case is named {name!r}; accepted: names without '/', or '/' alone")
        groups = dict(spec=spec, contract=contract, about=about)
        for part, attributes in groups.items():
            check_attributes(name, part, attributes)
        group = self.h5.require_group(name)
        group.attrs["op"] = op
        for part, attributes in groups.items():
            if attributes:
                group.create_group(part).attrs.update(attributes)
        for part, tensors in {"in": inputs, "out": outputs}.items():
            for key, tensor in tensors.items():
                self._write(group.require_group(part), key, tensor)
        return group

    @staticmethod
    def _write(group, key, tensor):
        if isinstance(tensor, h5py.Dataset):
            group[key] = tensor
            return
        array, dtype = as_array(tensor)
        dataset = group.create_dataset(
            key, data=array, track_times=False, compression="gzip" if array.ndim else None, shuffle=array.ndim > 0)
        if dtype:
            dataset.attrs["dtype"] = dtype

    def close(self):
        self.h5.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
