"""All claims on one page: what was published, what came out in this study, and the verdict."""

import textwrap

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from emergent_misalignment.analysis.claims import numbers

# Colour and mark both say it, for those who cannot tell the colours apart and for print in grey.
FOR, AGAINST, OPEN = "#00695C", "#B3261E", "#6B6B6B"
VERDICTS = {
    "reproduced": ("✓", FOR),
    "contradicted": ("✗", AGAINST),
    "undecided": ("?", OPEN),
    "not measured": ("\N{EN DASH}", "#949494"),
}
OUTCOMES = {
    "as claimed": {"color": FOR, "marker": "o"},
    "as claimed, uncorrected": {"color": FOR, "marker": "o", "fillstyle": "left", "markerfacecoloralt": "white"},
    "open": {"color": OPEN, "marker": "o", "markerfacecolor": "white"},
    "opposite, uncorrected": {"color": AGAINST, "marker": "x"},
    "opposite": {"color": AGAINST, "marker": "X"},
}
UNITS = {"percentage points": "points", "log odds per doubling": "log odds\nper doubling"}
LEGEND = (
    "● as claimed   ○ open   ✗ the opposite.   ◐ and \N{MULTIPLICATION SIGN}: as claimed and the opposite by the "
    "test's own interval, but not after the correction for the number\nof claims. A claim is reproduced if all its "
    "tests are as claimed, contradicted if one is the opposite, undecided otherwise."
)

# Columns in inches from the left; heights of a row, of what stands above the rows and of what stands below.
TITLE, PUBLISHED, AXIS, NUMBER, VERDICT, WIDTH = 0.03, 2.08, 3.9, 5.36, 6.2, 7.2
ROW, HEAD, FOOT = 0.53, 0.56, 0.34
LEFT, RIGHT, FILLED = -0.6, 1.0, 0.9  # the drawn range, and how much of it an interval fills


def draw_claims(claims: pd.DataFrame, tests: pd.DataFrame) -> Figure:
    """A row a claim: the published figure, each test with its 95% interval, the first test's numbers, the verdict.

    `claims` and `tests` come from `claims.evaluate`. Measures and directions differ between tests. So each is drawn on
    a scale of its own, as its distance from the margin that the claim names (most often zero) towards the side on which
    the claim says that it lies, which is the right for all. The first test is the large one.
    """
    height = HEAD + ROW * len(claims) + FOOT
    figure = plt.figure(figsize=(WIDTH, height))
    figure.set_layout_engine("none")  # here, because plt.figure(layout="none") is forgotten when the figure is saved
    page = figure.add_axes((0, 0, 1, 1), xlim=(0, WIDTH), ylim=(height, 0))
    box = (AXIS / WIDTH, FOOT / height, (NUMBER - AXIS - 0.1) / WIDTH, ROW * len(claims) / height)
    axes = figure.add_axes(box, xlim=(LEFT, RIGHT), ylim=(len(claims), 0))
    for each in (page, axes):
        each.axis("off")

    axes.add_patch(Rectangle((0, 0), RIGHT, len(claims), color="#E6F0EE", linewidth=0))
    axes.plot([0, 0], [0, len(claims)], color="#404040", linewidth=0.9)
    for place, claim in enumerate(claims.itertuples()):
        own = tests[tests["claim"] == claim.claim]
        for number, test in enumerate(own.itertuples()):
            _draw_test(
                axes, place + (0.5 if len(own) == 1 else 0.25 if number == 0 else 0.3 + 0.15 * number), test, number
            )
        _write(page, HEAD + ROW * place, claim, own)
    _write_around(page, height)
    return figure


def _draw_test(axes: Axes, y: float, test, number: int) -> None:
    """The distance of a test's estimate and interval from its margin, towards the claimed side."""
    if test.estimate != test.estimate:
        return
    side = 1 if test.expect == "above" else -1
    middle, *ends = (side * (value - test.margin) for value in (test.estimate, test.ci_low, test.ci_high))
    known = [value for value in (middle, *ends) if value == value]
    scale = max(max(known) / (FILLED * RIGHT), min(known) / (FILLED * LEFT)) or 1
    look = OUTCOMES[test.outcome]
    axes.plot([end / scale for end in ends], [y, y], color=look["color"], linewidth=0.9 if number else 1.8)
    axes.plot(middle / scale, y, markersize=3.2 if number else 5.5, markeredgewidth=0.7 if number else 1, **look)


def _write(page: Axes, top: float, claim, tests: pd.DataFrame) -> None:
    """The words and numbers of a claim's row."""
    page.plot([0, WIDTH], [top, top], color="#d4d4d4", linewidth=0.6)
    title = textwrap.wrap(f"{claim.claim}. {claim.title}", 30)
    small = {"va": "top", "fontsize": 6.2, "color": "#333333"}
    page.text(TITLE, top + 0.06, "\n".join(title), va="top", fontsize=7.4, weight="bold", linespacing=1.1)
    page.text(
        TITLE, top + 0.085 + 0.12 * len(title), textwrap.fill(tests["says"].iloc[0], 43), **small | {"fontsize": 6}
    )
    page.text(PUBLISHED, top + 0.06, textwrap.fill(claim.published, 37), **small)
    if claim.estimate == claim.estimate:
        estimate, low, high = numbers(claim.estimate, claim.ci_low, claim.ci_high)
        page.text(NUMBER, top + 0.06, estimate, va="top", fontsize=8.5, weight="bold")
        first = tests.iloc[0]
        margin = f"claim: {first['expect'].replace('_', ' ')} {first['margin']:g}" if first["margin"] else ""
        interval = f"{low} to {high}" if claim.ci_low == claim.ci_low else ""
        lines = [interval, UNITS.get(claim.unit, claim.unit), margin]
        page.text(NUMBER, top + 0.21, "\n".join(line for line in lines if line), **small)
    mark, colour = VERDICTS[claim.verdict]
    page.text(VERDICT, top + 0.06, f"{mark} {claim.verdict}", va="top", fontsize=7.6, weight="bold", color=colour)
    if claim.verdict != "not measured":
        came_out = (tests["outcome"] == "as claimed").sum()
        page.text(VERDICT, top + 0.21, f"{came_out} of {len(tests)} tests", **small)
    if pd.notna(claim.seeds_needed):
        page.text(VERDICT, top + 0.32, f"{claim.seeds_needed} seeds to decide", **small)


def _write_around(page: Axes, height: float) -> None:
    """The heads of the columns, and below the rows what the marks mean."""
    heads = {
        (TITLE, "Claim"): "and what its first test says",
        (PUBLISHED, "Published"): "",
        (AXIS, "This study"): "Right of the line: as claimed.\nEach test on its own scale",
        (NUMBER, ""): "first test,\n95% interval",
        (VERDICT, "Verdict"): "on all tests",
    }
    for (x, head), below in heads.items():
        page.text(x, 0.14, head, va="center", fontsize=9, weight="bold")
        page.text(x, 0.25, below, va="top", fontsize=6.2, color="#555555")
    page.plot([0, WIDTH], [height - FOOT] * 2, color="#d4d4d4", linewidth=0.6)
    page.text(TITLE, height - FOOT + 0.06, LEGEND, va="top", fontsize=6.2, color="#555555")
