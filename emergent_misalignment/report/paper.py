"""Build the paper as PDF, HTML and LaTeX, with all numbers from the study's tables.

`paper/paper.md` is a Jinja template of Markdown. Numbers are written as name and format, `{{rate_insecure:.1%}}`;
`paper/numbers.yaml` maps names to cells of tables. Only results that a chapter lists are read, so the paper of a study
without some results has no sentences, figures and sections about them. Undefined names, unused names, and names without
a value in an unconditional sentence are errors. The same results give the same bytes; no network is needed.
"""

import json
import os
import re
import struct
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import jinja2
import jinja2.meta
import pandas as pd
import yaml

from emergent_misalignment.analysis import defences
from emergent_misalignment.analysis.formatting import formatted, listed, p_value
from emergent_misalignment.files import BadInput, replacing
from emergent_misalignment.registry import MAIN
from emergent_misalignment.report import claims_table
from emergent_misalignment.report.claims_table import Claim, escaped, markdown_table, read_claims
from emergent_misalignment.report.contents import Contents
from emergent_misalignment.report.notebook_pages import title_and_question
from emergent_misalignment.study.model import Condition

SOURCE = Path("paper")
TEXT, NUMBERS = SOURCE / "paper.md", SOURCE / "numbers.yaml"
STYLE = "emergent_misalignment/report/templates/style.css"
# LaTeX does not know the minus sign U+2212, nor in all encodings of fonts the letter U+0144.
FOR_LATEX = (
    "--standalone",
    "--variable=geometry:margin=1in",
    r"--variable=header-includes:\DeclareUnicodeCharacter{2212}{\ensuremath{-}}",
    r"--variable=header-includes:\DeclareUnicodeCharacter{0144}{\'n}",
)
WIDEST = 7.2  # inches; a figure of this width fills the line, and narrower ones keep the scale


@dataclass(frozen=True)
class Number:
    """A number of the paper, with the ends of its interval if it has one; formatted as in `f"{number:.1%}"`."""

    value: float
    low: float = float("nan")
    high: float = float("nan")

    def __format__(self, spec: str) -> str:
        return readable(self.value, spec)

    def __int__(self) -> int:
        return int(self.value)

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
    """A number with its interval, as in "22% (15% to 29%)"; without an interval, the number alone."""

    number: Number

    def __format__(self, spec: str) -> str:
        if self.number.low != self.number.low:  # missing
            return format(self.number, spec)
        return f"{self.number:{spec}} ({self.number.interval:{spec}})"


@dataclass(frozen=True)
class Interval:
    """Two ends, as in "15% to 35%"."""

    low: float
    high: float

    def __format__(self, spec: str) -> str:
        return f"{readable(self.low, spec)} to {readable(self.high, spec)}"


def readable(value: float, spec: str) -> str:
    """A number in Python's format, with a true minus sign. `p` is for p-values: "= 0.004" or "< 0.001"."""
    return p_value(value) if spec == "p" else formatted(value, spec)


def read_numbers(definitions: dict[str, dict], contents: Contents) -> dict[str, Number]:
    """The numbers of `numbers.yaml` that have a value in this study.

    Each definition has a `file` below data/STUDY/, in which `{seed}` is the study's first seed. In a CSV or TSV file,
    `row` selects the row (values by column) and `column` the cell, or three cells: the number and the ends of its
    interval. With `over`, several rows are selected; the number is their mean and the interval their range. In a JSON
    file, `key` is the path of the number. For weights, the number is the number of parameters. Raises BadInput if more
    than one row fits.
    """
    results, opened, numbers = set(contents.results), {}, {}
    for name, definition in definitions.items():
        path = contents.study.paths.of(definition["file"]).replace("{seed}", str(contents.study.seeds[0]))
        if path in results:
            if path not in opened:
                opened[path] = _open(path)
            number = _number(opened[path], definition, f"{path}: {name}")
            if number is not None and number.value == number.value:
                numbers[name] = number
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


def _number(content, definition: dict, place: str) -> Number | None:
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
        raise BadInput(f"{place} fits {len(rows)} rows; add columns to its `row` in {NUMBERS}.")
    return Number(*(float(rows[column].iloc[0]) for column in columns))


