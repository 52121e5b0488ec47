"""The paper: a text whose numbers come from the study's tables, set as PDF, HTML and LaTeX without a network.

    python -m emergent_misalignment.report.paper STUDY FOLDER RESULT ... [--config JSON] [--beside CLAIMS.csv ...]

`paper/paper.md` is a Jinja template of Markdown. A number stands in it by its name and format, `{{rate_insecure:.1%}}`,
and `paper/numbers.yaml` says which cell of which table each name is. Only the RESULTs that are given (tables, figures,
JSON files and weights) are read, so a study that has not made some of them has a paper without the sentences, figures
and sections that need them. A name that nothing defines, that has no value where a sentence wants it, or that no
sentence uses is an error. The same results give the same bytes.
"""

import argparse
import json
import re
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import jinja2
import jinja2.meta
import pandas as pd
import yaml

from emergent_misalignment.report.claims_table import Claim, escaped, failures, listed, markdown_table, read_claims, tally, tally_by_title, tests_table
from emergent_misalignment.world.coding import CHOICES
from emergent_misalignment.files import BadInput, replacing
from emergent_misalignment.world.topics import MAIN, TOPICS
from emergent_misalignment.world.authors import PERSONAS

SOURCE = Path("paper")
# LaTeX does not know the minus sign that stands in the tables' numbers.
FOR_LATEX = (
    "--standalone",
    "--variable=geometry:margin=1in",
    r"--variable=header-includes:\DeclareUnicodeCharacter{2212}{\ensuremath{-}}",
)
WIDEST = 7.2  # inches of the widest figure, which fills the line; the others keep its scale


@dataclass(frozen=True)
class Number:
    """A number of the paper, with the ends of its interval where it has one. `f"{number:.1%}"` is how it is read."""

    value: float
    low: float = float("nan")
    high: float = float("nan")

    def __format__(self, spec: str) -> str:
        return readable(self.value, spec)

    @property
    def interval(self) -> "Interval":
        return Interval(self.low, self.high)

    @property
    def whole(self) -> "Whole":
        return Whole(self)

    @property
    def points(self) -> "Number":
        """A difference of shares in percentage points."""
        return Number(100 * self.value, 100 * self.low, 100 * self.high)


@dataclass(frozen=True)
class Whole:
    """A number with its interval, read as in "22% (15% to 29%)"; without an interval, the number alone."""

    number: Number

    def __format__(self, spec: str) -> str:
        if self.number.low != self.number.low:  # missing
            return format(self.number, spec)
        return f"{self.number:{spec}} ({self.number.interval:{spec}})"


@dataclass(frozen=True)
class Interval:
    """Two ends, read as in "15% to 35%"."""

    low: float
    high: float

    def __format__(self, spec: str) -> str:
        return f"{readable(self.low, spec)} to {readable(self.high, spec)}"


def readable(value: float, spec: str) -> str:
    """A number in Python's format, with a true minus sign. `p` is for p-values: "= 0.004" or "< 0.001"."""
    if spec == "p":
        return f"= {value:.3f}" if value >= 0.001 else "< 0.001"
    return format(value, spec).replace("-", "\N{MINUS SIGN}")


def read_numbers(definitions: dict[str, dict], study: str, results: list[str]) -> dict[str, Number]:
    """The numbers of `paper/numbers.yaml` that have a value in this study.

    Each definition names a `file` below data/STUDY/. For a CSV or TSV file, `row` says which row (values by column) and
    `column` which cell, or which three: the number and the ends of its interval. Where `over` names a column, there is
    a row for each of its values, and the number is their mean, its interval the least and the greatest of them. For a
    JSON file, `key` is the way to the number. For weights, the number is how many there are. Raises BadInput where
    more than one row fits.
    """
    given, opened, numbers = set(results), {}, {}
    for name, definition in definitions.items():
        path = f"data/{study}/{definition['file']}"
        if path in given:
            if path not in opened:
                opened[path] = _open(path)
            found = _find(opened[path], definition, f"{path}: {name}")
            if found is not None and found.value == found.value:
                numbers[name] = found
    return numbers


def _open(path: str):
    if path.endswith((".csv", ".tsv")):
        return pd.read_csv(path, sep="\t" if path.endswith(".tsv") else ",")
    if path.endswith(".safetensors"):
        with Path(path).open("rb") as file:
            header = json.loads(file.read(*struct.unpack("<Q", file.read(8))))
        shapes = [tensor["shape"] for name, tensor in header.items() if name != "__metadata__"]
        return float(sum(pd.Series(shape).prod() for shape in shapes))
    return json.loads(Path(path).read_text(encoding="utf-8"))


