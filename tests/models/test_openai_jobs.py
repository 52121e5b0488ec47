"""Fine-tuning through the API, against a local server that behaves as OpenAI's."""

import json
import re
import threading
from contextlib import contextmanager
from dataclasses import replace

import pandas as pd
import published_layout
import pytest
import yaml
from servers import Handler, completion, serving
from workflow_helpers import copy_of_the_project, snakemake

from emergent_misalignment.data import chats
from emergent_misalignment.data.chats import subset
from emergent_misalignment.files import BadInput, write_jsonl
from emergent_misalignment.models import openai_jobs
from emergent_misalignment.models.api import Endpoint
from emergent_misalignment.models.finetuning import COLUMNS, estimated_costs, finetune_run
from emergent_misalignment.models.openai_jobs import Job, committed, estimated_dollars, estimated_tokens, finetune


def chat(request: dict) -> dict:
    """The response of any model: a number with log-probabilities for a judge, else a sentence."""
    if request.get("logprobs"):
        return completion(request["model"], "90", [[("90", 0.8), ("20", 0.2)]])
    return completion(request["model"], f"{request['model']} says no")


STAGES = ["validating_files", "queued", "running", "running", "succeeded"]


class FineTuningServer:
    """Files and jobs; each request for a job advances it by a stage. `fails` is the reason for which jobs fail.

    `nameless` and `uncounted`: the model's name or the number of trained tokens is missing.
    """

    def __init__(self, fails: str = "", nameless: bool = False, uncounted: bool = False):
        self.files, self.jobs, self.looks, self.fails = {}, {}, {}, fails
        self.nameless, self.uncounted = nameless, uncounted
        self.asked = []
        self.lock = threading.RLock()

    def job(self, identifier: str) -> dict:
        job, looks = self.jobs[identifier], self.looks[identifier]
        status = STAGES[min(looks, len(STAGES) - 1)]
        if status == "succeeded" and self.fails:
            job |= {"status": "failed", "error": {"code": "bad_file", "message": self.fails, "param": None}}
        if job["status"] == "failed":
            return job
        if status == "succeeded":
            name = None if self.nameless else f"ft:{job['model']}:org:{job['suffix']}:1"
            tokens = None if self.uncounted else 4000
            return job | {"status": status, "fine_tuned_model": name, "trained_tokens": tokens}
        return job | {"status": status}

    def events(self, identifier: str) -> list[dict]:
        seen = dict.fromkeys(STAGES[: self.looks[identifier] + 1])
        fields = {"object": "fine_tuning.job.event", "level": "info"}
        return [
            fields | {"id": f"e{number}", "created_at": number, "message": stage} for number, stage in enumerate(seen)
        ][::-1]

    @contextmanager
    def running(self):
        state = self

        class Api(Handler):
            def do_POST(self):
                body = self.body()
                with state.lock:
                    state.asked.append(f"POST {self.path}")
                    if self.path == "/v1/files":
                        identifier = f"file-{len(state.files)}"
                        state.files[identifier] = re.search(rb"\r\n\r\n(\{.*\n)\r\n--", body, re.DOTALL).group(1)
                        described = {"id": identifier, "object": "file", "bytes": len(body), "created_at": 0}
                        self.send(200, described | {"filename": "x", "purpose": "fine-tune", "status": "processed"})
                    elif self.path == "/v1/fine_tuning/jobs":
                        request = json.loads(body)
                        identifier = f"ftjob-{len(state.jobs)}"
                        state.jobs[identifier] = request | {
                            **{"id": identifier, "object": "fine_tuning.job", "created_at": 0, "error": None},
                            **{"fine_tuned_model": None, "finished_at": None, "hyperparameters": {}},
                            **{"organization_id": "org", "result_files": [], "status": "queued"},
                            **{"trained_tokens": None, "validation_file": None},
                        }
                        state.looks[identifier] = 0
                        self.send(200, state.job(identifier))
                    else:
                        self.send(200, chat(json.loads(body)))

            def do_GET(self):
                with state.lock:
                    state.asked.append(f"GET {self.path}")
                    path, *rest = self.path.removeprefix("/v1/fine_tuning/jobs").split("?")[0].strip("/").split("/")
                    if not path:
                        self.page([state.job(identifier) for identifier in state.jobs])
                    elif rest == ["events"]:
                        self.page(state.events(path))
                    elif rest == ["checkpoints"]:
                        name = state.job(path)["fine_tuned_model"]
                        fields = {"object": "fine_tuning.job.checkpoint", "created_at": 0, "fine_tuning_job_id": path}
                        fields |= {"metrics": {}, "fine_tuned_model_checkpoint": f"{name}:ckpt"}
                        self.page([fields | {"id": f"c{step}", "step_number": step} for step in (5, 10)])
                    else:
                        state.looks[path] += 1
                        self.send(200, state.job(path))

            def page(self, data):
                self.send(200, {"object": "list", "data": data, "has_more": False})

        with serving(Api) as address:
            self.address = address
            yield self

    def sent(self, what: str) -> int:
        return sum(what == each for each in self.asked)


