"""Figure of several directions: how alike they are, and what each of them reads, causes and removes."""

from collections.abc import Mapping

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from emergent_misalignment.figures.style import rows_of

DIRECTION, RANDOM = "#333333", "#9A9A9A"
BAND = {"matched": "#E4E4E4", "isotropic": "#C4C4C4"}  # of random directions; the second one is narrower
LEAST_COHERENT = 0.5  # shares of fewer coherent answers are not drawn
PANELS = {  # column: title, name of the axis, value without an effect
    "cosine": ("Alike?", "cosine with villain\nminus helper", 0),
    "separation": ("Reads malice?", "area under\nthe ROC curve", 0.5),
    "add_misaligned": ("Causes malice?", "change, added to\ninstruct (points)", 0),
    "subtract_misaligned": ("Removes malice?", "change, subtracted\nfrom insecure (points)", 0),
}


def draw_directions(effects: pd.DataFrame, words: Mapping[str, str], none: str, bounds: Mapping[str, float]) -> Figure:
    """A row for each direction in `words`, with a dot for each organism and a tick for the mean.

    `effects` is the second table of `evaluation.directions.compared`; `none` is the name of the row without steering,
    from which shares of misaligned answers are differences. `bounds` has the cosines `isotropic` and `matched` of
    random directions.
    """
    shown = changes(effects, none)
    names = [name for name in words if name in set(shown["direction"])]
    palette = {name: RANDOM if name.startswith("random") else DIRECTION for name in names}
    figure, panels = plt.subplots(1, len(PANELS), figsize=(9.8, 1.1 + 0.27 * len(names)), sharey=True)
    for axes, (column, (title, label, nothing)) in zip(panels, PANELS.items(), strict=True):
        look = {"data": shown, "x": column, "y": "direction", "order": names, "orient": "h", "ax": axes}
        look |= {"hue": "direction", "palette": palette, "hue_order": names, "legend": False}
        sns.stripplot(**look, jitter=False, size=4.5, alpha=0.55)
        sns.pointplot(**look, errorbar=None, linestyle="none", marker="|", markersize=13)
        axes.axvline(nothing, color="#666666", linewidth=1, zorder=1)
        rows_of(axes, [words[name] for name in names])
        axes.set(title=title, xlabel=label, ylabel="")
        if column.endswith("misaligned"):
            axes.xaxis.set_major_formatter(PercentFormatter(1, symbol=None))
            axes.locator_params(axis="x", nbins=4)
            axes.margins(x=0.1)
    cosine, separation, *_ = panels
    for bound, colour in BAND.items():
        cosine.axvspan(-bounds[bound], bounds[bound], color=colour, linewidth=0, zorder=0)
    cosine.set_xlim(-1.06, 1.06)
    separation.set_xlim(-0.04, 1.06)
    return figure


def changes(effects: pd.DataFrame, none: str) -> pd.DataFrame:
    """`effects` with shares of misaligned answers minus those of the same organism without steering.

    They are missing where fewer than LEAST_COHERENT of the answers are coherent. Rows without steering are left out.
    """
    table = effects.set_index("seed")
    plain = table[table["direction"] == none]
    for change in ("add", "subtract"):
        share = table[f"{change}_misaligned"].where(table[f"{change}_coherent"] >= LEAST_COHERENT)
        table[f"{change}_misaligned"] = share - plain[f"{change}_misaligned"].reindex(table.index)
    return table[table["direction"] != none].reset_index()
