# The interactive pages in a headless browser: what they show is what the data say, with a keyboard only, on a phone,
# in the dark and in both languages.
# Usage: test_pages.py PATH_TO_ATTEST [--screenshots FOLDER] [unittest options]
import json
import re
import subprocess
import sys
import unittest
from pathlib import Path

import browser

ROOT = Path(__file__).resolve().parents[2]
PAGES = ROOT / "docs" / "interactive"
TILES, ERROR = PAGES / "tiles.html", PAGES / "error.html"
ATTEST = sys.argv.pop(1)
SCREENSHOTS = None
if "--screenshots" in sys.argv:
    at = sys.argv.index("--screenshots")
    SCREENSHOTS = Path(sys.argv[at + 1])
    del sys.argv[at:at + 2]
LEFT, RIGHT, HOME, END, SPACE, TAB, ENTER = "\ue012", "\ue014", "\ue011", "\ue010", " ", "\ue004", "\ue007"

# The text of one step, and every number with the class of its cell.
STEP = """{
  position: document.getElementById("position").textContent,
  story: document.getElementById("story").textContent,
  tables: Object.fromEntries([...document.querySelectorAll("#step-cards table")].map((table) => [table.dataset.name,
    [...table.tBodies[0].rows].map((row) => [...row.cells].slice(1).map((cell) => [cell.textContent, cell.className]))])),
}"""
# Calls f() in every step, by pressing the button "next".
ALL_STEPS = """
  const found = [], next = document.getElementById("next");
  for (let isLast = false; !isLast; next.click()) {
    isLast = next.disabled;
    found.push(%s);
  }
  return found;
"""
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


def traced(rows, keys):
    """As docs/interactive/make.py asks for it."""
    source = (PAGES / "make.py").read_text()
    options = json.loads(re.search(r"^OPTIONS = (\[.*\])$", source, re.MULTILINE).group(1))
    return json.loads(subprocess.run([ATTEST, "trace", *options, "--tile", f"{rows}x{keys}"],
                                     capture_output=True, text=True, check=True).stdout)


def shown(x):
    if isinstance(x, str):
        return x.replace("-inf", "−∞")
    text = f"{abs(x):.2f}"
    return ("−" if x < 0 and text != "0.00" else "") + text


def steps_of(tiles):
    """The computed tiles, and None where a tile of rows ends."""
    steps = []
    for n, tile in enumerate(tiles):
        steps += [tile] if tile["kind"] != "none" else []
        steps += [None] if n + 1 == len(tiles) or tiles[n + 1]["row"] != tile["row"] else []
    return steps


def setUpModule():
    PageTest.browser = browser.Browser()
    PageTest.js, PageTest.press = PageTest.browser.js, PageTest.browser.press


def tearDownModule():
    PageTest.browser.quit()


class PageTest(unittest.TestCase):
    def tearDown(self):
        self.assertEqual(self.browser.complaints(), [])

    def text(self, name):
        return self.js("return document.getElementById(arguments[0]).textContent", name)

    def check_numbers(self, got, want):
        # JavaScript and Python may round a number like 0.125 to either side: both are in order.
        self.assertEqual(len(got), len(want))
        for row, values in zip(got, want):
            for (text, _), x in zip(row, values, strict=True):
                if text != shown(x):
                    self.assertAlmostEqual(float(text.replace("−", "-")), x, delta=0.00501)

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


