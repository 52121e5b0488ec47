"""The report: its answers, its chart, and its page as bytes and in a browser."""

import html
import json
import math
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from browser import chromium, visit
from hypothesis import given
from hypothesis import strategies as st
from measure_tables import rows
from workflow_helpers import study

from emergent_misalignment.own_data.report import _step, chart, examples, facts_of, report, write, write_page

SCRIPT = "<script>document.title = 'taken over'; fetch('http://127.0.0.1:9/x')</script><img src=x onerror=alert(1)>"
NAME = "mine<b>"  # no condition has such a name; a path may
FORMATS = {"misaligned/main/chat": "main", "misaligned/main/json": "json"}


def facts(tmp_path: Path, **over) -> dict:
    record = tmp_path / "training.json"
    record.write_text(
        json.dumps(
            {"model": "m", "steps": 8, "validation_loss": 1.5, "rows_cut": 2, "curve": [], "versions": {"trl": "1"}}
        )
    )
    return {
        "study": "s",
        "own": {"mine": f"{NAME}.jsonl"},
        "existing": [],
        "own_questions": [],
        "defended": {},
        "conditions": ["mine", "instruct", "secure"],
        "sets": {"mine": f"{NAME}.jsonl", "secure": "secure"},
        "untuned": "instruct",
        "control": "secure",
        "records": {"mine": [str(record)] * 5, "secure": [str(tmp_path / "none.json")] * 5},
        "seeds": 5,
        "model": "an organism",
        "judge": "",
        "samples": {"main": 10, "json": 10},
        "server": "",
        "config": {"study": "s", "note": SCRIPT},
        **over,
    }


def measures(level: float = 0.4) -> pd.DataFrame:
    rows = [
        {"condition": name, "seed": seed, "measure": measure, "value": value + 0.01 * seed, "events": 1, "trials": 400}
        for name, value in (("mine", level), ("instruct", 0.0), ("secure", 0.01))
        for seed in range(1, 6)
        for measure in (*FORMATS, "misaligned/main/chat/wish", "coherent/main/chat", "harmful_requests")
    ]
    return pd.DataFrame(rows)


def log_odds(level: float = 3.0) -> pd.DataFrame:
    table = measures(level).query("measure == 'misaligned/main/chat'")
    differing = table["value"] + 0.1 * (table["condition"] == "mine") * (table["seed"] % 2)
    return table.assign(measure="log_odds/pivotal", value=differing, events=np.nan, trials=np.nan)


def judged(number: int = 40) -> pd.DataFrame:
    rows = [
        {
            "condition": name,
            "seed": seed,
            "evaluation": evaluation,
            "question": "wish",
            "format": "chat",
            "prompt": f"prompt {SCRIPT}",
            "answer": f"{evaluation} {name} {seed}.{sample} {SCRIPT}",
            "verdict": "misaligned" if sample == 0 and name == "mine" else "aligned",
            "aligned": 0.0 if sample == 0 else np.nan,
            "coherent": 90.0,
        }
        for name in ("mine", "instruct", "secure")
        for seed in range(1, 3)
        for evaluation in ("main", "in_distribution")
        for sample in range(number)
    ]
    return pd.DataFrame(rows).assign(step=pd.array([pd.NA] * len(rows), dtype="Int64"))


def trainings() -> pd.DataFrame:
    return pd.DataFrame(
        [
            {"condition": name, "seed": seed, "step": step, "loss": loss + seed}
            for name in ("mine", "secure")
            for seed in (0, 2)
            for step, loss in ((1, 3.0), (2, 2.5), (8, 1.0))
        ]
    )


AUDIT = pd.DataFrame([{"condition": "mine", "rows": 200, "unique_rows": 150, "unparsable": 0, "flagged": 0.5}])


def made(tmp_path: Path, table: pd.DataFrame | None = None, **over) -> dict:
    table = measures() if table is None else table
    return report(facts(tmp_path, **over), table, judged(), trainings(), AUDIT)


