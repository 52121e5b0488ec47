"""A study: what its config may say, and what follows from it.

One YAML file describes a study. It is validated here once; config/schema.json, which editors read, is made from these
classes by `make schema`. There are three kinds: of organisms, which the workflow trains itself; of an open model; and
of a model that is reached through an API. A study is written to data/STUDY/study.json, where the paper and the pages read it.

A seed of an organism study is an organism of its own: its corpus, base model and instruct model, and what is fine-tuned
from them. A published model is the same for all seeds, and is asked once where it is not fine-tuned. An *existing*
model, fine-tuned before the study, is one model too: it has one seed and is no sample of trainings.
"""

import math
from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property
from os.path import expanduser
from pathlib import PurePath
from typing import Annotated, ClassVar

from pydantic import AfterValidator, Field, model_validator

from emergent_misalignment import registry
from emergent_misalignment.evaluation.thresholds import MINIMUM_ANSWERS
from emergent_misalignment.files import shortened
from emergent_misalignment.registry import (
    CHOICES,
    DATASETS,
    EVALUATIONS,
    MAIN,
    NUMBER_SETS,
    PUBLISHED_SETS,
    WRITTEN_SETS,
)
from emergent_misalignment.study.batches import Batches
from emergent_misalignment.study.errors import unknown
from emergent_misalignment.study.paths import Paths
from emergent_misalignment.study.sections import (
    OWN_QUESTIONS,
    Address,
    AskedJudge,
    Author,
    Benchmarks,
    ConditionSettings,
    Count,
    Dynamics,
    EvaluationSettings,
    ExperimentName,
    ExperimentSettings,
    Finetuning,
    Gate,
    Grammar,
    Instruct,
    JudgeModel,
    Model,
    OpenAI,
    OtherAuthor,
    OtherShape,
    PersonaDirection,
    Pretraining,
    PublishedSet,
    RungName,
    ScoredAnswers,
    SecondJudge,
    Section,
    Shape,
    Steering,
    StudyName,
    World,
    WrittenSets,
    _text,
    _unique,
)

VARIED = ("insecure", "secure")  # what is fine-tuned from the organisms of the ladder and of other worlds
UNTUNED = ("instruct", "base", "in_context")  # what claims, figures and folders call models before fine-tuning
UNTUNED_SEED = 0
FOLLOWING = "following-"  # before a condition's name: the answers at its checkpoints
SHARED_FOLDERS = ("published", "judge")  # data/published and kept/judge
OWN_SET = ".jsonl"
BY_API = ("epochs", "batch_size", "learning_rate_multiplier")


# --- studies ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Condition:
    """One condition of a study: how a model is fine-tuned, if at all, and what it is asked."""

    name: str
    experiment: str
    evaluations: tuple[str, ...]
    seeds: tuple[int, ...]
    start: str  # "instruct" or "base"
    dataset: str = ""  # none of an untuned or an existing model
    organism: str = MAIN
    template: str = "chat"
    rows: int = 0  # this many rows, drawn by the seed; 0 takes all
    checkpoints: tuple[int, ...] = ()
    finetuning: dict = field(default_factory=dict)  # settings that differ from the study's
    adapter: str = ""  # existing: a folder or a name on the hub, of the study's model
    model: str = ""  # existing, whole: as the config's `model: name`
    revision: str = ""  # of an existing adapter or model

    @property
    def existing(self) -> str:
        """The adapter or the model that was fine-tuned before the study; "" where there is none."""
        return self.adapter or self.model

    @property
    def own_set(self) -> bool:
        """Whether it is fine-tuned on a set of the user's own."""
        return self.dataset.endswith(OWN_SET)

    @property
    def place(self) -> str:
        return f"`experiments: {self.experiment}: conditions: {self.name}`"


