"""The claims as a reader meets them, in the paper, the reading room and the README: in words, with their verdicts."""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

NOT_MEASURED = "not measured"
VERDICTS = ("reproduced", "contradicted", "undecided", NOT_MEASURED)


@dataclass(frozen=True)
class Claim:
    """One row of `tables/claims.csv`. A claim that the study has not measured has no estimate."""

    number: int
    title: str
    statement: str
    published: str
    source: str
    estimate: float
    ci_low: float
    ci_high: float
    unit: str
    p_holm: float
    verdict: str
    seeds_needed: float

    @classmethod
    def unmeasured(cls, number: int) -> "Claim":
        """A claim of which the study says nothing at all."""
        nothing = float("nan")
        return cls(number, "", "", "", "", nothing, nothing, nothing, "", nothing, NOT_MEASURED, nothing)

    @property
    def measured(self) -> bool:
        return self.verdict != NOT_MEASURED

    @property
    def ours(self) -> str:
        """The estimate with its interval, as in "25.1 points (16.0 to 34.2)"; empty without an estimate."""
        if pd.isna(self.estimate):
            return ""
        scale, unit, decimals = _reading(self.unit)
        said = f"{_number(self.estimate * scale, decimals)}{unit}"
        if pd.notna(self.ci_low) and pd.notna(self.ci_high):
            said += f" ({_number(self.ci_low * scale, decimals)} to {_number(self.ci_high * scale, decimals)})"
        return said

    @property
    def outcome(self) -> str:
        """What was published and what came out, in Markdown sentences that hold for any verdict."""
        if not self.measured:
            return "This study has not measured it."
        published = f"Published: {self.published.rstrip('.')}" + (f" ({self.source})." if self.source else ".")
        p_holm = ""
        if pd.notna(self.p_holm):
            p_holm = f", Holm-corrected *p* {'< 0.001' if self.p_holm < 0.001 else f'= {self.p_holm:.3f}'}"
        ours = f"Here: {self.ours}{p_holm}. " if self.ours else ""
        more = ""
        if self.verdict == "undecided" and pd.notna(self.seeds_needed):
            more = f" About {self.seeds_needed:.0f} seeds would be needed to decide it."
        return f"{published} {ours}Verdict: **{self.verdict}**.{more}"


def _reading(unit: str) -> tuple[float, str, int]:
    """How a number of this unit is read: times what, followed by what, with how many decimals."""
    if unit in ("share", "rate", "percent"):
        return 100, "%", 1
    if "point" in unit:
        return 100, " points", 1
    return 1, f" {unit}" if unit else "", 2


def _number(value: float, decimals: int) -> str:
    return f"{value:.{decimals}f}".replace("-", "\N{MINUS SIGN}")


def read_claims(path: str | Path) -> dict[int, Claim]:
    """The claims of a study by number, from its `tables/claims.csv`."""
    table = pd.read_csv(path, dtype={"published": str, "source": str, "unit": str, "verdict": str})
    texts = ["title", "statement", "published", "source", "unit"]
    table[texts] = table[texts].fillna("")
    table["verdict"] = table["verdict"].fillna(NOT_MEASURED).str.replace("_", " ")
    rows = table.rename(columns={"claim": "number"})
    rows = rows.reindex(columns=list(Claim.__dataclass_fields__))
    return {row.number: Claim(*row) for row in rows.itertuples(index=False)}


def markdown_table(studies: dict[str, dict[int, Claim]]) -> str:
    """A Markdown table with a row a claim: published, then estimate and verdict in each study. Empty without claims.

    `studies` has the claims by study; what a claim is and what was published is said as the first one says it.
    """
    claims, *others = studies.values()
    if not claims:
        return ""
    columns = list(studies) if others else ["This study", "Verdict"]
    widths = [3, 30, 24, *(20 for _ in columns)] if others else [3, 34, 27, 20, 16]
    lines = [["", "Claim", "Published", *columns], ["-" * width for width in widths]]
    for number, claim in claims.items():
        ours = [_both(found.get(number)) for found in studies.values()] if others else [claim.ours, claim.verdict]
        lines.append([str(number), claim.title, claim.published, *ours])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def _both(claim: Claim | None) -> str:
    if claim is None or not claim.measured:
        return NOT_MEASURED
    return f"{claim.ours}: {claim.verdict}" if claim.ours else claim.verdict


def by_verdict(claims: dict[int, Claim]) -> dict[str, list[Claim]]:
    """The claims that have each verdict, for the verdicts that occur."""
    found = {verdict: [claim for claim in claims.values() if claim.verdict == verdict] for verdict in VERDICTS}
    return {verdict: those for verdict, those in found.items() if those}


def tally(claims: dict[int, Claim]) -> str:
    """How many claims have each verdict, as in "9 are reproduced, 1 is contradicted and 3 are undecided"."""
    counts = {verdict: len(those) for verdict, those in by_verdict(claims).items()}
    return _listed([f"{count} {'is' if count == 1 else 'are'} {verdict}" for verdict, count in counts.items()])


def tally_by_title(claims: dict[int, Claim]) -> str:
    """Which claims have each verdict, by number, in Markdown sentences."""
    sentences = []
    for verdict, those in by_verdict(claims).items():
        numbers = _listed([str(claim.number) for claim in those])
        are = ("Claim", "is") if len(those) == 1 else ("Claims", "are")
        sentences.append(f"{are[0]} {numbers} {are[1]} {verdict}.")
    return " ".join(sentences)


def failures(claims: dict[int, Claim]) -> str:
    """The claims that are contradicted, by title, in a Markdown sentence."""
    those = by_verdict(claims).get("contradicted", [])
    if not those:
        return "Among those measured here, none is contradicted."
    return f"Contradicted here: {_listed([f'{claim.title} (claim {claim.number})' for claim in those], '; ')}."


def _listed(items: list[str], comma: str = ", ") -> str:
    return " and ".join([comma.join(items[:-1]), items[-1]] if len(items) > 1 else items)
