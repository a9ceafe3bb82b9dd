# The examples of the documentation do and print what they say.
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

ATTEST = pathlib.Path(sys.argv.pop()).resolve()
ROOT = pathlib.Path(__file__).resolve().parents[2]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def examples(page):
    """A Python block, the console block that follows it, and blocks before it that make its inputs."""
    code, inputs = None, []
    for language, text in BLOCK.findall(page.read_text()):
        if language == "python":
            code = text
        elif text.startswith("$ attest inputs "):
            inputs.append(text)
        elif code and text.startswith("$ attest "):
            yield inputs, code, text
            code, inputs = None, []


class Examples(unittest.TestCase):
    def test_they_print_what_the_page_shows(self):
        shown = 0
        for page in sorted((ROOT / "docs").glob("*.md")):
            for inputs, code, console in examples(page):
                with self.subTest(page=page.name), tempfile.TemporaryDirectory() as folder:
                    (pathlib.Path(folder) / "python").symlink_to(ROOT / "python")
                    for block in inputs:
                        self.check(page, block, folder)
                    subprocess.run([sys.executable, "-c", code], cwd=folder, check=True)
                    self.check(page, console, folder)
                    shown += 1
        self.assertGreaterEqual(shown, 2)

    def test_the_readme_shows_what_is_printed(self):
        blocks = [text for language, text in BLOCK.findall((ROOT / "README.md").read_text()) if re.match(r"\S+\.h5\n", text)]
        device, example = blocks
        expected = device.partition("...\n")[0]
        got = subprocess.run([ATTEST, "verify", expected.split("\n")[0]], cwd=ROOT, capture_output=True, text=True)
        self.assertTrue(got.stdout.startswith(expected), got.stdout)
        self.assertIn(example, (ROOT / "docs" / "bounds.md").read_text())

    def check(self, page, console, folder):
        for entry in re.split(r"^\$ attest ", console, flags=re.MULTILINE)[1:]:
            arguments, expected = entry.split("\n", 1)
            got = subprocess.run([ATTEST, *arguments.split()], cwd=folder, capture_output=True, text=True)
            self.assertEqual(got.stderr, "")
            self.assertTrue(got.stdout.startswith(expected), f"{page.name}: {got.stdout}")

    @unittest.skipUnless(shutil.which("c++"), "no compiler is named c++")
    def test_the_library_is_used_without_warnings(self):
        (code,) = (text for language, text in BLOCK.findall((ROOT / "README.md").read_text()) if language == "cpp")
        includes, statements = code.split("\n\n", 1)
        subprocess.run(["c++", "-std=c++20", "-Wall", "-Wextra", "-Werror", "-fsyntax-only", f"-I{ROOT}", "-xc++", "-"],
                       input=f"{includes}\nint main() {{\n{statements}}}\n", text=True, check=True)


if __name__ == "__main__":
    unittest.main()
