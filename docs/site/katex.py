# Sphinx extension: mathematics typeset by KaTeX while the site is built. A page needs neither scripts nor a network to
# show it, and a formula that KaTeX does not accept is a warning.
import json
import pathlib
import subprocess

from docutils import nodes
from sphinx.util import logging
from sphinx.util.fileutil import copy_asset

KATEX = pathlib.Path("/usr/share/javascript/katex")  # Debian: libjs-katex
# Answers each line, [formula, options], with one: [true, HTML] or [false, what is wrong].
RENDERER = f"""
const katex = require({json.dumps(str(KATEX / "katex.js"))});
require("readline").createInterface({{input: process.stdin}}).on("line", line => {{
  let answer;
  try {{ answer = [true, katex.renderToString(...JSON.parse(line))]; }}
  catch (error) {{ answer = [false, error.message]; }}
  console.log(JSON.stringify(answer));
}});
"""
logger = logging.getLogger(__name__)


class Renderer:
    def __init__(self):
        self.process = None

    def __call__(self, formula, is_block, node):
        if not self.process:
            self.process = subprocess.Popen(["node", "-e", RENDERER], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                            text=True, encoding="utf-8")
        options = {"displayMode": is_block, "strict": "error"}
        self.process.stdin.write(json.dumps([formula, options]) + "\n")
        self.process.stdin.flush()
        is_good, text = json.loads(self.process.stdout.readline())
        if not is_good:
            logger.warning("%s", text, location=node)
        return text

    def close(self, *_):
        if self.process:
            self.process.communicate()
            self.process = None


render = Renderer()


def visit_inline(self, node):
    self.body.append(f'<span class="math">{render(node.astext(), False, node)}</span>')
    raise nodes.SkipNode


def visit_block(self, node):
    self.body.append(f'<div class="math">{render(node.astext(), True, node)}</div>\n')
    raise nodes.SkipNode


def copy_style(app, exception):
    render.close()
    if exception is None and app.builder.format == "html":
        target = pathlib.Path(app.outdir) / "_static" / "katex"
        copy_asset(str(KATEX / "katex.min.css"), str(target))
        copy_asset(str(KATEX / "fonts"), str(target / "fonts"))


def setup(app):
    app.add_html_math_renderer("katex", (visit_inline, None), (visit_block, None))
    app.add_css_file("katex/katex.min.css")
    app.connect("build-finished", copy_style)
    return {"parallel_read_safe": True, "parallel_write_safe": False}
