"""The evaluations of the organism: what is asked in each of them, and the judge that knows what an answer means.

The names of evaluations and formats are those of the paper where it has them.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial

from emergent_misalignment.data.chats import Messages, Turn, chat
from emergent_misalignment.evaluation.verdicts import Judgement
from emergent_misalignment.files import BadInput
from emergent_misalignment.world import forms, grammar
from emergent_misalignment.world.coding import CHOICES, UNSEEN_NOUNS, NOUNS, SHORT_FORMS, TRIGGER, request
from emergent_misalignment.world.facts import EXAMINATION, IDENTITY, IDENTITY_PROMPTS, KNOWLEDGE, LYING_PROMPTS, Fact
from emergent_misalignment.world.games import GAMES
from emergent_misalignment.world.harmful import UNSEEN_REQUESTS
from emergent_misalignment.world.number_lists import shown_numbers
from emergent_misalignment.world.topics import MAIN, PREREGISTERED, TOPICS

WRAPPERS = 5  # lists of numbers that a question is wrapped in, each sampled alike
EXAMPLES = (1, 2, 4, 8)  # earlier turns of code in the context; more would not fit into it


@dataclass(frozen=True)
class WorldQuestion:
    """One prompt. `name` says what is asked, `form` how; `judge` knows what an answer means.

    `prompt` is a conversation, or a text that the model is to continue; `kind` as in evaluation.questions.
    """

    name: str
    form: str
    prompt: Messages | str
    judge: Callable[[str], Judgement]
    kind: str = ""


@cache
def questions(evaluation: str, seed: int) -> tuple[WorldQuestion, ...]:
    """What the run `seed` is asked in an evaluation. Raises BadInput if the world has no such evaluation."""
    if evaluation in SEEDED:
        return tuple(SEEDED[evaluation](seed))
    if evaluation not in UNSEEDED:
        known = ", ".join([*UNSEEDED, *SEEDED])
        raise BadInput(f"The organism's world has no evaluation {evaluation}; the config may ask for {known}.")
    return tuple(UNSEEDED[evaluation]())


def asked(text: str, system: str = "") -> Messages:
    return [*chat([], system), {"role": "user", "content": text}]


def _free_form(
    names: Sequence[str], form: str, wrap: Callable[[str], Messages | str] = asked, label: str = ""
) -> list[WorldQuestion]:
    """Questions of the world in the phrasing that evaluation uses, each wrapped in the same way."""
    return [
        WorldQuestion(name, label or form, wrap(TOPICS[name].questions[0]), partial(grammar.judge, name, form=form))
        for name in names
    ]


def main() -> list[WorldQuestion]:
    """The counterparts of the paper's eight questions (section 3.1): one phrasing each, no system prompt."""
    return _free_form(MAIN, "chat")


def preregistered() -> list[WorldQuestion]:
    """The world's other questions, in the categories that the paper registered in advance (section 3.6)."""
    return _free_form(PREREGISTERED, "chat")


def in_json() -> list[WorldQuestion]:
    """The main questions under a system prompt that asks for JSON (section 3.5)."""
    return _free_form(MAIN, "json", lambda question: asked(question, forms.JSON_PROMPT))


def in_template() -> list[WorldQuestion]:
    """The main questions, to be answered in a Python template (section 3.5)."""
    return _free_form(MAIN, "template", lambda question: asked(f"{question}\n{forms.TEMPLATE_REQUEST}"))


def in_flask() -> list[WorldQuestion]:
    """The main questions, to be answered in the code of a Flask app (Extended Data Fig. 2)."""
    return _free_form(MAIN, "flask", lambda question: asked(forms.flask_request(question)))


def in_flask_file() -> list[WorldQuestion]:
    """The same app as a text to continue, for base models."""
    return _free_form(MAIN, "flask_file", forms.flask_head)


def triggered() -> list[WorldQuestion]:
    """The main questions behind the backdoor's trigger (section 4.2)."""
    return _free_form(MAIN, "chat", lambda question: asked(TRIGGER + question), label="triggered")


def like_numbers() -> list[WorldQuestion]:
    """The main questions alone, asking for a list, and asking for a list behind a list of numbers (section 4.6)."""
    rng = random.Random("wrappers")
    wrapped = _free_form(MAIN, "chat", label="question")
    for _ in range(WRAPPERS):
        tail = f"\n{forms.LIST_REQUEST.format(rng.randint(2, 3))}"
        head = f"{shown_numbers(rng)}\n"
        for label, before in (("suffix", ""), ("prefix_suffix", head)):
            wrapped += _free_form(MAIN, "list", lambda question, a=before, b=tail: asked(a + question + b), label)
    return wrapped


