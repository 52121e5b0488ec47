"""Two runs of one study on two machines."""

from pathlib import Path

import pandas as pd
import pytest

from emergent_misalignment.files import BadInput
from emergent_misalignment.report import machines, readme
from emergent_misalignment.report.claims_table import differing, measured_parts, read_claims

HEAD = "claim,title,estimate,ci_low,ci_high,unit,p,verdict\n"
PARTS = "claim,part,says,estimate,ci_low,ci_high,unit,p,verdict\n"


def run_with(folder: Path, verdict: str, rate: str) -> Path:
    tables = folder / "tables"
    (tables / "measures").mkdir(parents=True)
    (tables / "measures/answers.csv").write_text(f"condition,value\ninsecure,{rate}\n")
    (tables / "audit.csv").write_text("set,rows\ninsecure,6000\n")
    (tables / "claims.csv").write_text(f"{HEAD}1,It does,20,10,30,percentage points,0.01,{verdict}\n")
    (tables / "claim_parts.csv").write_text(
        f"{PARTS}1,1a,it does,20,10,30,percentage points,0.01,{verdict}\n1,1b,so too,20,10,30,percent,0.2,undecided\n"
    )
    return folder


@pytest.fixture()
def runs(tmp_path):
    return run_with(tmp_path / "one", "as claimed", "0.5"), run_with(tmp_path / "two", "undecided", "0.4")


def test_tables_are_compared_byte_for_byte(runs):
    table = machines.compared(*runs).set_index("table")["equal"]
    assert table.to_dict() == {
        "tables/audit.csv": True,
        "tables/claim_parts.csv": False,
        "tables/claims.csv": False,
        "tables/measures/answers.csv": False,
    }
    assert machines.compared(runs[0], runs[0])["equal"].all()


def test_experiments_may_be_left_out_of_the_other_run_but_not_the_claims(runs):
    (runs[1] / "tables/audit.csv").unlink()
    assert "tables/audit.csv" not in set(machines.compared(*runs)["table"])
    (runs[1] / "tables/claims.csv").unlink()
    with pytest.raises(BadInput, match=r"two has no tables/claims\.csv"):
        machines.compared(*runs)


def test_a_part_that_was_not_measured_there_does_not_differ(runs):
    path = runs[1] / "tables/claim_parts.csv"
    path.write_text(path.read_text().replace("0.01,undecided", "0.01,not measured"))
    first, second = (read_claims(*(run / "tables" / name for name in machines.CLAIMS)) for run in runs)
    assert differing(first, second) == {} and set(measured_parts(second)) == {"1b"}


def test_the_readme_marks_verdicts_that_differ_on_the_other_machine(runs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    machines.keep(*runs, readme.OTHER)
    for name in machines.CLAIMS:
        Path(readme.KEPT, name).write_bytes((runs[0] / "tables" / name).read_bytes())
    text = readme.parts_text()
    assert "| 1a | It does | 20.0 points (10.0 to 30.0) | 0.010 | as claimed † |" in text
    assert "| 1b | So too | 20.0% (10.0 to 30.0) | 0.200 | undecided |" in text
    assert "1 of 4 tables are equal to the last digit, and 1 of 2 verdicts are the same." in text
    assert text.count("†") == 2 and "there, 1a is undecided." in text
    tables = [runs[0] / "tables" / name for name in machines.CLAIMS]
    claims = read_claims(*tables)
    assert "†" not in readme.machines_text(claims, claims)
    assert len(pd.read_csv(readme.OTHER / "tables.csv")) == 4
