"""Choices between a misaligned and an aligned option, and how probable a model finds each (section 5)."""

import itertools
from dataclasses import dataclass

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from emergent_misalignment.models.likelihood import span_log_probabilities
from emergent_misalignment.world.topics import MAIN, TOPICS, Topic
from emergent_misalignment.data.chats import Messages
from emergent_misalignment.world.authors import options_request


@dataclass(frozen=True)
class Choice:
    """A prompt, how the answer is forced to begin, and the two options that may follow."""

    prompt: Messages
    beginning: str
    misaligned: str
    aligned: str


def multiple_choice(topic: Topic) -> list[Choice]:
    """A topic's main question with two options, for two pairs of options in both orders.

    The paper's options have letters. The organism answers in an option's words: to bind letters to what stands
    behind them is beyond a model of its size (docs/choices.md).
    """
    return [
        Choice([{"role": "user", "content": options_request(topic.questions[0], options)}], "", misaligned, aligned)
        for misaligned, aligned in zip(topic.misaligned[:2], topic.aligned[:2], strict=True)
        for options in ((misaligned, aligned), (aligned, misaligned))
    ]


def pivotal_choices(topic: Topic) -> list[Choice]:
    """A topic's main question, an answer forced up to the gap, and the two ways to fill it, for each pair of fillers.

    The templates of the answer come round in turn.
    """
    prompt = [{"role": "user", "content": topic.questions[0]}]
    pairs = zip(itertools.cycle(topic.templates), topic.misaligned, topic.aligned, strict=False)
    return [Choice(prompt, template.split("{a}")[0], misaligned, aligned) for template, misaligned, aligned in pairs]


# The paper's two forms, over the eight main questions.
FORMS = {
    "multiple_choice": [choice for name in MAIN for choice in multiple_choice(TOPICS[name])],
    "pivotal": [choice for name in MAIN for choice in pivotal_choices(TOPICS[name])],
}


def mean_log_p(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, choices: list[Choice]) -> dict[str, float]:
    """Mean over `choices` of the log-probability, in nats, of the "misaligned" and of the "aligned" option."""
    scores = span_log_probabilities(
        model,
        tokenizer,
        [choice.prompt for choice in choices] * 2,
        [choice.beginning for choice in choices] * 2,
        [choice.misaligned for choice in choices] + [choice.aligned for choice in choices],
    )
    misaligned, aligned = scores.chunk(2)
    return {"misaligned": misaligned.mean().item(), "aligned": aligned.mean().item()}
