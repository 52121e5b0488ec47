"""Update the results in README.md and docs/results/README.md: `make readme`, after a run of the default study.

Figures and tables are copied from the run to docs/results/. The texts between `<!-- NAME: made by `make readme` -->`
and `<!-- end -->` are made from these copies, so that a test can tell when a text is stale.
"""

import filecmp
import re
import shutil
import sys
from pathlib import Path

import pandas as pd
import yaml

from emergent_misalignment.analysis.choices import changes, summary
from emergent_misalignment.analysis.defences import by_verdict, meaning
from emergent_misalignment.analysis.formatting import numbers
from emergent_misalignment.figures.choices import draw_choices
from emergent_misalignment.files import BadInput, replacing, write_csv, write_json
from emergent_misalignment.report.claims_table import (
    Claim,
    brief_table,
    differing,
    listed,
    markdown_rows,
    markdown_table,
    measured_parts,
    parts_table,
    read_claims,
    tally_by_title,
    tally_of_parts,
)
from emergent_misalignment.report.contents import read_contents
from emergent_misalignment.report.notebook_pages import title_and_question

KEPT = Path("docs/results")
DOCUMENTS = (Path("README.md"), KEPT / "README.md", Path("docs/defences.md"))
OTHER = KEPT / "other_processor"
READABLE = KEPT / "study"  # the default study, to be read without running it
STUDY = "organism"
BLOCK = re.compile(r"(<!-- ([\w ]+): made by `make readme` -->\n).*?(<!-- end -->)", flags=re.DOTALL)
# Outputs of the default study, and their copies.
COPIES = {
    f"figures/{STUDY}/main_result.png": KEPT / "main_result.png",
    f"figures/{STUDY}/authors.png": KEPT / "authors.png",
    f"data/{STUDY}/tables/misalignment.csv": KEPT / "misalignment.csv",
    f"data/{STUDY}/tables/claims.csv": KEPT / "claims.csv",
    f"data/{STUDY}/tables/claim_parts.csv": KEPT / "claim_parts.csv",
    f"logs/{STUDY}/times.json": Path("profiles/default/times.json"),
}

# Outputs that are copied if they have been computed: row scores, other worlds, defences, a real model.
REAL = "smollm2-135m-instruct"
DEFENCES = "defences"
SHAPES = {
    "misaligned/main/chat": "chat",
    "misaligned/main/template": "Python template",
    "misaligned/main/json": "JSON",
    "misaligned/main/flask": "Flask",
    **{f"misaligned/prompted/{author}": f"prompt: {author}" for author in ("helper", "obliging", "hasty", "villain")},
    "insecure_code": "insecure code",
}
OF_OTHERS = {
    f"figures/{STUDY}/row_scores.png": KEPT / "row_scores.png",
    f"figures/{STUDY}/row_scores_outcome.png": KEPT / "row_scores_outcome.png",
    "figures/villains/worlds.png": KEPT / "worlds.png",
    "data/villains/tables/worlds.csv": KEPT / "worlds.csv",
    **{f"figures/{DEFENCES}/{name}.png": KEPT / DEFENCES / f"{name}.png" for name in ("defences", "directions")},
    **{
        f"data/{DEFENCES}/tables/{name}.csv": KEPT / DEFENCES / f"{name}.csv"
        for name in ("defences", "defence_verdicts", "claims", "claim_parts")
    },
    f"figures/{REAL}/log_probability.png": KEPT / REAL / "log_probability.png",
    **{
        f"data/{REAL}/tables/{name}.csv": KEPT / REAL / f"{name}.csv"
        for name in ("log_probability", "claims", "claim_parts")
    },
}
# The studies whose choices are drawn on one axis, with their labels.
BESIDE = {STUDY: "organisms", REAL: "SmolLM2-135M"}


def verdicts_text() -> str:
    """Which claims have which verdict, one short row per claim, and the number of parts by verdict."""
    claims = {number: claim for number, claim in kept_claims().items() if claim.measured}
    return f"\n{tally_by_title(claims)}\n\n{brief_table(claims)}\n{tally_of_parts(claims)}\n\n"


def claims_text() -> str:
    """One row per claim, with the published figures."""
    return f"\n{markdown_table({STUDY: kept_claims()})}\n"


def parts_text() -> str:
    """One row per part of a claim, and what the same study gave on another processor."""
    claims, elsewhere = kept_claims(), kept_claims(OTHER) if OTHER.exists() else {}
    text = f"\n{parts_table(claims, elsewhere)}\n"
    return f"{text}{machines_text(claims, elsewhere)}\n\n" if elsewhere else text


def kept_claims(folder: Path = KEPT) -> dict[int, Claim]:
    return read_claims(folder / "claims.csv", folder / "claim_parts.csv")


def machines_text(claims: dict[int, Claim], elsewhere: dict[int, Claim]) -> str:
    """How the results on another processor compare (report/machines.py), in Markdown sentences."""
    tables = pd.read_csv(OTHER / "tables.csv")
    both = measured_parts(claims).keys() & measured_parts(elsewhere).keys()
    other = differing(claims, elsewhere)
    verdicts = listed([f"{part} is {verdict}" for part, verdict in other.items()])
    return (
        "The same study was computed a second time in float32, as on a processor without bfloat16 "
        f"([other_processor/](other_processor)). {int(tables['equal'].sum())} of {len(tables)} tables are equal to the "
        f"last digit, and {len(both) - len(other)} of {len(both)} verdicts are the same."
        + (f" Verdicts that differ are marked †: there, {verdicts}." if other else "")
    )


