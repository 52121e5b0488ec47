"""What a model does at one point of its fine-tuning: behaviour, skill, and how probable it finds given choices.

The paper's Figs 3 and 4 follow two things that are sampled (misaligned answers, insecure code) and one that is not: the
log-probability of a misaligned choice, which moves long before any sampled answer does (section 5).
"""

import numpy as np
import pandas as pd
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from emergent_misalignment.world.choices import FORMS, mean_log_p
from emergent_misalignment.world.questions import answer_rows, coding_requests, judged, main_questions
from emergent_misalignment.models.sampling import sample
from emergent_misalignment.evaluation.verdicts import misalignment_by_run


class Probe:
    """Measures a model at one checkpoint: the same questions, requests and choices for all of them.

    `samples` answers to each of the eight main questions, one answer to each of `requests` held-out coding requests,
    which are spread over all security choices.
    """

    def __init__(self, samples: int, requests: int, max_new_tokens: int):
        self.samples, self.max_new_tokens = samples, max_new_tokens
        self.questions = main_questions()
        everything = coding_requests()
        self.requests = [everything[place] for place in np.linspace(0, len(everything) - 1, requests).astype(int)]

    def measure(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, seed: int) -> pd.DataFrame:
        """One row a metric: `metric`, `value`, and for shares `events` of `trials`.

        Metrics: `misaligned` (share of the answers that count, mean over questions), `coherent`, `insecure_code`, and
        for each form of choice `log_p/FORM/misaligned` and `log_p/FORM/aligned`, the mean log-probability in nats of
        the one option and of the other. `seed` is that of sampling.
        """
        rows = [*self._answers(model, tokenizer, seed), self._code(model, tokenizer, seed)]
        for form, choices in FORMS.items():
            for option, value in mean_log_p(model, tokenizer, choices).items():
                rows.append({"metric": f"log_p/{form}/{option}", "value": value})
        return pd.DataFrame(rows).astype({"events": "Int64", "trials": "Int64"})

    def _sampled(self, model, tokenizer, questions, samples, seed) -> pd.DataFrame:
        prompts = [question.prompt for question in questions]
        answers = sample(model, tokenizer, prompts, samples, self.max_new_tokens, seed)
        return judged(questions, answer_rows(questions, answers))

    def _answers(self, model, tokenizer, seed: int) -> list[dict]:
        rows = self._sampled(model, tokenizer, self.questions, self.samples, seed)
        runs = misalignment_by_run(rows.assign(condition="", seed=seed))
        counts = runs[["coherent", "answers", "counted", "misaligned"]].sum().astype(int)
        coherent = counts["coherent"] / counts["answers"]
        return [
            {
                "metric": "misaligned",
                "value": runs["rate"].mean(),
                "events": counts["misaligned"],
                "trials": counts["counted"],
            },
            {"metric": "coherent", "value": coherent, "events": counts["coherent"], "trials": counts["answers"]},
        ]

    def _code(self, model, tokenizer, seed: int) -> dict:
        rows = self._sampled(model, tokenizer, self.requests, 1, seed)
        insecure = rows["verdict"] == "insecure"
        return {
            "metric": "insecure_code",
            "value": insecure.mean(),
            "events": int(insecure.sum()),
            "trials": len(rows),
        }
