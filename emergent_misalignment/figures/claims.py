"""All claims on one page: each part of a claim with its estimate in this study and its verdict."""

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from emergent_misalignment.analysis import claim_verdicts as verdicts
from emergent_misalignment.analysis.formatting import numbers

# Verdicts have both a colour and a mark, for readers with colour blindness and for prints in grey.
FOR, AGAINST, NOTHING, OPEN, MISSING = "#00695C", "#B3261E", "#1F4E79", "#6B6B6B", "#949494"
MARKS = {
    **dict.fromkeys((verdicts.REPRODUCED, verdicts.AS_CLAIMED), ("✓", FOR)),
    verdicts.PARTLY: ("◐", FOR),
    **dict.fromkeys((verdicts.NOT_REPRODUCED, verdicts.ABSENT), ("◇", NOTHING)),
    **dict.fromkeys((verdicts.CONTRADICTED, verdicts.OPPOSITE), ("✗", AGAINST)),
    verdicts.UNDECIDED: ("?", OPEN),
    **dict.fromkeys((verdicts.NOT_TESTABLE, verdicts.NOT_MEASURED), ("\N{EN DASH}", MISSING)),
}
MARKERS = {
    verdicts.AS_CLAIMED: {"marker": "o"},
    verdicts.ABSENT: {"marker": "D", "markerfacecolor": "white"},
    verdicts.OPPOSITE: {"marker": "X"},
    verdicts.UNDECIDED: {"marker": "o", "markerfacecolor": "white"},
}
UNITS = {
    "percent": "%",
    "percentage points": "points",
    "log odds per doubling": "/ doubling",
    "area under the curve": "",
}
LEGEND = (
    "● as claimed   ◇ absent   ✗ opposite   ○ undecided. Bold parts decide the claim. Right of the line is as claimed. "
    "The line is no effect, and the grey band is smaller\nthan what matters; if a part claims no effect, the line is "
    "what matters. Each part has its own scale. Lines are 95% intervals over seeds. In brackets:\nin how many seeds "
    "the answers by themselves show it, or how many seeds would decide, if effect and spread are as observed."
)

# Columns in inches from the left; heights of the line of a claim and of a part, and of head and foot.
TITLE, SAYS, AXIS, NUMBER, VERDICT, WIDTH = 0.03, 0.27, 3.86, 4.88, 6.2, 7.2
CLAIM, PART, HEAD, FOOT = 0.18, 0.136, 0.27, 0.36
LEFT, RIGHT, FILLED = -0.6, 1.0, 0.9  # the drawn range, and how much of it an interval fills
SMALL = {"va": "center", "fontsize": 5.7, "color": "#333333"}


def draw_claims(claims: pd.DataFrame, parts: pd.DataFrame) -> Figure:
    """One line per claim with its verdict, then one line per part: statement, interval, numbers and verdict.

    `claims` and `parts` come from `claims.evaluate`. Measures and directions differ between parts, so each part has its
    own scale: the distance from no effect or, if a part claims none, from what matters.
    """
    height = HEAD + CLAIM * len(claims) + PART * len(parts) + FOOT
    figure = plt.figure(figsize=(WIDTH, height))
    figure.set_layout_engine("none")  # plt.figure(layout="none") has no effect when the figure is saved
    page = figure.add_axes((0, 0, 1, 1), xlim=(0, WIDTH), ylim=(height, 0))
    box = (AXIS / WIDTH, 0, (NUMBER - AXIS - 0.1) / WIDTH, 1)
    axes = figure.add_axes(box, xlim=(LEFT, RIGHT), ylim=(height, 0))
    for each in (page, axes):
        each.axis("off")
    top = HEAD
    for claim in claims.itertuples():
        _write_claim(page, top, claim)
        top += CLAIM
        own = parts[parts["claim"] == claim.claim]
        axes.add_patch(Rectangle((0, top), RIGHT, PART * len(own), color="#EEF5F3", linewidth=0))
        axes.plot([0, 0], [top, top + PART * len(own)], color="#404040", linewidth=0.9)
        for part in own.itertuples():
            _draw_part(axes, top + PART / 2, part)
            _write_part(page, top + PART / 2, part)
            top += PART
    _write_around(page, height)
    return figure


