#!/usr/bin/env python3
# Writes docs/ops.md and docs/ops: what the op table says, and how other interfaces map to it.
"""usage: ops.py [--check] [ATTEST]

Asks the program ATTEST (build/release/attest by default) for the page of every operation, adds
docs/interfaces/<op>.md to it, and writes the result to docs/ops. Every key in backticks in a column "our key" has
to be one of the operation. --check writes nothing and fails if a page is out of date.
"""

import pathlib
import re
import subprocess
import sys

DOCS = pathlib.Path(__file__).resolve().parent
ROOT = DOCS.parent
INDEX, PAGES, INTERFACES = DOCS / "ops.md", DOCS / "ops", DOCS / "interfaces"
IN_BACKTICKS = re.compile(r"`([^`]+)`")

HEAD = """\
<!-- Written by docs/ops.py. -->
# Which operations are there?

`attest ops` lists them, `attest ops NAME` prints what one reads and writes and which keys it has. A page here is that,
and how the arguments of other libraries map to it. What a dump is around it: [dump_format.md](dump_format.md).

| operation | what it computes |
|---|---|
"""
PAGE_HEAD = "<!-- Written by docs/ops.py from the op table (verify/ops) and docs/interfaces/{name}.md. -->\n"


def printed(attest, *arguments):
    run = subprocess.run([attest, "ops", *arguments], capture_output=True, text=True)
    if run.returncode != 0:
        sys.exit(f"{attest} ops ended with status {run.returncode}\n{run.stderr}")
    return run.stdout


def unknown_keys(table_page, known):
    """(line number, key) of every key in backticks in a column "our key" that is not known."""
    column = None
    for number, line in enumerate(table_page.splitlines(), 1):
        cells = [cell.strip() for cell in line.strip("|").split("|")] if line.startswith("|") else []
        if not cells:
            column = None
        elif "our key" in cells:
            column = cells.index("our key")
        elif column is not None and column < len(cells):
            yield from ((number, key) for key in IN_BACKTICKS.findall(cells[column]) if key not in known)


def pages(attest):
    """The text of every file, by path. Stops where a table names a key that there is not."""
    ops = [line.split(maxsplit=1) for line in printed(attest).splitlines()]
    texts, errors = {INDEX: HEAD}, []
    for name, summary in ops:
        texts[INDEX] += f"| [{name}](ops/{name}.md) | {summary} |\n"
        page = printed(attest, name)
        fragment = INTERFACES / f"{name}.md"
        interfaces = fragment.read_text(encoding="utf-8") if fragment.exists() else ""
        # A page puts names and values into backticks, and nothing else.
        for number, key in unknown_keys(interfaces, set(IN_BACKTICKS.findall(page))):
            errors.append(f"{fragment.relative_to(ROOT)}:{number}: `{key}` is no dataset, key or value of {name}")
        interfaces = interfaces.partition("\n")[2]  # without the comment that says where it ends up
        texts[PAGES / f"{name}.md"] = PAGE_HEAD.format(name=name) + page + ("\n" + interfaces if interfaces else "")
    names = {name for name, _ in ops}
    errors += [f"{path.relative_to(ROOT)}: there is no such operation"
               for path in INTERFACES.glob("*.md") if path.stem not in names]
    if errors:
        sys.exit("\n".join(errors))
    return texts


def main(arguments):
    check = "--check" in arguments
    rest = [argument for argument in arguments if argument != "--check"]
    if len(rest) > 1 or any(argument.startswith("-") for argument in rest):
        sys.exit(__doc__)
    texts = pages(rest[0] if rest else str(ROOT / "build" / "release" / "attest"))
    stale = [path for path in PAGES.glob("*") if path not in texts]
    changed = [path for path, text in texts.items() if not path.exists() or path.read_text(encoding="utf-8") != text]
    if check and (stale or changed):
        names = ", ".join(str(path.relative_to(ROOT)) for path in stale + changed)
        sys.exit(f"out of date: {names}; run {pathlib.Path(__file__).relative_to(ROOT)}")
    if not check:
        PAGES.mkdir(exist_ok=True)
        for path in stale:
            path.unlink()
        for path in changed:
            path.write_text(texts[path], encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