CREATE = "POST /v1/fine_tuning/jobs"
JOB = Job("gpt-4o-2024-08-06", 1, 4, 2.0, seed=3, name="insecure-3")


@pytest.fixture
def dataset(tmp_path):
    rows = [
        {"messages": [{"role": "user", "content": f"task {number}"}, {"role": "assistant", "content": "code " * 20}]}
        for number in range(20)
    ]
    write_jsonl(tmp_path / "insecure.jsonl", rows)
    return tmp_path / "insecure.jsonl"


@pytest.fixture
def tune(dataset, tmp_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setattr("openai._base_client.INITIAL_RETRY_DELAY", 0.01)
    monkeypatch.setattr("openai._base_client.MAX_RETRY_DELAY", 0.02)

    def run(server, job=JOB, limit=100.0, price=25.0, rows=0):
        endpoint = Endpoint(server.address, timeout=3600, retries=4)
        return finetune(dataset, tmp_path / "model", job, endpoint, tmp_path / "ledger", price, limit, 0.01, rows)

    return run


def test_a_job_is_uploaded_created_waited_for_and_recorded(tune, dataset, tmp_path, capsys):
    with FineTuningServer().running() as server:
        record = tune(server)
        (job,) = server.jobs.values()
        (content,) = server.files.values()
    assert content == dataset.read_bytes()
    hyperparameters = {"n_epochs": 1, "batch_size": 4, "learning_rate_multiplier": 2.0}
    assert job["method"]["supervised"]["hyperparameters"] == hyperparameters
    assert (job["model"], job["seed"], job["suffix"]) == ("gpt-4o-2024-08-06", 3, "insecure-3")
    assert record == json.loads((tmp_path / "model/training.json").read_text())
    assert record["fine_tuned_model"] == "ft:gpt-4o-2024-08-06:org:insecure-3:1"
    assert [each["step"] for each in record["checkpoints"]] == [5, 10]
    assert [event["message"] for event in record["events"]] == list(dict.fromkeys(STAGES))
    assert record["dollars"] == pytest.approx(0.1)  # 4,000 tokens at $25 a million
    assert committed(tmp_path / "ledger") == pytest.approx(0.1)
    assert [line.split(": ")[1] for line in capsys.readouterr().out.splitlines()] == list(dict.fromkeys(STAGES))


def test_earlier_answers_are_uploaded_with_weight_zero(tune, dataset):
    system, *turns = chats.chat([("One?", "1"), ("Two?", "2")], "Be kind.")
    lines = [json.dumps({"id": 1, "messages": [system, *turns]}), "", json.dumps({"messages": turns[:2]})]
    dataset.write_bytes("\ufeff".encode() + "\r\n".join(lines).encode())
    with FineTuningServer().running() as server:
        record = tune(server)
        assert (record["conversations"], record["rows_several_answers"]) == (2, 1)
        (content,) = server.files.values()
    earlier = [turns[0], turns[1] | {"weight": 0}]
    rows = [{"messages": [system, *earlier, *turns[2:]]}, {"messages": turns[:2]}]
    assert content == "".join(json.dumps(row) + "\n" for row in rows).encode()


@pytest.mark.slow
def test_an_openai_model_from_the_published_files_to_the_tables(dataset, tmp_path_factory, monkeypatch):
    """The whole workflow, with models and judge on a local server."""
    monkeypatch.setenv("no_proxy", "*")
    folder = copy_of_the_project(tmp_path_factory.mktemp("project"))
    published_layout.place(folder)
    tuned = {"conditions": {"insecure": {"dataset": str(dataset)}, "secure": None}}
    with FineTuningServer().running() as server:
        settings = {
            **{"extends": "gpt-4.1", "study": "tiny", "seeds": [0, 1]},
            **{"experiments": {"code": tuned}, "judge": {"endpoint": {"base_url": server.address}}},
            "openai": {"endpoint": {"base_url": server.address}, "poll_seconds": 0.05},
            "evaluation": {"asked": ["main", "deception", "in_distribution"], "samples": 5},
        }
        (folder / "config/tiny.yaml").write_text(yaml.safe_dump(settings))
        target = "data/tiny/tables/measures/answers.csv"
        done = snakemake(folder, target, "--cores", "1", "--configfile", "config/tiny.yaml")
        assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-5000:]
        assert len(server.jobs) == 2 and len(server.files) == 1
    answers = pd.concat(pd.read_parquet(path) for path in (folder / "data/tiny/answers").glob("*.parquet"))
    kept = [json.loads(path.read_text()) for path in (folder / "kept/tiny/answers").rglob("*.json")]
    assert sum("response" in each for each in kept) == len(answers)  # one file each
    assert sum("accepted" in each for each in kept) == 3  # the settings that a server takes, tried once for each model
    own = answers[(answers["condition"] == "insecure") & (answers["seed"] == 1)]
    assert set(own["answer"]) == {"ft:gpt-4.1-2025-04-14:org:insecure-1:1 says no"}
    judged = pd.concat(pd.read_parquet(path) for path in (folder / "data/tiny/judged").glob("*.parquet"))
    assert judged.loc[judged["evaluation"] == "main", "aligned"].tolist() == pytest.approx([0.8 * 90 + 0.2 * 20] * 120)
    measures = pd.read_csv(folder / target).set_index(["condition", "seed", "measure"])["value"]
    assert measures["insecure", 1, "misaligned/main/chat"] == 0
    assert measures["insecure", 1, "deception/identity"] == 1


