"""Bring what the README takes from the workflow up to date: `make readme`, after a run of the default study.

The figure and the table of claims come from that run. What they were made from is kept beside the figure, in
figures/README/, so that a test can tell when they are no longer what the workflow computes.
"""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import yaml

from emergent_misalignment.report.claims_table import markdown_table, read_claims, tally_by_title
from emergent_misalignment.files import BadInput, replacing, write_json

README = Path("README.md")
KEPT = Path("figures/README")
STUDY = "organism"
GRAPH = re.compile(r"```mermaid\n.*?```", flags=re.DOTALL)
CLAIMS = re.compile(r"<!-- claims: made by `make readme` -->\n.*?<!-- end -->", flags=re.DOTALL)
# From where in a run to where beside the README.
COPIES = {
    f"figures/{STUDY}/main_result.png": KEPT / "main_result.png",
    f"data/{STUDY}/tables/misalignment.csv": KEPT / "misalignment.csv",
    f"data/{STUDY}/tables/claims.csv": KEPT / "claims.csv",
    f"logs/{STUDY}/times.json": Path("profiles/default/times.json"),
}
# They hang on every notebook, and would hide the rest.
READING = {"all", "index", "render", "paper", "answers", "run_details"}


def rule_graph() -> str:
    """The default study's rules as a Mermaid chart, without the reading room's. Rules that differ in no more than the
    experiment are one."""
    command = [sys.executable, "-m", "snakemake", "--rulegraph", "mermaid-js"]
    drawn = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    names = {key: re.sub(r"^(finetune|sample)_.*", r"\1", name) for key, name in re.findall(r"(id\d+)\[(\w+)\]", drawn)}
    edges = sorted({(names[a], names[b]) for a, b in re.findall(r"(id\d+) --> (id\d+)", drawn)})
    shown = [f"    {a} --> {b}" for a, b in edges if a != b and not {a, b} & READING]
    return "\n".join(["```mermaid", "flowchart LR", *shown, "```"])


def claims_block() -> str:
    """The README's part about the claims, from the table that is kept beside its figure; empty without one."""
    path = KEPT / "claims.csv"
    said = ""
    if path.exists():
        claims = read_claims(path)
        said = f"\n{tally_by_title(claims)}\n\n{markdown_table({STUDY: claims})}\n"
    return f"<!-- claims: made by `make readme` -->\n{said}<!-- end -->"


def settings() -> dict:
    """The settings that decide what the figure and the table show."""
    return yaml.safe_load(Path(f"config/{STUDY}.yaml").read_text(encoding="utf-8"))


def main() -> None:
    for source in COPIES:
        if not Path(source).exists():
            raise BadInput(f"There is no {source}; run the default study first (make study).")
    for source, copy in COPIES.items():
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, copy)
    write_json(KEPT / "settings.json", settings())
    text = GRAPH.sub(lambda _: rule_graph(), README.read_text(encoding="utf-8"), count=1)
    with replacing(README) as temporary:
        temporary.write_text(CLAIMS.sub(lambda _: claims_block(), text, count=1), encoding="utf-8")


if __name__ == "__main__":
    try:
        main()
    except BadInput as error:
        sys.exit(str(error))