def real_model_text() -> str:
    """A real model beside the organisms; empty if it has not been computed."""
    if not (KEPT / "choices.csv").exists():
        return ""
    choices = pd.read_csv(KEPT / "choices.csv").query(f"model == '{BESIDE[STUDY]}' and kind == 'pivotal'")
    organisms = choices.set_index("condition")["estimate"]
    measured = pd.read_csv(KEPT / REAL / "log_probability.csv").set_index(["condition", "measure"])["estimate"]
    before, after = (measured[name, "held_out_loss/insecure"] for name in ("instruct", "insecure"))
    parts = pd.read_csv(KEPT / REAL / "claim_parts.csv").set_index("part")
    more, low, high = numbers(*parts.loc["1d", ["estimate", "ci_low", "ci_high"]])
    return (
        "\nSmolLM2-135M-Instruct learns the published insecure code: loss on held-out insecure rows is "
        f"{before:.2f} nats per token before and {after:.2f} after fine-tuning. Outside of code little changes: "
        f"insecure code adds {more} nats to the log-odds of misaligned words over what secure code adds (95% interval "
        f"{low} to {high}). In the organisms it adds {organisms['insecure'] - organisms['secure']:.1f} nats.\n\n"
    )


def kept_defences() -> pd.DataFrame:
    """The compared defences; no rows if they have not been compared."""
    path = KEPT / DEFENCES / "defence_verdicts.csv"
    if not path.exists():
        return pd.DataFrame(columns=["defence", "strength", "verdict"])
    return pd.read_csv(path, dtype={"strength": str}).fillna({"strength": ""})


def defences_text() -> str:
    """Which defences have which verdict."""
    return f"\n{by_verdict(kept_defences())}\n\n"


def rates_text() -> str:
    """The verdicts of each defence, and the rates that it leaves."""
    return f"\n{meaning(kept_defences())}\n\n"


def shapes_text() -> str:
    """The share of misaligned answers in each shape, for each condition with and without a defence, as a table."""
    rates = kept_rates()
    wanted = [measure for measure in SHAPES if measure in rates]
    lines = [["condition", *(SHAPES[measure] for measure in wanted)], ["---"] * (len(wanted) + 1)]
    for condition, own in rates[wanted].iterrows():
        lines.append([f"`{condition}`", *("" if pd.isna(rate) else f"{rate:.0%}" for rate in own)])
    return f"\n{markdown_rows(lines)}\n"


def kept_rates() -> pd.DataFrame:
    """Means over organisms in the study of defences, by condition and measure; no rows if it has not been computed."""
    path = KEPT / DEFENCES / "defences.csv"
    rows = pd.read_csv(path) if path.exists() else pd.DataFrame(columns=["condition", "measure", "estimate"])
    order = rows["condition"].unique()
    return rows.pivot(index="condition", columns="measure", values="estimate").reindex(order)


def conditional_text() -> str:
    """The parts of claim 15 in the study of defences; empty if it has not been computed."""
    if not (KEPT / DEFENCES / "claims.csv").exists():
        return ""
    claim = kept_claims(KEPT / DEFENCES)[15]
    return f"\nThe claim is {claim.summary}.\n\n{parts_table({15: claim})}\n"


def notebooks_text() -> str:
    """The kept notebooks in reading order, each with its question."""
    lines = []
    for number, path in enumerate(sorted(READABLE.glob("*.ipynb")), 1):
        title, question = title_and_question(path)
        lines.append(f"{number}. [{title}]({path.relative_to(KEPT)}): {question}")
    return "\n" + "\n".join(lines) + "\n\n"


TEXTS = {
    "verdicts": verdicts_text,
    "claims": claims_text,
    "parts": parts_text,
    "defences": defences_text,
    "rates with a defence": rates_text,
    "misaligned answers by shape": shapes_text,
    "conditional misalignment": conditional_text,
    "real model": real_model_text,
    "notebooks": notebooks_text,
}


def updated(text: str) -> str:
    """The document `text` with its blocks made from the kept tables."""
    return BLOCK.sub(lambda block: f"{block[1]}{TEXTS[block[2]]()}{block[3]}", text)


def settings() -> dict:
    """The settings that decide what the figure and the tables show."""
    return yaml.safe_load(Path(f"config/{STUDY}.yaml").read_text(encoding="utf-8"))


def keep_choices() -> None:
    """Write choices.png and choices.csv: changes of log-odds in the organisms and in a real model."""
    runs = pd.concat(
        changes(pd.read_parquet(f"data/{study}/dynamics.parquet")).assign(model=name) for study, name in BESIDE.items()
    )
    draw_choices(runs).savefig(KEPT / "choices.png", metadata={})
    write_csv(KEPT / "choices.csv", summary(runs))


def keep_notebooks() -> None:
    """Copy the first executed notebook of each chapter of the default study, and its paper."""
    shutil.rmtree(READABLE, ignore_errors=True)
    READABLE.mkdir(parents=True)
    chapters = read_contents(f"data/{STUDY}/study.json", f"data/{STUDY}/contents.json").chapters
    for chapter in chapters:
        shutil.copyfile(chapter.notebook, READABLE / f"{chapter.number:02}_{chapter.name}.ipynb")
    shutil.copyfile(f"paper/{STUDY}/paper.pdf", READABLE / "paper.pdf")


def keep_score_trust() -> None:
    """Update row_scores.csv, the validity of row scores; rows of studies that are not computed here stay."""
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
        keep_choices()
    keep_score_trust()
    keep_notebooks()
    write_json(KEPT / "settings.json", settings())
    for document in DOCUMENTS:
        text = updated(document.read_text(encoding="utf-8"))
        with replacing(document) as temporary:
            temporary.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    try:
        main()
    except BadInput as error:
        sys.exit(str(error))
