#!/usr/bin/env python3
# Makes the golden files, their lines in data/MANIFEST and their table in docs/goldens.md, and checks them.
"""usage: manifest.py make PROGRAM
       manifest.py check [PROGRAM]

make: lets PROGRAM (attest_goldens) compute all files anew and writes their lines and their table.
check: writes nothing and fails if a file, its line or its table is not what the others say, or if PROGRAM, where it
is given, does not rebuild the small files bit for bit.
"""

import hashlib
import pathlib
import subprocess
import sys
import tempfile

import h5py

FOLDER = pathlib.Path(__file__).resolve().parent
MANIFEST, PAGE = FOLDER.parent / "MANIFEST", FOLDER.parents[1] / "docs" / "goldens.md"
BEGIN, END = "<!-- table: data/golden/manifest.py -->\n", "<!-- end of table -->\n"
LARGEST_FILE, LARGEST_SUM = 1_000_000, 20_000_000


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def described():
    """name, seed, purpose of each file of the manifest."""
    for line in MANIFEST.read_text(encoding="utf-8").splitlines():
        if line.startswith("golden/"):
            path, digest, generator, purpose = line.split("  ")
            yield pathlib.Path(path).stem, digest, generator, purpose


def table():
    text = "| file | for | cases | values | kB |\n|---|---|---|---|---|\n"
    sums = [0, 0, 0]
    for name, _, _, purpose in described():
        path = FOLDER / f"{name}.h5"
        with h5py.File(path) as file:
            cases = [case for case in file if "op" in file[case].attrs]
            values = sum(data.size for case in cases for data in file[f"{case}/out"].values())
        row = [len(cases), values, round(path.stat().st_size / 1000)]
        sums = [a + b for a, b in zip(sums, row)]
        text += f"| `{name}.h5` | {purpose} | " + " | ".join(f"{n:,}" for n in row) + " |\n"
    return text + "| all | | " + " | ".join(f"{n:,}" for n in sums) + " |\n"


def page_with(new_table):
    page = PAGE.read_text(encoding="utf-8")
    before, rest = page.split(BEGIN)
    return before + BEGIN + new_table + rest[rest.index(END):]


def make(program):
    subprocess.run([program, "write", FOLDER], check=True)
    lines = [line for line in MANIFEST.read_text(encoding="utf-8").splitlines() if not line.startswith("golden/")]
    for line in subprocess.run([program, "list"], check=True, capture_output=True, text=True).stdout.splitlines():
        name, seed, _, purpose = line.split("\t")
        digest = sha256(FOLDER / f"{name}.h5")
        lines.append(f"golden/{name}.h5  {digest}  golden/attest_goldens, seed {seed}  {purpose}")
    MANIFEST.write_text("\n".join(lines) + "\n", encoding="utf-8")
    PAGE.write_text(page_with(table()), encoding="utf-8")


def complaints(program):
    listed = {name: digest for name, digest, _, _ in described()}
    files = {path.stem: path for path in FOLDER.glob("*.h5")}
    for name in sorted(listed.keys() ^ files.keys()):
        yield f"{name}.h5 is only {'in data/MANIFEST' if name in listed else 'in data/golden'}"
    for name in sorted(listed.keys() & files.keys()):
        if sha256(files[name]) != listed[name]:
            yield f"{name}.h5 has another sha256 than data/MANIFEST says"
        if files[name].stat().st_size >= LARGEST_FILE:
            yield f"{name}.h5 has {files[name].stat().st_size} bytes; below {LARGEST_FILE} is expected"
    if sum(path.stat().st_size for path in files.values()) >= LARGEST_SUM:
        yield f"the files together have {LARGEST_SUM} bytes or more"
    if page_with(table()) != PAGE.read_text(encoding="utf-8"):
        yield "the table of docs/goldens.md is out of date"
    if program:
        with tempfile.TemporaryDirectory() as folder:
            subprocess.run([program, "write", folder, "small"], check=True, stderr=subprocess.DEVNULL)
            for path in sorted(pathlib.Path(folder).iterdir()):
                if path.read_bytes() != (FOLDER / path.name).read_bytes():
                    yield f"{path.name} is not rebuilt bit for bit"


def main():
    if len(sys.argv) == 3 and sys.argv[1] == "make":
        make(sys.argv[2])
        return 0
    if len(sys.argv) in (2, 3) and sys.argv[1] == "check":
        found = list(complaints(sys.argv[2] if len(sys.argv) == 3 else None))
        for complaint in found:
            print(complaint + "; make goldens renews the files (see docs/goldens.md)")
        return 1 if found else 0
    print(__doc__, file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
