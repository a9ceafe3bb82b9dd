#!/usr/bin/env python3
# Judges what ONNX publishes as the results of its operators, and writes docs/onnx_nodes.md.
"""usage: nodes.py [--check] [ATTEST]

Makes a dump of every node case of the Python package onnx whose operator attest knows, judges it with the program
ATTEST (build/release/attest by default) and writes docs/onnx_nodes.md. --check writes nothing and fails if the
page is out of date. Needs onnx, h5py and numpy; exit status 77 where one of them is missing.
"""

import json
import pathlib
import subprocess
import sys
import tempfile
import warnings

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "python"))
PAGE = ROOT / "docs" / "onnx_nodes.md"
VERSION = "1.23.2"
SKIPPED = 77

try:
    import numpy as np
    import onnx
    from onnx.backend.test.case.node import collect_testcases

    import attest_dump
except ImportError as missing:
    print(f"{missing}; pip install onnx=={VERSION} h5py", file=sys.stderr)
    sys.exit(SKIPPED)


class NotExpressible(Exception):
    """What a case asks for that no op of attest does."""


def merged_axes(array, axis):
    """ONNX normalises over all axes from `axis` on; attest over the last one."""
    axis %= array.ndim
    return array.reshape(*array.shape[:axis], -1)


def attention(attributes, inputs, outputs):
    q, k, v = inputs["Q"], inputs["K"], inputs["V"]
    spec, tensors, results = dict(), dict(q=q, k=k, v=v), dict(o=outputs["Y"])
    if q.ndim == 3:
        spec.update(layout="bsm", heads_q=attributes["q_num_heads"], heads_kv=attributes["kv_num_heads"])
    width = q.shape[-1] // spec.get("heads_q", 1)
    spec["scale"] = float(attributes.get("scale", width**-0.5))
    spec["softcap"] = float(attributes.get("softcap", 0))
    past = inputs.get("past_key")
    if past is not None:
        tensors.update(past_k=inputs["past_key"], past_v=inputs["past_value"])
        if q.ndim == 3:  # the past has its heads outside in every layout
            tensors.update({name: heads_into_width(tensors[name]) for name in ("past_k", "past_v")})
    present = inputs.get("nonpad_kv_seqlen")
    if present is not None:
        tensors["kv_lengths"] = present
    # Diagonals count from the end of the keys that are present, or from the end of the past.
    corner = "bottom_right" if present is not None and past is None else "top_left"
    spec["causal"] = corner if attributes.get("is_causal") else "none"
    window = [attributes.get(f"{side}_window_size", -1) for side in ("left", "right")]
    keys = k.shape[-2] + (0 if past is None else past.shape[2])
    rows = q.shape[-2]
    mask = inputs.get("attn_mask")
    if max(window) >= 0:
        spec.update(window_left=window[0], window_right=window[1])
        if spec["causal"] == "none" and corner == "top_left" and keys - rows != (0 if past is None else past.shape[2]):
            raise NotExpressible("a window that starts in the first corner, without a causal mask")
    if mask is not None:
        absent = keys - mask.shape[-1]
        pad = [(0, 0)] * (mask.ndim - 1) + [(0, absent)]
        name = "mask" if mask.dtype == np.bool_ else "bias"
        tensors[name] = np.pad(mask, pad, constant_values=False if name == "mask" else -np.inf)
    product = outputs.get("qk_matmul_output")
    if product is not None:
        mode = attributes.get("qk_matmul_output_mode", 0)
        changed_later = [mask is not None or spec["causal"] != "none" or present is not None, spec["softcap"] > 0]
        if mode == 3:
            results["p"] = product
        elif mode == 2 or not changed_later[0] and (mode == 1 or not changed_later[1]):
            results["s"] = product
    precision = {1: "float32", 10: "float16", 11: "float64", 16: "bfloat16"}
    contract = numpy_arithmetic(q)
    if attributes.get("softmax_precision"):
        contract["softmax_dtype"] = precision[attributes["softmax_precision"]]
    return "attention", spec, tensors, results, contract


def heads_into_width(array):
    batch, heads, length, width = array.shape
    return np.ascontiguousarray(array.transpose(0, 2, 1, 3)).reshape(batch, length, heads * width)


def numpy_arithmetic(q):
    """The expected values come from numpy: its results have the element type of its operands, sums of products not."""
    sums = "float64" if q.dtype == np.float64 else "float32"
    return dict(p_dtype=q.dtype.name, softmax_dtype=q.dtype.name, qk_accumulate=sums, pv_accumulate=sums)


def rotary(attributes, inputs, outputs):
    x = inputs["X"]
    spec = dict(style="interleaved" if attributes.get("interleaved") else "half")
    if x.ndim == 3:
        spec.update(layout="bsm", heads=attributes["num_heads"])
    if attributes.get("rotary_embedding_dim"):
        spec["rotary_dim"] = attributes["rotary_embedding_dim"]
    tensors = dict(x=x, cos=inputs["cos_cache"], sin=inputs["sin_cache"])
    if "position_ids" in inputs:
        tensors["positions"] = inputs["position_ids"]
    return "rope", spec, tensors, dict(y=next(iter(outputs.values()))), dict()


def norm(name):
    def convert(attributes, inputs, outputs):
        x, *parameters = inputs.values()
        axis = attributes.get("axis", -1)
        tensors = dict(x=merged_axes(x, axis))
        tensors.update({key: value.reshape(-1) for key, value in zip(("weight", "bias"), parameters)})
        y, *statistics = outputs.values()
        results = dict(y=y.reshape(tensors["x"].shape))
        rows = tensors["x"].shape[:-1]
        for key, value in zip(("mean", "rstd"), statistics):
            results[key] = value.reshape(rows or (1,))
        if not rows:
            tensors["x"], results["y"] = tensors["x"][None], results["y"][None]
        return name, dict(eps=float(np.float32(attributes.get("epsilon", 1e-5)))), tensors, results, dict()

    return convert


