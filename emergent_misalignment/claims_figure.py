"""All claims on one page: what was published, what this study found, and the verdict."""

import textwrap

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

# Colour and mark both say it, for those who cannot tell the colours apart and for print in grey.
VERDICTS = {
    "reproduced": ("✓", "o", "#00695C"),
    "contradicted": ("✗", "X", "#B3261E"),
    "undecided": ("?", "D", "#6B6B6B"),
    "not measured": ("–", "", "#9A9A9A"),
}
OUTCOMES = {"as claimed": "●", "open": "○", "the opposite": "✗", "not measured": "–"}
UNITS = {"percentage points": "points", "percent": "%", "log odds per doubling": "log odds\nper doubling"}

# Columns in inches from the left, and the height of a row.
TITLE, PUBLISHED, AXIS, NUMBER, VERDICT, WIDTH = 0.0, 2.02, 3.86, 5.3, 6.16, 7.2
ROW, HEAD, FOOT = 0.53, 0.62, 0.05
LEFT, RIGHT = -0.5, 1.05  # the drawn range; a row's interval and margin are scaled into it


def draw_claims(claims: pd.DataFrame, tests: pd.DataFrame) -> Figure:
    """A row a claim: published figure, headline estimate with its 95% interval, verdict, outcome of each of its tests.

    `claims` and `tests` come from `claims.evaluate`. Units differ between claims, so each row has its own scale, and what
    rows have in common is the zero line and the shaded side: where the claim says that the interval should lie.
    """
    height = HEAD + ROW * len(claims) + FOOT
    figure = plt.figure(figsize=(WIDTH, height), layout="none")
    page = figure.add_axes((0, 0, 1, 1), xlim=(0, WIDTH), ylim=(height, 0))
    page.axis("off")
    box = (AXIS / WIDTH, FOOT / height, (NUMBER - AXIS - 0.08) / WIDTH, ROW * len(claims) / height)
    axes = figure.add_axes(box, xlim=(LEFT, RIGHT), ylim=(len(claims) - 0.5, -0.5))
    axes.axis("off")

    _heads(page)
    axes.plot([0, 0], [-0.5, len(claims) - 0.5], color="#404040", linewidth=0.9, zorder=2)
    for place, claim in enumerate(claims.itertuples()):
        own = tests[tests["claim"] == claim.claim]
        top = HEAD + ROW * place
        page.plot([0, WIDTH], [top, top], color="#d9d9d9", linewidth=0.6)
        _interval(axes, place, claim, own.iloc[0])
        _words(page, top, claim, own)
    return figure


def _heads(page: Axes) -> None:
    for x, head, below in (
        (TITLE, "Claim", "and what its first test compares"),
        (PUBLISHED, "Published", "by the paper"),
        (AXIS, "This study", "Shaded: where the claim says. Each row has its own scale; the line is zero."),
        (VERDICT, "Verdict", "● ○ ✗: each test\nas claimed, open, opposite"),
    ):
        page.text(x, 0.16, head, va="center", fontsize=9, weight="bold")
        width = 40 if x == AXIS else 60
        page.text(x, 0.26, textwrap.fill(below, width) if "\n" not in below else below, va="top", fontsize=6.2, color="#555555")


def _interval(axes: Axes, place: int, claim, headline) -> None:
    """The claimed side shaded, and on it the estimate with its interval, scaled so that both and the margin fit."""
    right, left = RIGHT * 0.86, -LEFT * 0.86
    ends = [value for value in (claim.estimate, claim.ci_low, claim.ci_high, headline.margin) if value == value]
    scale = max(max(ends) / right, -min(ends) / left, 1e-12)
    margin = headline.margin / scale
    side = (margin, RIGHT - margin) if headline.expect == "above" else (LEFT, margin - LEFT)
    axes.add_patch(Rectangle((side[0], place - 0.34), side[1], 0.68, color="#E9EEF3", zorder=1, linewidth=0))
    if margin:
        axes.plot([margin, margin], [place - 0.34, place + 0.34], color="#8797A6", linewidth=0.9, zorder=2)
        axes.text(margin, place + 0.37, f"{headline.margin:g}", fontsize=5.6, ha="center", va="top", color="#5C6B79")
    _, marker, colour = VERDICTS[claim.verdict]
    if marker:
        axes.plot([claim.ci_low / scale, claim.ci_high / scale], [place, place], color=colour, linewidth=1.8, zorder=3)
        face = "white" if claim.verdict == "undecided" else colour
        axes.plot(claim.estimate / scale, place, marker, color=colour, markerfacecolor=face, markersize=5.5, zorder=4)


def _words(page: Axes, top: float, claim, tests: pd.DataFrame) -> None:
    mark, _, colour = VERDICTS[claim.verdict]
    title = textwrap.wrap(f"{claim.claim}. {claim.title}", 31)
    page.text(TITLE, top + 0.06, "\n".join(title), va="top", fontsize=7.6, weight="bold", linespacing=1.05)
    says = textwrap.wrap(tests["says"].iloc[0], 41)
    page.text(TITLE, top + 0.08 + 0.125 * len(title), "\n".join(says), va="top", fontsize=6.2, color="#555555")
    page.text(PUBLISHED, top + 0.06, textwrap.fill(claim.published, 37), va="top", fontsize=6.2)
    if claim.estimate == claim.estimate:
        page.text(NUMBER, top + 0.06, _number(claim.estimate), va="top", fontsize=8.5, weight="bold", color=colour)
        unit = UNITS.get(claim.unit, claim.unit)
        ends = f"{_number(claim.ci_low)} to {_number(claim.ci_high)}\n" if claim.ci_low == claim.ci_low else ""
        page.text(NUMBER, top + 0.21, f"{ends}{unit}", va="top", fontsize=6.2, color="#333333")
    page.text(VERDICT, top + 0.06, f"{mark} {claim.verdict}", va="top", fontsize=8, weight="bold", color=colour)
    outcomes = " ".join(OUTCOMES[outcome] for outcome in tests["outcome"])
    page.text(VERDICT, top + 0.21, outcomes, va="top", fontsize=6.5, color="#333333")
    if pd.notna(claim.seeds_needed):
        page.text(VERDICT, top + 0.34, f"{claim.seeds_needed} seeds to decide", va="top", fontsize=6.2, color="#333333")


def _number(value: float) -> str:
    """Signed, with as many decimals as make sense at its size."""
    decimals = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    return f"{value:+.{decimals}f}".replace("-", "−") if round(value, decimals) else "0"
