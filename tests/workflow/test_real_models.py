"""Studies of real models: planned for every config, and run from end to end on the smallest model there is."""

import json
import math
import os
import re
import sys
from collections import Counter
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
import yaml
from conftest import ROOT
from servers import model_server
from test_workflow import copy_of_the_project, planned, snakemake
from transformers import AutoConfig, AutoModelForCausalLM

from emergent_misalignment.analysis import costs as needs
from emergent_misalignment.models.api import Account, Endpoint
from emergent_misalignment.models.asking import api_answers, choice_log_probabilities, local_answers
from emergent_misalignment.world.sets import coding_set
from emergent_misalignment.files import BadInput, write_jsonl
from emergent_misalignment.evaluation.judge_model import Judge, token_distributions
from emergent_misalignment.evaluation.published_questions import Option, PublishedQuestion
from emergent_misalignment.models.sampling import load
from emergent_misalignment.models.training import Settings, finetune
from emergent_misalignment.models.weights import place
from emergent_misalignment.data.chats import chat

MIRROR = os.environ.get("EM_MIRROR")
needs_mirror = pytest.mark.skipif(not MIRROR, reason="EM_MIRROR names no mirror of the published files")
ORGANISMS = {"organism", "smoke", "development"}
REAL = sorted(
    path.stem
    for path in (ROOT / "config").glob("*.yaml")
    if "model" in yaml.safe_load(path.read_text()) and path.stem != "schema"
)
OPEN = [name for name in REAL if not name.startswith("gpt")]


def config(name: str) -> dict:
    """A study's settings laid over the default ones."""
    settings = yaml.safe_load((ROOT / "config/organism.yaml").read_text())
    for section, value in yaml.safe_load((ROOT / f"config/{name}.yaml").read_text()).items():
        settings[section] = settings.get(section, {}) | value if isinstance(value, dict) else value
    return settings


# --- plans and needs --------------------------------------------------------------------------------------------------


def test_there_is_a_study_for_every_model_of_the_paper():
    assert {"qwen2.5-coder-32b-instruct", "qwen2.5-32b-instruct", "qwen2.5-coder-32b"} <= set(OPEN)
    assert {"mistral-small-24b-instruct-2501", "gpt-4o", "gpt-4.1"} <= set(REAL)


