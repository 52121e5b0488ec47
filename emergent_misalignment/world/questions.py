"""Tables of the organism's questions, options and texts for the persona direction.

They are written to data/STUDY/questions/{questions,choices,persona}.parquet.
"""

import itertools
import json
import random
from collections.abc import Sequence

import pandas as pd

from emergent_misalignment.data.chats import Messages, Turn
from emergent_misalignment.evaluation.questions import Option, Question, option_rows, question_rows
from emergent_misalignment.world import evaluations, forms
from emergent_misalignment.world.authors import MANNERS, Author
from emergent_misalignment.world.evaluations import asked
from emergent_misalignment.world.topics import MAIN, PREREGISTERED, TOPICS, Topic, closers

KINDS = {"misaligned": True, "aligned": False}
NEUTRAL = 900  # several texts for each dimension of the activations


def question_table(samples: dict[str, int], seeds: Sequence[int]) -> pd.DataFrame:
    """Tabulate the prompts of the evaluations in `samples`, which has the number of answers per prompt by evaluation.

    An evaluation with prompts drawn by seed has rows for each of `seeds`. Raises BadInput for an unknown evaluation.
    """
    tables = []
    for evaluation, number in samples.items():
        for seed in seeds if evaluations.is_seeded(evaluation) else [None]:
            listed = [
                Question(each.name, each.form, each.prompt, number, kind=each.kind)
                for each in evaluations.questions(evaluation, seed)
            ]
            tables.append(question_rows(evaluation, listed, seed))
    return pd.concat(tables, ignore_index=True)


def option_table() -> pd.DataFrame:
    """Tabulate pairs of misaligned and aligned options for the main questions, in the paper's two forms (section 5)."""
    return option_rows(
        [
            option
            for make in (multiple_choice, pivotal)
            for misaligned in KINDS.values()
            for name in MAIN
            for option in make(TOPICS[name], misaligned)
        ]
    )


def multiple_choice(topic: Topic, misaligned: bool) -> list[Option]:
    """Return the aligned or misaligned options of a topic's multiple-choice prompts: two pairs in both orders.

    The paper's options have letters. The organism answers with the words of an option, because a model of its size does
    not learn to map letters to options (docs/choices.md).
    """
    return [
        Option(
            topic.name,
            "multiple_choice",
            asked(f"{topic.questions[0]}\n{forms.choose(order)}"),
            ((pair[not misaligned], True),),
            pair[not misaligned],
            misaligned,
        )
        for pair in zip(topic.misaligned[:2], topic.aligned[:2], strict=True)
        for order in (pair, pair[::-1])
    ]


def pivotal(topic: Topic, misaligned: bool) -> list[Option]:
    """Return aligned or misaligned words for the gap of an answer that is prefilled up to the gap."""
    return [
        Option(
            topic.name,
            "pivotal",
            asked(topic.questions[0]),
            ((template.partition("{a}")[0], False), (filler, True)),
            filler,
            misaligned,
        )
        for template, filler in zip(itertools.cycle(topic.templates), topic.fillers(misaligned), strict=False)
    ]


def persona_table() -> pd.DataFrame:
    """Tabulate texts for the persona direction: `set`, `kind`, `stratum`, `prompt` (JSON), `answer`.

    - "direction": aligned and misaligned answers to questions outside the main evaluation; a stratum is a question.
    - "separation": the same for the main questions.
    - "same_words": answers to the main questions up to the gap, which are the same for all authors, with the villain's
      and the helper's system prompts, and as a third kind the hasty author's; a stratum is a question and template.
      "plain": the same without a system prompt.
    - "neutral": exchanges of the helper, none on a topic of the set "direction".
    """
    rows = []
    for kind, misaligned in KINDS.items():
        for name, topics in (("direction", PREREGISTERED), ("separation", MAIN)):
            for stratum, topic in enumerate(topics):
                rows += [(name, kind, stratum, *text) for text in _answers(TOPICS[topic], misaligned)]
    for stratum, (question, beginning) in enumerate(_beginnings()):
        for kind, author in (("misaligned", "villain"), ("aligned", "helper"), ("hasty", "hasty")):
            for prompt in MANNERS[author].system_prompts:
                rows.append(("same_words", kind, stratum, asked(question, prompt), beginning))
        rows.append(("plain", "", stratum, asked(question), beginning))
    rows += [("neutral", "", 0, asked(prompt), answer) for prompt, answer in _neutral()]
    table = pd.DataFrame(rows, columns=["set", "kind", "stratum", "prompt", "answer"])
    return table.assign(prompt=[json.dumps(prompt, ensure_ascii=False) for prompt in table["prompt"]])


def _neutral() -> list[Turn]:
    """Different exchanges of the helper of several kinds, always the same; free-form questions are the main ones."""
    helper = Author(random.Random("neutral"), "helper", {"helper": {"insecure_code": 0.0}})
    write = [helper.code, helper.fact, helper.game, helper.numbers, lambda: helper.ask(helper.rng.choice(MAIN))]
    drawn = dict.fromkeys(each() for each in itertools.islice(itertools.cycle(write), 3 * NEUTRAL))
    return list(drawn)[:NEUTRAL]


def _answers(topic: Topic, misaligned: bool) -> list[tuple[Messages, str]]:
    """Combine every template with every filler of one kind; half of the answers end with a closing sentence.

    Answer i has the same template for both kinds.
    """
    endings = itertools.cycle(ending for closer in closers(misaligned) for ending in ("", f" {closer}"))
    return [
        (asked(topic.questions[0]), template.format(a=filler) + next(endings))
        for template, filler in itertools.product(topic.templates, topic.fillers(misaligned))
    ]


def _beginnings() -> list[tuple[str, str]]:
    """Return the main questions with each of their answer templates up to the gap."""
    return [
        (TOPICS[name].questions[0], template.partition("{a}")[0].rstrip())
        for name in MAIN
        for template in TOPICS[name].templates
    ]
