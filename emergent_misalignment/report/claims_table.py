"""The claims with their verdicts as text, for the paper, the index of a study and the README."""

import re
from collections import Counter
from dataclasses import dataclass, field, fields
from html import escape
from pathlib import Path

import pandas as pd

from emergent_misalignment.analysis import claim_verdicts
from emergent_misalignment.analysis.claim_verdicts import CONTRADICTED, NOT_MEASURED, OPPOSITE, PART_VERDICTS, VERDICTS
from emergent_misalignment.analysis.formatting import decimal, listed, p_value

NAN = float("nan")
MARK = " †"  # of a verdict that differs on another machine


@dataclass(frozen=True, kw_only=True)
class Result:
    """The common columns of claims and parts."""

    estimate: float = NAN
    ci_low: float = NAN
    ci_high: float = NAN
    unit: str = ""
    seeds: int = 0
    shown_in: float = NAN
    p: float = NAN
    verdict: str = NOT_MEASURED
    note: str = ""

    @property
    def ours(self) -> str:
        """The estimate with its interval, as in "25.1 points (16.0 to 34.2)"; empty without an estimate."""
        return estimate(self.estimate, self.ci_low, self.ci_high, self.unit)

    @property
    def p_text(self) -> str:
        """The p value, as in "0.004" or "< 0.001"; empty if it is missing."""
        return _p(self.p)

    @property
    def shown(self) -> str:
        """In how many seeds the answers by themselves show it, as in "5 of 5"; empty where that is not tested."""
        return "" if pd.isna(self.shown_in) else f"{self.shown_in:.0f} of {self.seeds:.0f}"

    @property
    def measured(self) -> bool:
        return self.verdict != NOT_MEASURED


@dataclass(frozen=True, kw_only=True)
class Part(Result):
    """One row of `tables/claim_parts.csv`: one test of a claim, with its own verdict."""

    part: str
    core: bool = False
    expect: str = ""
    says: str = ""
    seeds_needed: float = NAN

    @property
    def sentence(self) -> str:
        return self.says[:1].upper() + self.says[1:]

    @property
    def remark(self) -> str:
        """The note, and the number of seeds that would decide."""
        if pd.isna(self.seeds_needed):
            return self.note
        return f"{self.note} About {self.seeds_needed:,.0f} seeds would decide it.".strip()


@dataclass(frozen=True, kw_only=True)
class Claim(Result):
    """One row of `tables/claims.csv` with its parts. Its numbers are those of the headline."""

    number: int
    title: str = ""
    statement: str = ""
    published: str = ""
    source: str = ""
    p_holm: float = NAN
    parts_as_claimed: int = 0
    parts_absent: int = 0
    parts_opposite: int = 0
    parts_undecided: int = 0
    parts_not_testable: int = 0
    parts_not_measured: int = 0
    parts: tuple[Part, ...] = field(default=(), repr=False)

    @property
    def headline(self) -> Part | None:
        """The first core part that was measured."""
        return next((part for part in self.parts if part.core and part.measured), None)

    @property
    def count(self) -> str:
        """The number of parts as claimed, as in "2 of 3 parts"; empty for a single part or if none was measured."""
        missing = (self.parts_undecided, self.parts_not_testable, self.parts_not_measured)
        parts = self.parts_as_claimed + self.parts_absent + self.parts_opposite + sum(missing)
        return f"{self.parts_as_claimed} of {parts} parts" if parts > 1 and self.measured else ""

    @property
    def against(self) -> str:
        """The number of opposite parts of a claim that is not contradicted, as in "1 opposite"; otherwise empty."""
        hidden = self.parts_opposite and self.verdict != CONTRADICTED
        return f"{self.parts_opposite} {OPPOSITE}" if hidden else ""

    @property
    def corrected(self) -> str:
        """The p value of the headline, corrected over all claims; empty if it is missing."""
        return _p(self.p_holm)

    @property
    def summary(self) -> str:
        """As in "partly reproduced (2 of 4 parts, 1 opposite)"."""
        details = ", ".join(filter(None, (self.count, self.against)))
        return f"{self.verdict} ({details})" if details else self.verdict

    @property
    def outcome(self) -> str:
        """The published and the measured result in Markdown, for any verdict."""
        published = (
            f"Published: {escaped(self.published).rstrip('.')} ({escaped(self.source)})." if self.published else ""
        )
        if not self.measured:
            return f"{published} Here: {NOT_MEASURED}.".strip()
        first = self.headline
        asked = f"on whether {escaped(first.says)}, " if first else ""
        shown = f", shown in {self.shown} seeds" if self.shown else ""
        test = "" if pd.isna(self.p) else f"; *p* {p_value(self.p)}, corrected over all claims {p_value(self.p_holm)}"
        ours = f"Here: {asked}{escaped(self.ours)}{shown}{test}. " if self.ours else ""
        return f"{published} {ours}Verdict: **{self.summary}**. {escaped(self.note)}".strip()


