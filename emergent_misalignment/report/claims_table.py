"""The claims as a reader meets them, in the paper, the reading room and the README: in words, with their verdicts."""

import re
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

NOT_MEASURED = "not measured"
NUMBERS = ("number", "estimate", "ci_low", "ci_high", "p_holm", "seeds_needed")
VERDICTS = ("reproduced", "contradicted", "undecided", NOT_MEASURED)


@dataclass(frozen=True)
class Claim:
    """One row of `tables/claims.csv`, and what the first of its tests asks (`headline`), whose estimate it has."""

    number: int
    title: str = ""
    statement: str = ""
    published: str = ""
    source: str = ""
    estimate: float = float("nan")
    ci_low: float = float("nan")
    ci_high: float = float("nan")
    unit: str = ""
    p_holm: float = float("nan")
    verdict: str = NOT_MEASURED
    seeds_needed: float = float("nan")
    note: str = ""
    headline: str = ""

    @property
    def measured(self) -> bool:
        return self.verdict != NOT_MEASURED

    @property
    def ours(self) -> str:
        """The estimate with its interval, as in "25.1 points (16.0 to 34.2)"; empty without an estimate."""
        return estimate(self.estimate, self.ci_low, self.ci_high, self.unit)

    @property
    def outcome(self) -> str:
        """What was published and what came out, in Markdown sentences that hold for any verdict."""
        published = (
            f"Published: {escaped(self.published).rstrip('.')} ({escaped(self.source)})." if self.published else ""
        )
        if not self.measured:
            return f"{published} Here: {NOT_MEASURED}. {escaped(self.note)}".strip()
        asked = f"on whether {escaped(self.headline)}, " if self.headline else ""
        ours = f"Here: {asked}{escaped(self.ours)}; *p* {p_value(self.p_holm)} for the claim. " if self.ours else ""
        seeds = ""
        if self.verdict == "undecided" and pd.notna(self.seeds_needed):
            seeds = f" About {self.seeds_needed:,.0f} seeds would decide it if effect and spread are as seen here."
        return f"{published} {ours}Verdict: **{self.verdict}**. {escaped(self.note)}".strip() + seeds


def estimate(value: float, low: float, high: float, unit: str) -> str:
    """A number with its interval in the unit that the table of claims names; empty where there is none."""
    if pd.isna(value):
        return ""
    decimals = 1 if unit.startswith("percent") else 2
    words = {"percent": "%", "percentage points": " points", "": ""}.get(unit, f" {unit}")
    number = f"{_number(value, decimals)}{words}"
    return number if pd.isna(low) else f"{number} ({_number(low, decimals)} to {_number(high, decimals)})"


