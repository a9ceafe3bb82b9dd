#!/usr/bin/env python3
# Writes docs/cli.md: what the program says of itself.
"""usage: cli.py [--check] [ATTEST]

Asks the program ATTEST (build/release/attest by default) and each of its subcommands for help. --check writes nothing
and fails if the page is out of date.
"""

import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "cli.md"
HEAD = """\
<!-- Written by docs/cli.py from `attest --help`. -->
# What does the command line take?
"""


def help_of(attest, *command):
    run = subprocess.run([attest, *command, "--help"], capture_output=True, text=True)
    if run.returncode != 0:
        sys.exit(f"{attest} {' '.join(command)} --help ended with status {run.returncode}\n{run.stderr}")
    text = "\n".join(line.rstrip() for line in run.stdout.strip().splitlines())
    return text.replace(str(attest), "attest")


def subcommands(text):
    section = text.partition("Subcommands:\n")[2].partition("\n\n")[0]
    return re.findall(r"^  (\w+)", section, re.MULTILINE)


def page(attest):
    top = help_of(attest)
    commands = subcommands(top)
    if not commands:
        sys.exit(f"{attest} --help lists no subcommands")
    text = f"{HEAD}\n```\n$ attest --help\n{top}\n```\n"
    for command in commands:
        said = help_of(attest, command)
        if f"Usage: attest {command} " not in said:
            sys.exit(f"{attest} {command} --help says nothing of {command}")
        text += f"\n## attest {command}\n\n```\n$ attest {command} --help\n{said}\n```\n"
    return text


def main(arguments):
    check = "--check" in arguments
    rest = [argument for argument in arguments if argument != "--check"]
    if len(rest) > 1 or any(argument.startswith("-") for argument in rest):
        sys.exit(__doc__)
    text = page(rest[0] if rest else str(ROOT / "build" / "release" / "attest"))
    is_current = PAGE.exists() and PAGE.read_text(encoding="utf-8") == text
    if check and not is_current:
        sys.exit(f"{PAGE.relative_to(ROOT)} is out of date; run docs/cli.py")
    if not check:
        PAGE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