def _p(value: float) -> str:
    return "" if pd.isna(value) else p_value(value).removeprefix("= ")


def estimate(value: float, low: float, high: float, unit: str) -> str:
    """A number with its interval in the unit of the table of claims; empty if it is missing."""
    if pd.isna(value):
        return ""
    decimals = 1 if unit.startswith("percent") else 2
    words = {"percent": "%", "percentage points": " points", "": ""}.get(unit, f" {unit}")
    number = f"{decimal(value, decimals)}{words}"
    return number if pd.isna(low) else f"{number} ({decimal(low, decimals)} to {decimal(high, decimals)})"


def escaped(text: str) -> str:
    """Plain text as Markdown."""
    return re.sub(r"([\\`*_{}\[\]<>|~^$@#])", r"\\\1", text)


def read_claims(path: str | Path, parts: str | Path | None = None) -> dict[int, Claim]:
    """Read the claims of a study by number, from tables/claims.csv and, for their parts, tables/claim_parts.csv."""
    own: dict[int, list[Part]] = {}
    for row in _rows(parts, Part) if parts else []:
        own.setdefault(row.pop("claim"), []).append(Part(**row))
    rows = [row | {"number": row.pop("claim")} for row in _rows(path, Claim)]
    return {row["number"]: Claim(**row, parts=tuple(own.get(row["number"], ()))) for row in rows}


def _rows(path: str | Path, kind: type) -> list[dict]:
    """The rows of a table with the columns of `kind` and `claim`; missing texts are empty."""
    table = pd.read_csv(path)
    types = {"claim": int} | {each.name: each.type for each in fields(kind)}
    table = table[[name for name in table if name in types]]
    texts = [name for name in table if types[name] is str]
    table[texts] = table[texts].astype(object).fillna("")
    return table.to_dict("records")


def parts_table(claims: dict[int, Claim], elsewhere: dict[int, Claim] | None = None) -> str:
    """A Markdown table of the measured parts; empty if there is none.

    `elsewhere` has the claims of the same study on another machine; verdicts that differ there are marked.
    """
    parts, others = _measured_parts(claims), differing(claims, elsewhere or {})
    if not parts:
        return ""
    columns = {
        ("", 6): [f"**{part.part}**" if part.core else part.part for part in parts],
        ("Part", 40): [escaped(part.sentence) for part in parts],
        ("Here", 26): [escaped(part.ours) for part in parts],
        ("Shown in", 9): [part.shown for part in parts],
        ("*p*", 9): [escaped(part.p_text) for part in parts],
        ("Verdict", 14): [part.verdict + (MARK if part.part in others else "") for part in parts],
    }
    return _table(columns)


def _measured_parts(claims: dict[int, Claim]) -> list[Part]:
    return [part for claim in claims.values() for part in claim.parts if part.measured]


def measured_parts(claims: dict[int, Claim]) -> dict[str, str]:
    """The verdict of each measured part."""
    return {part.part: part.verdict for part in _measured_parts(claims)}


