# What the tests of all pages share: one browser, and what holds of every page.
import sys
import unittest
from pathlib import Path

import browser

ROOT = Path(__file__).resolve().parents[2]
PAGES = ROOT / "docs" / "interactive"
TILES, ERROR = PAGES / "tiles.html", PAGES / "error.html"
ATTEST = sys.argv.pop(1)
LEFT, RIGHT, HOME, END, SPACE, TAB, ENTER = "\ue012", "\ue014", "\ue011", "\ue010", " ", "\ue004", "\ue007"

# The least contrast of any text to what is behind it (WCAG 2, relative luminance).
CONTRAST = """
  const drawing = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
  const rgb = (color) => {
    drawing.clearRect(0, 0, 1, 1);
    drawing.fillStyle = color;
    drawing.fillRect(0, 0, 1, 1);
    return [...drawing.getImageData(0, 0, 1, 1).data];
  };
  const light = (color) => color.slice(0, 3).map((x) => x / 255)
    .map((x) => (x <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4))
    .reduce((sum, x, n) => sum + x * [0.2126, 0.7152, 0.0722][n], 0);
  const behind = (e) => {
    for (; e; e = e.parentElement) {
      const color = rgb(getComputedStyle(e).backgroundColor);
      if (color[3] === 255) return color;
    }
    return [255, 255, 255, 255];
  };
  let worst = [99, ""];
  for (const e of document.querySelectorAll("body *")) {
    const hasText = [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
    if (!hasText || e.closest("svg, noscript, select, :disabled") || !e.getClientRects().length) continue;
    const [a, b] = [light(rgb(getComputedStyle(e).color)), light(behind(e))].sort((x, y) => y - x);
    const contrast = (a + 0.05) / (b + 0.05);
    if (contrast < worst[0]) worst = [contrast, e.outerHTML.slice(0, 120)];
  }
  return worst;
"""


def run_all():
    """All tests in one browser; the exit status."""
    browser.require()
    PageTest.browser = browser.Browser()
    PageTest.js, PageTest.press = PageTest.browser.js, PageTest.browser.press
    try:
        return 0 if unittest.main(exit=False).result.wasSuccessful() else 1
    finally:
        PageTest.browser.quit()


class PageTest(unittest.TestCase):
    def tearDown(self):
        self.assertEqual(self.browser.complaints(), [])

    def text(self, name):
        return self.js("return document.getElementById(arguments[0]).textContent", name)

    def check_no_sideways_scrolling(self):
        width, inner = self.js("return [document.documentElement.scrollWidth, innerWidth]")
        self.assertLessEqual(width, inner)

    def check_focus_is_visible(self):
        """On the focused control, or on what stands for it."""
        style = self.js("""
          const e = document.activeElement, stand_in = e.type === "radio" ? e.nextElementSibling : e;
          const style = getComputedStyle(stand_in);
          return [style.outlineStyle, parseFloat(style.outlineWidth)]""")
        self.assertNotEqual(style[0], "none")
        self.assertGreaterEqual(style[1], 2)

    def tab_through(self, count):
        names = []
        for _ in range(count):
            self.press(TAB)
            names.append(self.js("const e = document.activeElement; return e.id || e.name || e.dataset.page"))
            self.check_focus_is_visible()
        return names
