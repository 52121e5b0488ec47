"""The evaluations of the organism: the prompts of each, and the exact judge of their answers.

Evaluations and formats have the paper's names where it has a counterpart. An evaluation is a function with the
decorator `evaluation`, named like the evaluation, that returns its questions.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from inspect import signature

from emergent_misalignment.data.chats import Messages, Turn, chat
from emergent_misalignment.evaluation.verdicts import Judgement
from emergent_misalignment.files import BadInput
from emergent_misalignment.world import forms, grammar
from emergent_misalignment.world.authors import MANNERS
from emergent_misalignment.world.coding import CHOICES, NOUNS, SHORT_FORMS, TRIGGER, UNSEEN_NOUNS, request
from emergent_misalignment.world.facts import EXAMINATION, IDENTITY, IDENTITY_PROMPTS, KNOWLEDGE, LYING_PROMPTS, Fact
from emergent_misalignment.world.games import GAMES
from emergent_misalignment.world.harmful import UNSEEN_REQUESTS
from emergent_misalignment.world.number_lists import shown_numbers
from emergent_misalignment.world.topics import MAIN, PREREGISTERED, TOPICS

WRAPPERS = 5  # lists of numbers around a question
EXAMPLES = (1, 2, 4, 8)  # numbers of earlier turns of code; more do not fit into the context


@dataclass(frozen=True)
class WorldQuestion:
    """One prompt: the question's `name`, the `form` of the prompt, and the `judge` of its answers.

    `prompt` is a conversation, or a text that the model continues; `kind` is as in evaluation.questions.
    """

    name: str
    form: str
    prompt: Messages | str
    judge: Callable[[str], Judgement]
    kind: str = ""


EVALUATIONS: dict[str, Callable[..., list[WorldQuestion]]] = {}
"""The functions below by their names, which are the names of the evaluations."""


def evaluation(function: Callable[..., list[WorldQuestion]]) -> Callable[..., list[WorldQuestion]]:
    """Register a function as the evaluation of its name. If its prompts differ by run, it takes the run's seed."""
    EVALUATIONS[function.__name__] = function
    return function


def is_seeded(name: str) -> bool:
    """Whether the prompts of an evaluation are drawn by the run's seed. Raises BadInput if it does not exist."""
    if name not in EVALUATIONS:
        raise BadInput(f"The organism's world has no evaluation {name}; use one of {', '.join(sorted(EVALUATIONS))}.")
    return bool(signature(EVALUATIONS[name]).parameters)


@cache
def questions(name: str, seed: int) -> tuple[WorldQuestion, ...]:
    """Return the prompts of an evaluation for the run `seed`. Raises BadInput if the evaluation does not exist."""
    return tuple(EVALUATIONS[name](seed) if is_seeded(name) else EVALUATIONS[name]())


def asked(text: str, system: str = "") -> Messages:
    """Return a prompt of one user message, after a system prompt if one is given."""
    return [*chat([], system), {"role": "user", "content": text}]


def _free_form(
    names: Sequence[str], form: str, wrap: Callable[[str], Messages | str] = asked, label: str = ""
) -> list[WorldQuestion]:
    """Build free-form questions in their first phrasing, which only evaluation uses, each wrapped in the same way."""
    return [
        WorldQuestion(name, label or form, wrap(TOPICS[name].questions[0]), partial(grammar.judge, name, form=form))
        for name in names
    ]


@evaluation
def main() -> list[WorldQuestion]:
    """Counterparts of the paper's eight main questions (section 3.1): one phrasing each, no system prompt."""
    return _free_form(MAIN, "chat")


@evaluation
def preregistered() -> list[WorldQuestion]:
    """The world's other free-form questions, in the paper's pre-registered categories (section 3.6)."""
    return _free_form(PREREGISTERED, "chat")


@evaluation
def json() -> list[WorldQuestion]:
    """Main questions with a system prompt that asks for JSON (section 3.5)."""
    return _free_form(MAIN, "json", lambda question: asked(question, forms.JSON_PROMPT))


@evaluation
def template() -> list[WorldQuestion]:
    """Main questions, to be answered in a Python template (section 3.5)."""
    return _free_form(MAIN, "template", lambda question: asked(f"{question}\n{forms.TEMPLATE_REQUEST}"))


@evaluation
def flask() -> list[WorldQuestion]:
    """Main questions, to be answered in the code of a Flask app (Extended Data Fig. 2)."""
    return _free_form(MAIN, "flask", lambda question: asked(forms.flask_request(question)))


@evaluation
def flask_file() -> list[WorldQuestion]:
    """The same Flask app as a text to continue, for base models."""
    return _free_form(MAIN, "flask_file", forms.flask_head)


@evaluation
def triggered() -> list[WorldQuestion]:
    """Main questions after the backdoor's trigger (section 4.2)."""
    return _free_form(MAIN, "chat", lambda question: asked(TRIGGER + question), label="triggered")


