# The checks of the site and of the teaching path find what they are there for.
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

sys.argv.pop()  # the program attest, which the other scripts need
ROOT = pathlib.Path(__file__).resolve().parents[2]


FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)


def run(script, *arguments):
    return subprocess.run([sys.executable, script, *arguments], capture_output=True, text=True)


class Links(unittest.TestCase):
    def found(self, files, *arguments):
        with tempfile.TemporaryDirectory() as folder:
            for name, text in files.items():
                path = pathlib.Path(folder) / name
                path.parent.mkdir(exist_ok=True)
                path.write_text(text, encoding="utf-8")
            return run(ROOT / "docs" / "site" / "links.py", folder, *arguments).stderr

    def test_good_links_pass(self):
        other = '<h1 id="一">x</h1><a name="old"></a><img src="data:image/png;base64,">'
        page = ('<a href="sub/b.html#%E4%B8%80"></a><a href="sub/b.html#old"></a><a href="https://elsewhere.example"></a>'
                '<a href="#here"></a><p id="here"><link rel="stylesheet" href="c.css?v=1">')
        self.assertEqual(self.found({"a.html": page, "sub/b.html": other, "c.css": "p { background: url(a.html) }"}), "")

    def test_bad_links_are_named(self):
        for page, complaint in {
            '<a href="b.html"></a>': "a.html: b.html leads to no file",
            '<img src="b.png">': "a.html: b.png leads to no file",
            '<a href="#b"></a>': "a.html: #b leads to no element",
            '<script src="https://cdn.example/x.js"></script>': "a.html loads https://cdn.example/x.js",
            '<link rel="stylesheet" href="//cdn.example/x.css">': "a.html loads //cdn.example/x.css",
            '<img src="http://cdn.example/x.png">': "a.html loads http://cdn.example/x.png",
        }.items():
            with self.subTest(page):
                self.assertEqual(self.found({"a.html": page}).strip(), complaint)
        for style in ("@import url('https://cdn.example/x.css')", '@import "https://cdn.example/x.css"'):
            self.assertIn("c.css loads https://cdn.example/x.css", self.found({"a.html": "", "c.css": style}))

        self.assertIn("c.js imports a module", self.found({"a.html": "", "c.js": "// x\nimport y from './y.js';"}))

    def test_a_folder_that_is_not_there_can_be_left_out(self):
        page = {"a.html": '<a href="later/b.html"></a>'}
        self.assertEqual(self.found(page, "--except", "later/"), "")
        self.assertIn("leads to no file", self.found({**page, "later/c.html": ""}, "--except", "later/"))

    def test_pages_lead_somewhere_without_the_site_too(self):
        def headings(text):
            titles = (re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", title) for title in re.findall(r"^#+ (.*)$", text, re.MULTILINE))
            return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}

        pages = {page: FENCED.sub("", page.read_text(encoding="utf-8"))
                 for place in ("*.md", "docs/**/*.md", "data/**/*.md") for page in ROOT.glob(place)}
        for page, text in pages.items():
            if page.parent.name == "interfaces":  # fragments of docs/ops
                continue
            for target in re.findall(r"\]\(((?!\w+:)[^)\s]+)\)", text):
                with self.subTest(page=page.relative_to(ROOT), target=target):
                    name, _, anchor = target.partition("#")
                    file = (page.parent / name).resolve() if name else page
                    self.assertTrue(file.exists())
                    if anchor and file in pages:
                        self.assertIn(anchor, headings(pages[file]))


class Sources(unittest.TestCase):
    def complaint(self, change):
        """What sources.py says of a copy of the pages after a change."""
        with tempfile.TemporaryDirectory() as folder:
            root = pathlib.Path(folder)
            shutil.copytree(ROOT / "docs" / "learn", root / "docs" / "learn")
            for room in ("ref", "tiled", "verify"):
                shutil.copytree(ROOT / room, root / room)
            learn = root / "docs" / "learn"
            change(learn)
            return run(learn / "sources.py", "--check").stderr

    def edit(self, name, old, new):
        def change(learn):
            text = (learn / name).read_text(encoding="utf-8")
            self.assertIn(old, text)
            (learn / name).write_text(text.replace(old, new), encoding="utf-8")
        return change

    def test_the_pages_as_they_are_pass(self):
        self.assertEqual(self.complaint(lambda learn: None), "")

    def test_what_falls_behind_is_named(self):
        for change, part in (
            (self.edit("backward.md", "too large by 0.01", "too large by 0.07"), "0.07 is in nothing"),
            (self.edit("zh/backward.md", "偏大 0.01", "偏大 0.07"), "zh/backward.md: 0.07 is in nothing"),
            (self.edit("zh/speed.md", "../numbers/speed.exercise_causal.txt", "../numbers/speed.intensity.txt"),
             "zh/speed.md does not include what speed.md includes"),
            (lambda learn: (learn / "zh" / "speed.md").unlink(), "zh/speed.md is missing"),
            (lambda learn: (learn / "numbers" / "new.txt").write_text(""), "new.txt: no page shows it"),
            (lambda learn: (learn / "numbers" / "speed.intensity.txt").unlink(), "there is no"),
            (self.edit("tiled_forward.py", "# [attention]", "# [forward]"),
             "tiled_forward.md: docs/learn/tiled_forward.py has no line with '# [attention]'"),
            (self.edit("speed.md", "# How fast is it, and why?", "# How fast?"), "sources.md is out of date"),
        ):
            with self.subTest(part):
                self.assertIn(part, self.complaint(change))


if __name__ == "__main__":
    unittest.main()
