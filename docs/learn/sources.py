#!/usr/bin/env python3
# Writes docs/learn/sources.md: where each figure and number of the teaching path comes from. Checks the pages, too.
"""usage: sources.py [--check]

--check writes nothing and fails if the page is out of date. In either case it fails if
  - a page includes a file or begins or ends at a line that is not there, or nothing includes a file of
    docs/learn/numbers,
  - a decimal number or a percentage in the text of a page is in no file that the page includes,
  - the Chinese counterpart of a page is missing, or includes other things or in another order.
"""

import pathlib
import re
import sys

LEARN = pathlib.Path(__file__).resolve().parent
ROOT = LEARN.parents[1]
PAGE = LEARN / "sources.md"
ONCE = {"index", "sources"}  # no lesson: no counterpart with the same includes

HEAD = """\
<!-- Written by docs/learn/sources.py from the pages. -->
# Where does each number and figure come from?

Everything below is made by the command beside it, from `make docs` or from a build with `cmake --preset release`.
ctest fails if a number has changed (`docs.lessons`, `docs.examples`), and if this page or a page in Chinese has fallen
behind (`docs.sources`).

| command | makes |
|---|---|
| `build/release/docs/learn/attest_lessons docs/learn/numbers` | `numbers/*.txt` |
| `docs/learn/NAME.py NAME.h5 && build/release/attest verify NAME.h5` | `NAME.verdict.txt` |
| `make docs` | the figures, from `figures/*.py`, and lines of source, taken from the source as it is |
"""


def includes(page):
    """[(kind, file, options)] in the order of the page."""
    found = []
    text = page.read_text(encoding="utf-8")
    for match in re.finditer(r"^```\{literalinclude\} (\S+)\n((?::.*\n)*)```$|^\.\. plot:: (\S+)$", text, re.MULTILINE):
        path, options, figure = match.groups()
        found.append(("figure", LEARN.parent / figure, "") if figure else
                     ("include", (page.parent / path).resolve(), options))
    return found


def data_of(figure):
    """Files of numbers that a figure reads."""
    text = figure.read_text(encoding="utf-8")
    return [path for path in sorted((LEARN / "numbers").glob("*.txt")) if f'"{path.stem}"' in text]


def missing_lines(path, options):
    """Where an include begins or ends and the file has no such line."""
    text = path.read_text(encoding="utf-8")
    lines = re.findall(r"^:(?:start|end)-(?:at|after|before): (.*)$", options, re.MULTILINE)
    return [line for line in (line.strip('"') for line in lines) if line not in text]


def prose(page):
    """The text of a page without blocks, formulas and code."""
    text = page.read_text(encoding="utf-8").partition("\n## Source")[0].partition("\n## 出处")[0]
    text = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    text = re.sub(r"\$\$.*?\$\$|\$[^$]*\$|`[^`]*`|\]\([^)]*\)", "", text, flags=re.DOTALL)
    return text


def unsupported(page, files):
    """Figures in the text of a page that none of the files has."""
    known = "\n".join(file.read_text(encoding="utf-8") for file in files)
    figures = re.findall(r"(?<![\w.])\d+\.\d+(?![\w.])|\d+(?:\.\d+)? ?%", prose(page))
    return [figure for figure in figures if not re.search(rf"(?<![\d.]){re.escape(figure)}(?!\d)", known)]


def order():
    index = (LEARN / "index.md").read_text(encoding="utf-8")
    block = re.search(r"```\{toctree\}\n(.*?)```", index, re.DOTALL).group(1)
    return [name for name in block.split() if (LEARN / f"{name}.md").exists() and name not in ONCE]


def section(page, errors):
    rows, files = "", []
    for kind, path, options in includes(page):
        if not path.exists():
            errors.append(f"{page.relative_to(ROOT)}: there is no {path}")
            continue
        name = path.relative_to(ROOT)
        errors += [f"{page.relative_to(ROOT)}: {name} has no line with {line!r}"
                   for line in missing_lines(path, options)]
        if kind == "figure":
            data = data_of(path)
            files += data
            sources = ", ".join(f"`{x.relative_to(LEARN)}`" for x in data) or "`bench/results/*.json`"
            rows += f"| figure | `{name.relative_to('docs/learn')}`, from {sources} |\n"
        elif path.suffix == ".txt":
            files.append(path)
            rows += f"| numbers | `{path.relative_to(LEARN)}` |\n"
        else:
            rows += f"| source | `{name}` |\n"
    errors += [f"{page.relative_to(ROOT)}: {figure} is in nothing that the page includes"
               for figure in unsupported(page, files)]
    title = page.read_text(encoding="utf-8").splitlines()[0].removeprefix("# ")
    return (f"\n## {title}\n\n| | |\n|---|---|\n{rows}" if rows else ""), files


def main(arguments):
    if arguments not in ([], ["--check"]):
        sys.exit(__doc__)
    errors, used, text = [], set(), HEAD
    for name in order():
        page, translated = LEARN / f"{name}.md", LEARN / "zh" / f"{name}.md"
        rows, files = section(page, errors)
        text += rows
        used.update(files)
        if not translated.exists():
            errors.append(f"{translated.relative_to(ROOT)} is missing")
            continue
        if includes(page) != includes(translated):
            errors.append(f"{translated.relative_to(ROOT)} does not include what {name}.md includes, in its order")
        section(translated, errors)
    for path in sorted((LEARN / "numbers").iterdir()):
        if path not in used:
            errors.append(f"{path.relative_to(ROOT)}: no page shows it")
    if errors:
        sys.exit("\n".join(errors))
    is_current = PAGE.exists() and PAGE.read_text(encoding="utf-8") == text
    if arguments and not is_current:
        sys.exit(f"{PAGE.relative_to(ROOT)} is out of date; run docs/learn/sources.py")
    if not arguments:
        PAGE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
