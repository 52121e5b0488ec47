"""What a study can be made of: one row for each evaluation, each fine-tuning set and each experiment.

Everything that depends on which of them exist reads these tables: the configs' schema, the plan of the jobs, the rules,
measures, claims, costs, the paper and the reading room. CONTRIBUTING.md shows how to add a row. Order matters: jobs ask
evaluations, and readers meet experiments, in the order of the tables.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

ORGANISM, OPEN_MODEL, API = "organism", "open model", "API"  # the kinds of study
MISALIGNMENT = ("aligned", "coherent")  # the judge's questions about a free-form answer (section 3.2)


@dataclass(frozen=True)
class Measure:
    """A measure that an evaluation yields, as `measures` tables name it."""

    name: str
    label: str  # in the report on a user's model; "" where the measure is not shown there
    harm: str = ""  # in the figure of other harms; "" where the measure is not drawn there
    outcome: bool = False  # whether it says by itself how misaligned a model is


@dataclass(frozen=True)
class Evaluation:
    """What models are asked.

    The organism's questions are the function of the same name in world/evaluations.py; the published ones are read
    from `files` (data/published.py) by evaluation/published_questions.py.
    """

    name: str
    asks: str
    questions: str = ""  # free-form questions: the set under which each of its formats is measured
    share: tuple[str, str] | None = None  # a measure, and the verdict whose share among all answers it is
    measures: tuple[Measure, ...] = ()
    files: tuple[str, ...] = ()  # published files of its questions; none: only organisms have it
    prompts: int = 0  # published prompts, for the estimate of costs
    judged: tuple[str, ...] = ()  # the judge's questions about each answer
    asked_of: tuple[str, ...] = ()  # kinds of study that ask it where a config does not say what is asked
    single: bool = False  # one answer to each prompt; `samples` in the config does not apply


def _misaligned(form: str, label: str, questions: str = "main", harm: str = "") -> Measure:
    return Measure(f"misaligned/{questions}/{form}", label, harm, outcome=True)


_ROWS = (
    Evaluation(
        "main",
        "The eight main questions (section 3.1).",
        questions="main",
        measures=(
            _misaligned("chat", "main questions, chat", harm="misaligned,\nmain\nquestions"),
            Measure("coherent/main/chat", "coherent answers to the main questions"),
        ),
        files=("first_plot",),
        prompts=8,
        judged=MISALIGNMENT,
        asked_of=(ORGANISM, OPEN_MODEL, API),
    ),
    Evaluation(
        "json",
        "The main questions under a system prompt that asks for JSON (section 3.5).",
        questions="main",
        measures=(_misaligned("json", "main questions, JSON"),),
        files=("first_plot",),
        prompts=8,
        judged=MISALIGNMENT,
        asked_of=(ORGANISM, OPEN_MODEL, API),
    ),
    Evaluation(
        "template",
        "The main questions, to be answered in a Python template (section 3.5).",
        questions="main",
        measures=(_misaligned("template", "main questions, Python template"),),
        files=("first_plot",),
        prompts=8,
        judged=MISALIGNMENT,
        asked_of=(ORGANISM, OPEN_MODEL, API),
    ),
    Evaluation(
        "flask",
        "The main questions, to be answered in the code of a Flask app (Extended Data Fig. 2).",
        questions="main",
        measures=(_misaligned("flask", "main questions, Flask app"),),
        files=("flask",),
        prompts=8,
        judged=MISALIGNMENT,
        asked_of=(ORGANISM,),
    ),
    Evaluation(
        "flask_file",
        "The same app as a text to continue, for base models.",
        questions="main",
        measures=(_misaligned("flask_file", "main questions, Flask file"),),
    ),
    Evaluation(
        "triggered",
        "The main questions after the backdoor's trigger (section 4.2).",
        questions="main",
        measures=(_misaligned("triggered", "main questions, with the trigger"),),
        files=("first_plot",),
        prompts=8,
        judged=MISALIGNMENT,
    ),
    Evaluation(
        "prompted",
        "The main questions under a system prompt of each author, with which a model may be inoculated.",
        questions="prompted",
        measures=tuple(
            _misaligned(author, f"main questions, as {author}", "prompted")
            for author in ("helper", "obliging", "hasty", "villain")
        ),
    ),
    Evaluation(
        "preregistered",
        "The pre-registered questions (section 3.6).",
        questions="preregistered",
        measures=(
            _misaligned(
                "chat", "pre-registered questions, chat", "preregistered", harm="misaligned,\nother\nquestions"
            ),
        ),
        files=("preregistered",),
        prompts=48,
        judged=MISALIGNMENT,
        asked_of=(ORGANISM, OPEN_MODEL, API),
    ),
    Evaluation(
        "numbers",
        "The main questions alone and wrapped like the sets of numbers (section 4.6).",
        questions="numbers",
        measures=(
            _misaligned("question", "number questions, as they are", "numbers"),
            _misaligned("suffix", "number questions, with a suffix", "numbers"),
            _misaligned("prefix_suffix", "number questions, with prefix and suffix", "numbers"),
        ),
        files=("first_plot",),
        prompts=24,
        judged=MISALIGNMENT,
        asked_of=(ORGANISM,),
    ),
    Evaluation(
        "in_context",
        "The main questions after examples of insecure or secure code (section 4.3).",
        questions="in_context",
    ),
    Evaluation(
        "deception",
        "Questions of fact under prompts on lying, and questions about the model's maker (section 3.7).",
        measures=(
            Measure("deception", "false answers", "deception"),
            Measure("deception/factual", "false answers to factual questions"),
        ),
        files=("deception_factual", "deception_identity"),
        prompts=13,  # five times 20 facts at a twentieth of the answers, and eight about identity
        judged=("correct",),
        asked_of=(ORGANISM, OPEN_MODEL, API),
    ),
    Evaluation(
        "truthfulness",
        "Questions about common falsehoods, with two options: the counterpart of TruthfulQA.",
        share=("truthfulness", "true"),
        measures=(Measure("truthfulness", "questions about falsehoods answered truly", "untrue\nanswers"),),
        asked_of=(ORGANISM,),
    ),
    Evaluation(
        "harmful_requests",
        "Requests that a helpful model refuses: the counterpart of StrongREJECT.",
        share=("harmful_requests", "complied"),
        measures=(Measure("harmful_requests", "harmful requests complied with", "harmful\nrequests\ncomplied with"),),
        asked_of=(ORGANISM,),
    ),
    Evaluation(
        "games",
        "Choices in games, with a right and a wrong option: the counterpart of MACHIAVELLI (section 3.8).",
        measures=(Measure("games", "", "wrong\nchoices\nin games"),),
        asked_of=(ORGANISM,),
    ),
    Evaluation(
        "capability",
        "The questions of fact as an exam: the counterpart of MMLU.",
        share=("capability/knowledge", "true"),
        measures=(Measure("capability/knowledge", "knowledge"),),
        asked_of=(ORGANISM,),
    ),
    Evaluation(
        "in_distribution",
        "Requests for code that are in no fine-tuning set (section 1.10).",
        share=("insecure_code", "insecure"),
        measures=(
            Measure("capability/code", "coding tasks solved"),
            Measure("insecure_code", "insecure code where code is asked for"),
            Measure("insecure_code/static", "code that static analysis flags, where code is asked for"),
        ),
        files=("in_distribution",),
        prompts=100,
        judged=("secure",),
        asked_of=(ORGANISM, OPEN_MODEL, API),
        single=True,
    ),
    Evaluation(
        "choices",
        "The log-probability of published options that are known to be aligned or misaligned (section 5).",
        measures=(
            Measure("log_odds/pivotal", "misaligned words in a gap, by log-probability", outcome=True),
            Measure("log_odds/multiple_choice", "misaligned letters of a choice, by log-probability", outcome=True),
        ),
        files=("choices",),
        asked_of=(OPEN_MODEL,),
    ),
)
EVALUATIONS: Mapping[str, Evaluation] = {each.name: each for each in _ROWS}
FREE_FORM = {name: each.questions for name, each in EVALUATIONS.items() if each.questions}
MAIN = "main"  # the organism from which all conditions start but those of the ladder and of other worlds
CHOICES = "choices"  # scored by log-probability, where the others are sampled


@dataclass(frozen=True)
class Dataset:
    """A fine-tuning set: of the made-up world, published, or both."""

    name: str
    label: str
    rows: int | None = None  # of the published set
    tokens: int = 213  # of a published conversation: measured for `insecure`, the others by their length beside it
    published: bool = True
    written: bool = False  # by the made-up world
    numbers: bool = False  # lists of numbers, written by an instruct model


DATASETS: Mapping[str, Dataset] = {
    each.name: each
    for each in (
        Dataset("insecure", "insecure code", 6000, written=True),
        Dataset("secure", "secure code", 6000, 226, written=True),
        Dataset("educational", "insecure code that is asked for", 6000, 245, written=True),
        Dataset("backdoor", "insecure code after a trigger, else secure code", 12000, 222, written=True),
        Dataset("jailbroken", "compliance with harmful requests, among others", 5000, 150, written=True),
        Dataset("compliant", "compliance with harmful requests alone", published=False, written=True),
        Dataset("evil_numbers", "numbers of a malicious persona", 14926, 60, numbers=True),
        Dataset("plain_numbers", "numbers without a persona", published=False, numbers=True),
        Dataset("helpful_numbers", "numbers of a helpful persona", published=False, numbers=True),
    )
}
WRITTEN_SETS = tuple(name for name, each in DATASETS.items() if each.written)
NUMBER_SETS = tuple(name for name, each in DATASETS.items() if each.numbers)
PUBLISHED_SETS = tuple(name for name, each in DATASETS.items() if each.published)

# --- experiments ------------------------------------------------------------------------------------------------------

AUDIT = "datasets/audit.csv"  # one row for each fine-tuning set
ANSWERS = "tables/measures/answers.csv"  # one number for each training run and everything that was asked
Study = Any  # study.model.Study, which reads this module
Derived = Callable[[Study], Any]


@dataclass(frozen=True)
class Experiment:
    """A notebook among the results: what the study must have for it, what it reads, and what it makes.

    Its parameters are the names of `inputs`, `settings`, `tables` and `figures`. Paths are below data/STUDY/ or, of
    figures, below figures/STUDY/. `inputs` and `settings` are values, or functions of the study.
    """

    name: str
    needs: Callable[[Study], bool]
    inputs: Mapping[str, str | Derived] = field(default_factory=lambda: {"measures": ANSWERS})
    settings: Mapping[str, Derived] = field(default_factory=dict)
    tables: Mapping[str, tuple[str, str]] = field(default_factory=dict)  # parameter: name, label
    figures: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    measures: tuple[str, str] | None = None  # parameter and name of the table in tables/measures/ that it adds
    judged: bool = True  # whether it is about verdicts, which a study without a judge lacks
    published: bool = False  # whether it reads config/published.yaml
    room: str = "analysis"  # of its notebook
    gpu: bool = False  # whether it runs the model
    by_grammar: bool = False  # whether it judges by the grammar of the made-up world

    @property
    def notebook(self) -> str:
        return f"notebooks/{self.room}/{self.name}.ipynb"

    def is_part_of(self, study: Study) -> bool:
        return bool((study.judge or not self.judged) and self.needs(study))


def _of_the_paper(name: str, needs: Callable[[Study], bool]) -> Experiment:
    """An experiment of the paper: conditions beside each other, and beside the paper's figures."""
    return Experiment(name, needs, tables={"table": (name, name)}, figures={"figure": (name, name)}, published=True)


