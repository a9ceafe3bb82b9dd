#!/usr/bin/env python3
# Writes docs/interactive/data/tiles.js: the traces that tiles.html shows, one for each size of tiles.
"""usage: make.py [--check] [ATTEST]

Asks the program ATTEST (build/release/attest by default) for a trace with every size of tiles. --check writes nothing
and fails if the file is out of date. data/error.js is written by attest_error_curves.
"""

import pathlib
import subprocess
import sys

FOLDER = pathlib.Path(__file__).resolve().parent
ROOT = FOLDER.parents[1]
DATA = FOLDER / "data" / "tiles.js"
MOST_ROWS, MOST_KEYS = 6, 8
# This seed has tiles that raise the maximum of some rows, of all rows, and of none.
OPTIONS = ["--shape", "8x8x4x4", "--causal", "top_left", "--backward", "--seed", "3", "--digits", "4"]


def trace(attest, rows, keys):
    run = subprocess.run([attest, "trace", *OPTIONS, "--tile", f"{rows}x{keys}"], capture_output=True, text=True)
    if run.returncode != 0:
        sys.exit(f"{attest} trace ended with status {run.returncode}\n{run.stderr}")
    return run.stdout


def text(attest):
    lines = [f'"{rows}x{keys}": {trace(attest, rows, keys).strip()}'
             for rows in range(1, MOST_ROWS + 1) for keys in range(1, MOST_KEYS + 1)]
    head = "// Written by docs/interactive/make.py from `attest trace " + " ".join(OPTIONS) + " --tile ROWSxKEYS`.\n"
    return head + "window.TRACES = {\n" + ",\n".join(lines) + "\n};\n"


def main(arguments):
    check = "--check" in arguments
    rest = [argument for argument in arguments if argument != "--check"]
    if len(rest) > 1 or any(argument.startswith("-") for argument in rest):
        sys.exit(__doc__)
    fresh = text(rest[0] if rest else str(ROOT / "build" / "release" / "attest"))
    if not check:
        DATA.write_text(fresh, encoding="utf-8")
    elif not DATA.exists() or DATA.read_text(encoding="utf-8") != fresh:
        sys.exit(f"out of date: {DATA.relative_to(ROOT)}; run docs/interactive/make.py")


if __name__ == "__main__":
    main(sys.argv[1:])