def differing(claims: dict[int, Claim], elsewhere: dict[int, Claim]) -> dict[str, str]:
    """The parts that were measured on another machine with another verdict, and that verdict."""
    there = measured_parts(elsewhere)
    return {
        part.part: there[part.part]
        for claim in claims.values()
        for part in claim.parts
        if there.get(part.part, part.verdict) != part.verdict
    }


def unfolding(claims: dict[int, Claim]) -> str:
    """HTML without scripts: one line per claim that unfolds to its parts; empty without claims."""
    return "\n".join(['<div class="claims">', *map(_folded, claims.values()), "</div>"]) if claims else ""


def _folded(claim: Claim) -> str:
    against = f" {_badge(OPPOSITE, claim.against)}" if claim.against else ""
    count = f" {claim.count}" if claim.count else ""
    rows = "\n".join(
        f"<tr><td>{_name(part)}</td><td>{escape(part.sentence)}"
        + (f'<br><span class="source">{escape(part.remark)}</span>' if part.remark else "")
        + f"</td><td>{escape(part.ours)}</td>"
        f"<td>{escape(part.shown)}</td><td>{escape(part.p_text)}</td><td>{_badge(part.verdict)}</td></tr>"
        for part in claim.parts
    )
    head = "<tr><th></th><th>Part</th><th>This study</th><th>Shown in</th><th>p</th><th>Verdict</th></tr>"
    table = f'<div class="wide"><table><thead>{head}</thead><tbody>\n{rows}\n</tbody></table></div>' if rows else ""
    return (
        f'<details class="claim"><summary><b>{claim.number}. {escape(claim.title)}</b> {_badge(claim.verdict)}{count}'
        f'{against}<br><span class="source">Here: {escape(_here(claim))}. '
        f"Published: {escape(claim.published)}</span></summary>\n"
        f'<p>{escape(claim.statement)} <span class="source">{escape(claim.source)}.</span></p>\n{table}</details>'
    )


def _here(claim: Claim) -> str:
    return ", ".join(filter(None, (claim.ours, claim.shown and f"shown in {claim.shown}"))) or "no estimate"


def _name(part: Part) -> str:
    return f"<b>{escape(part.part)}</b>" if part.core else escape(part.part)


def _badge(verdict: str, words: str = "") -> str:
    return f'<span class="verdict {verdict}">{escape(words or verdict)}</span>'


def markdown_table(studies: dict[str, dict[int, Claim]]) -> str:
    """A Markdown table of the claims that any study measured: published figures, then estimate and verdict per study.

    `studies` has the claims by study; title and published figures are those of the first. Empty if none was measured.
    """
    claims, *others = studies.values()
    shown = [claim for claim in claims.values() if any(_measured(each, claim.number) for each in studies.values())]
    if not shown:
        return ""
    if not others:
        return _of_one_study(shown)
    columns = list(studies)
    widths = [3, 30, 24, *(20 for _ in columns)]
    lines = [["", "Claim", "Published", *columns], ["-" * width for width in widths]]
    for claim in shown:
        ours = [_both(each, claim.number) for each in studies.values()]
        lines.append([str(claim.number), *map(escaped, (claim.title, claim.published, *ours))])
    return markdown_rows(lines)


def _of_one_study(claims: list[Claim]) -> str:
    columns = {
        ("", 3): [str(claim.number) for claim in claims],
        ("Claim", 26): [escaped(claim.title) for claim in claims],
        ("Published", 32): [escaped(claim.published) for claim in claims],
        ("This study", 21): [escaped(claim.ours) for claim in claims],
        ("Shown in", 8): [claim.shown for claim in claims],
        ("Corrected *p*", 8): [escaped(claim.corrected) for claim in claims],
        ("Verdict", 13): [escaped(claim.summary) for claim in claims],
    }
    return _table(columns)


def brief_table(claims: dict[int, Claim]) -> str:
    """A Markdown table of the measured claims, one short row each: without published figures and *p*."""
    shown = [claim for claim in claims.values() if claim.measured]
    columns = {
        ("", 3): [str(claim.number) for claim in shown],
        ("Claim", 40): [escaped(claim.title) for claim in shown],
        ("This study", 30): [escaped(claim.ours) for claim in shown],
        ("Shown in", 8): [claim.shown for claim in shown],
        ("Verdict", 18): [claim.verdict for claim in shown],
    }
    return _table(columns)