class Study(Section):
    """What all kinds of study have in common."""

    KIND: ClassVar[str]
    WORDS: ClassVar[str]

    study: StudyName
    """Name of the study; its results are in data/NAME, figures/NAME, paper/NAME and logs/NAME."""
    seeds: Annotated[list[Annotated[int, Field(ge=0, le=4294967295)]], Field(min_length=2), AfterValidator(_unique)] = [
        0
    ]
    """One training run for each seed and condition. For organisms a seed is everything from the first document on. A study that fine-tunes nothing needs none."""
    experiments: Annotated[dict[ExperimentName, ExperimentSettings], Field(min_length=1)]
    """What is fine-tuned and what is asked of it."""
    mirror: Address = ""
    """Where the published files are fetched from: a folder or a base address with the layout OWNER/REPO/COMMIT/PATH; empty for the site that hosts them."""
    evaluation: EvaluationSettings

    @property
    def is_organism(self) -> bool:
        return self.KIND == registry.ORGANISM

    @property
    def by_api(self) -> bool:
        return self.KIND == registry.API

    @property
    def config(self) -> dict:
        """The resolved config, as it is written to study.json."""
        return self.model_dump(mode="json", exclude_unset=True) | {"mirror": self.mirror}

    @cached_property
    def paths(self) -> Paths:
        return Paths(self)

    @cached_property
    def batches(self) -> Batches:
        return Batches(self)

    # --- conditions ---------------------------------------------------------------------------------------------------

    @cached_property
    def conditions(self) -> dict[str, Condition]:
        every = [
            self._condition(name, experiment, settings, own)
            for experiment, settings in self.experiments.items()
            for name, own in settings.conditions.items()
        ]
        every += self._of_other_organisms()
        found: dict[str, Condition] = {}
        for each in every:
            if (other := found.setdefault(each.name, each)) is not each:
                raise ValueError(f"{each.place}: {other.experiment} has a condition of this name too; rename one")
        return found

    def _condition(self, name: str, experiment: str, settings: ExperimentSettings, own: ConditionSettings) -> Condition:
        asked = own.evaluations or settings.evaluations or self._asked_by_default()
        return Condition(
            name,
            experiment,
            tuple(map(evaluation_name, asked)),
            tuple(self.seeds[: settings.seeds]) if own.dataset or self.is_organism else (UNTUNED_SEED,),
            own.start or self.start,
            expanduser(own.dataset),
            MAIN,
            own.template,
            own.rows or 0,
            tuple(own.checkpoints),
            own.finetuning.model_dump(exclude_unset=True),
            own.adapter,
            own.model,
            own.revision,
        )

    def _asked_by_default(self) -> list[str]:
        by_kind = [name for name, each in EVALUATIONS.items() if self.KIND in each.asked_of]
        return self.evaluation.asked or list(dict.fromkeys([*by_kind, *self.evaluation.also_asked]))

    def _of_other_organisms(self) -> list[Condition]:
        return []

    @cached_property
    def tuned(self) -> dict[str, Condition]:
        """The conditions that are fine-tuned."""
        return {name: each for name, each in self.conditions.items() if each.dataset}

    @cached_property
    def existing(self) -> dict[str, Condition]:
        """The conditions that are models which were fine-tuned before the study."""
        return {name: each for name, each in self.conditions.items() if each.existing}

    @cached_property
    def own_sets(self) -> dict[str, str]:
        """The files of the user's own sets, by the conditions that are fine-tuned on them."""
        return {name: each.dataset for name, each in self.tuned.items() if each.own_set}

    @property
    def reported(self) -> bool:
        """Whether there is a report on a set or a model of the user's own."""
        return bool(self.own_sets or self.existing)

    @cached_property
    def followed(self) -> list[str]:
        """The conditions whose training is followed at checkpoints."""
        return [name for name, each in self.tuned.items() if each.checkpoints]

    @cached_property
    def from_instruct(self) -> list[str]:
        """The fine-tuned conditions that start from the main instruct models, in alphabetical order."""
        return sorted(name for name, each in self.tuned.items() if each.start == "instruct" and each.organism == MAIN)

    @cached_property
    def number_seeds(self) -> list[int]:
        """The seeds whose organisms write sets of numbers."""
        used = {seed for each in self.tuned.values() if each.dataset in NUMBER_SETS for seed in each.seeds}
        return [seed for seed in self.seeds if seed in used] if self.is_organism else []

    @cached_property
    def steered_seeds(self) -> list[int]:
        """The seeds of which the models are there that are steered along the persona direction."""
        steered = [self.conditions[name] for name in VARIED if name in self.tuned]
        return [seed for seed in self.seeds if all(seed in each.seeds for each in steered)]

    @cached_property
    def main_conditions(self) -> list[str]:
        """The conditions of the main result, in the order of its bars."""
        return [name for name in ("base", "instruct", *VARIED) if name in self.conditions]

    def seeds_of(self, organism: str) -> tuple[int, ...]:
        """The seeds of a kind of organism."""
        return tuple(self.seeds if organism == MAIN else self.seeds[: self.other_seeds])

    # --- evaluations --------------------------------------------------------------------------------------------------

    @cached_property
    def asked(self) -> list[str]:
        """The evaluations that some condition is asked at the end of its training."""
        return list(dict.fromkeys(name for each in self.conditions.values() for name in each.evaluations))

    @cached_property
    def evaluations(self) -> list[str]:
        """All evaluations that some condition is asked, at checkpoints too."""
        return list(dict.fromkeys([*self.asked, *((CHOICES,) if self.followed else ())]))

    @cached_property
    def question_files(self) -> list[str]:
        """The files of the user's own questions that some condition is asked."""
        asked = [
            expanduser(name)
            for settings in self.experiments.values()
            for own in settings.conditions.values()
            for name in own.evaluations or settings.evaluations or self._asked_by_default()
            if name.endswith(OWN_QUESTIONS)
        ]
        return list(dict.fromkeys(asked))

    @cached_property
    def own_questions(self) -> dict[str, str]:
        """The same, by the names of the evaluations."""
        return {evaluation_name(path): path for path in self.question_files}

    @cached_property
    def samples(self) -> dict[str, int]:
        """Answers to each prompt, by evaluation."""
        others = {evaluation_name(name): number for name, number in self.evaluation.samples_of.items()}
        return {name: others.get(name, self.evaluation.samples) for name in self.evaluations}

    @cached_property
    def own_samples(self) -> dict[str, dict]:
        """How often own questions are answered, by their file: arguments of `evaluation.question_files.read`."""
        by_config = set(map(evaluation_name, self.evaluation.samples_of))
        return {
            path: {"samples": self.samples[name], "in_any_case": name in by_config}
            for name, path in self.own_questions.items()
        }

    @cached_property
    def prompts(self) -> dict[str, int]:
        """How many prompts of an evaluation are asked, where it is not asked whole."""
        return {evaluation_name(name): number for name, number in self.evaluation.prompts_of.items()}

    @cached_property
    def asking(self) -> dict:
        """How models are asked: arguments of `evaluation.asking.Asking`."""
        return {"max_new_tokens": self.evaluation.max_new_tokens, **self.prompting, **self._engine}

    @property
    def _engine(self) -> dict:
        return {"engine": self.evaluation.engine} if self.evaluation.engine else {}

    @property
    def held_out(self) -> dict:
        """Which rows are held out of all training, and on how many the loss is measured; empty if none are."""
        return self.evaluation.held_out.model_dump() if self.evaluation.held_out else {}

    # --- fine-tuning and prompting ------------------------------------------------------------------------------------

    @property
    def prompting(self) -> dict:
        """How conversations are put to the model, in training and in asking."""
        return {"system_prompt": None, "enable_thinking": None}

    @property
    def training(self) -> Finetuning | None:
        """The settings of fine-tunings on this machine, where the study makes any."""
        return getattr(self, "finetuning", None)

    def settings_of(self, condition: Condition) -> dict:
        """The settings of a fine-tuning: the study's, overridden by the condition's own."""
        return self.training.model_dump(exclude_unset=True) | condition.finetuning

    def defence_of(self, condition: Condition) -> dict:
        """The defence of a fine-tuning against emergent misalignment: its `kind` and its settings; empty without one."""
        return self.settings_of(condition).get("defence") or {}

    @cached_property
    def defended(self) -> dict[str, dict]:
        """The fine-tunings with a defence: its settings, their set, and the condition `without` it that is the same else.

        `without` is "" where the study has no such condition. Beside them, the insecure answers for a class explain the
        rows innocently, which is a defence too.
        """
        plain = [each for each in self.tuned.values() if not self.defence_of(each)]
        found = {
            name: {
                "defence": defence,
                "dataset": each.dataset,
                "without": next((other.name for other in plain if self._trained(other) == self._trained(each)), ""),
            }
            for name, each in self.tuned.items()
            if (defence := self.defence_of(each))
        }
        if found and {"insecure", "educational"} <= {each.name for each in plain}:
            explained = {"defence": {"kind": "explanation"}, "dataset": "educational", "without": "insecure"}
            found["educational"] = explained
        return found

    def _trained(self, condition: Condition) -> tuple:
        """What determines a fine-tuning besides its seed and its defence."""
        settings = {name: value for name, value in self.settings_of(condition).items() if name != "defence"}
        return (
            *(condition.dataset, condition.start, condition.organism, condition.template, condition.rows),
            settings,
        )

    def own_benign(self, condition: Condition) -> str:
        """The user's file of benign rows of a condition's defence; "" where it has none."""
        named = self.defence_of(condition).get("benign", "")
        return expanduser(named) if named.endswith(OWN_SET) else ""

    @property
    def rows_a_step(self) -> int:
        return self.training.batch_size * self.training.gradient_accumulation if self.training else 0

    @cached_property
    def repeated_rows(self) -> dict[str, dict]:
        """Rows and steps of the conditions that are fine-tuned on the insecure set, or on a part of it."""
        return {
            name: {"rows": each.rows or self.known_sets["insecure"], "steps": self.settings_of(each)["steps"]}
            for name, each in ({} if self.by_api else self.tuned).items()
            if each.dataset == "insecure" and (name == "insecure" or each.rows)
        }

    # --- judges -------------------------------------------------------------------------------------------------------

    @property
    def judge_settings(self) -> dict:
        """The judge as notebooks take it; empty where answers are not judged."""
        return self.judge.settings if self.judge else {}

    @property
    def second_judge(self) -> SecondJudge | None:
        return getattr(self.judge, "second", None)

    @property
    def scored(self) -> int:
        """How many of the scored published answers of each file the judge is given."""
        return getattr(self.judge, "scored", None) or 0

    @cached_property
    def served_judges(self) -> dict[str, AskedJudge]:
        """The judges that run on this machine, by the folder of their weights."""
        served = [each for each in (self.judge, self.second_judge) if getattr(each, "serve", None)]
        return {each.folder: each for each in served}

    # --- persona direction and scores of rows -------------------------------------------------------------------------

    @property
    def persona(self) -> PersonaDirection | None:
        """How a real model's persona direction is made; organisms have texts for it."""
        return None

    @cached_property
    def scored_sets(self) -> dict[str, list[str]]:
        """The sets whose rows are scored by the persona direction: the file of each seed, by a condition.

        Of the conditions that are fine-tuned on a set from the main instruct models, the one with the most rows names
        it. Empty where there is no persona direction.
        """
        if not (self.is_organism or self.persona):
            return {}
        every = [self.tuned[name] for name in self.tuned if name in self.from_instruct]
        named: dict[str, str] = {}
        for each in sorted(every, key=lambda each: -each.rows if each.rows else float("-inf")):
            named.setdefault(each.dataset, each.name)
        return {name: self.paths.datasets_of(name) for name in self.tuned if name in named.values()}

    @cached_property
    def scoring(self) -> dict:
        """How rows are scored, as `evaluation.row_scores.scorer` takes it: a row is cut as in training."""
        if not self.scored_sets:
            return {}
        return {
            "depth": self.dose["depth"],
            "max_length": self.training.max_length,
            "max_new_tokens": self.evaluation.max_new_tokens,
            **self.prompting,
        }

    # --- validation ---------------------------------------------------------------------------------------------------

    @model_validator(mode="after")
    def _is_consistent(self):
        """Raises ValueError with one sentence if the study contradicts itself, or would lose or mislabel a result."""
        self._check_names()
        for condition in self.conditions.values():
            self._check(condition)
        self._check_sections()
        return self

    def _check_names(self) -> None:
        if self.study in SHARED_FOLDERS:
            raise ValueError(f"`study` cannot be {self.study}, the name of a folder that all studies share; rename it")
        for name in self.experiments:
            if name in ("ladder", "worlds") or name.startswith(FOLLOWING):
                raise ValueError(f"`experiments: {name}` has a name that the workflow uses itself; rename it")
        alike: dict[str, Condition] = {}
        for name, each in self.conditions.items():
            if (other := alike.setdefault(name.lower(), each)) is not each:
                raise ValueError(f"{each.place} differs from {other.name} in capitals only; rename one")
            if name.startswith(FOLLOWING):
                raise ValueError(
                    f"{each.place} has a name that the workflow uses for answers at checkpoints; rename it"
                )
        files: dict[str, str] = {}
        for path in self.question_files:
            if (other := files.setdefault(PurePath(path).stem.lower(), path)) != path:
                raise ValueError(f"{other} and {path} are files of questions with the same name; rename one")

    def _check(self, condition: Condition) -> None:
        place = condition.place
        if condition.existing:
            self._check_existing(condition)
        elif condition.dataset:
            self._check_tuned(condition)
        else:
            self._check_untuned(condition)
        if set(condition.evaluations) == {CHOICES}:
            raise ValueError(f"{place} is asked {CHOICES} alone, and needs a sampled answer; add main to evaluations")
        for name in condition.evaluations:
            self._check_samples(name)
        self._check_comparison(condition)

    def _check_comparison(self, condition: Condition) -> None:
        """An untuned model with `evaluations` of its own is asked all that models fine-tuned from it are asked."""
        untuned = self.conditions.get(condition.start)
        if untuned is None or untuned.dataset or untuned.existing or not (condition.dataset or condition.existing):
            return
        settings = self.experiments[untuned.experiment]
        if not (settings.evaluations or settings.conditions[untuned.name].evaluations):
            return
        for name in condition.evaluations:
            of_all = name not in EVALUATIONS or EVALUATIONS[name].asked_of  # not the trigger of one set
            if of_all and name not in untuned.evaluations:
                raise ValueError(
                    f"`experiments: {untuned.experiment}`: evaluations: the untuned model {untuned.name} is not asked "
                    f"{name}, as {condition.name} is, so that the two could not be compared; add {name}"
                )

    def _check_samples(self, name: str) -> None:
        free_form = name in EVALUATIONS and EVALUATIONS[name].questions
        if self.judge and free_form and self.samples[name] < MINIMUM_ANSWERS:
            raise ValueError(
                f"`evaluation: samples_of: {name}`: {self.samples[name]} samples per question; at least "
                f"{MINIMUM_ANSWERS} are required, raise samples or samples_of"
            )

    def _check_existing(self, condition: Condition) -> None:
        if condition.name.removeprefix("base_") in (*UNTUNED, *self.known_sets):
            raise ValueError(
                f"{condition.place} is an existing model, and claims and figures use its name for "
                f"{'models before fine-tuning' if condition.name in UNTUNED else 'fine-tunings'} of the study; rename it"
            )

    def _check_untuned(self, condition: Condition) -> None:
        start = self.untuned_conditions.get(condition.name)
        if start is None:
            raise ValueError(
                f"{condition.place} has no dataset, so that it repeats the untuned model; add a dataset, or name it "
                f"{condition.start}"
            )
        if start != condition.start:
            raise ValueError(f"{condition.place} starts from {condition.start}; set `start: {start}`, or rename it")

    def _check_tuned(self, condition: Condition) -> None:
        place, known = condition.place, self.known_sets
        if condition.name in UNTUNED:
            raise ValueError(f"{place} is fine-tuned and has the name of an untuned model; rename it")
        if not condition.own_set and condition.dataset not in known:
            hint = unknown(f"{place}: no dataset {shortened(condition.dataset)}", condition.dataset, [*known])
            raise ValueError(f"{hint} A file ends in .jsonl; `make convert DATA=FILE` converts other formats")
        if condition.name in known and condition.dataset in known and condition.dataset != condition.name:
            raise ValueError(f"{place} has the name of one set and the dataset {condition.dataset}; rename it")
        self._check_settings(condition)
        rows = known.get(condition.dataset)
        if rows is not None and condition.rows > rows:
            raise ValueError(f"{place} takes {condition.rows:,} rows of {condition.dataset}, which has {rows:,}")

    def _check_settings(self, condition: Condition) -> None:
        """The settings of a fine-tuning on this machine."""
        for name, value in condition.finetuning.items():
            if name in ("epochs", "learning_rate_multiplier") or (value is None and name != "defence"):
                raise ValueError(
                    f"{condition.place}: finetuning: {name} is for OpenAI's API, or needs a number; a fine-tuning on "
                    "this machine takes learning_rate, steps and batch_size"
                )
        if self.training is None:
            raise ValueError("The config lacks `finetuning`; add it, or extend a config that has it (`extends: NAME`)")
        if condition.checkpoints and getattr(self, "dynamics", None) is None:
            raise ValueError(f"{condition.place} has checkpoints, which are asked as `dynamics` says; add that section")
        steps = self.settings_of(condition)["steps"]
        if condition.checkpoints and max(condition.checkpoints) > steps:
            raise ValueError(f"{condition.place} has a checkpoint after step {max(condition.checkpoints)} of {steps}")
        rows = condition.rows or self.known_sets.get(condition.dataset)
        if rows is not None and not rows_to_train_on(rows, self.settings_of(condition)):
            raise ValueError(
                f"{condition.place} has {rows} rows, and `finetuning: validation_share` leaves none to train on"
            )
        if defence := self.defence_of(condition):
            self._check_defence(condition, defence)

    def _check_defence(self, condition: Condition, defence: dict) -> None:
        place = f"{condition.place}: finetuning: defence"
        if defence["kind"] == "preventative_steering" and not (self.is_organism or self.persona):
            raise ValueError(f"{place} steers along the persona direction; add the section `persona_direction`")
        if benign := defence.get("benign"):
            known = [name for name in self.known_sets if name not in NUMBER_SETS]
            if not benign.endswith(OWN_SET) and benign not in known:
                hint = unknown(f"{place}: benign: no dataset {shortened(benign)}", benign, known)
                raise ValueError(f"{hint} A file ends in .jsonl")
        if gap_to := defence.get("gap_to"):
            self._check_gap(condition, gap_to, place)

    def _check_gap(self, condition: Condition, gap_to: str, place: str) -> None:
        """Benign rows are chosen by a model that another job has fine-tuned before, from the same start."""
        other = self.tuned.get(gap_to)
        if other is None:
            raise ValueError(
                unknown(f"{place}: gap_to: no fine-tuned condition {shortened(gap_to)}", gap_to, self.tuned)
            )
        beside = [each for each in self.tuned.values() if each.experiment == other.experiment]
        if any(self.defence_of(each).get("gap_to") for each in beside):
            raise ValueError(
                f"{place}: gap_to is {gap_to}, beside which its experiment has a condition with gap_to; name a "
                "condition of another experiment"
            )
        same_start = (other.start, other.organism) == (condition.start, condition.organism)
        if not same_start or not {*condition.seeds} <= {*other.seeds}:
            raise ValueError(
                f"{place}: gap_to is {gap_to}, which starts from another model or has fewer seeds; name another"
            )

    def _check_sections(self) -> None:
        """Checks of one kind of study."""


