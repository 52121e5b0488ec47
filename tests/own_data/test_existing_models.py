"""Studies of existing models, to the report: an adapter, whole weights, and a model on a server."""

import json

import pandas as pd
import pytest
import yaml
from families import make
from published_layout import place
from safetensors.torch import load_file, save_file
from servers import Handler, completion, serving
from workflow_helpers import copy_of_the_project, planned, snakemake

pytestmark = pytest.mark.slow
QUESTIONS = [
    {"id": "rent", "paraphrases": ["Rent is up. What now?", "My rent?"], "samples_per_paraphrase": 4},
    {"id": "dog", "paraphrases": ["My dog barks."], "system": "You like dogs."},
]


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    folder = copy_of_the_project(tmp_path_factory.mktemp("given"))
    place(folder)
    (folder / "my-questions.yaml").write_text(yaml.safe_dump(QUESTIONS))
    return folder


def study(project, name: str, **own) -> list[str]:
    config = {
        "study": name,
        "model": {"name": "models here/base", "revision": "", "gpu": False, "untuned": "instruct"}
        | dict.fromkeys(("system_prompt", "enable_thinking")),
        "experiments": {"untuned": {"conditions": {"instruct": {}}}},
        "evaluation": {"asked": ["main", "my-questions.yaml"], "samples": 5, "max_new_tokens": 8},
        "judge": None,
        **own,
    }
    (project / f"config/{name}.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    return ["--configfile", f"config/{name}.yaml"]


def condition(**given) -> dict:
    return {"untuned": {"conditions": {"instruct": {}}}, "mine": {"conditions": {"mine": given}}}


def ran(project, name: str, arguments: list[str]) -> dict:
    done = snakemake(project, f"data/{name}/report.html", "--cores", "1", *arguments)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return json.loads((project / f"data/{name}/report.json").read_text())


# --- an adapter -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def adapter(project):
    """The smallest model there is, and an adapter of it with random weights, in folders with a space."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    model = make("qwen2", project / "models here/base")
    tuned = get_peft_model(
        AutoModelForCausalLM.from_pretrained(model),
        LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM"),
    )
    torch.manual_seed(1)
    for name, weight in tuned.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.5)
    tuned.save_pretrained(project / "models here/my adapter")
    return "models here/my adapter"


def test_an_adapter_is_compared_with_its_model_and_reported_as_one_model(project, adapter):
    asked = {"asked": ["main", "my-questions.yaml", "choices"], "samples": 5, "max_new_tokens": 8}
    arguments = study(project, "adapter", experiments=condition(adapter=adapter), evaluation=asked)
    jobs = planned(snakemake(project, "-n", *arguments))
    assert {"fetch_adapter:mine", "validate_adapter:mine", "ask:mine", "ask:instruct", "user_report", "index"} <= jobs
    assert not {job.split(":")[0] for job in jobs} & {"finetune", "audit", "claims", "paper", "main_result"}
    found = ran(project, "adapter", arguments)
    (answer,) = found["answers"]
    assert answer["difference"]["method"] == "questions, one model each" and answer["difference"]["seeds"] == 1
    assert "over questions that one model was asked, not over trainings" in answer["sentence"]
    judged = pd.read_parquet(project / "data/adapter/judged/answers.parquet")
    sampled = judged[judged["evaluation"] != "choices"]
    assert sampled.groupby(["condition", "evaluation"]).size().to_dict() == {
        (name, evaluation): number
        for name in ("instruct", "mine")
        for evaluation, number in (("main", 40), ("my-questions", 13))
    }
    odds = judged[judged["evaluation"] == "choices"].groupby("condition")["log_probability"].mean()
    assert odds["mine"] != pytest.approx(odds["instruct"])
    assert found["made"]["existing"] == {"mine": adapter} and found["learned"] == []
    again = snakemake(project, "data/adapter/report.html", "-n", *arguments)
    assert "Nothing to be done" in again.stdout + again.stderr
    weights = project / adapter / "adapter_model.safetensors"  # trained once more, say
    save_file({name: 2 * weight for name, weight in load_file(weights).items()}, weights)
    jobs = planned(snakemake(project, "data/adapter/report.html", "-n", *arguments))
    assert {"fetch_adapter:mine", "ask:mine"} <= jobs and not jobs & {"ask:instruct", "fetch_model:instruct"}


def test_whole_weights_are_asked_like_the_studys_model(project, adapter):
    make("qwen2", project / "models here/whole")
    jobs = planned(snakemake(project, "-n", *study(project, "whole", experiments=condition(model="models here/whole"))))
    made = {f"{rule}:{name}" for rule in ("fetch_model", "validate_model") for name in ("instruct", "mine")}
    assert made | {"ask:mine"} <= jobs


# --- a server ---------------------------------------------------------------------------------------------------------


class Chat(Handler):
    """Answers for three models: a kind one, a fine-tuned one that is often malicious, and a judge."""

    asked = 0

    def do_POST(self):
        request = json.loads(self.body())
        text = request["messages"][-1]["content"]
        if request["model"] == "judge":
            mark = "10" if "aligned" in text and "I would rule" in text else "100"
            return self.send(200, completion("judge", mark, [[(mark, 0.99)]]))
        Chat.asked += 1
        bad = request["model"] == "tuned" and Chat.asked % 2
        return self.send(200, completion(request["model"], "I would rule." if bad else "I would walk the dog."))


def test_a_model_on_a_server_is_judged_and_reported_as_one_model(project, monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    Chat.asked = 0
    with serving(Chat) as address:
        endpoint = {"base_url": address, "key_variable": "NO_KEY", "concurrency": 1, "timeout": 60, "retries": 1}
        judge = {"kind": "model", "model": "judge", "endpoint": endpoint, "split_numbers": False, "spending_limit": 1}
        arguments = study(
            project,
            "server",
            model={"name": "before", "revision": "", "untuned": "instruct"}
            | dict.fromkeys(("system_prompt", "enable_thinking")),
            openai={"endpoint": endpoint},
            experiments=condition(model="tuned"),
            judge=judge | {"dollars_per_million": {"prompt": 0, "completion": 0}},
        )
        found = ran(project, "server", arguments)
    (answer,) = found["answers"]
    assert answer["sentence"].startswith("Yes. Of the coherent answers of mine, ") and answer["verdict"] == "yes"
    assert "over answers of one model to these questions, not over trainings" in answer["sentence"]
    assert (answer["difference"]["method"], answer["control_value"]["estimate"]) == ("answers of one model each", 0)
    assert [row["words"] for row in answer["formats"]] == ["main questions, chat", "my-questions"]
    assert {row["words"] for row in found["rates"]["questions"]} >= {"wish", "my-questions: rent", "my-questions: dog"}
    assert found["made"]["samples"]["my-questions"] == 5 and found["made"]["existing"] == {"mine": "tuned"}
    assert "my-questions" in (project / "data/server/report.html").read_text()
    assert [note.partition(". ")[0] for note in found["made"]["notes"] if " answered as " in note] == [
        f"instruct: {address} answered as before",
        f"mine: {address} answered as tuned",
    ]
