#!/usr/bin/env python3
# Writes the tables of docs/device_kernels.md: how far the device kernels are off, in units of their bounds.
"""usage: ratios.py [--check] [ATTEST]

Judges the dumps of this folder with the program ATTEST (build/release/attest by default) and replaces the
tables in docs/device_kernels.md. --check writes nothing and fails if a table is out of date.
"""

import json
import pathlib
import subprocess
import sys

FOLDER = pathlib.Path(__file__).resolve().parent
ROOT = FOLDER.parent.parent
PAGE = ROOT / "docs" / "device_kernels.md"
BEGIN, END = "<!-- table: data/device/ratios.py -->\n", "<!-- end of table -->\n"
BEGIN_STORES = "<!-- table: data/device/ratios.py, stored operands -->\n"
KERNELS = {"cudnn": "cuDNN", "efficient": "efficient", "flash": "FlashAttention-2"}
OUTPUTS = ("o", "lse", "dq", "dk", "dv")
FIGURES = ("worst_ratio", "worst_rigorous_ratio", "rms_ratio")


def cases(attest):
    """(workload, kernel, figures of each output) of every case, in the order of the workloads."""
    dumps = sorted(str(path) for path in FOLDER.glob("*.h5"))
    run = subprocess.run([attest, "verify", "--json", *dumps], capture_output=True, text=True)
    if run.returncode != 0:
        sys.exit(f"{attest} verify ended with status {run.returncode}\n{run.stdout[-2000:]}{run.stderr}")
    rows = []
    for case in json.loads(run.stdout)["cases"]:
        workload, _, kernel = case["name"].rpartition("_")
        rows.append((workload, kernel, {output["name"]: output for output in case["outputs"]}))
    return sorted(rows, key=lambda row: row[:2])


def figure(value):
    """Two significant digits: what is left of a last bit in which two mathematics libraries differ."""
    value = float(value)
    return f"{value:.2g}" if value < 0.1 else f"{value:.2f}"


def table(rows):
    text = "| workload | kernel | " + " | ".join(f"`{name}`" for name in OUTPUTS) + " |\n"
    text += "|---" * (2 + len(OUTPUTS)) + "|\n"
    for workload, kernel, outputs in rows:
        cells = [" · ".join(figure(outputs[name][key]) for key in FIGURES) for name in OUTPUTS]
        text += f"| {workload} | {KERNELS[kernel]} | " + " | ".join(cells) + " |\n"
    return text


def table_of_stores(rows):
    names = [name for name in OUTPUTS if name != "lse"]
    text = "| workload | kernel | " + " | ".join(f"`{name}`" for name in names) + " |\n"
    text += "|---" * (2 + len(names)) + "|\n"
    for workload, kernel, outputs in rows:
        cells = [f"{outputs[name]['stored_operands'] or 'unknown'}: {100 * outputs[name]['predicted']:.1f} %" for name in names]
        text += f"| {workload} | {KERNELS[kernel]} | " + " | ".join(cells) + " |\n"
    return text


def with_table(page, begin, text):
    """The page, with this text from the line `begin` to the next END."""
    before, found, after = page.partition(begin)
    _, end, after = after.partition(END)
    if not found or not end:
        sys.exit(f"{PAGE} lacks the lines between which a table stands")
    return before + begin + text + end + after


def main(arguments):
    check = "--check" in arguments
    rest = [argument for argument in arguments if argument != "--check"]
    if len(rest) > 1 or any(argument.startswith("-") for argument in rest):
        sys.exit(__doc__)
    old = PAGE.read_text(encoding="utf-8")
    rows = cases(rest[0] if rest else str(ROOT / "build" / "release" / "attest"))
    new = with_table(with_table(old, BEGIN, table(rows)), BEGIN_STORES, table_of_stores(rows))
    if check and new != old:
        sys.exit(f"{PAGE} is out of date: run {pathlib.Path(__file__).relative_to(ROOT)}")
    if not check:
        PAGE.write_text(new, encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