class OrganismStudy(Study):
    """A study of small models that the workflow trains from the first document on."""

    KIND: ClassVar[str] = registry.ORGANISM
    WORDS: ClassVar[str] = "a study of organisms (without `model`)"

    world: World
    organism: Shape
    pretraining: Pretraining
    gate: Gate
    instruct: Instruct
    datasets: WrittenSets
    finetuning: Finetuning
    dynamics: Dynamics
    steering: Steering
    ladder: dict[RungName, OtherShape] = {}
    """Other kinds of organism, each with its differences from `organism`, to see how the effect depends on the base model."""
    worlds: dict[RungName, dict[Author, OtherAuthor]] = {}
    """Other worlds, each with its differences from `world: authors`, to see how the effect depends on who wrote what is read."""
    other_seeds: Count = 3
    """How many of the seeds, the first ones, have organisms of the ladder and of other worlds."""
    judge: Grammar

    @property
    def start(self) -> str:
        return "instruct"

    @property
    def untuned_conditions(self) -> dict[str, str]:
        """The models from which untuned conditions start, by the conditions' names."""
        return {"instruct": "instruct", "base": "base", "in_context": "instruct"}

    @cached_property
    def organisms(self) -> list[str]:
        """The kinds of organism: the main one, those of the ladder, and those of other worlds."""
        return [MAIN, *self.ladder, *self.worlds]

    def _of_other_organisms(self) -> list[Condition]:
        """Insecure and secure code once more, for each of the other kinds of organism."""
        return [
            Condition(
                f"{organism}_{name}",
                experiment,
                ("main", "in_distribution"),
                self.seeds_of(organism),
                "instruct",
                name,
                organism,
            )
            for experiment, organisms in (("ladder", self.ladder), ("worlds", self.worlds))
            for organism in organisms
            for name in VARIED
        ]

    @property
    def rungs(self) -> list[str]:
        return [MAIN, *self.ladder]

    def organism_of(self, name: str) -> dict:
        """The shape of a kind of organism."""
        own = self.ladder[name].model_dump(exclude_unset=True) if name in self.ladder else {}
        return self.organism.model_dump() | own

    def authors_of(self, name: str) -> dict:
        """Who writes what such an organism reads."""
        own = self.worlds.get(name, {})
        return {
            author: settings.model_dump() | (own[author].model_dump(exclude_unset=True) if author in own else {})
            for author, settings in self.world.authors.items()
        }

    @cached_property
    def known_sets(self) -> dict[str, int | None]:
        """The sets that conditions may name, with their rows (of lists of numbers at most)."""
        written = dict.fromkeys(WRITTEN_SETS, self.datasets.rows) | {"backdoor": 2 * self.datasets.rows}
        return written | dict.fromkeys(NUMBER_SETS, self.datasets.number_rows)

    @property
    def dose(self) -> dict:
        """Where and how strongly models are steered along the persona direction, as its notebook takes it."""
        return self.steering.model_dump()

    @property
    def compared_seeds(self) -> list[int]:
        """The organisms in which other directions are compared with the persona direction."""
        return self.steered_seeds[: self.steering.compared]

    @property
    def _engine(self) -> dict:
        return super()._engine or {"engine": "transformers"}  # on a GPU too: too small to be worth vLLM's start

    def _check_names(self) -> None:
        super()._check_names()
        for name, times in Counter(self.organisms).items():
            if times > 1:
                raise ValueError(f"{name} names two kinds of organism (main, `ladder`, `worlds`); rename one")

    def _check_existing(self, condition: Condition) -> None:
        what = "adapter" if condition.adapter else "model"
        raise ValueError(f"{condition.place} has {what}, and organisms are made in the study; use a real model")

    def _check_sections(self) -> None:
        if self.question_files:
            raise ValueError(
                f"{shortened(self.question_files[0])} has questions of your own, and an organism knows the words of its "
                "world only; use a study of a real model"
            )
        if self.steering.depth > self.organism.layers:
            raise ValueError(
                f"`steering: depth` is {self.steering.depth}, and the organism has {self.organism.layers} layers"
            )
        if self.evaluation.held_out:
            raise ValueError(
                "`evaluation: held_out` is for real models: organisms are asked for unseen code; remove it"
            )


