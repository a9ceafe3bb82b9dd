# error.html shows the numbers of data/error.js, and draws all of them.
import json

from page_test import ERROR, HOME, PAGES, RIGHT, PageTest


def number(text):
    digits = str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789")
    return None if text == "none" else float(
        text.replace("\u00a0·\u00a010", "e").translate(digits).replace(" %", "e-2"))


class Errors(PageTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        text = (PAGES / "data" / "error.js").read_text()
        cls.data = json.loads(text[text.index("{"):text.rindex(";")])

    def choose(self, name, value):
        self.js("""const e = document.getElementById(arguments[0]);
          e.value = arguments[1];
          e.dispatchEvent(new Event("change"))""", name, value)

    def check_all_lengths(self, key, output):
        """The numbers of the table at every length, to as many digits as they are shown with."""
        curves = self.data["curves"][key][output]
        found = self.js("""
          const slider = document.getElementById("length");
          return ERRORS.lengths.map((_, n) => {
            slider.value = n;
            slider.dispatchEvent(new Event("input"));
            const rows = [...document.querySelectorAll("#numbers tr")];
            return [document.getElementById("length-text").textContent,
              Object.fromEntries(rows.map((row) => [row.dataset.name, row.cells[1].textContent]))];
          })""")
        for n, (length, (shown_length, texts)) in enumerate(zip(self.data["lengths"], found, strict=True)):
            with self.subTest(key=key, output=output, length=length):
                self.assertEqual(shown_length, str(length))
                shown = {name: number(text) for name, text in texts.items()}
                for name in ("largest", "spread", "sigma", "probable", "rigorous"):
                    self.assertEqual(shown[name], curves[name][n])
                if curves["ratio"][n]:
                    self.assertAlmostEqual(shown["ratio"] / curves["ratio"][n], 1, delta=0.051)

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
        self.assertEqual(self.tab_through(8), ["tiles.html", "language", "element", "weights", "sums", "input",
                                               "output", "length"])
        self.press(HOME, RIGHT)  # the slider has the focus
        self.assertEqual(self.text("length-text"), "32")

    def test_it_is_no_wider_than_a_phone(self):
        for language in ("en", "zh"):
            self.browser.open(ERROR, f"lang={language}", 360, 740)
            self.check_no_sideways_scrolling()
