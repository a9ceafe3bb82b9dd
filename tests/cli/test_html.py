# The page with pictures. Usage: test_html.py PATH_TO_ATTEST [unittest options]
import glob
import os
import re
import subprocess
import unittest
import xml.etree.ElementTree as ET
from html.parser import HTMLParser

import numpy as np

import make_dump
from make_dump import ProgramTest, attention, attest_dump, case_of

DEVICE_OPS = sorted(glob.glob(os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../data/device/ops/*.h5")))
VOID = {"meta", "br"}
NOT_JUDGED = 8  # class r8; r4 and up to it are beyond the bound


class Strict(HTMLParser):
    """Every element that is not void is closed, in order; what the page names is collected."""

    def __init__(self, text):
        super().__init__()
        self.open, self.problems, self.links, self.ids, self.tags = [], [], [], [], set()
        self.feed(text)
        self.problems += self.open

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        self.links += [value for key, value in attributes if key in ("href", "src", "data", "action", "xlink:href")]
        self.ids += [value for key, value in attributes if key == "id"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.problems.append(tag)


def cells(svg):
    """{(row, column): class} of a map."""
    found = {}
    for path in svg.find("g"):
        for x, y, run in re.findall(r"M(\d+) (\d+)h(\d+)", path.get("d")):
            for column in range(int(x), int(x) + int(run)):
                assert (int(y), column) not in found
                found[int(y), column] = int(path.get("class")[1:])
    return found


def beyond(svg):
    return {cell for cell, kind in cells(svg).items() if 4 <= kind < NOT_JUDGED}


def blocks(svg):
    """What is outlined: (first row, rows, first column, columns) in cells."""
    left, top, width, height = map(int, re.match(
        r"translate\((\d+) (\d+)\)scale\((\d+) (\d+)\)", svg.find("g").get("transform")).groups())
    outline = [path.get("d") for path in svg.findall("path") if path.get("class") == "wrong"]
    found = []
    for x, y, w, h in re.findall(r"M(-?\d+) (-?\d+)h(\d+)v(\d+)h-\d+z", "".join(outline)):
        margin = (int(w) - round((int(w) - 6) / width) * width) // 2
        found.append(((int(y) + margin - top) // height, (int(h) - 2 * margin) // height,
                      (int(x) + margin - left) // width, (int(w) - 2 * margin) // width))
    return found


class Html(ProgramTest):
    def page(self, *arguments, status=0):
        """The page about dumps: as text and as a tree."""
        result = self.run_program("verify", *arguments, "--html", self.path("page.html"))
        self.assertEqual(result.returncode, status, result.stderr)
        with open(self.path("page.html"), encoding="utf-8") as file:
            text = file.read()
        strict = Strict(text)
        self.assertEqual(strict.problems, [])
        self.assertEqual(len(strict.ids), len(set(strict.ids)))
        self.assertNotIn("script", strict.tags)
        for link in strict.links:
            self.assertTrue(link.startswith("#") and link[1:] in strict.ids, link)
        self.assertNotRegex(text, r"https?:|url\(|@import")
        return text, ET.fromstring(text)

    def maps(self, section):
        """The large maps of a case."""
        return [figure.find("svg") for figure in section.iter("figure") if figure.find("svg/g") is not None]

    def dump(self, change, name="dump.h5", **problem):
        a = attention(B=1, Hq=4, Hkv=2, Sk=40, **problem)
        arguments = case_of(a)
        change(arguments["outputs"])
        return self.write(name, **arguments)

    def test_a_single_wrong_element_is_seen_in_its_cell(self):
        def wrong(out):
            out["o"][0, 3, 101, 7] += 1

        _, tree = self.page(self.dump(wrong, Sq=200), status=1)
        by_column, by_head = self.maps(tree.find(".//section"))
        self.assertEqual(beyond(by_column), {(25, 7)})  # 200 rows, four in a cell
        self.assertEqual(beyond(by_head), {(25, 3)})
        self.assertEqual(len(cells(by_column)), 50 * 16)
        self.assertEqual(len(cells(by_head)), 50 * 4)
        self.assertEqual(blocks(by_column), [(25, 1, 7, 1)])
        self.assertEqual(blocks(by_head), [(25, 1, 3, 1)])
        small = tree.find(".//tbody/tr/td/svg")
        self.assertEqual(beyond(small), {(12, 7)})
        for svg in tree.iter("svg"):
            self.assertEqual(svg.get("role"), "img")
        self.assertIn("200 query rows × 16 columns; the largest of 4 heads", by_column.get("aria-label"))
        self.assertIn("in column 7 of row 101 of head 3", by_column.get("aria-label"))

    def test_wrong_rows_are_outlined_and_suggest_a_tile(self):
        def wrong(out):
            out["o"][0, 2, 64:128] = 0

        _, tree = self.page(self.dump(wrong, Sq=200), status=1)
        by_column, by_head = self.maps(tree.find(".//section"))
        self.assertEqual(blocks(by_column), [(16, 16, 0, 16)])
        self.assertEqual(blocks(by_head), [(16, 16, 2, 1)])
        self.assertEqual(beyond(by_head), {(row, 2) for row in range(16, 32)})
        self.assertIsNotNone(by_head.find("path[@class='tile']"))
        self.assertIn("multiples of 64 query rows", "".join(tree.find(".//figcaption").itertext()))

    def test_heads_of_several_batch_entries_stand_side_by_side(self):
        a = attention(B=3, Hq=40, Hkv=8, Sq=20, D=8, E=8)
        arguments = case_of(a)
        arguments["outputs"]["o"][1, 9, 5, 2] = 100
        _, tree = self.page(self.write(**arguments), status=1)
        svg = self.maps(tree.find(".//section"))[1]
        self.assertEqual(beyond(svg), {(5, (40 + 9) // 2)})  # 120 heads, two in a cell
        captions = ["".join(caption.itertext()) for caption in tree.iter("figcaption")]
        self.assertIn("largest of 3 batch entries × 40 heads.", captions[0])
        self.assertEqual(captions[1], "20 query rows × 3 batch entries of 40 heads; the largest of 8 columns. "
                                      "A cell: 1 query row × 2 heads.")

    def test_rows_that_no_tile_explains_suggest_none(self):
        def wrong(out):
            out["o"][0, 2, 61:131] = 0

        text, tree = self.page(self.dump(wrong, Sq=200), status=1)
        self.assertIsNone(tree.find(".//path[@class='tile']"))
        self.assertNotIn("multiples of", text)

    def test_a_head_whose_errors_spread_further_is_named(self):
        def noisy(out):  # a unit in the last place more or less, at most
            o = out["o"][0, 2]
            direction = np.random.default_rng(2).choice([-np.inf, np.inf], o.shape).astype("f2")
            out["o"][0, 2] = np.nextafter(o, direction)

        for change, heads in (noisy, {2}), (lambda out: None, set()):
            path = self.dump(change, Sq=200)
            status, report = self.report(path)
            regions = {axis["of"]: axis["regions"] for axis in report["cases"][0]["outputs"][0]["regions"]}
            self.assertEqual([part["first"] for part in regions["heads"]], [0, 1, 2, 3])
            self.assertEqual([part["last"] for part in regions["query rows"]][-2:], [191, 199])
            self.assertEqual({part["first"] for part in regions["heads"] if part["spread"] > float(part["limit"])}, heads)
            _, tree = self.page(path, status=status)
            said = [item for item in map("".join, (li.itertext() for li in tree.iter("li"))) if "o, head" in item]
            self.assertEqual([item[:9] for item in said], [f"o, head {head}" for head in heads])

    def test_special_values_and_rows_not_judged_have_a_class_of_their_own(self):
        def wrong(out):
            out["o"][0, 1, 7, 3] = np.nan
            out["lse"][0, 2, 8] = np.inf

        path = self.dump(wrong, Sq=200)
        _, tree = self.page(path, status=1)
        maps = self.maps(tree.find(".//section"))
        self.assertEqual([{cell for cell, kind in cells(svg).items() if kind == 7} for svg in maps],
                         [{(1, 3)}, {(1, 1)}, {(2, 2)}])  # o by column and head; lse: heads down
        _, tree = self.page(path, "--rows", "8", status=self.run_program("verify", path, "--rows", "8").returncode)
        small = tree.find(".//tbody/tr/td/svg")
        kinds = cells(small)
        judged = {row for (row, _), kind in kinds.items() if kind != NOT_JUDGED}
        self.assertLessEqual(len(judged), 4 * 8)
        self.assertLess(len(judged), 25)
        self.assertTrue(judged)

    def test_every_operation_has_pictures(self):
        _, tree = self.page(*DEVICE_OPS)
        cases = tree.findall(".//section")
        self.assertEqual(len(cases), 24)
        for case in cases:
            for row in case.findall("table/tbody/tr"):
                svg = row.find("td/svg")
                self.assertIsNotNone(svg, row.find("th").text)
                self.assertTrue(cells(svg))

    def test_text_of_the_user_is_escaped(self):
        name = "<script>alert('1')</script> & \"x\"".replace("/", "|")
        a = attention()
        with attest_dump.File(self.path("a&b<c>.h5")) as file:
            file.case(name, **case_of(a, about={"kernel <b>": "<img src=x onerror=alert(1)>"}))
            file.case("bad", **case_of(a, op="<i>atention"))
        text, tree = self.page(self.path("a&b<c>.h5"), self.path("missing <.h5"), status=3)
        self.assertNotIn("<b>", text)
        self.assertNotIn("<img", text)
        self.assertNotIn("<i>", text.replace("<i class", ""))
        self.assertIn(name, [case.find("h2").text for case in tree.findall(".//section")])
        self.assertEqual([th.text for th in tree.findall(".//th[@scope='rowgroup']")],
                         [self.path("a&b<c>.h5"), self.path("missing <.h5")])
        for path in "\x01\x1b.h5", "\udcff.h5":
            self.page(self.dump(lambda out: None, path))

    def test_cases_that_cannot_be_judged_say_why(self):
        a = attention(Sk=12)
        q, k, v = (getattr(a, name).astype("f2") for name in "qkv")
        q[:] = 0  # all weights are equal, and the values all but cancel: zeros are as good an answer
        v[:, :, 1::2] = np.nextafter(-v[:, :, ::2], np.float16(0))
        mean = v.astype("f8").mean(axis=2, keepdims=True).repeat(a.o.shape[1] // v.shape[1], axis=1)
        outputs = dict(o=np.broadcast_to(mean, a.o.shape).astype("f2"))
        with attest_dump.File(self.path()) as file:
            file.case("bad", **case_of(a, op="atention"))
            file.case("weak", **case_of(a, inputs=dict(q=q, k=k, v=v), outputs=outputs))
        _, tree = self.page(self.path(), status=3)
        bad, weak = tree.findall(".//section")
        self.assertIn("atention", "".join(bad.itertext()))
        self.assertIsNone(bad.find("table"))
        self.assertEqual(weak.find("p/strong").text, "inconclusive:")
        self.assertIn("zeros in place of out/o would pass too", "".join(weak.find("p[2]").itertext()))

    def test_it_is_the_same_with_one_thread_and_changes_nothing_else(self):
        def wrong(out):
            out["o"][0, 2, 64:128] = 0

        path = self.dump(wrong, Sq=200)
        with_two, _ = self.page(path, status=1)
        environment = dict(os.environ, OMP_NUM_THREADS="1")
        subprocess.run([self.program, "verify", path, "--html", self.path("one.html")], env=environment,
                       stdout=subprocess.DEVNULL)
        with open(self.path("one.html"), encoding="utf-8") as file:
            self.assertEqual(file.read(), with_two)
        without = self.run_program("verify", path, "--json").stdout
        self.assertEqual(self.run_program("verify", path, "--json", "--html", self.path("page.html")).stdout, without)

    def test_it_is_written_whole_or_not_at_all(self):
        path = self.dump(lambda out: None)
        before = set(os.listdir(self.folder))
        for bad in [f"--html={path}"], [f"--html={self.folder}"], ["--html=/no/such/folder/p.html"], ["--html="], \
                [f"--html={self.path('x')}", f"--junit={self.path('x')}"], \
                [f"--html={self.path('x')}", f"--json={self.path('x')}"], ["--html=/dev/full"]:
            with self.subTest(bad):
                result = self.run_program("verify", path, *bad)
                self.assertEqual(result.returncode, 2, result.stderr)
                self.assertRegex(result.stderr, r"\Aattest: [^\n]+\n\Z")
                self.assertEqual(set(os.listdir(self.folder)), before)

    def test_colours_are_ordered_by_lightness(self):
        text, _ = self.page(self.dump(lambda out: None))
        for theme, falls in zip(re.findall(r"--r0: [^}]*", text), (True, False)):
            light = []
            for colour in re.findall(r"--r\d: #(\w{6})", theme):
                rgb = [int(colour[n:n + 2], 16) / 255 for n in (0, 2, 4)]
                linear = [x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in rgb]
                light.append(sum(x * w for x, w in zip(linear, (0.2126, 0.7152, 0.0722))))
            self.assertEqual(len(light), NOT_JUDGED)
            self.assertEqual(light, sorted(light, reverse=falls))


if __name__ == "__main__":
    make_dump.main()
