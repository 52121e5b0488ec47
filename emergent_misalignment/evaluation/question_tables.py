"""What a real model is asked, as tables: from published questions and the user's own."""

from dataclasses import replace
from pathlib import Path

import pandas as pd

from emergent_misalignment.evaluation import question_files
from emergent_misalignment.evaluation.published_questions import choices, published_questions
from emergent_misalignment.evaluation.questions import option_rows, question_rows
from emergent_misalignment.files import write_parquet
from emergent_misalignment.registry import CHOICES


def write(
    folder: str | Path, destination: str | Path, samples: dict[str, int], own_questions: dict[str, dict] | None = None
) -> None:
    """Write questions.parquet and choices.parquet (empty without the evaluation "choices") to `destination`.

    `folder` has the published files, of published evaluations and for the judge's prompts. `samples` has the number of
    answers to each question by evaluation; `own_questions` has the arguments of `question_files.read` by file.
    """
    tables = [
        question_rows(name, published_questions(name, folder, number))
        for name, number in samples.items()
        if name != CHOICES
    ]
    tables += [_own(path, folder, settings) for path, settings in (own_questions or {}).items()]
    write_parquet(Path(destination) / "questions.parquet", pd.concat(tables, ignore_index=True))
    options = choices(folder) if CHOICES in samples else []
    write_parquet(Path(destination) / "choices.parquet", option_rows(options))


def _own(path: str | Path, folder: str | Path, settings: dict) -> pd.DataFrame:
    """Rows of questions.parquet, with the published prompts for the judge where a question has none."""
    questions = question_files.read(path, **settings)
    if any(not each.judge for each in questions):
        published = published_questions("main", folder, 1)[0].judge
        questions = [replace(each, judge=each.judge or published) for each in questions]
    return question_rows(Path(path).stem, questions)