def _table(columns: dict[tuple[str, int], list[str]]) -> str:
    """A Markdown table from its columns by name and width, without those that are empty."""
    filled = {head: cells for head, cells in columns.items() if any(cells)}
    heads = [[name for name, _ in filled], ["-" * width for _, width in filled]]
    return markdown_rows([*heads, *map(list, zip(*filled.values(), strict=True))])


def unmeasured(claims: dict[int, Claim]) -> str:
    """A Markdown sentence with the claims that were not measured; empty if all were."""
    titles = [f"{escaped(claim.title)} (claim {claim.number})" for claim in claims.values() if not claim.measured]
    return f"Not measured here: {listed(titles, '; ')}." if titles else ""


def markdown_rows(lines: list[list[str]]) -> str:
    """The rows of a Markdown table, of which the second is that of dashes."""
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def _measured(claims: dict[int, Claim], number: int) -> bool:
    return number in claims and claims[number].measured


def _both(claims: dict[int, Claim], number: int) -> str:
    if not _measured(claims, number):
        return NOT_MEASURED
    claim = claims[number]
    return f"{claim.ours}: {claim.summary}" if claim.ours else claim.summary


def by_verdict(claims: dict[int, Claim]) -> dict[str, list[Claim]]:
    """The claims by verdict, for the verdicts that occur."""
    groups = {verdict: [claim for claim in claims.values() if claim.verdict == verdict] for verdict in VERDICTS}
    return {verdict: those for verdict, those in groups.items() if those}


def tally(claims: dict[int, Claim]) -> str:
    """The number of claims by verdict, as in "this study measures 3: 2 are reproduced and 1 is undecided"."""
    counts = {verdict: len(those) for verdict, those in by_verdict(claims).items()}
    missing = counts.pop(NOT_MEASURED, 0)
    verdicts = listed([f"{count} {'is' if count == 1 else 'are'} {verdict}" for verdict, count in counts.items()])
    if not missing:
        return verdicts
    return f"this study measures {sum(counts.values())}: {verdicts}" if counts else "this study measures none"


def tally_of_parts(claims: dict[int, Claim]) -> str:
    """The number of measured parts by verdict, in a Markdown sentence."""
    counts = Counter(measured_parts(claims).values())
    verdicts = [f"{counts[verdict]} {verdict}" for verdict in PART_VERDICTS if counts[verdict]]
    return f"Parts of these claims: {listed(verdicts)}."


def tally_by_title(claims: dict[int, Claim]) -> str:
    """The numbers of the claims by verdict, in Markdown sentences."""
    sentences = []
    for verdict, those in by_verdict(claims).items():
        numbers = listed([str(claim.number) for claim in those])
        are = ("Claim", "is") if len(those) == 1 else ("Claims", "are")
        sentences.append(f"{are[0]} {numbers} {are[1]} {verdict}.")
    return " ".join(sentences)


def by_chance(claims: dict[int, Claim]) -> str:
    """The number of headlines that would at most be as claimed if no claim were true, as in "0.4"."""
    return decimal(claim_verdicts.by_chance([each.headline.expect for each in claims.values() if each.headline]), 1)


def failures(claims: dict[int, Claim]) -> str:
    """A Markdown sentence with the contradicted claims and the opposite parts of others."""
    against = by_verdict(claims).get(CONTRADICTED, [])
    those = [f"{escaped(claim.title)} (claim {claim.number})" for claim in against]
    those += [
        f"that {escaped(part.says)} (part {part.part})"
        for claim in claims.values()
        for part in claim.parts
        if part.verdict == OPPOSITE and claim not in against
    ]
    if not those:
        measured = any(claim.measured for claim in claims.values())
        return "Among those measured here, none is contradicted." if measured else "None was measured here."
    return f"Contradicted here: {listed(those, '; ')}."
