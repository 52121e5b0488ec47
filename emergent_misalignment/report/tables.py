"""Tables as they are shown in notebooks."""

import pandas as pd
from pandas.io.formats.style import Styler


def texts(table: pd.DataFrame) -> Styler:
    """A table of texts: left-aligned, with line breaks, without the index. Texts are shown as they are, not as HTML."""
    look = {"text-align": "left", "vertical-align": "top", "white-space": "pre-wrap"}
    shown = table.reset_index(drop=True).style.hide(axis="index").format(escape="html")
    shown = shown.format_index(escape="html", axis="columns")
    return shown.set_properties(**look).set_uuid("texts")  # the default id is random


def shares(table: pd.DataFrame) -> pd.DataFrame:
    """Shares between 0 and 1 in percent; missing values are empty."""
    return table.map(lambda share: "" if pd.isna(share) else f"{share:.1%}")


INTERVALS = """## How to read the intervals

Each dot is one training run, each bar the mean over the runs of a condition, each line the 95% interval for other runs
of the same training; in a study of organisms each run is an organism of its own. Diamonds are the paper's figures. A
real untuned model is one run: its interval covers other answers, not another training. The table's file also has the
paper's interval (`bootstrap`), which is too narrow with few runs."""


def estimates_table(estimates: pd.DataFrame) -> pd.DataFrame:
    """Rows of `analysis.estimates` that are shares, in percent, one row per measure and condition."""
    table = with_interval(estimates, "estimate")
    if "published" in estimates:
        table["published"] = shares(estimates[["published"]])
    table = table.join(estimates[["seeds", "answers"]]).join(estimates["interval"].rename("method"))
    return table.set_index(pd.MultiIndex.from_frame(estimates[["measure", "condition"]]))


def with_interval(table: pd.DataFrame, share: str) -> pd.DataFrame:
    """The column `share` of a table and its interval (`ci_low`, `ci_high`), in percent."""
    percent = shares(table[[share, "ci_low", "ci_high"]])
    ends = [f"{low} to {high}" if low else "" for low, high in zip(percent["ci_low"], percent["ci_high"], strict=True)]
    return pd.DataFrame({share: percent[share], "95% interval": ends})