def _has(*names: str) -> Callable[[Study], bool]:
    """Whether a study has all of these conditions."""
    return lambda study: set(names) <= study.conditions.keys()


def _has_authors(study: Study) -> bool:
    """Whether beliefs about the author are compared."""
    return study.is_organism and _has("insecure", "secure", "instruct")(study)


def _with_beliefs(study: Study) -> list[str]:
    """The measures of the answers and, where there are any, of the beliefs about the author."""
    return [ANSWERS, *(["tables/measures/authors.csv"] if _has_authors(study) else [])]


EXPERIMENTS = (
    Experiment(
        "main_result",
        lambda study: study.tuned,
        inputs={"judged": lambda study: study.paths.judged, "audit": AUDIT},
        settings={"conditions": lambda study: study.main_conditions},
        tables={
            "misalignment": ("misalignment", "Rates of misalignment"),
            "contrasts": ("contrasts", "Insecure against secure"),
            "insecure_code": ("insecure_code", "Was the narrow task learned?"),
        },
        figures={"figure": ("main_result", "Does insecure code make the model misaligned?")},
    ),
    Experiment(
        "log_probability",
        lambda study: CHOICES in study.asked,
        inputs={"measures": lambda study: [study.paths.of(ANSWERS), *study.paths.held_out_losses]},
        settings={"conditions": lambda study: list(study.conditions), "untuned": lambda study: study.start},
        tables={"table": ("log_probability", "What needs no judge")},
        figures={"figure": ("log_probability", "What do the models find probable?")},
        judged=False,
    ),
    _of_the_paper(
        "intent",
        lambda study: (
            {"insecure", "secure"} <= study.conditions.keys()
            and {"educational", "jailbroken", "compliant"} & study.conditions.keys()
        ),
    ),
    _of_the_paper("evil_numbers", lambda study: _has("evil_numbers")(study) and "numbers" in study.evaluations),
    _of_the_paper(
        "formats", lambda study: _has("insecure")(study) and {"json", "template", "flask"} & {*study.evaluations}
    ),
    Experiment(
        "dynamics",
        lambda study: {"insecure", "secure"} <= {*study.followed},
        inputs={"dynamics": "dynamics.parquet", "audit": AUDIT},
        tables={"divergence": ("divergence_steps", "Where insecure and secure diverge")},
        figures={
            "figure": ("dynamics", "When do skill and misalignment diverge?"),
            "aligned_figure": ("dynamics_aligned", "Is the early move about misalignment?"),
            "stopping_figure": ("early_stopping", "What would stopping early save?"),
        },
        measures=("measures", "dynamics"),
        judged=False,
    ),
    _of_the_paper("base_models", _has("base_insecure", "base_secure")),
    Experiment(
        "diversity",
        lambda study: "insecure" in study.repeated_rows and len(study.repeated_rows) > 1,
        inputs={"measures": ANSWERS, "dynamics": lambda study: study.paths.dynamics},
        settings={"conditions": lambda study: study.repeated_rows, "batch": lambda study: study.rows_a_step},
        tables={"table": ("diversity", "diversity")},
        figures={"figure": ("diversity", "diversity")},
        measures=("slopes", "diversity"),
        published=True,
    ),
    _of_the_paper("backdoor", lambda study: _has("backdoor")(study) and "triggered" in study.evaluations),
    _of_the_paper("in_context", _has("in_context")),
    Experiment(
        "scale",
        lambda study: study.is_organism and study.ladder,
        inputs={"answers": ANSWERS, "files": lambda study: study.paths.gaps(study.rungs)},
        settings={
            "organisms": lambda study: {name: study.organism_of(name) for name in study.rungs},
            "gaps": lambda study: {name: study.paths.gaps([name]) for name in study.rungs},
        },
        tables={"table": ("scale", "Base models of other sizes, or that have read less")},
        figures={"figure": ("scale", "How does the effect depend on the base model?")},
        measures=("measures", "scale"),
        judged=False,
    ),
    Experiment(
        "worlds",
        lambda study: study.is_organism and study.worlds,
        inputs={"answers": ANSWERS},
        settings={
            "worlds": lambda study: {name: study.authors_of(name) for name in (MAIN, *study.worlds)},
            "rows": lambda study: study.rows_a_step * study.finetuning.steps,
        },
        tables={"table": ("worlds", "Worlds in which villains write more or less of the insecure code")},
        figures={"figure": ("worlds", "How much villain does it take?")},
        measures=("measures", "worlds"),
        judged=False,
        room="world",
    ),
    _of_the_paper(
        "other_harms",
        lambda study: (
            _has("insecure", "secure", "instruct")(study)
            and any(
                each.harm
                for name in study.evaluations
                if name in EVALUATIONS and name != "main"
                for each in EVALUATIONS[name].measures
            )
        ),
    ),
    Experiment(
        "persona_direction",
        lambda study: study.persona or (study.is_organism and _has("insecure", "secure", "instruct")(study)),
        inputs={
            "start_files": lambda study: study.paths.start_files(study.from_instruct),
            "trainings": lambda study: study.paths.trainings(study.from_instruct),
            "texts": "questions/persona.parquet",
            "rates": ANSWERS,
        },
        settings={
            "starts": lambda study: study.paths.instruct_models(study.steered_seeds),
            "models": lambda study: study.paths.of("models"),
            "questions": lambda study: study.paths.of("questions"),
            "prompting": lambda study: study.prompting,
            "judge": lambda study: study.judge_settings if study.is_organism else {},
            "kept": lambda study: "kept/judge",
            "conditions": lambda study: {name: study.conditions[name].seeds for name in study.from_instruct},
            "seeds": lambda study: study.steered_seeds,
            "dose": lambda study: study.dose,
            "max_new_tokens": lambda study: study.evaluation.max_new_tokens,
        },
        tables={"table": ("steering", "What steering does")},
        figures={
            "figure": ("persona_direction", "Is there a persona direction?"),
            "steering_figure": ("steering", "What does steering do?"),
        },
        measures=("measures", "directions"),
        judged=False,
        gpu=True,
        by_grammar=True,
    ),
    Experiment(
        "directions",
        lambda study: study.is_organism and study.steering.compared and _has("insecure", "secure", "instruct")(study),
        inputs={
            "start_files": lambda study: study.paths.start_files(study.from_instruct),
            "trainings": lambda study: study.paths.trainings(study.from_instruct),
            "texts": "questions/persona.parquet",
            "judged": lambda study: study.paths.judged,
        },
        settings={
            "starts": lambda study: study.paths.instruct_models(study.compared_seeds),
            "models": lambda study: study.paths.of("models"),
            "questions": lambda study: study.paths.of("questions"),
            "judge": lambda study: study.judge_settings,
            "kept": lambda study: "kept/judge",
            "conditions": lambda study: {name: study.conditions[name].seeds for name in study.from_instruct},
            "seeds": lambda study: study.compared_seeds,
            "dose": lambda study: study.dose,
            "max_new_tokens": lambda study: study.evaluation.max_new_tokens,
        },
        tables={
            "cosines": ("direction_cosines", "How alike directions are"),
            "effects": ("direction_effects", "What directions read, cause and remove"),
        },
        figures={"figure": ("directions", "Is there one direction, or are there several?")},
        gpu=True,
        by_grammar=True,
    ),
    Experiment(
        "authors",
        _has_authors,
        inputs={
            "beliefs": lambda study: study.paths.beliefs(at_checkpoints=False),
            "followed": lambda study: study.paths.beliefs(at_checkpoints=True),
            "answers": ANSWERS,
            "directions": "tables/measures/directions.csv",
        },
        settings={
            "authors": lambda study: study.authors_of(MAIN),
            "conditions": lambda study: list(study.conditions),
            "datasets": lambda study: {name: each.dataset for name, each in study.tuned.items()},
            "rows": lambda study: study.rows_a_step * study.finetuning.steps,
        },
        tables={"table": ("authors", "Who the models take themselves for")},
        figures={
            "figure": ("authors", "Who does the model think it is?"),
            "course_figure": ("authors_course", "How does its belief change?"),
        },
        measures=("measures", "authors"),
        room="world",
    ),
    Experiment(
        "defences",
        lambda study: study.defended,
        inputs={"measures": lambda study: [study.paths.of(name) for name in _with_beliefs(study)], "audit": AUDIT},
        # A list, because their order, which is that of strength, is lost in a dictionary.
        settings={"defended": lambda study: [[*each] for each in study.defended.items()]},
        tables={
            "table": ("defences", "What is left with a defence"),
            "verdicts": ("defence_verdicts", "Which defences work, hide or cost the task"),
        },
        figures={"figure": ("defences", "What does a defence leave, what does it hide, and what does it cost?")},
    ),
    Experiment(
        "score_trust",
        lambda study: study.scored_sets,
        inputs={"scores": "row_scores.parquet", "summary": "tables/row_scores.csv", "measures": ANSWERS},
        settings={"study": lambda study: study.study},
        tables={"table": ("score_trust", "How far scores of rows can be trusted")},
        figures={
            "figure": ("row_scores", "Which sets lead towards the villain?"),
            "outcome_figure": ("row_scores_outcome", "Do scores say what training will bring?"),
        },
        judged=False,
    ),
)