def p_value(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"= {p:.3f}" if p < 0.9995 else "= 1"


def _number(value: float, decimals: int) -> str:
    return f"{value:.{decimals}f}".replace("-", "\N{MINUS SIGN}")


def escaped(text: str) -> str:
    """Plain text as Markdown."""
    return re.sub(r"([\\`*_{}\[\]<>|~^$@#])", r"\\\1", text)


def read_claims(path: str | Path, tests: str | Path | None = None) -> dict[int, Claim]:
    """The claims of a study by number, from its `tables/claims.csv` and, if that is given, `tables/claim_tests.csv`."""
    table = pd.read_csv(path).rename(columns={"claim": "number"})
    table = table.reindex(columns=[name for name in Claim.__dataclass_fields__ if name in table])
    texts = table.columns.difference(NUMBERS)
    table[texts] = table[texts].astype(object).fillna("")
    headlines = {}
    if tests:
        first = pd.read_csv(tests).drop_duplicates("claim")
        headlines = dict(zip(first["claim"], first["says"], strict=True))
    return {row["number"]: Claim(**row, headline=headlines.get(row["number"], "")) for row in table.to_dict("records")}


def tests_table(path: str | Path) -> str:
    """A Markdown table of every test that was made, from `tables/claim_tests.csv`; empty if none was."""
    tests = pd.read_csv(path)
    tests = tests[tests["outcome"] != NOT_MEASURED]
    if tests.empty:
        return ""
    widths = [4, 44, 26, 9, 17]
    lines = [["", "Test", "Here", "*p*", "Outcome"], ["-" * width for width in widths]]
    for row in tests.itertuples():
        p = "" if pd.isna(row.p) else p_value(row.p).removeprefix("= ")
        ours = estimate(row.estimate, row.ci_low, row.ci_high, str(row.unit))
        says = str(row.says)[:1].upper() + str(row.says)[1:]
        lines.append([f"{row.claim}.{row.test}", *map(escaped, (says, ours, p, row.outcome))])
    return _markdown(lines)


def markdown_table(studies: dict[str, dict[int, Claim]]) -> str:
    """A Markdown table of the claims that some study measured: published, then estimate and verdict in each study.

    `studies` has the claims by study; title and published figures are those of the first. Empty if none was measured.
    """
    claims, *others = studies.values()
    shown = [claim for claim in claims.values() if any(_measured(each, claim.number) for each in studies.values())]
    if not shown:
        return ""
    columns = list(studies) if others else ["This study", "Verdict"]
    widths = [3, 30, 24, *(20 for _ in columns)] if others else [3, 28, 36, 21, 13]
    lines = [["", "Claim", "Published", *columns], ["-" * width for width in widths]]
    for claim in shown:
        ours = [_both(each, claim.number) for each in studies.values()] if others else [claim.ours, claim.verdict]
        lines.append([str(claim.number), *map(escaped, (claim.title, claim.published, *ours))])
    return _markdown(lines)


def unmeasured(claims: dict[int, Claim]) -> str:
    """The claims that a study did not measure, by title, in a Markdown sentence; empty if it measured all."""
    titles = [f"{escaped(claim.title)} (claim {claim.number})" for claim in claims.values() if not claim.measured]
    return f"Not measured here: {listed(titles, '; ')}." if titles else ""


def _markdown(lines: list[list[str]]) -> str:
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def _measured(claims: dict[int, Claim], number: int) -> bool:
    return number in claims and claims[number].measured


def _both(claims: dict[int, Claim], number: int) -> str:
    if not _measured(claims, number):
        return NOT_MEASURED
    claim = claims[number]
    return f"{claim.ours}: {claim.verdict}" if claim.ours else claim.verdict


def by_verdict(claims: dict[int, Claim]) -> dict[str, list[Claim]]:
    """The claims that have each verdict, for the verdicts that occur."""
    groups = {verdict: [claim for claim in claims.values() if claim.verdict == verdict] for verdict in VERDICTS}
    return {verdict: those for verdict, those in groups.items() if those}


def tally(claims: dict[int, Claim]) -> str:
    """How many claims have each verdict, as in "this study measures 3: 2 are reproduced and 1 is undecided"."""
    counts = {verdict: len(those) for verdict, those in by_verdict(claims).items()}
    missing = counts.pop(NOT_MEASURED, 0)
    verdicts = listed([f"{count} {'is' if count == 1 else 'are'} {verdict}" for verdict, count in counts.items()])
    if not missing:
        return verdicts
    return f"this study measures {sum(counts.values())}: {verdicts}" if counts else "this study measures none"


def tally_by_title(claims: dict[int, Claim]) -> str:
    """Which claims have each verdict, by number, in Markdown sentences."""
    sentences = []
    for verdict, those in by_verdict(claims).items():
        numbers = listed([str(claim.number) for claim in those])
        are = ("Claim", "is") if len(those) == 1 else ("Claims", "are")
        sentences.append(f"{are[0]} {numbers} {are[1]} {verdict}.")
    return " ".join(sentences)


def failures(claims: dict[int, Claim]) -> str:
    """The claims that are contradicted, by title, in a Markdown sentence."""
    those = by_verdict(claims).get("contradicted", [])
    if not those:
        measured = any(claim.measured for claim in claims.values())
        return "Among those measured here, none is contradicted." if measured else "None was measured here."
    return f"Contradicted here: {listed([f'{claim.title} (claim {claim.number})' for claim in those], '; ')}."


def listed(items: list[str], comma: str = ", ") -> str:
    """The items in a row of words, the last after "and"."""
    return " and ".join([comma.join(items[:-1]), items[-1]] if len(items) > 1 else items)