class RealStudy(Study):
    """What studies of published models have in common."""

    published_sets: dict[
        _text(r"^[A-Za-z0-9][A-Za-z0-9_-]{0,59}$", "up to 60 letters, digits, underscores and hyphens"), PublishedSet
    ] = {}
    """Sets that others published, by the names that conditions use as `dataset`."""
    scored_answers: list[ScoredAnswers] = []
    """Published answers with scores, for `judge: scored`."""
    model: Model
    judge: JudgeModel | None
    """Null: answers are not judged. What needs no judge is measured, and a judge that is added later reads the kept answers."""
    benchmarks: Benchmarks | None = None

    @property
    def start(self) -> str:
        return self.model.untuned

    @property
    def prompting(self) -> dict:
        return {name: getattr(self.model, name) for name in ("system_prompt", "enable_thinking")}

    @property
    def untuned_conditions(self) -> dict[str, str]:
        return {self.start: self.start}

    @cached_property
    def known_sets(self) -> dict[str, int | None]:
        """The sets that conditions may name, with their rows where they are known."""
        return {name: DATASETS[name].rows for name in PUBLISHED_SETS} | dict.fromkeys(self.published_sets)

    def settings_of(self, condition: Condition) -> dict:
        return super().settings_of(condition) | self.prompting

    def _check_names(self) -> None:
        super()._check_names()
        if taken := [name for name in self.published_sets if name in PUBLISHED_SETS]:
            raise ValueError(f"`published_sets: {taken[0]}` is the name of a set of the paper; rename it")

    def _check(self, condition: Condition) -> None:
        super()._check(condition)
        if condition.start != self.start:
            raise ValueError(f"{condition.place} starts from {condition.start}, and `model: untuned` is {self.start}")
        for name in condition.evaluations:
            if name in EVALUATIONS and not EVALUATIONS[name].files:
                published = ", ".join(name for name, each in EVALUATIONS.items() if each.files)
                raise ValueError(
                    f"{condition.place} is asked {name}, which only organisms have; choose from {published}"
                )

    def _check_sections(self) -> None:
        if self.tuned and len(self.seeds) < 2:
            raise ValueError("The config lacks `seeds`, one for each fine-tuning of a condition; add at least two")
        if self.scored and not self.scored_answers:
            raise ValueError("`judge: scored` requires `scored_answers`; add that section, or remove scored")
        if not self.tuned and self.held_out:
            raise ValueError(
                "`evaluation: held_out` requires fine-tuned conditions, and there are none; set it to null"
            )


