# Tests of `attest ops`: the list, the pages, and that the pages say what the program accepts.
# Usage: test_ops.py PATH_TO_ATTEST [unittest options]
import re
import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np

import make_dump

DOCS = Path(__file__).resolve().parents[2] / "docs"
EXTENTS = {"H": 1, "Hq": 1, "Hkv": 1, "3M": 12}  # of the dumps below; any other symbol is 4
# What a page says in words only: an alternative that is required, and what another key needs.
ALSO = {
    "layer_norm": {"inputs": ["residual"]},
    "multihead_attention": {"inputs": ["x"]},
    "rms_norm": {"inputs": ["residual"]},
    "rope": {"inputs": ["x"], "spec": {"theta": 10000, "position_start": 0}},
}


def sections(page):
    """The bullets below each heading, one line each."""
    found = {}
    for line in page.splitlines():
        if line.startswith("## "):
            bullets = found.setdefault(line[3:], [])
        elif line.startswith("- "):
            bullets.append(line[2:])
        elif line.startswith("  "):
            bullets[-1] += " " + line.strip()
    return found


def datasets(bullets):
    """(name, type and shape, is required) of each."""
    for bullet in bullets:
        name, kind, required = re.fullmatch(r"`\w+/(\w+)` \((.*?)(; required)?\): .*", bullet).groups()
        yield name, kind, bool(required)


def keys(bullets):
    """(name, values, what stands in: None if it is required, "" for nothing) of each."""
    for bullet in bullets:
        name, values, fallback = re.fullmatch(r"`(\w+)` \(([^;]*)(?:; (.*?))?\): .*", bullet).groups()
        yield (name, re.findall("`([^`]+)`", values) or values,
               None if fallback == "required" else (fallback or "").removeprefix("default "))


def value_of(values):
    return values[0] if isinstance(values, list) else {"number": 1.0, "integer": 1}[values]


