# How Sphinx makes the site from the pages: `make docs`.
import pathlib
import re
import shutil
import sys

DOCS = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(DOCS / "site"), str(DOCS / "learn" / "figures")]
from style import STYLE  # noqa: E402

project = "attest"
author = "the authors of attest"
copyright = author
language = "en"
extensions = ["myst_parser", "matplotlib.sphinxext.plot_directive", "katex", "debian_furo"]
exclude_patterns = ["interfaces"]  # fragments that docs/ops.py puts into docs/ops
nitpicky = True
smartquotes = False  # -- and quotes mean what they are
highlight_language = "none"

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 4

html_theme = "furo"
html_title = "attest"
html_math_renderer = "katex"
html_static_path = ["site/static"]
html_css_files = ["pages.css"]
html_copy_source = False
html_theme_options = {"navigation_with_keys": True}

plot_formats = ["svg"]
plot_html_show_formats = plot_html_show_source_link = False
plot_rcparams, plot_apply_rcparams = STYLE, True

CJK = r"[\u2018-\u201d\u3000-\u303f\u4e00-\u9fff\uff00-\uffef]"


def adapt(app, name, text):
    """What a page needs on the site and not on a forge."""
    if name == "device_data":  # links as from here; the manifest is no page
        text[0] = (DOCS.parent / "data" / "device" / "README.md").read_text(encoding="utf-8")
        text[0] = re.sub(r"\[(\w+)\]\(\.\./MANIFEST\)", r"`data/\1`", text[0].replace("](../../docs/", "]("))
    text[0] = re.sub(r"\]\(((?:\.\./)*)\.\./data/device/README\.md", r"](\1device_data.md", text[0])
    if name.startswith("learn/zh/"):  # a line break between two Chinese characters is no space
        text[0] = re.sub(rf"(?<={CJK})\n(?={CJK})", "", text[0])
    page = pathlib.Path(name).name + ".md"
    if name.startswith("learn/") and (DOCS / "learn" / "zh" / page).exists():  # the same page in the other language
        other = f"[English](../{page})" if name.startswith("learn/zh/") else f"[中文](zh/{page})"
        title, rest = text[0].split("\n", 1)
        text[0] = f"{title}\n\n{other}\n{rest}"


def set_language(app, name, template, context, doctree):
    if name.startswith("learn/zh/"):
        context["language"] = "zh"


def copy_interactive(app, exception):
    """Pages that are HTML already stay as they are."""
    source = DOCS / "interactive"
    if exception is None and app.builder.format == "html" and source.is_dir():
        shutil.copytree(source, pathlib.Path(app.outdir) / "interactive", dirs_exist_ok=True,
                        ignore=shutil.ignore_patterns("*.py", "__pycache__"))


def forget_figures(app):
    """plot_directive renews a figure when its script changes, not when its data do."""
    shutil.rmtree(pathlib.Path(app.doctreedir).parent / "plot_directive", ignore_errors=True)


def setup(app):
    app.connect("builder-inited", forget_figures)
    app.connect("source-read", adapt)
    app.connect("html-page-context", set_language)
    app.connect("build-finished", copy_interactive)