def softmax(attributes, inputs, outputs):
    return "softmax", dict(axis=attributes.get("axis", -1)), dict(x=only(inputs)), dict(y=only(outputs)), dict()


def gelu(attributes, inputs, outputs):
    spec = dict(approximate=attributes.get("approximate", b"none").decode())
    return "gelu", spec, dict(x=only(inputs)), dict(y=only(outputs)), dict()


def swish(attributes, inputs, outputs):
    if attributes.get("alpha", 1.0) != 1.0:
        raise NotExpressible(f"alpha = {attributes['alpha']}")
    return "silu", dict(), dict(x=only(inputs)), dict(y=only(outputs)), dict()


def sigmoid(attributes, inputs, outputs):
    return "sigmoid", dict(), dict(x=only(inputs)), dict(y=only(outputs)), dict()


def only(tensors):
    (tensor,) = tensors.values()
    return tensor


CONVERTERS = {
    "Attention": attention,
    "Gelu": gelu,
    "LayerNormalization": norm("layer_norm"),
    "RMSNormalization": norm("rms_norm"),
    "RotaryEmbedding": rotary,
    "Sigmoid": sigmoid,
    "Softmax": softmax,
    "Swish": swish,
}


def formal(names, values, schema_names):
    """Maps the names of an operator's arguments to the values of a node's arguments, those it leaves out skipped."""
    values = iter(values)
    return {formal_name: next(values) for name, formal_name in zip(names, schema_names) if name}


def node_cases():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cases = collect_testcases(None)
    for case in cases:
        node = case.model.graph.node[0]
        if len(case.model.graph.node) == 1 and node.op_type in CONVERTERS:
            opset = next(entry.version for entry in case.model.opset_import if entry.domain == "")
            schema = onnx.defs.get_schema(node.op_type, opset, "")
            inputs, outputs = case.data_sets[0]
            attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
            yield (case.name.removeprefix("test_"), node.op_type, attributes,
                   formal(node.input, map(np.asarray, inputs), [i.name for i in schema.inputs]),
                   formal(node.output, map(np.asarray, outputs), [o.name for o in schema.outputs]), opset)


def write_dump(path):
    """Returns (operator, opset, reason) of the cases that cannot be expressed, None where they can."""
    cases = {}
    with attest_dump.File(path) as f:
        for name, operator, attributes, inputs, outputs, opset in node_cases():
            cases[name] = (operator, opset, None)
            try:
                op, spec, tensors, results, contract = CONVERTERS[operator](attributes, inputs, outputs)
            except NotExpressible as reason:
                cases[name] = (operator, opset, str(reason))
                continue
            f.case(name, op=op, spec=spec, contract=contract, inputs=tensors, outputs=results,
                   about=dict(library=f"onnx {onnx.__version__}", opset=opset))
    return cases


def judge(attest, path):
    """Maps the names of the cases to what the report says of them."""
    run = subprocess.run([attest, "verify", "--json", path], capture_output=True, text=True)
    try:
        return {case["name"]: case for case in json.loads(run.stdout)["cases"]}
    except ValueError:
        sys.exit(f"{attest} verify ended with status {run.returncode}\n{run.stderr}")


def page(cases, findings):
    verdicts = [findings[name]["verdict"] for name in findings]
    counts = ", ".join(f"{verdicts.count(v)} {v}" for v in ("pass", "inconclusive", "fail", "invalid") if v in verdicts)
    text = f"""# Do attest's semantics agree with ONNX?

Made by `data/onnx/nodes.py` from the node cases of the Python package onnx {onnx.__version__}: inputs and expected
outputs that ONNX publishes for each operator, {len(cases)} of them, judged like a kernel's. How arguments map to spec
keys is in that file, and in [ops.md](ops.md) by op.

**{counts}.** The expected values come from numpy. In float16 and bfloat16 it rounds scores, exponentials and row sums
to that type, and the contract of these cases says so: it allows so much that in some of them a scale that is 1 % off
would pass, too.

`qk_matmul_output` is judged as `s` or `p` where it is what attest calls so; `present_key` and `present_value` are copies.

| operator | opset | case | verdict | outputs |
|---|---|---|---|---|
"""
    for name, (operator, opset, reason) in sorted(cases.items(), key=lambda item: (item[1][0], item[0])):
        found = findings.get(name)
        verdict = found["verdict"] if found else f"not expressible: {reason}"
        outputs = " ".join(f"`{output['name']}`" for output in found["outputs"]) if found else ""
        text += f"| {operator} | {opset} | {name} | {verdict} | {outputs} |\n"
    return text


def main(arguments):
    check = "--check" in arguments
    rest = [argument for argument in arguments if argument != "--check"]
    if len(rest) > 1 or any(argument.startswith("-") for argument in rest):
        sys.exit(__doc__)
    with tempfile.TemporaryDirectory() as folder:
        path = str(pathlib.Path(folder) / "onnx_nodes.h5")
        cases = write_dump(path)
        findings = judge(rest[0] if rest else str(ROOT / "build" / "release" / "attest"), path)
    new = page(cases, findings)
    if check and (not PAGE.exists() or new != PAGE.read_text(encoding="utf-8")):
        sys.exit(f"{PAGE} is out of date: run {pathlib.Path(__file__).relative_to(ROOT)}")
    if not check:
        PAGE.write_text(new, encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