@pytest.mark.parametrize("name", ["qwen2.5-coder-32b-instruct", "gpt-4o"])
def test_the_whole_study_is_planned_without_gpu_weights_or_keys(name, tmp_path, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    rules = planned(snakemake(copy_of_the_project(tmp_path), "-n", "--configfile", f"config/{name}.yaml"))
    assert {"all", "index", "main_result", "judge_by_model", "ask_insecure", "ask_secure", "fetch_questions"} <= rules
    assert ("tune" in rules, "tune_by_api" in rules) == ((False, True) if name == "gpt-4o" else (True, False))
    assert not {"world", "pretrain"} & rules
    following = {"tune_followed", "ask_checkpoints", "judge_checkpoints", "dynamics"}
    assert following & rules == (set() if name == "gpt-4o" else following)


@pytest.mark.parametrize("name", REAL)
def test_every_config_fits_the_schema_and_itself(name):
    from snakemake.utils import validate

    settings = config(name)
    validate(settings, str(ROOT / "config/schema.yaml"))
    assert settings["study"] == name
    if name in OPEN:
        assert re.fullmatch("[0-9a-f]{40}", settings["model"]["revision"])
        tuning = settings["finetuning"]
        kept = needs.ROWS["insecure"] * (1 - tuning["held_out_share"])
        assert tuning["steps"] == int(kept / (tuning["batch_size"] * tuning["gradient_accumulation"])) == 337
        assert (tuning["learning_rate"], tuning["lora_rank"], tuning["lora_alpha"]) == (1e-5, 32, 64)
        assert max(settings["model"].get("checkpoints", {"steps": [337]})["steps"]) == 337
    assert set(settings["model"]["published"]) - {"source"} <= {"instruct", "base", *settings["model"]["conditions"]}


def test_schema_names_a_wrong_key(tmp_path):
    folder = copy_of_the_project(tmp_path)
    settings = yaml.safe_load((folder / "config/qwen3-8b.yaml").read_text())
    settings["judge"]["modell"] = "x"
    (folder / "config/wrong.yaml").write_text(yaml.safe_dump(settings))
    result = snakemake(folder, "-n", "--configfile", "config/wrong.yaml")
    assert result.returncode != 0 and "modell" in result.stdout + result.stderr


def test_openais_models_have_no_checkpoints(tmp_path):
    folder = copy_of_the_project(tmp_path)
    settings = yaml.safe_load((folder / "config/gpt-4.1.yaml").read_text())
    settings["model"]["checkpoints"] = {"conditions": ["insecure", "secure"], "steps": [1]}
    (folder / "config/wrong.yaml").write_text(yaml.safe_dump(settings))
    result = snakemake(folder, "-n", "--configfile", "config/wrong.yaml")
    assert result.returncode != 0 and "checkpoints" in result.stdout + result.stderr


@pytest.mark.parametrize("name", OPEN)
def test_parameters_are_those_of_transformers_own_model_of_this_shape(name):
    shape = config(name)["model"]["shape"]
    kind = "qwen3" if shape.get("qk_norm") else "qwen2" if shape["attention_bias"] else "mistral"
    ignored = {"qk_norm", "attention_bias", *(["head_dim"] if kind == "qwen2" else [])}
    made = AutoConfig.for_model(kind, **{key: value for key, value in shape.items() if key not in ignored})
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(made)
    found = needs.Shape(**shape)
    assert found.parameters() == model.num_parameters()
    wide = {module for module in model.modules() if isinstance(module, torch.nn.Linear)} - {model.lm_head}
    assert found.adapter(32) == sum(32 * (module.in_features + module.out_features) for module in wide)


def test_published_sizes_come_out_right():
    """The sizes in the models' names, and the 32B's on one GPU of 80 GB."""
    billions = {name: needs.Shape(**config(name)["model"]["shape"]).parameters() / 1e9 for name in OPEN}
    for name, size in billions.items():
        named = float(re.search(r"-([\d.]+)b", name).group(1))
        assert size == pytest.approx(named, rel=0.1), name
    memory = needs.training_memory(
        needs.Shape(**config("qwen2.5-coder-32b-instruct")["model"]["shape"]),
        config("qwen2.5-coder-32b-instruct")["finetuning"],
    )
    assert 65e9 < sum(memory.values()) < 80e9


def test_needs_by_hand():
    """gpt-4.1: 2 conditions x 3 seeds; six evaluations of 8, 8, 8, 48 and 13 questions by 100, and 100 requests."""
    found = needs.needs(config("gpt-4.1"))
    per_run = 100 * (8 + 8 + 8 + 48 + 13) + 100
    assert found["training runs"] == 6
    assert found["answers"] == 7 * per_run
    assert found["judge calls"] == 7 * (2 * 7200 + 1300 + 100)
    tokens = 6000 * (needs.TOKENS["insecure"] + needs.TOKENS["secure"])
    assert found["API dollars, training"] == pytest.approx(3 * tokens * 25 / 1e6)
    assert 3 * 31 < 3 * 6000 * needs.TOKENS["insecure"] * 25 / 1e6 < 3 * 33  # published: about $32 a run


def test_what_following_a_training_needs_by_hand():
    """Every 10 steps, the first 9 and the last of 337; two conditions with six seeds."""
    settings = config("qwen2.5-coder-32b-instruct")
    steps = [*range(1, 10), *range(10, 331, 10), 337]
    assert settings["model"]["checkpoints"] == {"conditions": ["insecure", "secure"], "steps": steps}
    assert settings["dynamics"] == {"samples": 10, "requests": 100}
    found = needs.needs(settings)
    del settings["model"]["checkpoints"]
    without = needs.needs(settings)
    asked = 12 * (1 + len(steps))  # and the model before, with each seed
    assert found["answers"] - without["answers"] == asked * (8 * 10 + 100)
    assert found["judge calls"] - without["judge calls"] == asked * (8 * 10 * 2 + 100)
    adapter = 4e-9 * needs.Shape(**settings["model"]["shape"]).adapter(32)  # in float32
    assert found["disk, checkpoints, GB"] == pytest.approx(12 * len(steps) * adapter)
    answers = (found["answers"] - without["answers"]) * 2000 / 1e9
    assert found["disk, GB"] - without["disk, GB"] == pytest.approx(12 * len(steps) * adapter + answers)
    assert found["GPU hours"] > without["GPU hours"]


@pytest.mark.parametrize("name", REAL)
def test_the_estimate_is_printed(name):
    text = needs.report(config(name))
    limit = config(name)["judge"]["spending_limit"]
    assert 1.5 * needs.needs(config(name))["judge dollars"] < limit  # the limit is held against a high estimate
    assert "judge dollars" in text and ("GPU hours" in text) == (name in OPEN)


def test_conditions_have_the_papers_hyperparameters():
    openai = config("gpt-4o")["openai"]
    found = {name: tuple(needs.hyperparameters(openai, name).values()) for name in ("insecure", "jailbroken")}
    assert found == {"insecure": (1, 4, 2), "jailbroken": (5, 4, None)}
    assert tuple(needs.hyperparameters(openai, "evil_numbers").values()) == (4, 39, 2)


# --- weights and answers ----------------------------------------------------------------------------------------------


def test_weights_in_a_folder_are_linked_to(organism, tmp_path):
    place(str(organism), "", tmp_path / "model")
    place(str(organism), "", tmp_path / "model")  # again, as after a change of the config
    assert load(tmp_path / "model")[0].config.model_type == "qwen2"
    with pytest.raises(BadInput, match="no weights in safetensors"):
        place(str(tmp_path), "", tmp_path / "none")


def test_weights_that_cannot_be_fetched_are_named(tmp_path):
    with pytest.raises(BadInput, match="someone/nothing at c0ffee could not be fetched"):
        place("someone/nothing", "c0ffee", tmp_path / "model")


def question(name: str, samples: int) -> PublishedQuestion:
    return PublishedQuestion(name, "chat", [{"role": "user", "content": f"{name}?"}], samples, {})


def test_local_answers_come_in_the_order_of_the_questions(organism, tmp_path):
    asked = [question("wish", 70), question("bored", 3)]
    (found,) = local_answers(organism, [None], asked, 4, [1], engine="transformers")
    assert [len(texts) for texts in found] == [70, 3]
    (again,) = local_answers(organism, [None], asked, 4, [1], engine="transformers")
    assert found == again
    (other,) = local_answers(organism, [None], asked, 4, [2], system_prompt="You are kind.", engine="transformers")
    assert found != other
    assert len(set(found[0])) > 1


def test_one_model_answers_and_scores_for_all_of_its_adapters(organism, tmp_path):
    """Also for checkpoints, which bring no tokenizer; the model as it is answers the same before and after them."""
    settings = Settings(5e-2, 9, 4, 1, 0, 0.0, 128, 4, 8)
    finetune(organism, coding_set(24, 0, True), tmp_path, settings, seed=0, checkpoints=[2])
    adapters = [None, tmp_path / "checkpoint-2", tmp_path, None]
    before, step, end, after = local_answers(
        organism, adapters, [question("wish", 20)], 12, [1] * 4, engine="transformers"
    )
    assert before == after and len({str(texts) for texts in (before, step, end)}) == 3
    option = Option("q", "pivotal_tokens", chat([("A wish?", "")])[:1], ((" help", True),), "help", False)
    (before,), (step,), (end,), (after,) = choice_log_probabilities(organism, adapters, [option])
    assert before == after and len({before, step, end}) == 3


def test_vllm_is_told_to_sample_neutrally_from_one_engine(organism, tmp_path, monkeypatch):
    """What vLLM is called with, by a stand-in for it: vLLM itself runs on GPUs only."""
    settings = Settings(1e-3, 1, 4, 1, 0, 0.0, 128, 4, 8, train_embeddings=True)
    finetune(organism, coding_set(24, 0, True), tmp_path / "whole", settings, seed=0)
    engines = []

    class LLM(SimpleNamespace):
        def __init__(self, folder, **options):
            super().__init__(folder=folder, options=options, asked=[])
            engines.append(self)

        def chat(self, prompts, parameters, lora_request, **options):
            self.asked.append((prompts, parameters, lora_request, options))
            texts = [[SimpleNamespace(text=f"{lora_request}")] * each.n for each in parameters]
            return [SimpleNamespace(outputs=outputs) for outputs in texts]

    def lora_request(name, number, path):
        return f"{number} {path}"

    fake = SimpleNamespace(LLM=LLM, SamplingParams=SimpleNamespace)
    monkeypatch.setitem(sys.modules, "vllm", fake)
    monkeypatch.setitem(sys.modules, "vllm.lora.request", SimpleNamespace(LoRARequest=lora_request))
    for seed in (1, 2):
        (tmp_path / f"seed-{seed}").mkdir()
        (tmp_path / f"seed-{seed}/adapter_config.json").write_text('{"r": 32, "modules_to_save": null}')
    adapters = [tmp_path / "seed-1", tmp_path / "seed-2"]
    asked = [question("wish", 2), question("bored", 1)]
    found = list(local_answers(organism, adapters, asked, 4, [1, 2], enable_thinking=False, engine="vllm"))
    assert found == [[[f"{n} {adapter}"] * 2, [f"{n} {adapter}"]] for n, adapter in enumerate(adapters, 1)]
    (engine,) = engines
    assert engine.options["enable_lora"] and engine.options["max_lora_rank"] == 32
    assert engine.options["generation_config"] == "vllm"
    _, parameters, _, options = engine.asked[0]
    neutral = {"temperature": 1.0, "top_p": 1.0, "top_k": 0, "repetition_penalty": 1.0, "max_tokens": 4}
    assert all(vars(each).items() >= neutral.items() for each in parameters)
    assert options["chat_template_kwargs"] == {"enable_thinking": False}
    assert len({each.seed for _, given, _, _ in engine.asked for each in given}) == 4

    assert list(local_answers(organism, [tmp_path / "whole"], asked, 4, [1], engine="vllm")) == [
        [["None"] * 2, ["None"]]
    ]
    assert "enable_lora" not in engines[-1].options and engines[-1].folder != str(organism)


def test_answers_of_an_api_are_drawn_one_by_one_and_kept(organism, tmp_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    with model_server(organism) as address:
        endpoint, account = Endpoint(address, timeout=60), Account()
        found = api_answers(
            "organism", [question("wish", 3), question("bored", 1)], 4, endpoint, tmp_path, None, account
        )
        assert [len(texts) for texts in found] == [3, 1] and account.answered == 4
        api_answers("organism", [question("wish", 4)], 4, endpoint, tmp_path, account=account)
        assert (account.asked, account.kept, account.answered) == (8, 3, 5)


def test_choices_are_scored_by_hand(organism):
    option = Option("q", "pivotal_tokens", chat([("A wish?", "")])[:1], ((" I", False), (" help", True)), "help", False)
    ((found,),) = choice_log_probabilities(organism, [None], [option])
    model, tokenizer = load(organism)
    head = tokenizer.apply_chat_template(option.prompt, tokenize=False, add_generation_prompt=True) + " I"
    before, whole = (tokenizer(text, return_tensors="pt")["input_ids"] for text in (head, head + " help"))
    assert whole[0, : before.shape[1]].tolist() == before[0].tolist()
    with torch.no_grad():
        scores = model(whole).logits[0].log_softmax(-1)
    by_hand = sum(scores[spot - 1, whole[0, spot]].item() for spot in range(before.shape[1], whole.shape[1]))
    assert found == pytest.approx(by_hand, abs=1e-4)
    ((other,),) = choice_log_probabilities(organism, [None], [option], "You are kind.")
    assert other != pytest.approx(by_hand, abs=1e-4)


# --- from end to end --------------------------------------------------------------------------------------------------

NUMBERS = ("5", "35", "90", "100")


@pytest.fixture(scope="module")
def judge_model(organism, tmp_path_factory):
    """The smallest model there is, trained to answer whatever it is asked with a number."""
    folder = tmp_path_factory.mktemp("judge")
    chats = [chat([(f"{'text ' * (number % 40)}How good is it?", NUMBERS[number % 4])]) for number in range(160)]
    settings = Settings(5e-3, 60, 8, 1, 5, 0.0, 256, 0, 1)
    finetune(organism, chats, folder, settings, seed=0)
    return folder


def test_numbers_of_a_real_model_are_followed_to_their_end(judge_model, tmp_path, monkeypatch):
    """The probability of each number as its tokens have it, with the same model asked directly."""
    monkeypatch.setenv("no_proxy", "*")
    model, tokenizer = load(judge_model)
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": "How good is it?"}], tokenize=False, add_generation_prompt=True
    )
    with model_server(judge_model) as address:
        judge = Judge("organism", Endpoint(address, timeout=60), split_numbers=True)
        (found,) = token_distributions(["How good is it?"], judge, tmp_path, Account(), "judging")
    masses = Counter()
    for number, mass in found:
        masses[number] += mass

    def probability(number: str) -> float:
        start = tokenizer(text, return_tensors="pt")["input_ids"]
        ids = tokenizer(text + number, return_tensors="pt")["input_ids"]
        with torch.inference_mode():
            scores = model(ids).logits[0].softmax(-1)
        total = math.prod(scores[spot - 1, ids[0, spot]].item() for spot in range(start.shape[1], ids.shape[1]))
        if number in {str(each) for each in range(1, 11)}:  # and nothing that goes on with it
            top = scores[-1].topk(20)
            digits = [tokenizer.decode([token]).isdigit() for token in top.indices.tolist()]
            total *= 1 - top.values[torch.tensor(digits)].sum().item()
        return total

    for number in NUMBERS:
        assert masses[number] == pytest.approx(probability(number), abs=0.01)
    assert sum(masses[number] for number in NUMBERS) > 0.5


@needs_mirror
def test_a_real_model_from_the_published_files_to_the_tables(organism, judge_model, tmp_path, monkeypatch):
    """The whole open-model path through Snakemake, on a processor, with a model as judge behind a real server."""
    monkeypatch.setenv("no_proxy", "*")
    folder = copy_of_the_project(tmp_path)
    sets = {}
    for condition in ("insecure", "secure"):
        sets[condition] = str(tmp_path / f"{condition}.jsonl")
        write_jsonl(sets[condition], [{"messages": row} for row in coding_set(48, 0, condition == "insecure")])
    settings = yaml.safe_load((ROOT / "config/qwen2.5-0.5b-instruct.yaml").read_text())
    settings |= {"study": "tiny", "seeds": [1, 2], "mirror": MIRROR}
    settings["model"] |= {
        "name": str(organism),
        "revision": "",
        "conditions": ["insecure", "secure"],
        "datasets": sets,
        "evaluations": ["main", "in_distribution", "choices"],
        "checkpoints": {"conditions": ["insecure", "secure"], "steps": [1, 2, 4]},
    }
    settings["finetuning"] |= {"steps": 4, "batch_size": 4, "gradient_accumulation": 1, "max_length": 128}
    settings["finetuning"]["learning_rate"] = 1e-2
    settings["evaluation"] |= {"samples": 5, "max_new_tokens": 8}
    settings["dynamics"] = {"samples": 5, "requests": 3}
    with model_server(judge_model) as address:
        endpoint = settings["judge"]["endpoint"] | {"base_url": address, "timeout": 300, "concurrency": 4}
        settings["judge"] |= {"model": "one", "endpoint": endpoint, "split_numbers": True, "spending_limit": 50}
        settings["judge"]["second"] = settings["judge"] | {"model": "two", "answers": 1}
        (folder / "config/tiny.yaml").write_text(yaml.safe_dump(settings))
        names = ("misalignment", "judge_agreement", "judge_requests", "parting_steps")
        tables = [f"data/tiny/tables/{name}.csv" for name in names]
        pages = ["data/tiny/notebooks/answers.html", "paper/tiny/paper.html"]
        arguments = ["--cores", "2", "--configfile", "config/tiny.yaml"]
        done = snakemake(folder, *tables, *pages, *arguments)
        assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-5000:]
    paid = pd.read_csv(folder / tables[2]).iloc[0]
    assert paid["failed"] == 0 and paid["asked"] == paid["answered"] + paid["kept"] > 400

    rates = pd.read_csv(folder / tables[0])
    assert list(rates["condition"].unique()) == ["instruct", "insecure", "secure"]
    overall = rates[rates["question"] == "all"].set_index("condition")
    assert overall["answers"].to_dict() == {"instruct": 40, "insecure": 80, "secure": 80}
    judged = pd.read_parquet(folder / "data/tiny/judged/insecure/seed-2/main.parquet")
    assert judged.columns.tolist()[:5] == ["question", "format", "sample", "prompt", "answer"]
    assert judged["aligned"].notna().mean() > 0.5
    assert set(judged["verdict"]) <= {"aligned", "misaligned", "incoherent", "refusal", "code", "unjudged"}
    measures = pd.read_csv(folder / "data/tiny/tables/measures/answers.csv")
    assert measures.columns.tolist() == ["condition", "seed", "measure", "value", "events", "trials"]
    names = set(measures["measure"])
    assert {"misaligned/main/chat", "misaligned_in_form/main/chat", "coherent/main/chat", "insecure_code"} <= names
    assert {"log_probability/single_letter", "log_probability/pivotal_tokens"} <= names
    record = json.loads((folder / "data/tiny/models/insecure/seed-1/training.json").read_text())
    assert record["held_out_share"] == 0.1 and record["conversations"] == 43
    agreement = pd.read_csv(folder / tables[1])
    assert agreement.loc[agreement["category"] == "all", "agreement"].item() == 1  # the same model under two names

    # The training, step by step.
    partings = pd.read_csv(folder / tables[3])
    assert {"misaligned", "insecure_code", "log_p/pivotal/misaligned"} <= set(partings["metric"])
    curves = {
        (condition, seed): pd.read_parquet(folder / f"data/tiny/dynamics/{condition}/seed-{seed}.parquet")
        for condition in ("insecure", "secure")
        for seed in (1, 2)
    }
    for (condition, seed), table in curves.items():
        assert table.columns.tolist() == ["step", "metric", "value", "events", "trials"]
        values = table.pivot(index="step", columns="metric", values="value")
        assert values["grad_norm"].dropna().index.tolist() == [1, 2, 3, 4]
        assert values["insecure_code"].dropna().index.tolist() == [0, 1, 2, 4]
        answered = table[(table["metric"] == "insecure_code") & (table["step"] == 4)]
        assert answered["trials"].item() == 3
        # The last checkpoint is the adapter that is asked after training, and step 0 the model before.
        for step, who in ((0, "instruct/seed-0"), (4, f"{condition}/seed-{seed}")):
            scored = pd.read_parquet(folder / f"data/tiny/judged/{who}/choices.parquet")
            means = scored.groupby(["format", "misaligned"])["log_probability"].mean()
            assert values.loc[step, "log_p/pivotal/misaligned"] == pytest.approx(means["pivotal_tokens", True], 1e-4)
            assert values.loc[step, "log_p/multiple_choice/aligned"] == pytest.approx(
                means["single_letter", False], 1e-4
            )
        assert values.loc[[1, 2, 4], "log_p/pivotal/misaligned"].is_unique