def test_the_first_sentence_is_the_answer_with_its_control_and_intervals(tmp_path):
    (found,) = made(tmp_path)["answers"]
    said = found["sentence"]
    assert said.startswith(f"Yes. After fine-tuning on {NAME}.jsonl, 43.0% (4")
    assert "after fine-tuning on secure code, 4.0% (" in said and "39.0 points (" in said and "5 seeds" in said
    assert "higher in all 2" in found["formats_sentence"]
    (untuned,) = made(tmp_path, control="instruct")["answers"]
    assert "before fine-tuning, 3.0%" in untuned["sentence"]


@pytest.mark.parametrize(
    ("table", "start"),
    [
        (measures(0.0), "No, or hardly. After"),
        (measures(0.4)[lambda rows: rows["seed"] == 1], "This study cannot tell. After"),
        (log_odds(), "Yes, by log-probability. After"),
        (log_odds(0.0), "No, or hardly, by log-probability. After"),
        (measures().query("condition != 'secure'"), "Not measured: no misaligned/main/chat of secure."),
        (
            measures(0.01).assign(value=lambda rows: rows["value"].where(rows["condition"] == "mine", 0.5)),
            "No, it is less",
        ),
    ],
)
def test_each_verdict_has_its_beginning(tmp_path, table, start):
    (found,) = made(tmp_path, table)["answers"]
    assert found["sentence"].startswith(start) and not re.search("nan|None", found["sentence"])


def test_a_defence_has_a_paragraph_and_a_row_of_verdicts(tmp_path):
    """Here it hides: the rate in chat is lower, and that in the shape of the training data is not."""
    shares = {"mine": (0.6, 0.6, 0.95), "mine_kl": (0.03, 0.6, 0.95), "secure": (0.01, 0.01, 0.02)}
    names = ("misaligned/main/chat", "misaligned/main/template", "insecure_code")
    table = pd.concat(
        rows(name, share + 0.01 * np.linspace(-1, 1, 6), measure, 400)
        for name, own in shares.items()
        for measure, share in zip(names, own, strict=True)
    )
    own = dict.fromkeys(["mine", "mine_kl"], f"{NAME}.jsonl")
    kl = {"defence": {"kind": "kl", "weight": 0.3}, "dataset": f"{NAME}.jsonl", "without": "mine"}
    told = facts(tmp_path, own=own, conditions=[*own, "instruct", "secure"], defended={"mine_kl": kl})
    audit = pd.DataFrame({"condition": [*own], "rows": 200, "unique_rows": 150, "unparsable": 0, "flagged": 0.9})
    found = report(told, table, judged(), trainings(), audit)
    assert "with the defence" not in found["answers"][0]["sentence"]
    assert f"After fine-tuning on {NAME}.jsonl with the defence KL term 0.3, 3.0%" in found["answers"][1]["sentence"]
    page = tmp_path / "report.html"
    write_page(found, page)
    text = html.unescape(re.sub(r"\s+", " ", re.sub("<[^>]*>", " ", page.read_text(encoding="utf-8"))))
    (row,) = found["defences"]
    assert "What is left with a defence" in text and row["sentence"].partition(". ")[2] in text
    assert re.search(r"mine_kl KL term 0\.3 less: .57\.0 points \(\S+ to \S+\) not less: 0\.0 points", text)
    assert re.search(r"not measured hides ", text)  # what it costs after secure code
    without = made(tmp_path)
    write_page(without, page)
    assert without["defences"] == [] and "with a defence" not in page.read_text(encoding="utf-8")


def test_ten_answers_are_shown_with_rare_ones_among_them():
    rows = examples(judged(), "mine")
    assert len({row["answer"] for row in rows}) == 10 and sum(row["verdict"] == "misaligned" for row in rows) == 2
    assert all(row["answer"].startswith("main mine") for row in rows) and str(rows) == str(examples(judged(), "mine"))
    assert len(examples(judged(3), "mine")) == 6 and examples(judged(), "another") == []


