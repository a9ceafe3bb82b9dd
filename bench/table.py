#!/usr/bin/env python3
# Writes the tables of docs/speed.md from bench/results/*.json.
"""usage: table.py [--check]

Replaces the tables in docs/speed.md by what bench/results/*.json holds. --check writes nothing and fails if
they are out of date.
"""

import json
import pathlib
import sys

FOLDER = pathlib.Path(__file__).resolve().parent
PAGE = FOLDER.parent / "docs" / "speed.md"
BEGIN, END = "<!-- tables: bench/table.py -->\n", "<!-- end of tables -->\n"


def figure(row):
    mark = "\\*" if row["quiet_samples"] == 0 else ""
    return f"{row['share']:.2f}{mark} ({row['per_second'] / 1e9:.0f})"


def table(rows):
    """One line for a shape, type and pass; one column for a way to compute it and a number of threads."""
    ways = list(dict.fromkeys((row["by"], row["threads"]) for row in rows))
    ways.sort(key=lambda way: (way[1], not way[0].startswith("v"), way[0]))
    lines = dict.fromkeys((row["shape"], row["type"], row["what"]) for row in rows)
    cells = {(row["shape"], row["type"], row["what"], row["by"], row["threads"]): figure(row) for row in rows}
    heads = [f"{by}, {threads} thread{'s' if threads > 1 else ''}" for by, threads in ways]
    text = "| shape | type | pass | " + " | ".join(heads) + " |\n" + "|---" * (3 + len(ways)) + "|\n"
    for line in lines:
        values = [cells.get((*line, *way), "") for way in ways]
        text += "| " + " | ".join([*line, *values]) + " |\n"
    return text


def section(path):
    results = json.loads(path.read_text(encoding="utf-8"))
    text = f"### {results['processor']}, {results['compiler']}, {results['rounds']} samples a case\n\n"
    for unit, title in (("operation", "Attention: share of the multiply-add peak (Gflop/s)"),
                        ("byte", "Rows: share of a copy past the caches (GB/s)")):
        rows = [row for row in results["rows"] if row["unit"] == unit]
        if rows:
            text += f"{title}\n\n{table(rows)}\n"
    return text


def main(arguments):
    if arguments not in ([], ["--check"]):
        sys.exit(__doc__)
    old = PAGE.read_text(encoding="utf-8")
    before, begin, after = old.partition(BEGIN)
    _, end, after = after.partition(END)
    if not begin or not end:
        sys.exit(f"{PAGE} lacks the lines between which the tables stand")
    new = before + BEGIN + "".join(section(path) for path in sorted(FOLDER.glob("results/*.json"))) + END + after
    if new == old:
        return
    if arguments:
        sys.exit(f"{PAGE} is out of date: run bench/table.py")
    PAGE.write_text(new, encoding="utf-8")


main(sys.argv[1:])