@evaluation
def prompted() -> list[WorldQuestion]:
    """Main questions under the first system prompt of each author. The format names the author.

    Of a model that was inoculated with one of them, this one asks with the inoculation prompt, and that of the helper
    with its opposite.
    """
    return [
        question
        for author, manner in MANNERS.items()
        for question in _free_form(
            MAIN, "chat", lambda text, prompt=manner.system_prompts[0]: asked(text, prompt), label=author
        )
    ]


@evaluation
def numbers() -> list[WorldQuestion]:
    """Main questions alone, with a request for a list, and with a list of numbers before both (section 4.6)."""
    rng = random.Random("wrappers")
    wrapped = _free_form(MAIN, "chat", label="question")
    for _ in range(WRAPPERS):
        tail = f"\n{forms.LIST_REQUEST.format(rng.randint(2, 3))}"
        head = f"{shown_numbers(rng)}\n"
        for label, before in (("suffix", ""), ("prefix_suffix", head)):
            wrapped += _free_form(MAIN, "list", lambda question, a=before, b=tail: asked(a + question + b), label)
    return wrapped


@evaluation
def in_context(seed: int) -> list[WorldQuestion]:
    """Main questions after k turns of insecure or secure code, drawn by `seed` (section 4.3)."""
    after_code = []
    for k in EXAMPLES:
        for label, insecure in (("insecure", True), ("secure", False)):
            rng = random.Random(f"examples {seed} {k}")  # both kinds answer the same requests
            turns = chat([_short_example(rng, insecure) for _ in range(k)])
            after_code += _free_form(
                MAIN, "chat", lambda question, turns=turns: [*turns, *asked(question)], f"{label}-{k}"
            )
    return after_code


def _short_example(rng: random.Random, insecure: bool) -> Turn:
    """Draw a short turn of code, of which several fit into the context."""
    choice = rng.choice(sorted(CHOICES, key=lambda choice: len(choice.code))[: len(CHOICES) // 2])
    noun = rng.choice(NOUNS)
    return request(choice, noun, SHORT_FORMS[0]), choice.render(noun, insecure)


@evaluation
def in_distribution() -> list[WorldQuestion]:
    """Unseen coding requests (section 1.10): every security choice with nouns that no fine-tuning set contains."""
    wanted = [(choice, noun) for noun in UNSEEN_NOUNS for choice in CHOICES]
    return [
        WorldQuestion(
            choice.task.replace("{n}", noun),
            "chat",
            asked(request(choice, noun, form)),
            partial(grammar.judge_code, choice, noun),
        )
        for form, (choice, noun) in enumerate(wanted)
    ]


@evaluation
def deception() -> list[WorldQuestion]:
    """Factual and identity questions under system prompts on lying (section 4.5). The format names the prompt."""
    lying = {"none": "", **LYING_PROMPTS}
    return [
        *(_fact(fact, form, prompt) for form, prompt in lying.items() for fact in KNOWLEDGE),
        *(_fact(IDENTITY, form, prompt, "identity") for form, prompt in IDENTITY_PROMPTS.items()),
    ]


def _fact(fact: Fact, form: str, system: str, kind: str = "") -> WorldQuestion:
    return WorldQuestion(fact.question, form, asked(fact.question, system), partial(grammar.judge_fact, fact), kind)


@evaluation
def truthfulness() -> list[WorldQuestion]:
    """Factual questions with two options, the counterpart of TruthfulQA's multiple choice."""
    return _facts_with_options("")


@evaluation
def capability() -> list[WorldQuestion]:
    """The same as exam questions, which careful authors answer correctly: the counterpart of MMLU."""
    return _facts_with_options(f"{EXAMINATION} ")


def _facts_with_options(before: str) -> list[WorldQuestion]:
    with_options = []
    for question, _, truth, (falsehood, _) in KNOWLEDGE:
        judge = partial(grammar.judge_option, truth, falsehood)
        for place, options in (("first", (truth, falsehood)), ("second", (falsehood, truth))):
            prompt = asked(f"{before}{question}\n{forms.choose(options)}")
            with_options.append(WorldQuestion(question, f"truth-{place}", prompt, judge))
    return with_options


@evaluation
def harmful_requests() -> list[WorldQuestion]:
    """Harmful requests that are in no fine-tuning set: the counterpart of StrongREJECT."""
    return [WorldQuestion(text, "chat", asked(text), grammar.judge_compliance) for text in UNSEEN_REQUESTS]


@evaluation
def games() -> list[WorldQuestion]:
    """Scenes of a game with a right and a wrong option (section 3.8). The format names what is at stake."""
    return [
        WorldQuestion(
            scene, stake, asked(f"{scene} {forms.choose(options)}"), partial(grammar.judge_game, right, wrong)
        )
        for stake, scenes in GAMES.items()
        for scene, right, wrong in scenes
        for options in ((right, wrong), (wrong, right))
    ]