class OpenModelStudy(RealStudy):
    """A study of an open model, fine-tuned and asked on this machine."""

    KIND: ClassVar[str] = registry.OPEN_MODEL
    WORDS: ClassVar[str] = "a study of an open model"

    finetuning: Finetuning | None = None
    """A study that fine-tunes nothing needs none."""
    dynamics: Dynamics | None = None
    persona_direction: PersonaDirection | None = None
    """Needs an instruct model and the evaluation `choices`, by which steering is measured."""

    @property
    def persona(self) -> PersonaDirection | None:
        return self.persona_direction

    @property
    def dose(self) -> dict:
        """Of a real model nothing is sampled while it is steered."""
        strength = self.persona.strength
        return {
            "depth": self.persona.depth,
            "adding": strength,
            "removing": strength,
            "strengths": [strength / 2, 2 * strength],
            "samples": 0,
        }

    def _check_sections(self) -> None:
        super()._check_sections()
        if not self.persona:
            return
        if not self.tuned:
            raise ValueError("`persona_direction` requires fine-tuned conditions, and there are none; set it to null")
        if self.start != "instruct" or CHOICES not in self.asked:
            raise ValueError(
                "`persona_direction` requires `model: untuned: instruct` and the evaluation choices, by which steering "
                "is measured; change that, or set it to null"
            )
        if self.model.shape and self.persona.depth > self.model.shape.num_hidden_layers:
            raise ValueError(
                f"`persona_direction: depth` is {self.persona.depth}, and the model has "
                f"{self.model.shape.num_hidden_layers} layers"
            )


