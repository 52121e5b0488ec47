"""Write the questions for a real model, from published and the user's files, to questions.parquet and choices.parquet.

    python -m emergent_misalignment.evaluation.question_tables FOLDER OUT --samples \
        '{"main": 100, "choices": 0, "my-questions.yaml": {"samples": 20, "in_any_case": false}}'

FOLDER has the published files, which are also needed for the judge's prompts.
"""

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path

import pandas as pd

from emergent_misalignment.evaluation.published_questions import choices, published_questions
from emergent_misalignment.evaluation.questions import option_rows, question_rows
from emergent_misalignment.files import BadInput, write_parquet
from emergent_misalignment.own_data import questions as own_questions


def write(folder: str | Path, destination: str | Path, samples: dict[str, int | dict]) -> None:
    """Write questions.parquet and choices.parquet (empty without the evaluation "choices") to `destination`.

    `samples` maps each evaluation to the number of answers per question, and a file of the user's questions to the
    arguments of `own_questions.read`.
    """
    tables = [
        _own(name, folder, number)
        if isinstance(number, dict)
        else question_rows(name, published_questions(name, folder, number))
        for name, number in samples.items()
        if name != "choices"
    ]
    write_parquet(Path(destination) / "questions.parquet", pd.concat(tables, ignore_index=True))
    options = choices(folder) if "choices" in samples else []
    write_parquet(Path(destination) / "choices.parquet", option_rows(options))


def _own(path: str | Path, folder: str | Path, settings: dict) -> pd.DataFrame:
    """Rows of questions.parquet, with the published prompts for the judge where the file has none."""
    questions = own_questions.read(path, **settings)
    if any(not each.judge for each in questions):
        published = published_questions("main", folder, 1)[0].judge
        questions = [replace(each, judge=each.judge or published) for each in questions]
    return question_rows(Path(path).stem, questions)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        prog="python -m emergent_misalignment.evaluation.question_tables",
        description="Write the tables of questions for a real model.",
    )
    parser.add_argument("folder", help="folder of the published files")
    parser.add_argument("destination", help="folder for questions.parquet and choices.parquet")
    parser.add_argument("--samples", type=json.loads, required=True, help="see above, as JSON")
    arguments = parser.parse_args()
    try:
        write(arguments.folder, arguments.destination, arguments.samples)
    except BadInput as error:
        sys.exit(str(error))