class Ops(make_dump.ProgramTest):
    def ops(self, *names):
        result = self.run_program("ops", *names)
        self.assertEqual((result.returncode, result.stderr), (0, ""))
        return result.stdout

    def names(self):
        names = [line.split()[0] for line in self.ops().splitlines()]
        self.assertIn("attention", names)
        return names

    def write_case(self, case, name, page):
        """Puts what the page calls required and the first output into the group."""
        also = ALSO.get(name, {})
        case.attrs["op"] = name
        for section, group in ("Reads", "in"), ("Writes", "out"):
            for number, (dataset, kind, required) in enumerate(datasets(page[section])):
                is_first_output = group == "out" and number == 0
                if required or is_first_output or dataset in also.get("inputs", ()):
                    shape = re.search(r"\[([^]]+)\]", kind)[1].split(", ")
                    case[f"{group}/{dataset}"] = np.full([EXTENTS.get(s, 4) for s in shape], 0.5, np.float32)
        spec = case.create_group("spec")
        case.create_group("contract")
        for key, values, fallback in keys(page["Spec"]):
            if fallback is None:
                spec.attrs[key] = value_of(values)
        spec.attrs.update(also.get("spec", {}))

    def reports(self, name, page, edits):
        """What is reported of the operation's smallest case after each edit."""
        path = self.path(name + ".h5")
        with h5py.File(path, "w") as file:
            file.attrs["attest_format"] = 1
            for number, edit in enumerate(edits):
                case = file.create_group(str(number))
                self.write_case(case, name, page)
                edit(case)
        report = self.report(path)[1]
        found = {case["name"]: case for case in report["cases"]}
        return [found[str(number)] for number in range(len(edits))]

    def errors(self, name, page, edits):
        """The error of each, "" where there is a verdict."""
        return [report.get("error", "") for report in self.reports(name, page, edits)]

    def test_the_list_has_a_sentence_for_each(self):
        for line in self.ops().splitlines():
            self.assertRegex(line, r"\A\w+ +\S.*\.\Z")

    def test_pages_are_markdown_of_80_columns_with_the_same_sections(self):
        for name in self.names():
            page = self.ops(name)
            self.assertTrue(page.startswith(f"# {name}\n\n"), page)
            self.assertEqual(list(sections(page)), ["Reads", "Writes", "Spec", "Contract", "Presets"])
            for line in page.splitlines():
                self.assertLessEqual(len(line), 80, line)
                self.assertNotRegex(line, r"\A *[+-] (?!`)|\s\Z")  # no bullet by accident

    def test_several_pages_come_in_the_order_asked_for(self):
        self.assertEqual(self.ops("silu", "gelu"), self.ops("silu") + "\n" + self.ops("gelu"))

    def test_an_unknown_name_is_a_usage_error_that_lists_the_names(self):
        for arguments in (["relu"], ["gelu", "relu"]):
            result = self.run_program("ops", *arguments)
            self.assertEqual((result.returncode, result.stdout), (2, ""))
            self.assertRegex(result.stderr, r"\Aattest: [^\n]+\n\Z")
            for name in ["relu", *self.names()]:
                self.assertIn(name, result.stderr)

    def test_what_a_page_requires_is_enough_and_needed(self):
        def without_dataset(path):
            return lambda case: case.pop(path)

        def without_key(key):
            return lambda case: case["spec"].attrs.pop(key)

        for name in self.names():
            page = sections(self.ops(name))
            inputs = [f"in/{dataset}" for dataset, _, required in datasets(page["Reads"]) if required]
            required = [key for key, _, fallback in keys(page["Spec"]) if fallback is None]
            edits = [lambda case: None, *map(without_dataset, inputs), *map(without_key, required)]
            accepted, *errors = self.errors(name, page, edits)
            with self.subTest(name):
                self.assertEqual(accepted, "")
            for what, error in zip(inputs + required, errors):
                with self.subTest(name, without=what):
                    self.assertRegex(error, f"{what} is missing|/in is empty")

    def test_a_page_has_exactly_the_contract_keys_that_are_read_and_all_spec_keys(self):
        def nonsense(group):
            return lambda case: case[group].attrs.update(nonsense=1)

        def accepted(error):
            return set(filter(None, re.search("nonsense is not known; accepted: ?(.*)", error)[1].split(", ")))

        for name in self.names():
            with self.subTest(name):
                page = sections(self.ops(name))
                spec, contract = self.errors(name, page, [nonsense("spec"), nonsense("contract")])
                self.assertEqual(accepted(contract), {key for key, _, _ in keys(page["Contract"])})
                # Some are only known beside others.
                self.assertLessEqual(accepted(spec), {key for key, _, _ in keys(page["Spec"])})

    def test_every_value_on_a_page_is_accepted_and_no_other(self):
        types = ["float64", "float32", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2"]

        def setting(group, key, value):
            return lambda case: case[group].attrs.update({key: {"true": True, "false": False}.get(value, value)})

        for name in self.names():
            page = sections(self.ops(name))
            settings = [(group, key, value) for group in ("spec", "contract")
                        for key, values, _ in keys(page[group.capitalize()]) if values not in ("number", "integer")
                        for value in [*(types if values == "element type" else values), "nonsense"]]
            for (_, key, value), error in zip(settings, self.errors(name, page, [setting(*s) for s in settings])):
                with self.subTest(name, key=key, value=value):
                    is_rejected = re.search(f'attribute {key} is (the text )?"{re.escape(value)}"', error) is not None
                    self.assertEqual(is_rejected, value == "nonsense", error)

    def test_a_page_says_what_each_preset_stands_for(self):
        for name in self.names():
            page = sections(self.ops(name))
            contract = {key: values for key, values, _ in keys(page["Contract"])}
            presets = {preset: re.findall(r"`(\w+)` = `([\w.e-]+)`", fields) for preset, fields in
                       (re.fullmatch(r"`(\w+)` \((`.*?`)\): .+ \(.+\)", b).groups() for b in page["Presets"])}

            def value(text):
                return float(text) if re.fullmatch(r"[\d.]+(e-\d+)?", text) else text

            self.assertEqual(list(presets), contract["preset"])

            def setting(contract):
                return lambda case: case["contract"].attrs.update(contract)

            edits = [setting(c) for preset, fields in presets.items() for c in ({"preset": preset}, {key: value(text) for key, text in fields})]
            reports = self.reports(name, page, edits)
            for preset, named, spelled_out in zip(presets, reports[::2], reports[1::2]):
                with self.subTest(name, preset=preset):
                    self.assertTrue(presets[preset])
                    self.assertEqual(named.get("outputs"), spelled_out["outputs"], named)

    def test_a_default_that_is_spelled_out_changes_nothing(self):
        def default(key, values, fallback):
            if fallback in values and isinstance(values, list):
                return {"true": True, "false": False}.get(fallback, fallback)
            return float(fallback) if values in ("number", "integer") and re.fullmatch(r"-?\d+", fallback) else None

        def setting(key, value):
            return lambda case: case["spec"].attrs.update({key: value})

        for name in self.names():
            page = sections(self.ops(name))
            defaults = {key: default(key, values, fallback) for key, values, fallback in keys(page["Spec"]) if fallback}
            defaults = {key: value for key, value in defaults.items() if value is not None}
            edits = [lambda case: None, *(setting(*item) for item in defaults.items())]
            plain, *spelled_out = self.reports(name, page, edits)
            for key, report in zip(defaults, spelled_out):
                if " is given, but " not in report.get("error", ""):  # some stand in only beside another key
                    with self.subTest(name, key=key, value=defaults[key]):
                        self.assertEqual(report.get("outputs"), plain["outputs"], report)

    def test_a_table_that_names_a_key_that_there_is_not_stops_the_generator(self):
        docs = Path(self.folder) / "docs"
        (docs / "interfaces").mkdir(parents=True)
        shutil.copy(DOCS / "ops.py", docs)
        run = [sys.executable, str(docs / "ops.py")]

        def written(table):
            (docs / "interfaces" / "gelu.md").write_text(f"<!-- -->\n{table}\n")
            result = subprocess.run([*run, self.program], capture_output=True, text=True)
            return result.returncode == 0, result.stderr

        header = "| argument | our key | note |\n|---|---|---|\n"
        self.assertEqual(written(header + "| `any` | `in/x`, `approximate` = `tanh` | `any` |"), (True, ""))
        self.assertEqual(subprocess.run([*run, "--check", self.program]).returncode, 0)
        for key in "in/y", "approx", "fast":
            passed, said = written(header + f"| x | `in/x`, `{key}` | |")
            self.assertFalse(passed)
            self.assertIn(f"docs/interfaces/gelu.md:4: `{key}`", said)


if __name__ == "__main__":
    make_dump.main()