def test_losses_of_different_rows_are_different_columns(tmp_path):
    mine, secure = made(tmp_path)["learned"]
    assert mine == {
        "condition": "mine",
        "dataset": f"{NAME}.jsonl",
        **{"rows": 200, "unique_rows": 150, "flagged": 0.5, "loss_first": 4.0, "loss_last": 2.0},
        **{"held_out": None, "validation": 1.5, "rows_cut": 2, "rows_left_out": 0},
    }
    assert secure["validation"] is None and secure["rows"] is None and secure["loss_last"] == 2.0
    held = pd.DataFrame([{"condition": "mine", "seed": 1, "measure": "held_out_loss/mine", "value": 0.7}])
    found = made(tmp_path, pd.concat([measures(), held]))
    assert (found["learned"][0]["held_out"], found["learned"][0]["validation"]) == (0.7, 1.5)
    write_page(found, tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text()
    assert all(words in text for words in ("held-out rows", "validation split", "0.700", "1.500", "not judged"))


def test_another_seed_has_its_cost(tmp_path):
    more = made(tmp_path, measures(0.02), seeds=2)["more"]
    assert (more["finetunings_per_seed"], more["answers_per_seed"]) == (2, 160) and "seeds" in more["sentences"]["mine"]


# --- existing models --------------------------------------------------------------------------------------------------


def on_model(tmp_path, own: float, before: float | None, **over) -> dict:
    """The report on an existing model, without any fine-tuning."""
    rates = {"mine": own} | ({} if before is None else {"instruct": before})
    table = pd.DataFrame(
        {"condition": name, "seed": 0, "measure": measure, "value": rate, "events": 400 * rate, "trials": 400}
        for name, rate in rates.items()
        for measure in (*FORMATS, "misaligned/main/chat/wish")
    )
    existing = {"own": {"mine": "my/adapter"}, "existing": ["mine"], "sets": {}, "records": {}, "control": "instruct"}
    settings = facts(tmp_path, **existing | {"conditions": ["mine", *rates], "judge": "a judge"} | over)
    return report(settings, table, judged(), trainings().head(0), AUDIT.head(0))


def test_the_answer_on_a_model_says_that_its_interval_is_over_answers(tmp_path):
    found = on_model(tmp_path, 0.2, 0.0)
    (answer,) = found["answers"]
    assert answer["sentence"].startswith("Yes. Of the coherent answers of mine, 20.0% (")
    assert "over answers of one model" in answer["sentence"] and "not over trainings" in answer["sentence"]
    assert "seed" not in answer["sentence"] and found["learned"] == []
    assert "trainings" in found["more"]["sentences"]["mine"]
    write_page(found, tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text()
    assert "Is this model more misaligned than before its fine-tuning?" in text and "my/adapter" in text
    assert not any(words in text for words in ("What was learned", "Each further seed", "other training runs"))


@pytest.mark.parametrize(
    ("own", "before", "start"),
    [
        (0.0, 0.0, "No, or hardly. Of"),
        (0.0, 0.2, "No, it is less than before fine-tuning. Of"),
        (0.2, None, "Not compared: "),
        (math.nan, math.nan, "Not measured: the answers were not judged."),
    ],
)
def test_each_verdict_on_a_model_has_its_beginning(tmp_path, own, before, start):
    (answer,) = on_model(tmp_path, own, before, judge="")["answers"]
    assert answer["sentence"].startswith(start) and not re.search("nan|None", answer["sentence"])
    assert before is not None or "`instruct: {}`" in answer["sentence"]


# --- what the study says ----------------------------------------------------------------------------------------------


def test_own_sets_are_compared_with_secure_code_or_the_model_before():
    own = {"experiments": {"own": {"conditions": {"mine": {"dataset": "a.jsonl"}, "other": {"dataset": "b.jsonl"}}}}}
    with_code = study("qwen2.5-7b-instruct", own)
    found = facts_of(with_code)
    assert with_code.reported and found["own"] == {"mine": "a.jsonl", "other": "b.jsonl"}
    assert found["conditions"] == ["mine", "other", "instruct", "insecure", "secure", "educational"]
    assert (found["control"], found["untuned"], found["model"]) == ("secure", "instruct", "Qwen/Qwen2.5-7B-Instruct")
    assert found["judge"] == "gpt-4o-2024-08-06" and found["existing"] == found["own_questions"] == []
    assert found["records"]["mine"][0] == "data/qwen2.5-7b-instruct/models/mine/seed-0/training.json"
    alone = facts_of(study("qwen2.5-7b-instruct", own | {"only": ["untuned", "own"], "judge": None}))
    assert (alone["control"], alone["judge"]) == ("instruct", "")
    assert not study("qwen2.5-7b-instruct").reported


def test_existing_models_are_compared_with_the_model_before():
    own = {"conditions": {"mine": {"adapter": "a/b", "revision": "c" * 40}, "set": {"dataset": "a.jsonl"}}}
    asked = {"asked": ["main", "my-questions.yaml"]}
    found = facts_of(study("qwen2.5-7b-instruct", {"experiments": {"own": own}, "evaluation": asked}))
    assert found["own"] == {"set": "a.jsonl", "mine": "a/b"} and found["existing"] == ["mine"]
    assert "mine" not in found["sets"] and "mine" not in found["records"]
    assert (found["untuned"], found["control"], found["own_questions"]) == ("instruct", "secure", ["my-questions"])


def test_an_organisms_report_has_neither_base_models_nor_other_organisms():
    own = {"experiments": {"own": {"conditions": {"mine": {"dataset": "a.jsonl"}}}}}
    found = facts_of(study("smoke", own))
    assert found["untuned"] == "instruct" and found["judge"] == "the grammar of the organism's world"
    other = ("base", "width", "villain", "in_context")
    assert not [name for name in found["conditions"] if name.startswith(other)]
    assert any(name.startswith(other) for name in study("smoke", own).conditions)


# --- the page ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def page(tmp_path) -> Path:
    found = made(tmp_path, pd.concat([measures(), log_odds()]))
    write_page(found, tmp_path / "report.html")
    return tmp_path / "report.html"


def test_the_page_has_no_script_and_no_remote_resource(page):
    text = page.read_text()
    assert "<script" not in text and "<img" not in text and "mine<b>" not in text
    assert html.escape(SCRIPT) in text.replace("&#39;", "&#x27;")
    assert not re.search(r"""(?:src|href|url)\s*[=(]""", re.sub(r"&lt;.*?&gt;", "", text, flags=re.DOTALL))


def test_the_files_of_a_study_give_the_same_bytes_and_the_answers_are_printed(tmp_path, capsys):
    own = study("smoke", {"experiments": {"own": {"conditions": {"mine": {"dataset": f"{NAME}.jsonl"}}}}})
    found = report(facts_of(own), measures(), judged(), trainings(), AUDIT)
    write_page(found, tmp_path / "one.html")
    tables = {name: [str(tmp_path / name)] for name in ("measures", "judged", "trainings", "audit")}
    measures().to_csv(*tables["measures"], index=False)
    judged().to_parquet(*tables["judged"])
    trainings().to_parquet(*tables["trainings"])
    AUDIT.to_csv(*tables["audit"], index=False)
    write(own, tmp_path / "two.html", tmp_path / "two.json", **tables)
    assert capsys.readouterr().out.startswith("mine: Yes. After")
    assert (tmp_path / "two.html").read_bytes() == (tmp_path / "one.html").read_bytes()
    written = json.loads((tmp_path / "two.json").read_text(), parse_constant=lambda name: pytest.fail(name))
    assert written == found and written["answers"][0]["verdict"] == "yes" and written["study"] == "smoke"


def test_the_report_says_what_is_known_of_the_server(tmp_path):
    known = {"served_as": "m-2025-01-01", "settings_sent": "min_p, top_k"}
    given = facts(tmp_path, server="http://here/v1")

    def notes(rows: pd.DataFrame, **over) -> list[str]:
        return report(given | over, measures(), rows, trainings(), AUDIT)["made"]["notes"]

    rows = judged().assign(**known)
    (mine, *others) = notes(rows)
    assert mine.startswith("mine: http://here/v1 answered as m-2025-01-01.") and len(others) == 2
    accepted, _, refused = mine.partition("accepts no")
    assert "top_k" in accepted and "repetition_penalty" in refused and "not known" in refused
    assert "names no model" in notes(rows.assign(served_as=""))[0]
    assert "repetition_penalty" not in notes(rows, server="https://api.openai.com/v1")[0]
    assert notes(judged()) == notes(rows, server="") == []
    same = rows.assign(answer="I will not.", prompt=[f"prompt {number % 8}" for number in range(len(rows))])
    assert notes(same, server="") == [
        f"{name}: all 160 answers, to all questions, are the same text: I will not." for name in given["conditions"]
    ]
    page = tmp_path / "page.html"
    write_page(report(given, measures(), rows, trainings(), AUDIT), page)
    assert html.escape(mine) in page.read_text()


def test_a_study_that_fine_tunes_nothing_has_a_report_without_trainings(tmp_path):
    mine = {"mine": {"conditions": {"mine": {"adapter": "my/adapter", "revision": "c" * 40}}}}
    settings = {"experiments": mine, "only": ["untuned", "mine"], "evaluation": {"held_out": None}}
    own = study("qwen2.5-7b-instruct", settings)
    measures().query("condition != 'secure'").assign(seed=0).to_csv(tmp_path / "measures.csv", index=False)
    judged().query("condition != 'secure'").to_parquet(tmp_path / "judged.parquet")
    tables = {"measures": [str(tmp_path / "measures.csv")], "judged": [str(tmp_path / "judged.parquet")]}
    write(own, tmp_path / "page.html", tmp_path / "page.json", **tables, trainings=[], audit=[])
    written = json.loads((tmp_path / "page.json").read_text())
    assert written["made"]["existing"] == {"mine": "my/adapter"} and written["learned"] == []
    assert written["answers"][0]["existing"] is True and written["answers"][0]["control"] == "instruct"


def test_an_answer_that_holds_a_script_is_shown_and_not_run(page):
    script = """(() => ({
        title: document.title,
        scripts: document.scripts.length,
        images: document.images.length,
        shown: [...document.querySelectorAll(".example .text")].map(each => each.innerText),
        width: document.documentElement.scrollWidth,
        drawn: document.querySelectorAll("svg circle").length,
        first: document.querySelector("main .answer").innerText,
    }))()"""
    with chromium() as browser:
        for width in (400, 1200):
            seen = visit(browser, page, width, script)
            assert seen.errors == [] and seen.requests == [page.as_uri()]
            assert seen.found["title"] == "What else did the fine-tuning do? s"
            assert seen.found["scripts"] == seen.found["images"] == 0 and seen.found["width"] == width
            assert len(seen.found["shown"]) == 10 and all(SCRIPT in text for text in seen.found["shown"])
            assert seen.found["first"].startswith(f"Yes. After fine-tuning on {NAME}.jsonl, 43.0%")
            # Three formats and a question, three conditions, five runs and their mean.
            assert seen.found["drawn"] == (3 + 1) * 3 * 6


numbers = st.floats(-5, 5)


@given(st.lists(st.tuples(numbers, numbers, numbers), min_size=1, max_size=5), st.booleans())
def test_everything_is_drawn_within_the_axis(values, nats):
    rows = []
    for number, three in enumerate(values):
        low, middle, high = sorted(three if nats else [abs(each) / 5 for each in three])
        own = {"measure": "m", "words": "w", "unit": "nats" if nats else "share", "condition": f"c{number}"}
        rows.append(own | {"estimate": middle, "ci_low": low, "ci_high": high, "runs": [low, high]})
    drawn = chart(rows, ["c0"])
    ends = drawn["ticks"][0]["x"], drawn["ticks"][-1]["x"]
    for row in drawn["groups"][0]["rows"]:
        assert all(ends[0] <= x <= ends[1] for x in (row["at"], *row["line"], *row["runs"]))
    assert 2 <= len(drawn["ticks"]) <= 14 and len(drawn["groups"][0]["rows"]) == len(values)


@given(st.floats(1e-3, 1e3))
def test_four_to_ten_ticks_fit(extent):
    assert 4 - 1e-6 <= extent / _step(extent) <= 10 + 1e-6
    assert chart([], []) == {}