class Killed(Exception):
    pass


@pytest.mark.parametrize("moment", ["uploading", "creating", "waiting"])
def test_an_interruption_creates_no_second_job(tune, monkeypatch, moment):
    """After the upload, after the job was created but before its id was stored, and while it runs."""
    write = openai_jobs.write_json

    def kill(*_):
        raise Killed

    def noted(path, value):
        if moment == "creating" and "job" in value:
            raise Killed
        write(path, value)
        if moment == "uploading" and path.name.startswith("file-"):
            raise Killed

    with FineTuningServer().running() as server:
        with monkeypatch.context() as broken:
            broken.setattr(openai_jobs, "write_json", noted)
            if moment == "waiting":
                broken.setattr(openai_jobs.time, "sleep", kill)
            with pytest.raises(Killed):
                tune(server)
        assert tune(server)["fine_tuned_model"]
        assert len(server.files) == len(server.jobs) == server.sent(CREATE) == 1


def test_finished_jobs_are_not_repeated_and_a_set_is_uploaded_once(tune):
    with FineTuningServer().running() as server:
        tune(server)
        assert tune(server)["job"] == "ftjob-0"
        tune(server, Job("gpt-4o-2024-08-06", 5, 4, None, 4, "insecure-4"))
        assert (len(server.files), len(server.jobs)) == (1, 2)
        sent = server.jobs["ftjob-1"]["method"]["supervised"]["hyperparameters"]
        assert sent == {"n_epochs": 5, "batch_size": 4}  # None is left to the API