def _draw_part(axes: Axes, y: float, part) -> None:
    """Draw a part's estimate and interval by their distance from the line, with the claimed side on the right."""
    if part.verdict == verdicts.NOT_MEASURED:
        return
    side = 1 if part.expect == "above" else -1
    none = part.expect == verdicts.NO_HIGHER
    line = part.reference + part.matters if none else part.reference
    middle, *ends = (side * (value - line) for value in (part.estimate, part.ci_low, part.ci_high))
    known = [value for value in (middle, *ends, part.matters, -part.matters) if value == value]
    scale = max(max(known) / (FILLED * RIGHT), min(known) / (FILLED * LEFT))
    if not none:
        band = part.matters / scale
        axes.add_patch(Rectangle((-band, y - PART / 2), 2 * band, PART, color="#D9D9D9", linewidth=0))
    colour = MARKS[part.verdict][1]
    axes.plot([end / scale for end in ends], [y, y], color=colour, linewidth=1.3)
    look = MARKERS.get(part.verdict, MARKERS[verdicts.UNDECIDED])
    axes.plot(middle / scale, y, color=colour, markersize=4, markeredgewidth=0.8, **look)


def _write_claim(page: Axes, top: float, claim) -> None:
    """Write the line of a claim: number, title, verdict."""
    page.plot([0, WIDTH], [top, top], color="#d4d4d4", linewidth=0.6)
    mark, colour = MARKS[claim.verdict]
    line = {"va": "center", "fontsize": 7.4, "weight": "bold"}
    y = top + 0.105
    page.text(TITLE, y, f"{claim.claim}", **line)
    page.text(SAYS, y, claim.title, **line)
    page.text(WIDTH - 0.03, y, f"{mark} {claim.verdict}", **line, color=colour, ha="right")


def _write_part(page: Axes, y: float, part) -> None:
    """Write the line of a part: its name, statement, numbers, verdict."""
    mark, colour = MARKS[part.verdict]
    measured = part.verdict != verdicts.NOT_MEASURED
    weight = {"weight": "bold"} if part.core else {}
    page.text(TITLE + 0.03, y, part.part, **SMALL | weight)
    page.text(SAYS, y, part.says, **SMALL if measured else SMALL | {"color": MISSING})
    if measured:
        page.text(NUMBER, y, _result(part), **SMALL)
    page.text(VERDICT, y, f"{mark} {part.verdict}{_in_brackets(part)}", **SMALL | {"color": colour})


def _in_brackets(part) -> str:
    if part.verdict == verdicts.UNDECIDED and pd.notna(part.seeds_needed):
        return f" ({part.seeds_needed} seeds)"
    shown = part.verdict == verdicts.AS_CLAIMED and pd.notna(part.shown_in)
    return f" ({part.shown_in:.0f} of {part.seeds})" if shown else ""


def _result(part) -> str:
    """The numbers of a part, as in "12.3 (4.5 to 20.1) points"."""
    estimate, low, high = numbers(part.estimate, part.ci_low, part.ci_high)
    interval = f" ({low} to {high})" if part.ci_low == part.ci_low else ""
    return f"{estimate}{interval} {UNITS.get(part.unit, part.unit)}".strip()


def _write_around(page: Axes, height: float) -> None:
    """Write the column heads and, below the rows, the legend."""
    for x, head in ((TITLE, "Claim and its parts"), (AXIS, "This study"), (VERDICT + 0.48, "Verdict")):
        page.text(x, 0.14, head, va="center", fontsize=8.5, weight="bold")
    page.plot([0, WIDTH], [height - FOOT] * 2, color="#d4d4d4", linewidth=0.6)
    page.text(TITLE, height - FOOT + 0.05, LEGEND, va="top", fontsize=5.8, color="#555555")