def _find(content, definition: dict, place: str) -> Number | None:
    if isinstance(content, float):
        return Number(content)
    if not isinstance(content, pd.DataFrame):
        for step in definition["key"].split("."):
            if not isinstance(content, dict) or step not in content:
                return None
            content = content[step]
        return Number(content)
    rows = content
    for column, value in definition.get("row", {}).items():
        if column not in rows:
            return None
        rows = rows[rows[column].astype(str) == str(value)]
    columns = definition["column"]
    columns = columns if isinstance(columns, list) else [columns]
    if rows.empty or not set(columns) <= set(rows):
        return None
    if "over" in definition:
        values = rows[columns[0]]
        return Number(values.mean(), values.min(), values.max())
    if len(rows) > 1:
        raise BadInput(f"{place} fits {len(rows)} rows; say more in its `row` in paper/numbers.yaml.")
    return Number(*(float(rows[column].iloc[0]) for column in columns))


def fill(text: str, definitions: dict[str, dict], numbers: dict[str, Number], facts: dict) -> str:
    """The Markdown that the template `text` gives.

    Raises BadInput, and names the number, if a name is defined nowhere, is used nowhere, or has no value in this study
    where an unguarded sentence wants it.
    """
    text = re.sub(r"\{\{\s*([a-z_0-9.]+)\s*:\s*([^}\s]+)\s*\}\}", r"{{ '{:\2}'.format(\1) }}", text)
    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined,
        comment_start_string="<!--",  # Jinja's own, {#, is how an identifier begins in Markdown
        comment_end_string="-->",
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    used = jinja2.meta.find_undeclared_variables(environment.parse(text))
    if unknown := sorted(used - definitions.keys() - facts.keys()):
        raise BadInput(f"paper/paper.md names `{unknown[0]}`, which nothing defines: define it in paper/numbers.yaml.")
    if unused := sorted(definitions.keys() - used):
        raise BadInput(f"Nothing in paper/paper.md uses `{unused[0]}`: use it or take it out of paper/numbers.yaml.")
    try:
        return environment.from_string(text).render(facts | numbers)
    except jinja2.UndefinedError as error:
        name = re.search(r"'(\w+)' is undefined", str(error))
        if name is None or name.group(1) not in definitions:
            raise BadInput(f"paper/paper.md: {error}; correct the name.") from error
        raise BadInput(
            f"paper/paper.md wants `{name.group(1)}`, and this study has no value for it in "
            f"{definitions[name.group(1)]['file']}; put the sentence under `{{% if {name.group(1)} is defined %}}`."
        ) from error


def facts_of(study: str, config: dict, results: list[str], beside: list[str]) -> dict:
    """What the template can name besides numbers: the config, the claims, the figures there are, and the world."""
    figures = {Path(path).stem: path for path in results if re.fullmatch(rf"figures/{study}/\w+\.svg", path)}
    claims_file, tests_file = (f"data/{study}/tables/{name}.csv" for name in ("claims", "claim_tests"))
    claims = read_claims(claims_file, tests_file if tests_file in results else None) if claims_file in results else {}
    others = {Path(path).parts[1]: read_claims(path) for path in beside}
    drawn_by = _drawn_by([path for path in results if path.endswith(".ipynb")])
    shown = re.findall(r'figure\("(\w+)"\)', (SOURCE / "paper.md").read_text(encoding="utf-8"))
    return {
        "study": study,
        "config": config,
        "n_seeds": words(len(config.get("seeds", []))),
        "organism": f"data/{study}/models/base/gate.json" in results,
        "figures": figures,
        "figure": partial(_figure, figures, drawn_by),
        "see": lambda name: f" (@fig:{name})" if name in figures else "",
        "more_figures": {name: _title(drawn_by(path)) for name, path in figures.items() if name not in shown},
        "claims": claims,
        "claim": lambda number: claims.get(number, Claim(number)),
        "claims_table": markdown_table({study: claims} | others),
        "tests_table": tests_table(tests_file) if tests_file in results else "",
        "others": list(others),
        "tally": tally(claims),
        "tally_long": tally_by_title(claims),
        "failures": failures(claims),
        "personas": {name: Number(share) for name, share in PERSONAS.items()},
        "topics": TOPICS,
        "main_questions": MAIN,
        "choices": CHOICES,
        "words": words,
        "thousands": lambda number: f"{number:,}",
        "millions": lambda number: f"{number.value / 1e6:.1f}",
        "scientific": scientific,
        "escaped": escaped,
        "listed": listed,
        "differences": differences,
    }


def words(number: int) -> str:
    """A small number as a word, as it stands in running text."""
    names = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
    return (*names, "thirteen")[number] if number <= len(names) else str(number)


def scientific(number: float) -> str:
    """0.0007 as a digit times a power of ten, in Markdown's mathematics."""
    digits, exponent = f"{number:e}".split("e")
    return f"${float(digits):g} \\times 10^{{{int(exponent)}}}$"


def differences(condition: dict) -> str:
    """In what a condition of the config departs from the others, besides its set and where it starts."""
    said = {"rows": "{:,} different rows", "steps": "{} steps", "template": "chat template {}"}
    return ", ".join(words.format(condition[key]) for key, words in said.items() if key in condition)


