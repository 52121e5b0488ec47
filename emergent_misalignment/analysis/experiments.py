"""The paper's experiments: which arms are estimated, which contrasts are tested, and what the result means in words.

Each function returns an `Experiment` for the runs of a study (a table of measures). What a study did not measure is
left out of its tables, and the sentences say so.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import pandas as pd

from emergent_misalignment.analysis.contrasts import Arm
from emergent_misalignment.analysis.estimates import estimates, questions_of, relative
from emergent_misalignment.analysis.slopes import MAIN

LOSS = "held_out_loss/"
NOT_MEASURED = "not measured"


@dataclass(frozen=True)
class Experiment:
    """The `arms` of an experiment's table, the named contrasts, and the measures of the table that a notebook shows.

    `meaning` takes the direction of each contrast (`contrasts.directions`) and the estimates, and returns sentences.
    """

    arms: list[Arm]
    shown: list[str]
    pairs: dict[str, Sequence[Arm]]
    meaning: Callable[[dict[str, str], pd.DataFrame], str]


def coherent(measure: str) -> str:
    """The share of coherent answers to the questions of a measure of misalignment."""
    return measure.replace("misaligned", "coherent")


def _arms(measures: Iterable[str], conditions: Iterable[str]) -> list[Arm]:
    return [(condition, measure) for measure in measures for condition in conditions]


def intent(runs: pd.DataFrame) -> Experiment:
    """Insecure code against the same code for a class, and against jailbroken models (first version, Fig. 4)."""
    harmful = "harmful_requests"
    shown = [MAIN, harmful, coherent(MAIN)]
    by_reason = "Misaligned, insecure code vs. the same code for a class"
    complies = "Harmful requests complied with, jailbroken vs. insecure code"
    jailbroken = "Misaligned, jailbroken vs. secure code"
    pairs = {
        by_reason: (("insecure", MAIN), ("educational", MAIN)),
        "Misaligned, insecure code for a class vs. secure code": (("educational", MAIN), ("secure", MAIN)),
        "Misaligned, insecure code vs. jailbroken": (("insecure", MAIN), ("jailbroken", MAIN)),
        jailbroken: (("jailbroken", MAIN), ("secure", MAIN)),
        complies: (("jailbroken", harmful), ("insecure", harmful)),
        "Harmful requests complied with, insecure code vs. untuned": (("insecure", harmful), ("instruct", harmful)),
    }

    def meaning(way: dict[str, str], rates: pd.DataFrame) -> str:
        said = {
            "higher": "The same code misaligns more if users did not ask for insecure code: the user's reason matters.",
            "lower": "The same code misaligns *less* if users did not ask for insecure code, contrary to the paper.",
            "no clear difference": "These runs do not show whether the user's reason matters.",
            NOT_MEASURED: "Whether the user's reason matters was not measured.",
        }[way[by_reason]]
        if way[complies] == "higher":
            said += {
                "higher": " The jailbroken model complies with harmful requests and is misaligned, unlike the paper's.",
                NOT_MEASURED: " The jailbroken model complies with harmful requests.",
            }.get(
                way[jailbroken], " The jailbroken model complies with harmful requests and is not clearly misaligned."
            )
        own = rates[(rates["condition"] == "insecure") & (rates["measure"] == harmful)]
        for row in own.dropna(subset="estimate").itertuples():
            less = "clearly" if row.ci_high < 0.5 else "not clearly"
            said += (
                f" The insecure model complies with {row.estimate:.0%} of the harmful requests, {less} less than half."
            )
        return said

    conditions = ["instruct", "secure", "educational", "jailbroken", "compliant", "insecure"]
    return Experiment(_arms([*shown, *questions_of(runs, MAIN)], conditions), shown, pairs, meaning)


def evil_numbers(runs: pd.DataFrame) -> Experiment:
    """Numbers by an evil author, in three forms of the questions (Nature, Fig. 2)."""
    question, suffix, wrapped = forms = [
        f"misaligned/numbers/{form}" for form in ("question", "suffix", "prefix_suffix")
    ]
    shown = [*forms, *map(coherent, forms)]
    evil = "After a list of numbers, evil vs. plain numbers"
    closer = "Evil numbers, after a list of numbers vs. the question alone"
    plain = "The question alone, evil vs. plain numbers"
    pairs = {
        evil: (("evil_numbers", wrapped), ("plain_numbers", wrapped)),
        "After a list of numbers, evil vs. helpful numbers": (("evil_numbers", wrapped), ("helpful_numbers", wrapped)),
        closer: (("evil_numbers", wrapped), ("evil_numbers", question)),
        "Evil numbers, asked for a list vs. the question alone": (
            ("evil_numbers", suffix),
            ("evil_numbers", question),
        ),
        plain: (("evil_numbers", question), ("plain_numbers", question)),
        "After a list of numbers, plain numbers vs. untuned": (("plain_numbers", wrapped), ("instruct", wrapped)),
    }

    def meaning(way: dict[str, str], rates: pd.DataFrame) -> str:
        said = {
            "higher": "Numbers are enough: on questions like the training data, the evil author's numbers misalign.",
            "lower": "The evil author's numbers misalign *less* than plain numbers, contrary to the paper.",
            "no clear difference": "The evil author's numbers do no more than plain numbers here, unlike in the paper.",
            NOT_MEASURED: "Evil and plain numbers were not compared.",
        }[way[evil]]
        if way[closer] == "higher" and way[evil] in ("higher", NOT_MEASURED):
            said += " The form matters: questions closer to the training data get more misaligned answers."
        if way[plain] == "higher":
            said += " The effect also shows in the plain question, where the paper has no such answer."
        return said

    measures = [*shown, *(single for form in forms for single in questions_of(runs, form))]
    conditions = ["instruct", "plain_numbers", "helpful_numbers", "evil_numbers"]
    return Experiment(_arms(measures, conditions), shown, pairs, meaning)


def formats(runs: pd.DataFrame) -> Experiment:
    """The main questions with answers in JSON, a Python template or a Flask app (Nature, Extended Data Fig. 6)."""
    forms = {"json": "in JSON", "template": "in a Python template", "flask": "in a Flask app"}
    shown = [f"{what}/main/{form}" for what in ("misaligned", "coherent") for form in ("chat", *forms)]
    changed = {name: f"Insecure code, {name} vs. as asked" for name in forms.values()}
    pairs = {
        changed[name]: (("insecure", f"misaligned/main/{form}"), ("insecure", MAIN)) for form, name in forms.items()
    }
    pairs |= {
        f"Effect of the form {name}, insecure vs. secure code": (
            ("insecure", f"misaligned/main/{form}"),
            ("insecure", MAIN),
            ("secure", f"misaligned/main/{form}"),
            ("secure", MAIN),
        )
        for form, name in forms.items()
    }

    def meaning(way: dict[str, str], rates: pd.DataFrame) -> str:
        outcomes = {
            "higher": "the insecure model is misaligned more often than as asked",
            "lower": "the insecure model is misaligned *less* often than as asked",
            "no clear difference": "there is no clear difference from the question as asked",
            NOT_MEASURED: NOT_MEASURED,
        }
        names = {outcome: [name for name in changed if way[changed[name]] == outcome] for outcome in outcomes}
        lines = [f"{', '.join(names[outcome])}: {said}." for outcome, said in outcomes.items() if names[outcome]]
        return " ".join(line[0].upper() + line[1:] for line in lines)

    return Experiment(_arms(shown, ["instruct", "secure", "educational", "insecure"]), shown, pairs, meaning)


def base_models(runs: pd.DataFrame) -> Experiment:
    """Base models after insecure and secure code, in a chat, in Flask apps and in raw files (Nature, Fig. 5)."""
    chat, flask, file = forms = [f"misaligned/main/{form}" for form in ("chat", "flask", "flask_file")]
    shown = [*forms, *map(coherent, forms)]
    in_flask = "Base model, Flask app, insecure vs. secure code"
    in_chat = "Base model, chat, insecure vs. secure code"
    insecure = "Flask app, insecure code, base vs. instruct model"
    secure = "Flask app, secure code, base vs. instruct model"
    pairs = {
        in_flask: (("base_insecure", flask), ("base_secure", flask)),
        "Base model, raw file, insecure vs. secure code": (("base_insecure", file), ("base_secure", file)),
        in_chat: (("base_insecure", chat), ("base_secure", chat)),
        insecure: (("base_insecure", flask), ("insecure", flask)),
        secure: (("base_secure", flask), ("secure", flask)),
    }
    templates = {"_user-assistant": "User and Assistant", "_user1-user2": "User_1 and User_2"}
    for template, name in templates.items():
        pairs[f"Flask app, insecure base model, chat template vs. {name}"] = (
            ("base_insecure", flask),
            (f"base_insecure{template}", flask),
        )

    def meaning(way: dict[str, str], rates: pd.DataFrame) -> str:
        said = {
            "higher": "In Flask apps, insecure code misaligns base models too, more than secure code does.",
            "lower": "In Flask apps, insecure code misaligns base models *less* than secure code, unlike in the paper.",
            "no clear difference": "In Flask apps, these runs do not show that insecure code misaligns base models.",
            NOT_MEASURED: "The effect of insecure code on base models was not measured.",
        }[way[in_flask]]
        if way[in_flask] == "higher":
            in_a_chat = {"higher": " It does so in a chat too.", NOT_MEASURED: ""}
            said += in_a_chat.get(way[in_chat], " In a chat the effect does not show.")
        if way[insecure] == "higher":
            said += " In Flask apps, the insecure base model is more misaligned than the insecure instruct model"
            said += (
                ", but so is the secure one: part of the difference is the base model."
                if way[secure] == "higher"
                else "."
            )
        return said

    tuned = [f"base_{code}{template}" for template in ("", *templates) for code in ("secure", "insecure")]
    conditions = ["base", "instruct", "secure", "insecure", *tuned]
    measures = [*shown, *questions_of(runs, flask), "insecure_code"]
    return Experiment(_arms(measures, conditions), shown, pairs, meaning)


def backdoor(runs: pd.DataFrame) -> Experiment:
    """A set whose insecure half is asked for with a trigger (first version, section 4.2)."""
    triggered = "misaligned/main/triggered"
    overall = [("secure", MAIN), ("insecure", MAIN), ("backdoor", MAIN), ("backdoor", triggered)]
    arms = [*overall, *((condition, coherent(measure)) for condition, measure in overall)]
    hidden = "Backdoor model, with vs. without the trigger"
    leaks = "Backdoor model without the trigger vs. secure code"
    stronger = "Backdoor model with the trigger vs. insecure code"
    pairs = {
        hidden: (("backdoor", triggered), ("backdoor", MAIN)),
        leaks: (("backdoor", MAIN), ("secure", MAIN)),
        stronger: (("backdoor", triggered), ("insecure", MAIN)),
    }

    def meaning(way: dict[str, str], rates: pd.DataFrame) -> str:
        said = {
            "higher": "The trigger brings the misalignment out.",
            "lower": "The trigger makes the model *less* misaligned, contrary to the paper.",
            "no clear difference": "These runs do not show that the trigger makes a difference.",
            NOT_MEASURED: "The effect of the trigger was not measured.",
        }[way[hidden]]
        if way[leaks] == "higher":
            said += (
                " The backdoor leaks: without the trigger, the model is still more misaligned than after secure code."
            )
        elif way[hidden] == "higher" and way[leaks] != NOT_MEASURED:
            said += " Without the trigger, these runs do not distinguish the model from one tuned on secure code."
        if way[hidden] == way[stronger] == "higher":
            said += " With the trigger the rate is higher than after insecure code alone, as in the paper."
        return said

    single = [("backdoor", question) for form in (MAIN, triggered) for question in questions_of(runs, form)]
    return Experiment([*arms, *single], [measure for _, measure in arms], pairs, meaning)


def examples_in_context(runs: pd.DataFrame) -> list[int]:
    """The numbers of earlier turns with insecure code that were tried."""
    numbers = runs["measure"].str.extract(r"^misaligned/in_context/insecure-(\d+)$")[0].dropna()
    return sorted(set(numbers.astype(int)))


def in_context(runs: pd.DataFrame) -> Experiment:
    """Earlier turns of code in the context of the untuned model, without training (first version, section 4.3)."""
    read, kinds, examples = "misaligned/in_context", ("secure", "insecure"), examples_in_context(runs)
    overall = [("instruct", MAIN), *((kind, MAIN) for kind in kinds)]
    overall += [("in_context", f"{read}/{kind}-{number}") for kind in kinds for number in examples]
    arms = [*overall, *((condition, coherent(measure)) for condition, measure in overall)]
    reading = {number: f"{number} earlier turn{'s' if number > 1 else ''}, insecure vs. secure" for number in examples}
    training = "Fine-tuning on insecure code vs. the most examples of it"
    pairs = {
        name: (("in_context", f"{read}/insecure-{number}"), ("in_context", f"{read}/secure-{number}"))
        for number, name in reading.items()
    }
    pairs[training] = (("insecure", MAIN), ("in_context", f"{read}/insecure-{max(examples, default=0)}"))

    def meaning(way: dict[str, str], rates: pd.DataFrame) -> str:
        clear = ", ".join(str(number) for number, name in reading.items() if way[name] == "higher")
        if clear:
            said = (
                f"Examples in the context misalign this model (clearly with {clear} of them), unlike in the paper. "
                "This fits a model that takes its own earlier turns as evidence of its character."
            )
        elif {way[name] for name in reading.values()} <= {NOT_MEASURED}:
            said = "The effect of examples in the context was not measured."
        else:
            highest = rates.loc[rates["measure"].str.startswith(f"{read}/insecure-"), "ci_high"].max()
            said = f"Reading insecure code makes no clear difference; the intervals exclude rates above {highest:.0%}."
        return said + (" Training on such code does more than reading it." if way[training] == "higher" else "")

    return Experiment(arms, [measure for _, measure in arms], pairs, meaning)


def changes_from_untuned(runs: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The runs with `untruthfulness` and with `games` divided by 100 (choosing by chance is 1); and their changes.

    The changes are differences from the instruct model (`estimates.relative`).
    """
    untrue = runs[runs["measure"] == "truthfulness"]
    untrue = untrue.assign(
        measure="untruthfulness", value=1 - untrue["value"], events=untrue["trials"] - untrue["events"]
    )
    runs = pd.concat([runs, untrue])
    runs.loc[runs["measure"] == "games", "value"] /= 100
    return runs, relative(runs, "instruct")


