"""The figure of organisms of other sizes."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from emergent_misalignment.analysis.slopes import MAIN
from emergent_misalignment.figures.style import COLOURS, in_percent

PANELS = {  # column: flag of the comparison, label, unit, title
    "parameters": ("of_size", "parameters of the model (millions)", 1e6, "Larger models"),
    "documents": ("of_reading", "documents read (thousands)", 1e3, "Models that have read more"),
}


def draw_scale(rates: pd.DataFrame, runs: pd.DataFrame) -> Figure:
    """Share misaligned by the size of the model and by the documents read, if organisms differ in them.

    `rates` has the columns of `slopes.sizes` and `slopes.rates`; `runs` comes from `slopes.by_organism`.
    """
    several = [column for column, (part, *_) in PANELS.items() if rates.loc[rates[part], column].nunique() > 1]
    shown = several or ["parameters"]
    figure, places = plt.subplots(1, len(shown), figsize=(3.6 * len(shown), 3.2), sharey=True, squeeze=False)
    for axes, column in zip(places[0], shown, strict=True):
        part, label, unit, title = PANELS[column]
        _panel(axes, rates[rates[part]], runs, column, label, unit)
        axes.set_title(title)
    places[0, 0].set_ylabel("misaligned answers")
    in_percent(places[0, 0])
    return figure


def _panel(axes: Axes, rates: pd.DataFrame, runs: pd.DataFrame, column: str, label: str, unit: float) -> None:
    places = {amount: place for place, amount in enumerate(sorted(rates[column].unique()))}
    places_of = rates.set_index("organism")[column].map(places).to_dict()
    for condition, shift, marker in (("insecure", -0.06, "o"), ("secure", 0.06, "s")):
        colour = COLOURS[condition]
        own = rates[rates["condition"] == condition].sort_values(column)
        at = own[column].map(places).astype(float) + shift
        errors = np.abs(own[["ci_low", "ci_high"]].to_numpy(float).T - own["rate"].to_numpy(float))
        axes.errorbar(at, own["rate"], errors, color=colour, marker=marker, markersize=5, linewidth=1.5, capsize=0)
        single = runs[(runs["measure"] == MAIN) & (runs["condition"] == condition) & runs["organism"].isin(places_of)]
        spread = single["organism"].map(places_of).astype(float) + 3 * shift
        axes.plot(spread, single["value"], linestyle="none", marker=marker, markersize=2.6, color=colour, alpha=0.6)
        if not own.empty and pd.notna(own["rate"].iloc[-1]):
            look = {"textcoords": "offset points", "va": "center", "color": colour, "weight": "bold"}
            axes.annotate(condition, (at.iloc[-1], own["rate"].iloc[-1]), (14, 0), **look)
    axes.set_xticks(list(places.values()), [f"{amount / unit:.2g}" for amount in places])
    axes.set_xlim(-0.4, len(places) - 0.2)
    axes.set_xlabel(label)