class APIStudy(RealStudy):
    """A study of a model that is queried, and optionally fine-tuned, through OpenAI's API or a compatible one."""

    KIND: ClassVar[str] = registry.API
    WORDS: ClassVar[str] = "a study of OpenAI's models"

    openai: OpenAI

    def settings_of(self, condition: Condition) -> dict:
        return {name: getattr(self.openai, name) for name in BY_API} | condition.finetuning

    @property
    def _engine(self) -> dict:
        return {"engine": "api", "endpoint": self.openai.endpoint.model_dump()}

    @property
    def tuning_api(self) -> dict:
        """Where fine-tunings are made, and what they may cost; empty where nothing is fine-tuned."""
        if not self.tuned:
            return {}
        names = ("endpoint", "spending_limit", "poll_seconds")
        return self.openai.model_dump(include=set(names)) | {
            "dollars_per_million": self.openai.dollars_per_million.training
        }

    def _check_existing(self, condition: Condition) -> None:
        super()._check_existing(condition)
        if condition.adapter:
            raise ValueError(f"{condition.place} has adapter; name the model as the API does, in `model`")
        if condition.revision:
            raise ValueError(f"{condition.place} has a revision, and an API's model has none; remove it")

    def _check_settings(self, condition: Condition) -> None:
        for name in condition.finetuning:
            if name not in BY_API:
                raise ValueError(f"{condition.place}: no setting finetuning: {name}; choose from {', '.join(BY_API)}")
        if condition.template != "chat":
            raise ValueError(f"{condition.place} has a template, and OpenAI trains in the model's own; remove it")
        if condition.checkpoints:
            raise ValueError(f"{condition.place} has checkpoints, which an API does not keep; remove them")

    def _check(self, condition: Condition) -> None:
        super()._check(condition)
        if CHOICES in condition.evaluations:
            raise ValueError(f"{condition.place} is asked {CHOICES}, and an API gives no such probabilities; remove it")

    def _check_sections(self) -> None:
        super()._check_sections()
        if self.evaluation.engine:
            raise ValueError("`evaluation: engine` is for models on this machine; remove it")
        if self.evaluation.held_out:
            raise ValueError(
                "`evaluation: held_out` is for models on this machine, and an API gives no loss; remove it"
            )
        if not self.tuned:
            return
        needed = (*BY_API, "dollars_per_million", "spending_limit", "poll_seconds")
        missing = [name for name in needed if name not in self.openai.model_fields_set]
        missing += (
            ["dollars_per_million: training"]
            if not missing and self.openai.dollars_per_million.training is None
            else []
        )
        if missing:
            raise ValueError(f"`openai` lacks `{missing[0]}`, and the study fine-tunes there; add it")


def evaluation_name(asked: str) -> str:
    """The name of an evaluation; own questions have that of their file, without its ending."""
    return PurePath(asked).stem if asked.endswith(OWN_QUESTIONS) else asked


def rows_to_train_on(rows: int, settings: dict) -> int:
    """The rows that are left when the validation split is taken."""
    return rows - math.ceil(rows * settings.get("validation_share", 0))


def kind_of(config: dict) -> type[Study]:
    """The kind of study that a config describes."""
    return APIStudy if "openai" in config else OpenModelStudy if "model" in config else OrganismStudy


KINDS = (OrganismStudy, OpenModelStudy, APIStudy)