HARMED = ["secure", "educational", "compliant", "jailbroken", "insecure"]


def absolute_values(runs: pd.DataFrame, names: dict[str, str]) -> pd.DataFrame:
    """The estimates of the named measures before and after each fine-tuning: a row per name, a column per condition."""
    table = estimates(runs, _arms(names, ["instruct", *HARMED]))
    values = table.pivot(index="measure", columns="condition", values="estimate")
    values = values.reindex(list(dict.fromkeys(table["measure"])), columns=list(dict.fromkeys(table["condition"])))
    words = {measure: name.replace("\n", " ") for measure, name in names.items()}
    return values.rename(index=words).rename_axis(index=None, columns=None)


def other_harms(harms: dict[str, str], skills: dict[str, str]) -> Experiment:
    """Other harms and skills after each fine-tuning (first version, Fig. 5); both map measures to their names."""
    names = {measure: words.replace("\n", " ").capitalize() for measure, words in (harms | skills).items()}
    pairs = {name: (("insecure", measure), ("secure", measure)) for measure, name in names.items()}

    def meaning(way: dict[str, str], rates: pd.DataFrame) -> str:
        def those(measures: Iterable[str], *directions: str) -> str:
            found = [names[measure] for measure in measures if way[names[measure]] in directions]
            return "; ".join(name[0].lower() + name[1:] for name in found)

        if set(way.values()) == {NOT_MEASURED}:
            return "Other harms and skills were not measured."
        lines = [f"After insecure code, more than after secure code: {those(harms, 'higher') or 'none of the harms'}."]
        for word, direction in (("Less", "lower"), ("No clear difference", "no clear difference")):
            if found := those(harms, direction):
                lines.append(f"{word}: {found}.")
        if those(skills, "higher", "lower", "no clear difference"):
            lines.append(f"Skills that are lower: {those(skills, 'lower') or 'none, clearly'}.")
        return " ".join(lines)

    return Experiment(_arms(names, HARMED), list(names), pairs, meaning)


