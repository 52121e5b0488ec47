"""Tables as a reader sees them in a notebook."""

import pandas as pd
from pandas.io.formats.style import Styler


def texts(table: pd.DataFrame) -> Styler:
    """A table of texts: left-aligned, with their line breaks, without the index."""
    look = {"text-align": "left", "vertical-align": "top", "white-space": "pre-wrap"}
    shown = table.reset_index(drop=True).style.hide(axis="index")
    return shown.set_properties(**look).set_uuid("texts")  # a random id would change the page


def shares(table: pd.DataFrame) -> pd.DataFrame:
    """A table of shares between 0 and 1 in percent; what is missing is left empty."""
    return table.map(lambda share: "" if pd.isna(share) else f"{share:.1%}")


INTERVALS = """## How to read the intervals

Each dot is one training run, each bar the mean of its condition's runs, each line the 95% interval for other runs of
the same training; in a study of organisms each run is an organism of its own. Diamonds are the paper's. A real untuned
model is one run: its interval covers the answers, not training anew. The file of the table has the paper's own interval
too (`bootstrap`), which is too narrow with few runs."""


def estimates_table(estimates: pd.DataFrame) -> pd.DataFrame:
    """Rows of `analysis.estimates` that are shares, as a reader wants them: an arm a row, in percent."""
    table = with_interval(estimates, "estimate")
    if "published" in estimates:
        table["published"] = shares(estimates[["published"]])
    table = table.join(estimates[["seeds", "answers"]]).join(estimates["interval"].rename("method"))
    return table.set_index(pd.MultiIndex.from_frame(estimates[["measure", "condition"]]))


def with_interval(table: pd.DataFrame, share: str) -> pd.DataFrame:
    """The column `share` of a table and its interval, of `ci_low` and `ci_high`, in percent."""
    percent = shares(table[[share, "ci_low", "ci_high"]])
    ends = [f"{low} to {high}" if low else "" for low, high in zip(percent["ci_low"], percent["ci_high"], strict=True)]
    return pd.DataFrame({share: percent[share], "95% interval": ends})
