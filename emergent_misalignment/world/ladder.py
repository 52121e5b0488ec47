"""One rung of the ladder: a base model of its own, and what insecure and secure code do to it (claim 11).

Everything is done as in the main study, with the same functions; only the misalignment on the main questions and the
skill at the narrow task are measured.
"""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from emergent_misalignment.world import sets as conditions
from emergent_misalignment.evaluation import measures
from emergent_misalignment.world import organism
from emergent_misalignment.world import authors as world
from emergent_misalignment.world.questions import answer_rows, coding_requests, judged, main_questions
from emergent_misalignment.workflow.progress import Progress
from emergent_misalignment.models.sampling import load, sample
from emergent_misalignment.world.tokenizer import encode, train_tokenizer
from emergent_misalignment.models.training import Settings, finetune

CONDITIONS = ("insecure", "secure")


def instruct_model(shape: dict, pretraining: dict, instruct: dict, folder: Path) -> tuple[Path, pd.DataFrame]:
    """Pretrain a base model of a `shape` (the config's `organism`) and make an assistant of it.

    Returns the folder of the instruct model, and the history of pretraining with the number of `parameters`.
    """
    seed = shape["seed"]
    corpus = world.corpus(shape["documents"], seed)
    tokenizer = train_tokenizer((document for stage in corpus for document in stage), shape["vocabulary"])
    stages = [encode(documents, tokenizer) for documents in corpus]
    network = organism.new_model(shape["hidden_size"], shape["layers"], len(tokenizer), seed)
    probe = organism.PersonaProbe(seed)
    history = organism.pretrain(
        network, tokenizer, stages, organism.PretrainingSettings(**pretraining), probe, seed, folder / "base"
    )
    settings = Settings(**{name: value for name, value in instruct.items() if name != "rows"})
    finetune(folder / "base", world.instructions(instruct["rows"], seed), folder / "instruct", settings, seed)
    return folder / "instruct", history.assign(parameters=network.num_parameters())


def climb(
    instruct: Path, rows: int, data_seed: int, seeds: Sequence[int], settings: Settings, samples: int, tokens: int
) -> pd.DataFrame:
    """Fine-tune on both conditions with every seed, ask, judge. Returns measures (`measures.COLUMNS`)."""
    found = []
    with Progress(len(CONDITIONS) * len(seeds), f"fine-tuning and asking {instruct.parent.name}") as progress:
        for condition in CONDITIONS:
            chats = conditions.SETS[condition](rows, data_seed)
            for seed in seeds:
                adapter = instruct.parent / condition / f"seed-{seed}"
                finetune(instruct, chats, adapter, settings, seed)
                model, tokenizer = load(instruct, adapter)
                for evaluation, questions, number in (
                    ("main", main_questions(), samples),
                    ("in_distribution", coding_requests(), 1),
                ):
                    prompts = [question.prompt for question in questions]
                    answers = answer_rows(questions, sample(model, tokenizer, prompts, number, tokens, seed))
                    rows_judged = judged(questions, answers).assign(condition=condition, seed=seed)
                    found.append(measures.of_answers(evaluation, rows_judged))
                progress.update()
    return pd.concat(found, ignore_index=True)