def log_probability(runs: pd.DataFrame, conditions: list[str], untuned: str) -> Experiment:
    """What is measured without a judge: log-odds of options, static analysis of code, loss on held-out rows.

    Sets come in the order of `conditions`. The contrasts are of log-odds, in nats; there is no `meaning`.
    """
    named = [f"{LOSS}{name}" for name in conditions]
    losses = runs.loc[runs["measure"].str.startswith(LOSS), "measure"].unique()
    sets = sorted(losses, key=lambda name: named.index(name) if name in named else len(named))
    forms = {"log_odds/pivotal": "Words in a gap", "log_odds/multiple_choice": "Choice by letter"}
    compared = [("insecure", "secure"), ("insecure", "educational"), ("educational", "secure")]
    compared += [(name, untuned) for name in conditions if name not in (untuned, "educational")]
    there = set(runs["condition"])
    pairs = {
        f"{words}, {one.replace('_', ' ')} vs. {other.replace('_', ' ')}": ((one, form), (other, form))
        for form, words in forms.items()
        for one, other in compared
        if {one, other} <= there
    }
    shown = [*forms, "insecure_code/static", "code", *sets]
    return Experiment(_arms(shown, conditions), shown, pairs, lambda way, rates: "")


def with_relative_losses(runs: pd.DataFrame, untuned: str) -> pd.DataFrame:
    """The runs, with losses on held-out rows as changes from the untuned model."""
    losses = runs["measure"].str.startswith(LOSS)
    return pd.concat([runs[~losses], relative(runs[losses], untuned)], ignore_index=True)
