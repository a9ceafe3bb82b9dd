# What the figures share: colours that read on a light and on a dark page, and tables of numbers.
import pathlib

from matplotlib import cycler

ROOT = pathlib.Path(__file__).resolve().parents[3]
NUMBERS = ROOT / "docs" / "learn" / "numbers"
GREY = "#808890"
COLOURS = ["#2f80d0", "#e07020", "#30a060", "#b060c0"]

# docs/conf.py applies it to every figure.
STYLE = {
    "axes.prop_cycle": cycler(color=COLOURS), "axes.edgecolor": GREY, "axes.labelcolor": GREY, "xtick.color": GREY,
    "ytick.color": GREY, "text.color": GREY, "legend.frameon": False, "legend.labelcolor": GREY, "grid.color": GREY,
    "grid.alpha": 0.25, "axes.grid": True, "axes.spines.top": False, "axes.spines.right": False,
    "figure.figsize": (6.4, 3.8), "figure.constrained_layout.use": True, "font.size": 10, "savefig.transparent": True,
}


def lines(name):
    """The lines of numbers/<name>.txt, without comments, as words."""
    text = (NUMBERS / f"{name}.txt").read_text(encoding="utf-8")
    return [line.split() for line in text.splitlines() if line and not line.startswith("#")]