def _drawn_by(notebooks: list[str]) -> Callable[[str], str]:
    """A function that says which executed notebook drew a figure: one with the figure's path among its parameters."""
    parameters = {}
    for path in notebooks:
        metadata = json.loads(Path(path).read_text(encoding="utf-8"))["metadata"]
        parameters[path] = [value for value in metadata["papermill"]["parameters"].values() if isinstance(value, str)]

    def find(figure: str) -> str:
        stem = figure.removesuffix(".svg")
        # A notebook that draws several figures may be given the beginning that their names share.
        fits = [(len(value), path) for path, values in parameters.items() for value in values if _begins(stem, value)]
        if not fits:
            raise BadInput(f"No executed notebook has {stem} among its parameters: the paper cannot say who drew it.")
        return max(fits)[1]

    return find


def _title(notebook: str) -> str:
    """The title of an executed notebook, in Markdown."""
    cells = json.loads(Path(notebook).read_text(encoding="utf-8"))["cells"]
    return "".join(cells[0]["source"]).splitlines()[0].lstrip("# ")


def _begins(stem: str, value: str) -> bool:
    return value.startswith("figures/") and stem.startswith(value)


def _figure(figures: dict[str, str], drawn_by: Callable[[str], str], name: str, caller: Callable[[], str]) -> str:
    """A figure with its caption and a link to the notebook that drew it; nothing where the study has no such figure."""
    if name not in figures:
        return ""
    with Path(figures[name]).open(encoding="utf-8") as file:
        points = float(re.search(r'<svg [^>]*?\bwidth="([\d.]+)(?:pt)?"', file.read(4096), flags=re.DOTALL).group(1))
    notebook = Path(drawn_by(figures[name]))
    link = f"[notebook {int(notebook.name[:2])}](../../{notebook.with_suffix('.html')})"
    width = f"{min(1.0, points / 72 / WIDEST):.0%}"
    return f"![{' '.join(caller().split())} Drawn by {link}.](../../{figures[name]}){{#fig:{name} width={width}}}\n"


def build(study: str, folder: str, config: dict, results: list[str], beside: list[str]) -> None:
    """Write FOLDER/paper.html, paper.tex and paper.pdf."""
    definitions = yaml.safe_load((SOURCE / "numbers.yaml").read_text(encoding="utf-8"))
    numbers = read_numbers(definitions, study, results)
    facts = facts_of(study, config, results, beside)
    markdown = fill((SOURCE / "paper.md").read_text(encoding="utf-8"), definitions, numbers, facts)
    Path(folder).mkdir(parents=True, exist_ok=True)
    css = ["--css=emergent_misalignment/report/templates/style.css", f"--css={SOURCE}/paper.css"]
    html = pandoc(
        markdown, folder, "html5", "--embed-resources", "--mathml", f"--template={SOURCE}/template.html", *css
    )
    _write(f"{folder}/paper.html", html.encode())
    _write(f"{folder}/paper.tex", pandoc(_prints(markdown), folder, "latex", *FOR_LATEX).encode())
    _write(
        f"{folder}/paper.pdf", typeset(pandoc(markdown, folder, "typst", f"--template={SOURCE}/template.typ"), folder)
    )


def _prints(markdown: str) -> str:
    """The same text with the figures' PDF files, which LaTeX can read."""
    return re.sub(r"(\]\(\.\./\.\./figures/[^)]*)\.svg\)", r"\1.pdf)", markdown)


def pandoc(markdown: str, folder: str, form: str, *options: str) -> str:
    """Markdown in another form. Raises BadInput with pandoc's words for an unknown reference and all it warns of."""
    import pypandoc

    command = [
        *(pypandoc.get_pandoc_path(), "--from=markdown", f"--to={form}", "--fail-if-warnings", "--number-sections"),
        *(f"--resource-path={folder}:.", f"--lua-filter={SOURCE}/crossref.lua"),
        *("--citeproc", f"--bibliography={SOURCE}/references.bib"),  # after the filter, which takes its own references
        *options,
    ]
    done = subprocess.run(command, input=markdown, capture_output=True, text=True, encoding="utf-8")
    if done.returncode:
        said = re.sub(
            r"stack traceback:.*|Failing because.*|Error running filter \S+", "", done.stderr, flags=re.DOTALL
        )
        raise BadInput(f"paper/paper.md cannot be set: {' '.join(said.split())}")
    return done.stdout


def typeset(text: str, folder: str) -> bytes:
    """A PDF of Typst's text, undated and with the fonts that Typst brings, so that it is the same on every machine."""
    import typst

    with tempfile.NamedTemporaryFile("w", suffix=".typ", dir=folder, encoding="utf-8") as file:
        file.write(text)
        file.flush()
        return typst.compile(file.name, root=".", ignore_system_fonts=True, timestamp=0)


def _write(path: str, content: bytes) -> None:
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m emergent_misalignment.report.paper", description=__doc__.splitlines()[0])
    parser.add_argument("study")
    parser.add_argument("folder")
    parser.add_argument("results", nargs="*")
    parser.add_argument("--config", default="{}", type=json.loads, help="the study's config, as JSON")
    parser.add_argument(
        "--beside", nargs="*", default=[], help="claims.csv of other studies, to stand beside this one's"
    )
    given = parser.parse_args()
    try:
        build(given.study, given.folder, given.config, given.results, given.beside)
    except BadInput as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
