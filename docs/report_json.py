#!/usr/bin/env python3
# Writes the example of docs/report_json.md: what the program reports of a small dump.
"""usage: report_json.py [--check] [ATTEST]

Dumps a kernel's output with and without a NaN, lets ATTEST (build/release/attest by default) judge both, and writes
the report of the second into docs/report_json.md. --check writes nothing and fails if the page is out of date.
"""

import json
import pathlib
import re
import subprocess
import sys
import tempfile

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "report_json.md"
BLOCK = re.compile(r"(?<=^```json\n).*?(?=^```$)", re.MULTILINE | re.DOTALL)
WIDTH = 110  # columns up to which an object or a list stays on one line
sys.path.insert(0, str(ROOT / "python"))
import attest_dump  # noqa: E402


def dump(path):
    q, k, v = np.random.default_rng(1).standard_normal((3, 1, 2, 8, 16)).astype(np.float32)
    s = q.astype(np.float64) @ k.astype(np.float64).swapaxes(2, 3) / 4
    p = np.exp(s - s.max(-1, keepdims=True))
    right = (p @ v.astype(np.float64) / p.sum(-1, keepdims=True)).astype(np.float32)
    wrong = right.copy()
    wrong[0, 1, 7, 15] = np.nan
    with attest_dump.File(path) as f:
        for name, o in dict(right=right, wrong=wrong).items():
            f.case(name, op="attention", spec=dict(causal="none", scale=0.25), inputs=dict(q=q, k=k, v=v),
                   outputs=dict(o=o), about=dict(device="none"))


def shortened(report):
    """Without the case that passes, and with two blocks in each profile."""
    report["cases"] = [case for case in report["cases"] if case["verdict"] == "fail"]
    for case in report["cases"]:
        for output in case["outputs"]:
            for name in ("spread", "gain"):
                for axis in output["profile"][name].values():
                    del axis[2:]
    return report


def text_of(value, indent=""):
    line = json.dumps(value)
    if not isinstance(value, (dict, list)) or len(indent + line) <= WIDTH:
        return line
    inner = indent + "  "
    if isinstance(value, dict):
        parts, (begin, end) = [f"{json.dumps(key)}: {text_of(x, inner)}" for key, x in value.items()], "{}"
    else:
        parts, (begin, end) = [text_of(x, inner) for x in value], "[]"
    return begin + ",".join(f"\n{inner}{part}" for part in parts) + f"\n{indent}{end}"


def example(attest):
    with tempfile.TemporaryDirectory() as folder:
        dump(f"{folder}/dump.h5")
        run = subprocess.run([attest, "verify", "--json", "dump.h5"], cwd=folder, capture_output=True, text=True)
    if run.returncode != 1:
        sys.exit(f"attest verify ended with status {run.returncode}; one of the two cases is to fail\n{run.stderr}")
    report = json.loads(run.stdout, parse_float=lambda number: float(f"{float(number):.6g}"))  # the same on every CPU
    return text_of(shortened(report)) + "\n"


def main(arguments):
    check = "--check" in arguments
    rest = [argument for argument in arguments if argument != "--check"]
    if len(rest) > 1 or any(argument.startswith("-") for argument in rest):
        sys.exit(__doc__)
    made = example(pathlib.Path(rest[0] if rest else ROOT / "build" / "release" / "attest").resolve())
    before = PAGE.read_text(encoding="utf-8")
    after, examples = BLOCK.subn(lambda _: made, before)
    if examples != 1:
        sys.exit(f"{PAGE.relative_to(ROOT)} has {examples} blocks of JSON; one is the example")
    if check and after != before:
        sys.exit(f"{PAGE.relative_to(ROOT)} is out of date; run docs/report_json.py")
    if not check:
        PAGE.write_text(after, encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
