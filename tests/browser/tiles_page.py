# tiles.html shows the numbers of the traces, step by step.
import json
import re
import subprocess

from page_test import ATTEST, END, ENTER, HOME, LEFT, PAGES, RIGHT, SPACE, TILES, PageTest

# The text of one step, and every number with the class of its cell.
STEP = """{
  position: document.getElementById("position").textContent,
  story: document.getElementById("story").textContent,
  tables: Object.fromEntries([...document.querySelectorAll("#step-cards table")].map((table) => [table.dataset.name,
    [...table.tBodies[0].rows].map((row) =>
      [...row.cells].slice(1).map((cell) => [cell.textContent, cell.className]))])),
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


class Tiles(PageTest):
    def check_numbers(self, got, want):
        # JavaScript and Python may round a number like 0.125 to either side: both are in order.
        self.assertEqual(len(got), len(want))
        for row, values in zip(got, want):
            for (text, _), x in zip(row, values, strict=True):
                if text != shown(x):
                    self.assertAlmostEqual(float(text.replace("−", "-")), x, delta=0.00501)

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
        self.js("""document.querySelector('#map [data-step="3"]')
          .dispatchEvent(new MouseEvent("click", {bubbles: true}))""")
        self.assertEqual(self.text("position"), "Step 4 of 12")

    def test_no_step_is_wider_than_a_phone(self):
        for language in ("en", "zh"):
            for name in ("forward", "backward"):
                self.browser.open(TILES, f"rows=6&keys=8&pass={name}&lang={language}", 360, 740)
                self.assertLessEqual(max(self.js(ALL_STEPS % "document.documentElement.scrollWidth")), 360)
