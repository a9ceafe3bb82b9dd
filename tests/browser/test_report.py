# The page of attest verify --html in a headless browser: on a phone, by day and by night, with nothing from elsewhere.
# Usage: test_report.py PATH_TO_ATTEST [--screenshots FOLDER] [unittest options]
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

SCREENSHOTS = None
if "--screenshots" in sys.argv:
    at = sys.argv.index("--screenshots")
    SCREENSHOTS = Path(sys.argv[at + 1])
    del sys.argv[at:at + 2]

from page_test import ATTEST, CONTRAST, ROOT, PageTest, run_all


class Report(PageTest):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        cls.page = Path(cls.folder.name) / "report.html"
        subprocess.run([sys.executable, ROOT / "docs" / "html_report.py", "--check", "--report", cls.page, ATTEST],
                       check=True)
        cls.device_page = cls.page.with_name("device.html")
        subprocess.run([ATTEST, "verify", *sorted((ROOT / "data" / "device").glob("ops/*.h5")), "--html", cls.device_page],
                       check=True, stdout=subprocess.DEVNULL)

    @classmethod
    def tearDownClass(cls):
        cls.folder.cleanup()

    def test_it_fits_on_a_phone_and_a_desk(self):
        for page, figures in (self.page, 9), (self.device_page, 0):
            for width in (360, 1280):
                self.browser.open(page, width=width)
                self.assertLessEqual(self.js("return document.documentElement.scrollWidth"), width)
                self.assertEqual(self.js("return document.querySelectorAll('figure svg').length"), figures)
                self.assertGreater(self.js("return document.querySelectorAll('td svg').length"), 7)

    def test_cells_have_the_colours_of_the_legend_by_day_and_by_night(self):
        seen = []
        for dark in (False, True):
            self.browser.open(self.page, dark=dark)
            cell, swatch = self.js("""
              const cell = document.querySelector("figure .cells .r6"), swatch = document.querySelector("i.r6");
              return [getComputedStyle(cell).stroke, getComputedStyle(swatch).backgroundColor]""")
            self.assertEqual(cell, swatch)
            seen.append(cell)
        self.assertNotEqual(*seen)

    def test_text_stands_out_from_its_ground_by_day_and_by_night(self):
        for dark in (False, True):
            self.browser.open(self.page, dark=dark)
            contrast, where = self.js(CONTRAST)
            self.assertGreaterEqual(contrast, 4.5, where)

    def test_a_case_is_one_key_away(self):
        self.browser.open(self.page)
        self.press("\ue004")  # tab
        self.check_focus_is_visible()
        self.press("\ue007")  # enter
        self.assertEqual(self.js("return location.hash"), "#case-1")

    @unittest.skipUnless(SCREENSHOTS, "no --screenshots")
    def test_screenshots(self):
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        for look, width, dark in (("light", 1280, False), ("dark", 1280, True), ("phone", 360, False)):
            self.browser.open(self.page, "", width, 900, dark)
            self.browser.screenshot(SCREENSHOTS / f"report_{look}.png")


if __name__ == "__main__":
    sys.exit(run_all())
