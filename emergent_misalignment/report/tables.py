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
