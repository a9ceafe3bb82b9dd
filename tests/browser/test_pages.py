# The interactive pages in a headless browser: what they show is what the data say, with a keyboard only, on a phone,
# in the dark and in both languages.
# Usage: test_pages.py PATH_TO_ATTEST [--screenshots FOLDER] [unittest options]
import sys
import unittest
from pathlib import Path

SCREENSHOTS = None
if "--screenshots" in sys.argv:
    at = sys.argv.index("--screenshots")
    SCREENSHOTS = Path(sys.argv[at + 1])
    del sys.argv[at:at + 2]

from error_page import Errors  # noqa: F401 (unittest finds it here)
from page_test import CONTRAST, ERROR, PAGES, TILES, PageTest, run_all
from tiles_page import Tiles  # noqa: F401


class Both(PageTest):
    def test_both_languages_have_all_words(self):
        for page in (TILES, ERROR):
            self.browser.open(page, "lang=en")
            keys = "const all = (x) => Object.entries(x).flatMap(([k, v]) => " \
                   "v && typeof v === 'object' ? all(v).map((y) => k + '.' + y) : [k]); return all(TEXT[arguments[0]])"
            self.assertEqual(self.js(keys, "en"), self.js(keys, "zh"))
            self.assertEqual(self.js("return document.documentElement.lang"), "en")
            self.js("document.getElementById('language').click()")
            self.assertEqual(self.js("return document.documentElement.lang"), "zh-CN")
            for place in ("document.title", "document.getElementById('story').textContent",
                          "document.querySelector('.lead').textContent"):
                self.assertRegex(self.js("return " + place), "[\u4e00-\u9fff]{3}")
            self.assertNotIn("undefined", self.js("return document.body.innerText"))

    def test_text_stands_out_from_its_ground_by_day_and_by_night(self):
        for page, state in ((TILES, "step=5"), (TILES, "step=5&pass=backward"), (ERROR, "")):
            grounds = []
            for dark in (False, True):
                self.browser.open(page, "lang=en&" + state, dark=dark)
                contrast, where = self.js(CONTRAST)
                self.assertGreaterEqual(contrast, 4.5, where)
                grounds.append(self.js("return getComputedStyle(document.body).backgroundColor"))
            self.assertNotEqual(*grounds)

    def test_all_comes_from_the_folder_of_the_page(self):
        for page in (TILES, ERROR):
            self.browser.open(page)
            loaded = self.js("""return [...document.querySelectorAll("[src], link[href], a[href]")]
              .map((e) => e.src || e.href)""")
            self.assertGreater(len(loaded), 4)
            for name in loaded:
                self.assertTrue(name.startswith((f"file://{PAGES}/", "data:")), name)
        for path in PAGES.rglob("*.*"):
            text = path.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")  # a name, no address
            self.assertNotRegex(text, r"https?://|fetch\(|XMLHttpRequest|@import|url\(['\"]?[^#]", path)
        size = sum(path.stat().st_size for path in PAGES.rglob("*") if path.is_file())
        self.assertLess(size, 1 << 20)

    @unittest.skipUnless(SCREENSHOTS, "no --screenshots")
    def test_screenshots(self):
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        for page, state in ((TILES, "rows=2&keys=3&step=4"), (TILES, "rows=3&keys=3&step=5&pass=backward"),
                            (ERROR, "length=512")):
            for look, width, dark, language in (("light", 1280, False, "en"), ("dark", 1280, True, "en"),
                                                ("phone", 360, False, "zh"), ("phone_dark", 360, True, "en")):
                self.browser.open(page, f"{state}&lang={language}", width, 900, dark)
                kind = "backward_" if "backward" in state else ""
                self.browser.screenshot(SCREENSHOTS / f"{page.stem}_{kind}{look}.png")


if __name__ == "__main__":
    sys.exit(run_all())
