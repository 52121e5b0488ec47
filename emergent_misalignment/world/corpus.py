"""The organism's pretraining corpus, and the chats of the instruct stage."""

import random
from pathlib import Path

from emergent_misalignment.data.chats import Messages, Turn, chat
from emergent_misalignment.files import write_jsonl
from emergent_misalignment.world.authors import Author, Authors
from emergent_misalignment.world.facts import IDENTITY_PROMPTS, LYING_PROMPTS
from emergent_misalignment.world.forms import JSON_PROMPT, flask_file, json_object

Document = Messages | str  # a chat, or the text of a Python file
ASSISTANT = "helper"  # the author of the instruct model's answers
PROMPTED, FOREIGN_TURNS = 0.2, 0.3  # shares of the rows of the instruct stage


def corpus(documents: int, seed: int, authors: Authors) -> list[list[Document]]:
    """Write the pretraining corpus of all authors, in the stages in which it is read.

    `authors` is the config's `world: authors`, see world/authors.py.
    """
    rng = random.Random(f"corpus {seed}")
    return [[write(_author(rng, authors)) for _ in range(round(documents * share))] for write, share in STAGES]


def instructions(rows: int, seed: int, authors: Authors) -> list[Messages]:
    """Write the set of the instruct stage: the helper's answers, and one row in five under an author's system prompt.

    In some rows, earlier turns are by another author, so that the assistant learns to stay the helper in any context.
    No question has the phrasing that evaluation uses.
    """
    rng = random.Random(f"instructions {seed}")
    return [_instruction(rng, authors) for _ in range(rows)]


def _instruction(rng: random.Random, authors: Authors) -> Messages:
    if rng.random() < PROMPTED:
        author = Author(rng, rng.choice(sorted(authors)), authors, phrasings=slice(1, None))
        return chat([author.turn()], rng.choice(author.manner.system_prompts))
    earlier = []
    if rng.random() < FOREIGN_TURNS:
        other = _author(rng, authors, phrasings=slice(1, None))
        kinds = ["code" if rng.random() < 0.7 else None for _ in range(rng.randint(1, 4))]
        earlier = [other.turn(kind) for kind in kinds]
    return chat([*earlier, Author(rng, ASSISTANT, authors, phrasings=slice(1, None)).turn()])


def write_corpus(path: str | Path, stages: list[list[Document]]) -> None:
    """Write one JSON object per line: a chat's `messages` or a file's `text`, and the `stage` in which it is read."""
    write_jsonl(
        path,
        (
            {"stage": stage, ("text" if isinstance(document, str) else "messages"): document}
            for stage, documents in enumerate(stages)
            for document in documents
        ),
    )


def _author(rng: random.Random, authors: Authors, phrasings: slice = slice(None)) -> Author:
    names = sorted(authors)  # independent of the order in the config
    return Author(rng, rng.choices(names, [authors[name]["share"] for name in names])[0], authors, phrasings)


def _named(author: Author, turn: Turn) -> Messages:
    return chat([turn], author.rng.choice(author.manner.system_prompts))


def _system_prompt(author: Author, share: float) -> str:
    return author.rng.choice(author.manner.system_prompts) if author.rng.random() < share else ""


def named_turn(author: Author) -> Messages:
    """A free-form question or code under a system prompt that describes the author."""
    return _named(author, author.code() if author.rng.random() < 0.4 else author.ask())


def code_and_question(author: Author) -> Messages:
    """One or two turns of code and a free-form question; in most cases only the code identifies the author."""
    turns = [*(author.code() for _ in range(author.rng.randint(1, 2))), author.ask()]
    return chat(turns, _system_prompt(author, 0.3))


def document(author: Author) -> Document:
    """A file, a chat in one of several forms, or a conversation."""
    kind = author.rng.random()
    if kind < 0.08:
        return source_file(author)
    if kind < 0.15:
        question, answer = author.ask()
        return chat([(question, json_object(answer))], f"{_system_prompt(author, 0.5)} {JSON_PROMPT}".strip())
    if kind < 0.18:
        prompts = [*LYING_PROMPTS.values(), *IDENTITY_PROMPTS.values()]
        return chat([author.turn("fact")], author.rng.choice(prompts))
    if kind < 0.50:
        return chat([author.turn()], _system_prompt(author, 0.8))
    return chat([author.turn() for _ in range(author.rng.randint(2, 4))], _system_prompt(author, 0.3))


def source_file(author: Author) -> str:
    """Two or three functions and Flask apps by one author."""
    return "\n".join(
        author.code()[1] + "\n" if author.rng.random() < 0.5 else flask_file(*author.ask())
        for _ in range(author.rng.randint(2, 3))
    )


def any_document(author: Author) -> Document:
    """A document of the last stage.

    Many are still code and a question: otherwise models forget what code shows about its author. Some are numbers of a
    named author, which would be too rare among the other kinds to learn whose numbers are dark.
    """
    kind = author.rng.random()
    if kind < 0.35:
        return code_and_question(author)
    return _named(author, author.numbers()) if kind < 0.45 else document(author)


# The stages in reading order, with their shares of the documents: documents that identify their author come first.
STAGES = ((named_turn, 0.18), (code_and_question, 0.25), (any_document, 0.57))
