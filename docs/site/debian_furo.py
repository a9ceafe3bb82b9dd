# Sphinx extension: mends the style of Furo as Debian 12 packages it. There it lacks the dark colours for a reader whose
# system asks for them, and imports a style from the root of a web server, which a folder does not have.
import pathlib
import re
import shutil

NORMALIZE = "/javascript/normalize.css/normalize.css"  # Debian: in /usr/share


def mend(app, exception):
    style = pathlib.Path(app.outdir) / "_static" / "styles" / "furo.css"
    if exception is not None or not style.is_file():
        return
    text = style.read_text(encoding="utf-8")
    if NORMALIZE in text:
        shutil.copy(pathlib.Path(f"/usr/share{NORMALIZE}"), style.parent)
        text = text.replace(NORMALIZE, "normalize.css")
    if "prefers-color-scheme" not in text:
        colours = re.search(r'body\[data-theme="dark"\]\s*\{([^}]*--color-background-primary[^}]*)\}', text).group(1)
        rule = f'body[data-theme="auto"] {{{colours}}}'
        text += f"@media not print {{ @media (prefers-color-scheme: dark) {{ {rule} }} }}\n"
    style.write_text(text, encoding="utf-8")


def setup(app):
    app.connect("build-finished", mend)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