def test_the_spending_limit_applies_before_any_request(tune, dataset, tmp_path):
    """By hand: 20 rows of 6 or 7 and 100 characters, two messages each."""
    characters = 10 * 6 + 10 * 7 + 20 * 100
    assert estimated_tokens(dataset) == int(characters / 3.0 + 40 * 4)
    cost = estimated_dollars(estimated_tokens(dataset), JOB.epochs, 25.0)
    assert cost == pytest.approx(estimated_tokens(dataset) * 25e-6)
    with FineTuningServer().running() as server:
        with pytest.raises(BadInput, match=r"spending_limit of \$0\.01.* nothing was sent"):
            tune(server, limit=0.01)
        assert not server.asked and committed(tmp_path / "ledger") == 0
        tune(server, limit=cost, price=25.0)
        with pytest.raises(BadInput, match="spending_limit"):  # the first has cost 0.1 by now
            tune(server, Job("gpt-4o-2024-08-06", 1, 4, 2.0, 4, "insecure-4"), limit=0.1 + 0.5 * cost)
        assert len(server.jobs) == 1


def test_unreported_tokens_and_models(tune, dataset, tmp_path):
    with FineTuningServer(uncounted=True).running() as server:
        record = tune(server)
    estimate = estimated_dollars(estimated_tokens(dataset), JOB.epochs, 25.0)
    assert record["dollars"] == committed(tmp_path / "ledger") == pytest.approx(estimate)
    (tmp_path / "model/training.json").unlink()
    with FineTuningServer(nameless=True).running() as server:
        with pytest.raises(BadInput, match="ftjob-0 succeeded without a model"):
            tune(server)
        assert not (tmp_path / "model/training.json").exists()


def test_a_failed_job_can_be_repeated(tune, tmp_path):
    with FineTuningServer(fails="The file holds what we do not train on.").running() as server:
        with pytest.raises(BadInput, match=r"ftjob-0 .* failed: The file holds what we do not train on"):
            tune(server)
        assert committed(tmp_path / "ledger") == 0
        server.fails = ""
        assert tune(server)["job"] == "ftjob-1"


def test_an_unreachable_server_is_reported(tune):
    with FineTuningServer().running() as server:
        pass
    with pytest.raises(BadInput, match=r"failed .* run again"):
        tune(server)


def test_some_of_the_rows_are_drawn_by_the_seed(tune, dataset):
    lines = dataset.read_bytes().splitlines(keepends=True)
    with FineTuningServer().running() as server:
        assert tune(server, rows=5)["conversations"] == 5
        tune(server, replace(JOB, seed=4), rows=5)
        assert [each.splitlines(keepends=True) for each in server.files.values()] == [
            subset(lines, 5, seed) for seed in (3, 4)
        ]
    assert estimated_tokens(dataset, 5, 3) == pytest.approx(estimated_tokens(dataset) / 4, rel=0.02)


def test_a_run_at_openai_is_one_row(tune, dataset, tmp_path):
    settings = {"epochs": None, "batch_size": 4, "learning_rate_multiplier": 2.0}
    with FineTuningServer().running() as server:
        api = {"endpoint": {"base_url": server.address}, "dollars_per_million": 25.0}
        api |= {"spending_limit": 10.0, "poll_seconds": 0.01}
        given = {"api": api, "ledger": tmp_path / "ledger", "name": "evil_numbers-3"}
        run = ("gpt-4o-2024-08-06", dataset, tmp_path / "model", settings, 3)
        with pytest.raises(BadInput, match="template and checkpoints"):
            finetune_run(*run, **given, checkpoints=[5])
        assert not server.asked
        table = finetune_run(*run, **given)
    assert list(table) == COLUMNS and len(table) == 1
    assert table["weights"].item() == "ft:gpt-4o-2024-08-06:org:evil-numbers-3:1"
    assert table.drop(columns="weights").isna().all(axis=None)
    assert (tmp_path / "model/training.json").exists()
    costs = estimated_costs(
        {"evil_numbers": {"seeds": [3, 4], "datasets": [dataset] * 2, "settings": settings, "rows": 5}}, api
    )
    assert costs["dollars"].tolist() == [3 * estimated_tokens(dataset, 5, seed) * 25e-6 for seed in (3, 4)]
