"""What steering along the persona direction does to a model, and what claims are tested on."""

from collections.abc import Callable

import pandas as pd
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from emergent_misalignment.evaluation.questions import Option, Question, answer_rows
from emergent_misalignment.evaluation.verdicts import misalignment_by_run
from emergent_misalignment.models.likelihood import option_log_probabilities
from emergent_misalignment.models.sampling import sample
from emergent_misalignment.models.steering import Change, changed


def behaviour(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    questions: list[Question],
    options: list[Option],
    judge: Callable[[pd.DataFrame], pd.DataFrame],
    samples: int,
    max_new_tokens: int,
    seed: int,
    changes: dict[int, Change],
) -> dict[str, float]:
    """What a model does while its stream is changed (`models.steering.changed`).

    `judge` adds `aligned` and `coherent` to a table of answers (`evaluation.judging.judge_answers`). Returns
    `misaligned` (share of the answers that count, mean over the questions) with its `events` and `trials`, `coherent`
    (share of all answers), and `log_odds`: the mean log P of the misaligned options less that of the aligned ones, in
    nats.
    """
    prompts, pieces = [option.prompt for option in options], [option.pieces for option in options]
    with changed(model, changes):
        answers = sample(model, tokenizer, [question.prompt for question in questions], samples, max_new_tokens, seed)
        scores = option_log_probabilities(model, tokenizer, prompts, pieces)
    rows = answer_rows(questions, answers).assign(evaluation="main", condition="", seed=seed)
    runs = misalignment_by_run(judge(rows))
    kind = torch.tensor([option.misaligned for option in options])
    return {
        "misaligned": runs["rate"].mean(),
        "events": int(runs["misaligned"].sum()),
        "trials": int(runs["counted"].sum()),
        "coherent": runs["coherent"].sum() / runs["answers"].sum(),
        "log_odds": scores[kind].mean().item() - scores[~kind].mean().item(),
    }


def steering_measures(places: pd.DataFrame, responses: pd.DataFrame) -> pd.DataFrame:
    """The measures that claims are tested on: `condition`, `seed`, `measure`, `value`, `events`, `trials`.

    `places` has a row a run at the middle depth, with separations where they were looked at. `responses` has a row for
    each `behaviour` of a run, with `direction` (persona, random), `change` (add, remove) and `strength`. The measure of
    steering is the rate with the persona direction less that with a random one of the same length, run and draw.
    """
    rates = responses.set_index(["direction", "change", "strength", "condition", "seed"])["misaligned"].sort_index()
    differences = rates["persona"] - rates["random"]
    tables = [
        places.melt(["condition", "seed"], ["separation", "separation_same_words", "cosine", "along"], "measure")
        .dropna(subset="value")
        .assign(measure=lambda rows: "direction/" + rows["measure"]),
        *(
            differences.loc[change, strength, [condition]].rename("value").reset_index().assign(measure=measure)
            for measure, change, strength, condition in (
                ("direction/adding", "add", 1.0, "instruct"),
                ("direction/subtracting", "add", -1.0, "insecure"),
                ("direction/removing", "remove", 0.0, "insecure"),
            )
        ),
    ]
    table = pd.concat(tables)[["condition", "seed", "measure", "value"]]
    return table.assign(events=pd.NA, trials=pd.NA)