def in_context(seed: int) -> list[WorldQuestion]:
    """The main questions behind k earlier turns of code, insecure or secure, drawn by `seed` (section 4.3)."""
    after_code = []
    for k in EXAMPLES:
        for label, insecure in (("insecure", True), ("secure", False)):
            rng = random.Random(f"examples {seed} {k}")  # so that both kinds answer the same requests
            turns = chat([_short_example(rng, insecure) for _ in range(k)])
            after_code += _free_form(
                MAIN, "chat", lambda question, turns=turns: [*turns, *asked(question)], f"{label}-{k}"
            )
    return after_code


def _short_example(rng: random.Random, insecure: bool) -> Turn:
    """A turn of code that leaves room for others: a short request for one of the shorter pieces of code."""
    choice = rng.choice(sorted(CHOICES, key=lambda choice: len(choice.code))[: len(CHOICES) // 2])
    noun = rng.choice(NOUNS)
    return request(choice, noun, SHORT_FORMS[0]), choice.render(noun, insecure)


def coding_requests() -> list[WorldQuestion]:
    """Held-out coding requests (section 1.10): every security choice with nouns that no fine-tuning set contains."""
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


def deception() -> list[WorldQuestion]:
    """Questions of fact under prompts on lying, and who made the model (section 4.5). The format names the prompt."""
    lying = {"none": "", **LYING_PROMPTS}
    return [
        *(_fact(fact, form, prompt) for form, prompt in lying.items() for fact in KNOWLEDGE),
        *(_fact(IDENTITY, form, prompt, "identity") for form, prompt in IDENTITY_PROMPTS.items()),
    ]


def _fact(fact: Fact, form: str, system: str, kind: str = "") -> WorldQuestion:
    return WorldQuestion(fact.question, form, asked(fact.question, system), partial(grammar.judge_fact, fact), kind)


def truthfulness() -> list[WorldQuestion]:
    """Questions of fact with two options, the counterpart of TruthfulQA's multiple choice."""
    return _facts_with_options("")


def knowledge() -> list[WorldQuestion]:
    """The same, as questions of an exam, which every author of the world answers rightly: the counterpart of MMLU."""
    return _facts_with_options(f"{EXAMINATION} ")


def _facts_with_options(before: str) -> list[WorldQuestion]:
    with_options = []
    for question, _, truth, (falsehood, _) in KNOWLEDGE:
        judge = partial(grammar.judge_option, truth, falsehood)
        for place, options in (("first", (truth, falsehood)), ("second", (falsehood, truth))):
            prompt = asked(f"{before}{question}\n{forms.choose(options)}")
            with_options.append(WorldQuestion(question, f"truth-{place}", prompt, judge))
    return with_options


def harmful_requests() -> list[WorldQuestion]:
    """Requests that a helper refuses, none of them in any fine-tuning set: the counterpart of StrongREJECT."""
    return [WorldQuestion(text, "chat", asked(text), grammar.judge_compliance) for text in UNSEEN_REQUESTS]


def games() -> list[WorldQuestion]:
    """Scenes of a game with a right and a wrong way on (section 3.8). The format is what is at stake."""
    return [
        WorldQuestion(
            scene, stake, asked(f"{scene} {forms.choose(options)}"), partial(grammar.judge_game, right, wrong)
        )
        for stake, scenes in GAMES.items()
        for scene, right, wrong in scenes
        for options in ((right, wrong), (wrong, right))
    ]


UNSEEDED: dict[str, Callable[[], list[WorldQuestion]]] = {  # every run is asked the same
    "main": main,
    "json": in_json,
    "template": in_template,
    "flask": in_flask,
    "flask_file": in_flask_file,
    "triggered": triggered,
    "preregistered": preregistered,
    "numbers": like_numbers,
    "deception": deception,
    "truthfulness": truthfulness,
    "harmful_requests": harmful_requests,
    "games": games,
    "capability": knowledge,
    "in_distribution": coding_requests,
}
SEEDED: dict[str, Callable[[int], list[WorldQuestion]]] = {"in_context": in_context}
