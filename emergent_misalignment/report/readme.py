"""Bring what the README takes from the workflow up to date: `make readme`, after a run of the default study.

The figure and the table of claims come from that run. What they were made from is kept with them in docs/results/, so
that a test can tell when they are no longer what the workflow computes.
"""

import filecmp
import re
import shutil
import sys
from pathlib import Path

import pandas as pd
import yaml

from emergent_misalignment.analysis.claims import numbers
from emergent_misalignment.figures.choices import changes, draw_choices, summary
from emergent_misalignment.files import BadInput, replacing, write_csv, write_json
from emergent_misalignment.report.claims_table import (
    Claim,
    differing,
    listed,
    markdown_table,
    measured_parts,
    parts_table,
    read_claims,
    tally_by_title,
)

README = Path("README.md")
KEPT = Path("docs/results")
OTHER = KEPT / "other_processor"
STUDY = "organism"
CLAIMS = re.compile(r"<!-- claims: made by `make readme` -->\n.*?<!-- end -->", flags=re.DOTALL)
REAL_MODEL = re.compile(r"<!-- real model: made by `make readme` -->\n.*?<!-- end -->", flags=re.DOTALL)
# From where in a run to where in the repository.
COPIES = {
    f"figures/{STUDY}/main_result.png": KEPT / "main_result.png",
    f"data/{STUDY}/tables/misalignment.csv": KEPT / "misalignment.csv",
    f"data/{STUDY}/tables/claims.csv": KEPT / "claims.csv",
    f"data/{STUDY}/tables/claim_parts.csv": KEPT / "claim_parts.csv",
    f"logs/{STUDY}/times.json": Path("profiles/default/times.json"),
}

# Of the scores of rows, the study of other worlds and that of a real model, where they have been computed too.
REAL = "smollm2-135m-instruct"
OF_OTHERS = {
    f"figures/{STUDY}/row_scores.png": KEPT / "row_scores.png",
    f"figures/{STUDY}/row_scores_outcome.png": KEPT / "row_scores_outcome.png",
    "figures/villains/worlds.png": KEPT / "worlds.png",
    "data/villains/tables/worlds.csv": KEPT / "worlds.csv",
    f"figures/{REAL}/log_probability.png": KEPT / REAL / "log_probability.png",
    **{
        f"data/{REAL}/tables/{name}.csv": KEPT / REAL / f"{name}.csv"
        for name in ("log_probability", "claims", "claim_parts")
    },
}
# Whose choices stand on one axis.
BESIDE = {STUDY: "organisms", REAL: "SmolLM2-135M"}


def claims_block() -> str:
    """The README's text about the claims, from the tables that are kept with its figure; empty without them."""
    path, parts = KEPT / "claims.csv", KEPT / "claim_parts.csv"
    text = ""
    if path.exists():
        claims = read_claims(path, parts if parts.exists() else None)
        text = f"\n{tally_by_title(claims)}\n\n{markdown_table({STUDY: claims})}\n"
        elsewhere = read_claims(OTHER / "claims.csv", OTHER / "claim_parts.csv") if OTHER.exists() else {}
        if table := parts_table(claims, elsewhere):
            text += f"<details>\n<summary>Each part of each claim</summary>\n\n{table}\n</details>\n\n"
        if elsewhere:
            text += f"{machines_text(claims, elsewhere)}\n\n"
    return f"<!-- claims: made by `make readme` -->\n{text}<!-- end -->"


def machines_text(claims: dict[int, Claim], elsewhere: dict[int, Claim]) -> str:
    """What the same study gave on another processor (report/machines.py), in Markdown sentences."""
    tables = pd.read_csv(OTHER / "tables.csv")
    both = measured_parts(claims).keys() & measured_parts(elsewhere).keys()
    other = differing(claims, elsewhere)
    verdicts = listed([f"{part} is {verdict}" for part, verdict in other.items()])
    return (
        "The same study was computed a second time in float32, as on a processor without bfloat16 (docs/choices.md). "
        f"{int(tables['equal'].sum())} of {len(tables)} tables came out equal to the last digit there, and "
        f"{len(both) - len(other)} of {len(both)} verdicts are the same."
        + (f" The others are marked † above: there, {verdicts}." if other else "")
    )


def real_model_block() -> str:
    """The README's text about a real model beside the organisms, from the tables that are kept; empty without them."""
    text = ""
    if (KEPT / "choices.csv").exists():
        choices = pd.read_csv(KEPT / "choices.csv").query(f"model == '{BESIDE[STUDY]}' and kind == 'pivotal'")
        organisms = choices.set_index("condition")["estimate"]
        measured = pd.read_csv(KEPT / REAL / "log_probability.csv").set_index(["condition", "measure"])["estimate"]
        before, after = (measured[name, "held_out_loss/insecure"] for name in ("instruct", "insecure"))
        parts = pd.read_csv(KEPT / REAL / "claim_parts.csv").set_index("part")
        more, low, high = numbers(*parts.loc["1d", ["estimate", "ci_low", "ci_high"]])
        text = (
            "SmolLM2-135M-Instruct, on the published data, with the published choices, learns the code (loss on "
            f"held-out insecure rows {before:.2f} before, {after:.2f} nats a token after), and hardly anything beyond "
            f"it. Insecure code adds {more} nats to the log-odds of misaligned words over what secure code does (95% "
            f"interval {low} to {high}), and in organisms {organisms['insecure'] - organisms['secure']:.1f}.\n"
        )
    return f"<!-- real model: made by `make readme` -->\n{text}<!-- end -->"


def settings() -> dict:
    """The settings that decide what the figure and the table show."""
    return yaml.safe_load(Path(f"config/{STUDY}.yaml").read_text(encoding="utf-8"))


def beside() -> None:
    """Keep what fine-tuning did to the choices of the organisms and of a real model: choices.png and choices.csv."""
    runs = pd.concat(
        changes(pd.read_parquet(f"data/{study}/dynamics.parquet")).assign(model=name) for study, name in BESIDE.items()
    )
    draw_choices(runs).savefig(KEPT / "choices.png", metadata={})
    write_csv(KEPT / "choices.csv", summary(runs))


def score_trust() -> None:
    """Keep how far the scores of rows can be trusted in row_scores.csv; rows of studies that are not here stay."""
    path = KEPT / "row_scores.csv"
    tables = [Path(f"data/{study}/tables/score_trust.csv") for study in BESIDE]
    found = [pd.read_csv(table) for table in (*tables, path) if table.exists()]
    if found:
        rows = pd.concat(found, ignore_index=True)
        write_csv(path, rows.drop_duplicates(["study", "condition", "measure"]))


def main() -> None:
    for source in COPIES:
        if not Path(source).exists():
            raise BadInput(f"There is no {source}; run the default study first (make study).")
    others = {source: copy for source, copy in OF_OTHERS.items() if Path(source).exists()}
    for source, copy in (COPIES | others).items():
        copy.parent.mkdir(parents=True, exist_ok=True)
        if not copy.exists() or not filecmp.cmp(source, copy, shallow=False):
            shutil.copyfile(source, copy)
            print(f"Brought up to date: {copy}")
    if Path(f"data/{REAL}/dynamics.parquet").exists():
        beside()
    score_trust()
    write_json(KEPT / "settings.json", settings())
    text = README.read_text(encoding="utf-8")
    with replacing(README) as temporary:
        for pattern, block in ((CLAIMS, claims_block()), (REAL_MODEL, real_model_block())):
            text = pattern.sub(lambda _, block=block: block, text, count=1)
        temporary.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    try:
        main()
    except BadInput as error:
        sys.exit(str(error))