class Tiles(PageTest):
    def test_every_step_shows_the_numbers_of_the_trace(self):
        for rows, keys, name in ((2, 3, "forward"), (6, 8, "forward"), (3, 3, "backward"), (1, 4, "backward")):
            trace = traced(rows, keys)
            self.browser.open(TILES, f"rows={rows}&keys={keys}&pass={name}&lang=en")
            steps, found = steps_of(trace[name]), self.js(ALL_STEPS % STEP)
            self.assertEqual(len(found), len(steps))
            for n, (tile, step) in enumerate(zip(steps, found), 1):
                with self.subTest(rows=rows, keys=keys, name=name, step=n):
                    self.assertEqual(step["position"], f"Step {n} of {len(steps)}")
                    if tile:
                        self.check_tile(trace, tile, step["tables"], step["story"])
            tables = found[-1]["tables"]
            if name == "forward":
                self.check_numbers(tables["o"], trace["o"][-len(tables["o"]):])
                self.check_numbers(tables["lse"], [[x] for x in trace["lse"][-len(tables["o"]):]])
            else:
                for gradient in ("dk", "dv"):
                    self.check_numbers(tables[gradient], trace[gradient])
                self.check_numbers(tables["dq"], trace["dq"][-len(tables["dq"]):])

    def check_tile(self, trace, tile, tables, said):
        row, key = slice(tile["row"], tile["row"] + tile["rows"]), slice(tile["key"], tile["key"] + tile["keys"])
        self.check_numbers(tables["q"], trace["q"][row])
        self.check_numbers(tables["k"], trace["k"][key])
        for name in {"p", "s", "o", "o_before", "dp", "ds", "dv", "dk", "dq", "dv_before", "dq_before"} & tile.keys():
            self.check_numbers(tables[name], tile[name])
        for line, sees in zip(tables["s"], tile["sees"]):
            self.assertEqual([kind == "hidden" for _, kind in line], [not x for x in sees])
        if "m" not in tile:
            self.check_numbers(tables["lse"], [[x] for x in tile["lse"]])
            self.check_numbers(tables["delta"], [[x] for x in tile["delta"]])
            return
        self.check_numbers(tables["v"], trace["v"][key])
        columns = ("m_before", "m", "factor", "l_before", "l")
        self.check_numbers(tables["state"], list(zip(*(tile[name] for name in columns))))
        rescaled = [before != "-inf" and factor < 1 for before, factor in zip(tile["m_before"], tile["factor"])]
        self.assertEqual([line[2][1] == "event" for line in tables["state"]], rescaled)
        self.assertEqual("rescaled" in said, any(rescaled))
        self.assertEqual("masked" in said and "nothing is masked" not in said, tile["kind"] == "part")

    def test_every_size_of_tiles_is_there_and_the_map_counts_them(self):
        self.browser.open(TILES, "lang=en")
        found = self.js("""
          const found = [];
          for (let rows = 1; rows <= 6; ++rows) {
            for (let keys = 1; keys <= 8; ++keys) {
              for (const [name, value] of [["rows", rows], ["keys", keys]]) {
                document.getElementById(name).value = value;
                document.getElementById(name).dispatchEvent(new Event("input"));
              }
              found.push([rows, keys, document.getElementById("position").textContent,
                document.querySelector("#map svg").getAttribute("aria-label")]);
            }
          }
          return found""")
        self.assertEqual(len(found), 48)
        for rows, keys, position, label in found:
            computed = sum(row + min(rows, 8 - row) > key for row in range(0, 8, rows) for key in range(0, 8, keys))
            ends = -(-8 // rows)
            with self.subTest(rows=rows, keys=keys):
                self.assertEqual(position, f"Step 1 of {computed + ends}")
                self.assertIn(f"{computed} tiles are computed, {ends * -(-8 // keys) - computed} are skipped", label)

    def test_a_keyboard_is_enough(self):
        self.browser.open(TILES, "rows=2&keys=3&lang=en")
        self.assertEqual(self.tab_through(9), ["error.html", "language", "pass", "rows", "keys", "play", "next", "last",
                                               "step"])
        self.js("document.activeElement.blur()")
        self.press(RIGHT, RIGHT, LEFT)
        self.assertEqual(self.text("position"), "Step 2 of 12")
        self.press(END)
        self.assertEqual(self.text("position"), "Step 12 of 12")
        self.press(HOME, "b")
        self.assertIn("dV", self.text("step-cards"))
        self.press("f")
        self.js("document.getElementById('rows').focus()")
        self.press(RIGHT, LEFT, LEFT, RIGHT)
        self.js("document.getElementById('keys').focus()")
        self.press(END, LEFT)
        self.assertEqual((self.text("rows-text"), self.text("keys-text")), ("2", "7"))
        self.press(HOME, RIGHT, RIGHT)
        self.js("document.getElementById('next').focus()")
        self.press(ENTER, SPACE)  # a focused button is pressed, and nothing plays
        self.assertEqual((self.text("position"), self.text("play")), ("Step 3 of 12", "Play"))
        self.js("document.getElementById('step').focus()")
        self.press(END)
        self.assertEqual(self.text("position"), "Step 12 of 12")
        self.js("document.querySelector('[name=pass]').focus()")
        self.press(RIGHT)
        self.assertIn("again", self.text("story"))

    def test_it_plays_and_pauses(self):
        self.browser.open(TILES, "rows=2&keys=3&lang=en")
        self.js("window.setInterval = (step) => { window.step = step; return 1; }")  # time does not pass by itself
        self.press(SPACE)
        self.assertEqual(self.text("play"), "Pause")
        self.js("step()")
        self.press(SPACE)
        self.assertEqual((self.text("position"), self.text("play")), ("Step 2 of 12", "Play"))

    def test_what_a_step_does_is_announced(self):
        self.browser.open(TILES, "lang=en")
        self.assertEqual(self.js("""const e = document.getElementById("story");
          return [e.getAttribute("role"), e.getAttribute("aria-live")]"""), ["status", "polite"])
        unnamed = self.js("""return [...document.querySelectorAll("button, input, select")].filter((e) =>
          !e.getAttribute("aria-label") && !e.textContent.trim() && !e.labels?.[0]?.textContent.trim())
          .map((e) => e.outerHTML)""")
        self.assertEqual(unnamed, [])

    def test_a_click_on_the_map_goes_to_its_tile(self):
        self.browser.open(TILES, "rows=2&keys=3&lang=en")
        self.js("""document.querySelector('#map [data-step="3"]').dispatchEvent(new MouseEvent("click", {bubbles: true}))""")
        self.assertEqual(self.text("position"), "Step 4 of 12")

    def test_no_step_is_wider_than_a_phone(self):
        for language in ("en", "zh"):
            for name in ("forward", "backward"):
                self.browser.open(TILES, f"rows=6&keys=8&pass={name}&lang={language}", 360, 740)
                for rows in (6, 2):
                    self.js("""const e = document.getElementById("rows");
                      e.value = arguments[0];
                      e.dispatchEvent(new Event("input"))""", rows)
                    widths = self.js(ALL_STEPS % "document.documentElement.scrollWidth")
                    self.assertLessEqual(max(widths), 360)


class Errors(PageTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        text = (PAGES / "data" / "error.js").read_text()
        cls.data = json.loads(text[text.index("{"):text.rindex(";")])

    def numbers(self):
        """The numbers of the table by their names, to as many digits as they are shown with."""
        texts = self.js("""return Object.fromEntries([...document.querySelectorAll("#numbers tr")]
          .map((row) => [row.dataset.name, row.cells[1].textContent]))""")
        digits = str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789")
        return {name: None if text == "none" else
                float(text.replace("\u00a0·\u00a010", "e").translate(digits).replace(" %", "e-2"))
                for name, text in texts.items()}

    def choose(self, name, value):
        self.js("""const e = document.getElementById(arguments[0]);
          e.value = arguments[1];
          e.dispatchEvent(new Event("change"))""", name, value)

    def check_all_lengths(self, key, output):
        curves = self.data["curves"][key][output]
        self.js("document.getElementById('length').focus()")
        self.press(HOME)
        for n, length in enumerate(self.data["lengths"]):
            self.press(RIGHT) if n else None
            with self.subTest(key=key, output=output, length=length):
                self.assertEqual(self.text("length-text"), str(length))
                shown_numbers = self.numbers()
                for name in ("largest", "spread", "sigma", "probable", "rigorous"):
                    self.assertEqual(shown_numbers[name], curves[name][n])
                if curves["ratio"][n]:
                    self.assertAlmostEqual(shown_numbers["ratio"] / curves["ratio"][n], 1, delta=0.051)

    def test_the_numbers_are_those_of_the_data_at_every_length(self):
        self.browser.open(ERROR, "lang=en")
        self.check_all_lengths("float16/float16/tensor_core/normal", "o")
        self.choose("element", "bfloat16")
        self.choose("weights", "float32")
        self.choose("sums", "float16")
        self.choose("input", "cancelling")
        self.js("document.querySelector('[name=output][value=lse]').click()")
        self.check_all_lengths("bfloat16/float32/float16/cancelling", "lse")

    def test_every_curve_is_drawn_inside_the_chart(self):
        self.browser.open(ERROR, "lang=en")
        outside = self.js("""
          const isOutside = (path) => {
            const [, , width, height] = document.querySelector("#chart svg").getAttribute("viewBox").split(" ");
            const line = path.getAttribute("d");
            return !line || line.includes("NaN") || line.match(/[-\\d.]+ [-\\d.]+/g).some((point) => {
              const [x, y] = point.split(" ").map(Number);
              return x < 0 || x > width || y < 0 || y > height;
            });
          };
          const names = ["element", "weights", "sums", "input"];
          return Object.keys(ERRORS.curves).filter((key) => {
            key.split("/").forEach((value, n) => {
              if (state[names[n]] === value) return;
              document.getElementById(names[n]).value = value;
              document.getElementById(names[n]).dispatchEvent(new Event("change"));
            });
            const paths = [...document.querySelectorAll("#chart path.curve")];
            return keyOf(state) !== key || paths.length !== 5 || paths.some(isOutside);
          })""")
        self.assertEqual(outside, [])

    def test_a_tensor_core_takes_no_float32(self):
        self.browser.open(ERROR, "lang=en&element=float16&sums=tensor_core")
        self.choose("element", "float32")
        self.assertEqual(self.js("const e = document.getElementById('sums'); return [e.value, e.options[0].disabled]"),
                         ["float32", True])

    def test_a_keyboard_is_enough(self):
        self.browser.open(ERROR, "lang=en")
        self.assertEqual(self.tab_through(8), ["tiles.html", "language", "element", "weights", "sums", "input", "output",
                                               "length"])

    def test_it_is_no_wider_than_a_phone(self):
        for language in ("en", "zh"):
            self.browser.open(ERROR, f"lang={language}", 360, 740)
            self.check_no_sideways_scrolling()


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
    browser.require()
    unittest.main()
