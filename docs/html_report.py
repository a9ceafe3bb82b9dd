#!/usr/bin/env python3
# Makes what docs/html_report.md shows: a sample report, and the picture on the page.
"""usage: html_report.py [--check] [--report FILE] [ATTEST]

Dumps a kernel's outputs with and without faults, lets ATTEST (build/release/attest by default) judge them, and writes
docs/html_report.svg; with --check it writes nothing and fails if that is out of date. --report writes the whole report
to FILE.
"""

import argparse
import pathlib
import re
import subprocess
import sys
import tempfile

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parent.parent
PICTURE = ROOT / "docs" / "html_report.svg"
sys.path.insert(0, str(ROOT / "python"))
import attest_dump  # noqa: E402

SCALE = 0.125


def kernel(q, k, v):
    """Causal attention that rounds its weights to float16, before its output is stored."""
    s = np.einsum("bhid,bhjd->bhij", q, k, dtype=np.float64) * SCALE
    s[..., np.triu(np.ones(s.shape[-2:], bool), 1)] = -np.inf
    m = s.max(-1, keepdims=True)
    p = np.exp(s - m)
    total = p.sum(-1, keepdims=True)
    o = np.einsum("bhij,bhje->bhie", p.astype(np.float16).astype(np.float64), v.astype(np.float64)) / total
    return o, (m + np.log(total))[..., 0].astype(np.float32)


def dump(path):
    r = np.random.default_rng(7)
    q, k, v = (r.standard_normal((1, 8, 512, 64)).astype(np.float16) for _ in range(3))
    exact, lse = kernel(q, k, v)
    o = exact.astype(np.float16)
    one = o.copy()
    one[0, 5, 300, 17] = -one[0, 5, 300, 17]
    tile = o.copy()
    tile[0, 2, 128:192] = 0
    truncated = np.where(abs(o) > abs(exact), np.nextafter(o, np.float16(0)), o)
    with attest_dump.File(path) as f:
        for name, result in dict(as_promised=o, one_sign=one, tile_not_written=tile, truncates=truncated).items():
            f.case(name, op="attention", spec=dict(causal="top_left", scale=SCALE), inputs=dict(q=q, k=k, v=v),
                   outputs=dict(o=result, lse=lse), about=dict(kernel="docs/html_report.py"))


def picture(report):
    """The first map with tiles, as a file of its own with the styles that it needs."""
    svg = next(x for x in re.findall(r"<svg.*?</svg>", report, re.DOTALL) if 'class="tile"' in x)
    style = re.search(r"<style>(.*?)</style>", report, re.DOTALL).group(1)  # that of pictures comes first
    return svg.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1).replace(">", f"><style>{style}</style>", 1) + "\n"


def main():
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--report", type=pathlib.Path)
    parser.add_argument("attest", nargs="?", default=ROOT / "build" / "release" / "attest", type=pathlib.Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        dump(f"{folder}/sample.h5")
        run = subprocess.run([options.attest.resolve(), "verify", "sample.h5", "--html", "report.html"], cwd=folder,
                             stdout=subprocess.DEVNULL)
        if run.returncode != 1:
            sys.exit(f"attest verify ended with status {run.returncode}; three of the four cases are to fail")
        report = pathlib.Path(folder, "report.html").read_text(encoding="utf-8")
    if options.report:
        options.report.parent.mkdir(parents=True, exist_ok=True)
        options.report.write_text(report, encoding="utf-8")
    is_current = PICTURE.exists() and PICTURE.read_text(encoding="utf-8") == picture(report)
    if options.check and not is_current:
        sys.exit(f"{PICTURE.relative_to(ROOT)} is out of date; run docs/html_report.py")
    if not options.check:
        PICTURE.write_text(picture(report), encoding="utf-8")


if __name__ == "__main__":
    main()
