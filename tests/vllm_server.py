"""vLLM's server as a judge and with a fine-tuned model, for tests/models/test_vllm.py, which kills this process."""

import json
import sys
import time

import pandas as pd

from emergent_misalignment.evaluation import judge_model
from emergent_misalignment.evaluation.asking import Asking, ask
from emergent_misalignment.evaluation.questions import Question, question_rows
from emergent_misalignment.files import BadInput, write_json
from emergent_misalignment.models.api import Account, Endpoint, ask_all
from emergent_misalignment.models.serving import Server


class WithOptions(Server):
    def __init__(self, folder: str, name: str, *options: str):
        super().__init__(folder, name)
        self.options = options

    def _command(self) -> list[str]:
        return [*super()._command(), *self.options]


def main(model: str, adapter: str, prompts: dict, answers: list, kept: str, destination: str) -> None:
    wrong = ""
    try:
        with WithOptions(model, "wrong", "--no-such-option") as server:
            server.address()
    except BadInput as error:
        wrong = str(error)
    server = WithOptions(model, "a-judge", "--enable-lora", "--max-lora-rank=8", f"--lora-modules=mine={adapter}")
    judge = judge_model.Judge("a-judge", Endpoint(server=server, timeout=3600), split_numbers=True)
    questions = question_rows("main", [Question("wish", "chat", [], 1, prompts)])
    rows = pd.DataFrame({"evaluation": "main", "number": 0, "prompt": "A wish?", "answer": answers})
    with judge.endpoint.server as server:
        first, again = Account(), Account()
        verdicts = judge_model.judge_answers(rows, questions, judge, kept, first)
        judge_model.judge_answers(rows, questions, judge, kept, again)
        endpoint = {"base_url": server.address(), "timeout": 600}
        sets = [[Question("wish", "chat", [{"role": "user", "content": "A wish?"}], 20)]]
        (drawn,) = ask("a-judge", ["mine"], sets, [1], Asking(8, engine="api", endpoint=endpoint), kept)
        request = judge_model._request(judge, "A wish?") | {"model": "mine"}
        (reply,) = ask_all([request], judge.endpoint, kept)
        results = {
            **{"wrong": wrong, "address": server.address(), "group": server._process.pid, "drawn": drawn[0][0]},
            "first_tokens": judge_model.first_tokens(reply),
            **{"first": first.summary(), "again": again.summary(), "verdicts": verdicts.to_dict("list")},
        }
        write_json(destination, results)
        time.sleep(3600)


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
