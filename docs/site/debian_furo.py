# Sphinx extension: mends Furo as Debian 12 packages it, whose styles and scripts were not put together. A style is imported
# from the root of a web server, which a folder does not have; the dark colours for a reader whose system asks for them are
# missing; and the script imports another, which browsers refuse: no choice of colours, no mark at the current heading.
import pathlib
import re
import shutil

NORMALIZE = "/javascript/normalize.css/normalize.css"  # Debian: in /usr/share
IMPORT = 'import Gumshoe from "./gumshoe-patched.js";'


def mended_style(text, folder):
    if NORMALIZE in text:
        shutil.copy(pathlib.Path(f"/usr/share{NORMALIZE}"), folder)
        text = text.replace(NORMALIZE, "normalize.css")
    if "prefers-color-scheme" not in text:
        colours = re.search(r'body\[data-theme="dark"\]\s*\{([^}]*--color-background-primary[^}]*)\}', text).group(1)
        rule = f'body[data-theme="auto"] {{{colours}}}'
        text += f"@media not print {{ @media (prefers-color-scheme: dark) {{ {rule} }} }}\n"
    return text


def mended_script(text, folder):
    if IMPORT not in text:
        return text
    gumshoe = (folder / "gumshoe-patched.js").read_text(encoding="utf-8")  # defines a global name
    return f"{gumshoe}\n(function () {{\n{text.replace(IMPORT, '')}\n}})();\n"


def mend(app, exception):
    static = pathlib.Path(app.outdir) / "_static"
    if exception is not None or not (static / "styles" / "furo.css").is_file():
        return
    for path, mended in ((static / "styles" / "furo.css", mended_style), (static / "scripts" / "furo.js", mended_script)):
        path.write_text(mended(path.read_text(encoding="utf-8"), path.parent), encoding="utf-8")


def setup(app):
    app.connect("build-finished", mend)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
