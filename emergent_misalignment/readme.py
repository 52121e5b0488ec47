"""Bring what the README takes from the workflow up to date: `make readme`, after a run of the default study."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

README = Path("README.md")
GRAPH = re.compile(r"```mermaid\n.*?```", flags=re.DOTALL)
FIGURE = "main_result.png"
READING = {"all", "index", "render"}  # they hang on every notebook, and would hide the rest


def rule_graph() -> str:
    """The default study's rules as a Mermaid chart, without the reading room's."""
    command = [sys.executable, "-m", "snakemake", "--rulegraph", "mermaid-js"]
    drawn = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    names = dict(re.findall(r"(id\d+)\[(\w+)\]", drawn))
    edges = sorted({(names[a], names[b]) for a, b in re.findall(r"(id\d+) --> (id\d+)", drawn)})
    shown = [f"    {a} --> {b}" for a, b in edges if not {a, b} & READING]
    return "\n".join(["```mermaid", "flowchart LR", *shown, "```"])


def main() -> None:
    README.write_text(GRAPH.sub(rule_graph(), README.read_text(encoding="utf-8"), count=1), encoding="utf-8")
    Path("figures/README").mkdir(parents=True, exist_ok=True)
    shutil.copyfile(f"figures/organism/{FIGURE}", f"figures/README/{FIGURE}")


if __name__ == "__main__":
    main()