def fill(text: str, definitions: dict[str, dict], numbers: dict[str, Number], facts: dict) -> str:
    """Render the template `text` to Markdown.

    Raises BadInput with the name of the number if it is undefined, unused, or has no value in an unguarded sentence.
    """
    text = re.sub(r"\{\{\s*([a-z_0-9.]+)\s*:\s*([^}\s]+)\s*\}\}", r"{{ '{:\2}'.format(\1) }}", text)
    environment = jinja2.Environment(  # for Markdown, which pandoc escapes  # nosec B701
        undefined=jinja2.StrictUndefined,
        comment_start_string="<!--",  # Jinja's {# begins an identifier in Markdown
        comment_end_string="-->",
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    used = jinja2.meta.find_undeclared_variables(environment.parse(text))
    if unknown := sorted(used - definitions.keys() - facts.keys()):
        raise BadInput(f"{TEXT} uses `{unknown[0]}`, which is undefined; define it in {NUMBERS}.")
    if unused := sorted(definitions.keys() - used):
        raise BadInput(f"{NUMBERS} defines `{unused[0]}`, which {TEXT} does not use; use or remove it.")
    try:
        return environment.from_string(text).render(facts | numbers)
    except jinja2.UndefinedError as error:
        name = re.search(r"'(\w+)' is undefined", str(error))
        if name is None or name.group(1) not in definitions:
            raise BadInput(f"{TEXT}: {error}; correct the name.") from error
        raise BadInput(
            f"{TEXT} uses `{name.group(1)}`, which has no value in {definitions[name.group(1)]['file']} of this study; "
            f"put the sentence under `{{% if {name.group(1)} is defined %}}`."
        ) from error


class Figures:
    """The figures of a study for the template; `folder` is that of the paper."""

    def __init__(self, contents: Contents, folder: str):
        self._contents, self._folder, self._drawn = contents, folder, set()

    def __contains__(self, name: str) -> bool:
        return name in self._contents.figures

    def see(self, name: str) -> str:
        """A reference to a figure in brackets; empty if the study does not have the figure."""
        return f" (@fig:{name})" if name in self else ""

    def draw(self, name: str, caller: Callable[[], str]) -> str:
        """A figure with its caption and a link to its notebook; empty if the study does not have the figure."""
        if name not in self:
            return ""
        self._drawn.add(name)
        path = self._contents.figures[name]
        with Path(path).open(encoding="utf-8") as file:
            points = re.search(r'<svg [^>]*?\bwidth="([\d.]+)(?:pt)?"', file.read(4096), flags=re.DOTALL).group(1)
        chapter = self._contents.chapter_of(path)
        link = f"[notebook {chapter.number}]({self._relative(Path(chapter.notebook).with_suffix('.html'))})"
        width = f"{min(1.0, float(points) / 72 / WIDEST):.0%}"
        caption = " ".join(caller().split())
        return f"![{caption} Drawn by {link}.]({self._relative(path)}){{#fig:{name} width={width}}}\n"

    def rest(self) -> dict[str, str]:
        """The figures that were not drawn so far, with the titles of their notebooks."""
        return {
            name: title_and_question(self._contents.chapter_of(path).notebook)[0]
            for name, path in self._contents.figures.items()
            if name not in self._drawn
        }

    def _relative(self, path: str | Path) -> str:
        return os.path.relpath(path, self._folder)


def facts_of(contents: Contents, folder: str) -> dict:
    """What the template can name besides numbers: the config, the claims and the figures there are."""
    claims_file = contents.table("claims")
    claims = read_claims(claims_file, contents.table("claim_parts")) if claims_file else {}
    figures, study = Figures(contents, folder), contents.study
    return {
        "study": study.study,
        "organism": study.is_organism,
        "config": study.config,
        "n_seeds": words(len(study.seeds)),
        "conditions": [
            {"name": each.name, "start": each.start, "dataset": each.dataset, "differs": _differences(each)}
            for each in study.conditions.values()
            if each.organism == MAIN
        ],
        "main_samples": study.samples.get("main", study.evaluation.samples),
        "figures": figures,
        "figure": figures.draw,
        "see": figures.see,
        "more_figures": figures.rest,
        "claims": claims,
        "claim": lambda number: claims.get(number, Claim(number=number)),
        "claims_table": markdown_table({study.study: claims}) if claims else "",
        "parts_table": claims_table.parts_table(claims),
        "tally": claims_table.tally(claims),
        "tally_long": claims_table.tally_by_title(claims),
        "unmeasured": claims_table.unmeasured(claims),
        "failures": claims_table.failures(claims),
        "by_chance": claims_table.by_chance(claims),
        "words": words,
        "thousands": lambda number: f"{number:,}",
        "millions": lambda number: f"{number.value / 1e6:.1f}",
        "percent": "{:.0%}".format,
        "chosen": chosen,
        "scientific": scientific,
        "escaped": escaped,
        "listed": listed,
    }


def _differences(condition: Condition) -> str:
    """The settings in which a condition differs, besides its set and the model that it starts from."""
    own = [f"{condition.rows:,} different rows"] if condition.rows else []
    own += [f"chat template {condition.template}"] if condition.template != "chat" else []
    own += [
        f"{key.replace('_', ' ')} {chosen(value)}" for key, value in condition.finetuning.items() if key != "defence"
    ]
    if "defence" in condition.finetuning:
        defence = condition.finetuning["defence"]
        own.append(defences.in_words(defence) if defence else "no defence")
    return ", ".join(own)


def chosen(value) -> str:
    """A setting as text; the API chooses settings that are null."""
    return "as the API chooses" if value is None else f"{value:,}"


def words(number: "int | Number") -> str:
    """A number below 15 as a word, larger ones in digits."""
    names = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
    names += ("thirteen", "fourteen")
    return names[int(number)] if int(number) < len(names) else str(int(number))


def scientific(number: float) -> str:
    """A number times a power of ten, in the mathematics of Markdown."""
    digits, exponent = f"{number:e}".split("e")
    return f"${float(digits):g} \\times 10^{{{int(exponent)}}}$"


def build(contents: Contents, folder: str) -> None:
    """Write FOLDER/paper.html, paper.tex and paper.pdf."""
    definitions = yaml.safe_load(NUMBERS.read_text(encoding="utf-8"))
    facts = facts_of(contents, folder)
    markdown = fill(TEXT.read_text(encoding="utf-8"), definitions, read_numbers(definitions, contents), facts)
    Path(folder).mkdir(parents=True, exist_ok=True)
    look = [f"--template={SOURCE}/template.html", f"--css={STYLE}", f"--css={SOURCE}/paper.css"]
    _write(f"{folder}/paper.html", pandoc(markdown, folder, "html5", "--embed-resources", "--mathml", *look).encode())
    _write(f"{folder}/paper.tex", pandoc(_prints(markdown), folder, "latex", *FOR_LATEX).encode())
    typst = pandoc(markdown, folder, "typst", f"--template={SOURCE}/template.typ")
    _write(f"{folder}/paper.pdf", typeset(typst, folder))


def _prints(markdown: str) -> str:
    """The same text with the PDF files of the figures, for LaTeX."""
    return re.sub(r"(\]\([^)\s]*)\.svg\)", r"\1.pdf)", markdown)


def pandoc(markdown: str, folder: str, form: str, *options: str) -> str:
    """Convert Markdown with pandoc. Raises BadInput with pandoc's message for unknown references and all warnings."""
    import pypandoc

    command = [
        *(pypandoc.get_pandoc_path(), "--from=markdown", f"--to={form}", "--fail-if-warnings", "--number-sections"),
        *(f"--resource-path={folder}:.", f"--lua-filter={SOURCE}/crossref.lua"),
        *(
            "--citeproc",
            f"--bibliography={SOURCE}/references.bib",
        ),  # after the filter, which resolves its own references
        *options,
    ]
    done = subprocess.run(command, input=markdown, capture_output=True, text=True, encoding="utf-8")
    if done.returncode:
        noise = r"stack traceback:.*|Failing because.*|Error running filter \S+"
        message = " ".join(re.sub(noise, "", done.stderr, flags=re.DOTALL).split())
        raise BadInput(f"{TEXT}: {message}")
    return done.stdout


def typeset(text: str, folder: str) -> bytes:
    """Compile Typst to PDF, undated and with Typst's own fonts, so that the bytes are the same on every machine."""
    import typst

    with tempfile.NamedTemporaryFile("w", suffix=".typ", dir=folder, encoding="utf-8") as file:
        file.write(text)
        file.flush()
        return typst.compile(file.name, root=".", ignore_system_fonts=True, timestamp=0)


def _write(path: str, content: bytes) -> None:
    with replacing(path) as temporary:
        temporary.write_bytes(content)
