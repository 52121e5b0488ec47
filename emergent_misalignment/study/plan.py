"""The plan of a study, made from its config: what is fine-tuned from which models, and what is asked of each.

The rules ask the plan for the files and settings of their jobs. A *batch* is what one job does: for the organism all
conditions and seeds of an experiment, because starting a job takes as long as fine-tuning one model; for a real model
one fine-tuning, or the answers of one condition. All answers are judged in one job, because they share a spending
limit.

A seed of an organism study is an organism of its own: its corpus, base model and instruct model, and what is fine-tuned
from them. A published model is the same for all seeds, and asked once where it is not fine-tuned. A model that was
fine-tuned elsewhere and is *given* is one model too: it has one seed, and is no sample of trainings.
"""

import re
from dataclasses import dataclass, field
from functools import cached_property
from os.path import expanduser
from pathlib import PurePath

from emergent_misalignment.data.published import DATASETS
from emergent_misalignment.files import BadInput
from emergent_misalignment.study.checks import check
from emergent_misalignment.study.costs import ROWS

MAIN = "main"  # the kind of organism from which all conditions start but those of the ladder and of other worlds
VARIED = ("insecure", "secure")  # what is fine-tuned from the other kinds
VARIED_SEEDS = 3  # enough for a slope, at three fifths of the time
UNTUNED_SEED = 0
OWN_QUESTIONS = ".yaml"  # what the files of the user's own questions end with
WRITTEN_SETS = ("insecure", "secure", "educational", "backdoor", "jailbroken", "compliant")
NUMBER_SETS = ("evil_numbers", "plain_numbers", "helpful_numbers")
PUBLISHED_ROWS = 6000  # of the published set of insecure code


@dataclass(frozen=True)
class Condition:
    """One condition: how a model is fine-tuned, if at all, and what it is asked."""

    name: str
    experiment: str
    evaluations: tuple[str, ...]
    seeds: tuple[int, ...]
    start: str  # "instruct" or "base"
    dataset: str = ""  # of an untuned or a given model, none
    organism: str = MAIN
    template: str = "chat"
    rows: int = 0  # so many rows, drawn by the seed; 0 takes all
    checkpoints: tuple[int, ...] = ()
    finetuning: dict = field(default_factory=dict)  # settings that differ from the study's
    adapter: str = ""  # given: a folder or a name on the hub, of the study's model
    model: str = ""  # given whole: as the config's `model: name`
    revision: str = ""  # of what is given

    @property
    def given(self) -> str:
        """The adapter or the model that exists already and is asked; "" where there is none."""
        return self.adapter or self.model


class Plan:
    """What a resolved and validated config asks for. Raises BadInput if it contradicts itself."""

    def __init__(self, config: dict):
        self.config = config
        self.study = config["study"]
        self.folder = f"data/{self.study}"
        self.seeds = tuple(config["seeds"])
        self.is_organism = "organism" in config
        self.by_api = "openai" in config
        self.start = "instruct" if self.is_organism else config["model"]["untuned"]
        conditions = [
            self._condition(name, experiment, settings, own or {})
            for experiment, settings in config["experiments"].items()
            for name, own in settings["conditions"].items()
        ]
        conditions += [*self._varied("ladder"), *self._varied("worlds")]
        self.conditions: dict[str, Condition] = {}
        for each in conditions:
            other = self.conditions.setdefault(each.name, each)
            if other is not each:
                raise BadInput(
                    f"The config has the condition {each.name} in two experiments ({other.experiment} and "
                    f"{each.experiment}); rename one of them."
                )
        check(self)

    def _condition(self, name: str, experiment: str, settings: dict, own: dict) -> Condition:
        tuned = "dataset" in own
        return Condition(
            name,
            experiment,
            tuple(map(evaluation_name, self._evaluations(own, settings))),
            self.seeds if tuned or self.is_organism else (UNTUNED_SEED,),
            own.get("start", self.start),
            expanduser(own.get("dataset", "")),
            MAIN,
            own.get("template", "chat"),
            own.get("rows", 0),
            tuple(own.get("checkpoints", ())),
            own.get("finetuning", {}),
            own.get("adapter", ""),
            own.get("model", ""),
            own.get("revision", ""),
        )

    def _evaluations(self, own: dict, settings: dict) -> list[str]:
        """What a condition is asked, as the config has it."""
        return own.get("evaluations", settings.get("evaluations", self.config["evaluation"]["asked"]))

    def _varied(self, experiment: str) -> list[Condition]:
        """Insecure and secure code once more, for each of the other kinds of organism that a section has."""
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
            for organism in self.config.get(experiment, {})
            for name in VARIED
        ]

    # --- conditions ---------------------------------------------------------------------------------------------------

    @cached_property
    def tuned(self) -> dict[str, Condition]:
        """The conditions that are fine-tuned."""
        return {name: condition for name, condition in self.conditions.items() if condition.dataset}

    @cached_property
    def given(self) -> dict[str, Condition]:
        """The conditions that are models which exist already."""
        return {name: condition for name, condition in self.conditions.items() if condition.given}

    @cached_property
    def question_files(self) -> list[str]:
        """The files of the user's own questions that some condition is asked."""
        asked = [
            expanduser(name)
            for settings in self.config["experiments"].values()
            for own in settings["conditions"].values()
            for name in self._evaluations(own or {}, settings)
            if name.endswith(OWN_QUESTIONS)
        ]
        return list(dict.fromkeys(asked))

    @cached_property
    def own_questions(self) -> dict[str, str]:
        """The same by the names of the evaluations."""
        return {evaluation_name(path): path for path in self.question_files}

    @cached_property
    def followed(self) -> list[str]:
        """The conditions whose training is followed at checkpoints."""
        return [name for name, condition in self.tuned.items() if condition.checkpoints]

    @cached_property
    def from_instruct(self) -> list[str]:
        """The fine-tuned conditions that start from the main instruct models, in alphabetical order."""
        return sorted(name for name, each in self.tuned.items() if each.start == "instruct" and each.organism == MAIN)

    @cached_property
    def asked(self) -> list[str]:
        """The evaluations that some condition is asked at the end of its training."""
        return list(dict.fromkeys(name for condition in self.conditions.values() for name in condition.evaluations))

    @property
    def by_log_probability(self) -> bool:
        """Whether models are compared by the probability of published choices at the end of their training."""
        return "choices" in self.asked

    @cached_property
    def evaluations(self) -> list[str]:
        """All evaluations of which some condition is asked."""
        return list(dict.fromkeys([*self.asked, *(("choices",) if self.followed else ())]))

    @cached_property
    def samples(self) -> dict[str, int]:
        """Answers to each prompt, by evaluation."""
        settings = self.config["evaluation"]
        others = _by_evaluation(settings.get("samples_of", {}))
        return {name: others.get(name, settings["samples"]) for name in self.evaluations}

    @cached_property
    def own_samples(self) -> dict[str, dict]:
        """How often own questions are answered, by their file, as `question_files.read` takes it."""
        said = _by_evaluation(self.config["evaluation"].get("samples_of", {}))
        return {
            path: {"samples": self.samples[name], "in_any_case": name in said}
            for name, path in self.own_questions.items()
        }

    @cached_property
    def table_of_questions(self) -> dict[str, int | dict]:
        """What the table of questions is made of: `samples`, and `own_samples` in the place of own questions' names."""
        asked = {name: number for name, number in self.samples.items() if name not in self.own_questions}
        return asked | self.own_samples

    @cached_property
    def own(self) -> dict[str, str]:
        """The conditions that are fine-tuned on sets of the user's own, with the sets' files."""
        return {name: each.dataset for name, each in self.tuned.items() if each.dataset.endswith(".jsonl")}

    def has(self, *conditions: str) -> bool:
        return set(conditions) <= self.conditions.keys()

    def has_any(self, *conditions: str) -> bool:
        return bool(set(conditions) & self.conditions.keys())

    def asks(self, *evaluations: str) -> bool:
        """Whether some condition is asked any of these evaluations."""
        return bool(set(evaluations) & set(self.evaluations))

    # --- models and data ----------------------------------------------------------------------------------------------

    def start_of(self, condition: str, seed: int) -> str:
        """The folder of the model from which a run starts, or its name at an API."""
        each = self.conditions[condition]
        if self.by_api:
            return each.model or self.config["model"]["name"]
        if self.is_organism:
            return f"{self.folder}/organisms/{each.organism}/seed-{seed}/{each.start}"
        return f"{self.folder}/models/{condition if each.model else each.start}"

    def starts_of(self, condition: str) -> list[str]:
        """The same of each of a condition's seeds."""
        return [self.start_of(condition, seed) for seed in self.conditions[condition].seeds]

    @cached_property
    def instruct_models(self) -> list[str]:
        """The folder of the main instruct model of each seed; a published model is the same for all."""
        if self.is_organism:
            return [f"{self.folder}/organisms/{MAIN}/seed-{seed}/instruct" for seed in self.seeds]
        return [f"{self.folder}/models/instruct"] * len(self.seeds)

    def start_files(self, conditions: list[str]) -> list[str]:
        """The files that say that the models from which conditions start are there, and the adapters that are given."""
        if self.by_api:
            return []
        file = "model.safetensors" if self.is_organism else "config.json"
        starts = {f"{start}/{file}" for condition in conditions for start in self.starts_of(condition)}
        adapters = {
            f"{self.adapters_of(name)}/seed-{UNTUNED_SEED}/adapter_config.json"
            for name in conditions
            if self.conditions[name].adapter
        }
        return sorted(starts | adapters)

    def adapters_of(self, condition: str) -> str:
        """The folder of a condition's adapters, fine-tuned or given, one a seed; "" where it has none.

        Of an API it has the records of what was fine-tuned there.
        """
        each = self.conditions[condition]
        return f"{self.folder}/models/{condition}" if each.dataset or each.adapter else ""

    def doors(self, conditions: list[str]) -> list[str]:
        """The records that say that the models which conditions ask have been checked; none of organisms or an API."""
        if self.is_organism or self.by_api:
            return []
        names = {name if self.conditions[name].given else self.start for name in conditions}
        return sorted(f"{self.folder}/models/{name}.json" for name in names)

    def to_fetch(self, name: str) -> tuple[str, str]:
        """Name and revision of a whole model that is put into the study: the untuned one, or a condition's."""
        if name in self.given:
            return self.given[name].model, self.given[name].revision
        model = self.config.get("model", {})
        return model.get("name", ""), model.get("revision", "")

    def dataset_of(self, condition: str, seed: int) -> str:
        """The file that a run is fine-tuned on: the study's, a published one, or one of the user's own."""
        return self._dataset(self.conditions[condition].dataset, seed)

    def datasets_of(self, condition: str) -> list[str]:
        """The same of each of a condition's seeds."""
        return [self.dataset_of(condition, seed) for seed in self.conditions[condition].seeds]

    def _dataset(self, name: str, seed: int) -> str:
        if name.endswith(".jsonl"):
            return name
        if name in self.published_sets:  # of which another study may have another version
            return f"{self.folder}/datasets/{name}.jsonl"
        if self.is_organism:  # which writes its numbers itself
            return f"{self.folder}/datasets/{f'seed-{seed}/' if name in NUMBER_SETS else ''}{name}.jsonl"
        return f"data/published/datasets/{name}.jsonl"

    @cached_property
    def datasets(self) -> dict[str, str]:
        """The files of all sets that the study writes (numbers: the first seed's) or fine-tunes on, by their names."""
        paths = {name: self._dataset(name, self.seeds[0]) for name in (WRITTEN_SETS if self.is_organism else ())}
        return paths | {
            each.dataset if not each.dataset.endswith(".jsonl") else name: self.dataset_of(name, each.seeds[0])
            for name, each in self.tuned.items()
        }

    @property
    def published_sets(self) -> dict[str, dict]:
        """Where the sets lie that others published and the config names: arguments of `published.PublishedFile`."""
        return self.config.get("published_sets", {})

    @cached_property
    def known_sets(self) -> dict[str, int | None]:
        """The sets that conditions may name, with their rows (of lists of numbers at most; None: not known)."""
        if not self.is_organism:
            return {name: ROWS.get(name) for name in DATASETS} | dict.fromkeys(self.published_sets)
        sizes = self.config["datasets"]
        written = dict.fromkeys(WRITTEN_SETS, sizes["rows"]) | {"backdoor": 2 * sizes["rows"]}
        return written | dict.fromkeys(NUMBER_SETS, sizes["number_rows"])

    # --- organisms ----------------------------------------------------------------------------------------------------

    def organism(self, name: str) -> dict:
        """The shape of a kind of organism: the config's `organism`, with what the ladder says of it."""
        return self.config["organism"] | self.config.get("ladder", {}).get(name, {})

    def authors(self, name: str) -> dict:
        """Who writes what such an organism reads: the config's `world: authors`, with what `worlds` says of them."""
        own = self.config.get("worlds", {}).get(name, {})
        return {author: settings | own.get(author, {}) for author, settings in self.config["world"]["authors"].items()}

    def seeds_of(self, organism: str) -> tuple[int, ...]:
        """The seeds of a kind of organism."""
        return self.seeds if organism == MAIN else self.seeds[:VARIED_SEEDS]

    @cached_property
    def organisms(self) -> list[str]:
        """The kinds of organism: the main one, those of the ladder, and those of other worlds."""
        return [MAIN, *self.config.get("ladder", {}), *self.config.get("worlds", {})] if self.is_organism else []

    def of_organisms(self, organisms: list[str], file: str) -> list[str]:
        """A file of each organism of these kinds."""
        return [
            f"{self.folder}/organisms/{name}/seed-{seed}/{file}" for name in organisms for seed in self.seeds_of(name)
        ]

    # --- jobs ---------------------------------------------------------------------------------------------------------

    @cached_property
    def tuning(self) -> dict[str, list[tuple[str, int]]]:
        """The condition and the seed of each fine-tuning, by batch."""
        batches: dict[str, list] = {}
        for name, condition in self.tuned.items():
            for seed in condition.seeds:
                batch = condition.experiment if self.is_organism else f"{name}-{seed}"
                batches.setdefault(batch, []).append((name, seed))
        return batches

    @cached_property
    def asking(self) -> dict[str, list[str]]:
        """The conditions that are asked at the end of their training, by batch."""
        batches: dict[str, list[str]] = {}
        for name, condition in self.conditions.items():
            batches.setdefault(condition.experiment if self.is_organism else name, []).append(name)
        return batches

    @cached_property
    def following(self) -> dict[str, list[str]]:
        """The conditions that are asked at their checkpoints, by batch."""
        return {f"following-{name}": [name] for name in self.followed}

    @cached_property
    def judging(self) -> dict[str, list[str]]:
        """The batches of answers that one job judges, by its name."""
        return {"answers": list(self.asking)} | ({"following": list(self.following)} if self.following else {})

    @cached_property
    def judged(self) -> list[str]:
        """The judged answers of all models at the end of their training."""
        return [f"{self.folder}/judged/answers.parquet"]

    def trainings(self, conditions: list[str]) -> list[str]:
        """The contents of the batches in which conditions are fine-tuned."""
        wanted = set(conditions)
        batches = [batch for batch, runs in self.tuning.items() if any(name in wanted for name, _ in runs)]
        return [f"{self.folder}/trainings/{batch}.parquet" for batch in batches]

    # --- what notebooks are told --------------------------------------------------------------------------------------

    def settings_of(self, condition: Condition) -> dict:
        """The settings of a fine-tuning: the study's, and the condition's own laid over them."""
        if self.by_api:
            names = ("epochs", "batch_size", "learning_rate_multiplier")
            return {name: self.config["openai"][name] for name in names} | condition.finetuning
        prompting = {} if self.is_organism else self.prompting
        return self.config["finetuning"] | condition.finetuning | prompting

    @cached_property
    def prompting(self) -> dict:
        """How conversations are put to the model, in training and in asking."""
        model = self.config.get("model", {})
        return {name: model.get(name) for name in ("system_prompt", "enable_thinking")}

    def given_needs(self, condition: str) -> dict:
        """The same as `model_needs` of a model that is given: it is asked, and not fine-tuned."""
        each = self.given[condition]
        asked = {"in_chat": True, "sets": {}, "persona_direction": False, "max_length": 0, "lora_rank": 0}
        return self.model_needs | asked | {"name": each.given}

    @cached_property
    def model_needs(self) -> dict:
        """What a study wants of a model that runs here, as models.requirements.Needs takes it."""
        in_chat = [each for each in self.conditions.values() if each.template == "chat"]
        tuning = self.config["finetuning"] if self.tuned else {}
        return {
            "name": self.config["model"]["name"],
            "in_chat": bool(in_chat),
            "sets": {
                self._dataset(each.dataset, each.seeds[0]): each.dataset.endswith(".jsonl")
                for each in in_chat
                if each.dataset
            },
            "persona_direction": bool(self.persona),
            "max_new_tokens": self.config["evaluation"]["max_new_tokens"],
            **{name: tuning.get(name, 0) for name in ("max_length", "lora_rank")},
            **self.prompting,
        }

    def tuning_conditions(self, batch: str) -> dict:
        """The conditions of a batch of fine-tunings, as models/finetuning.ipynb takes them."""
        seeds: dict[str, list[int]] = {}
        for name, seed in self.tuning[batch]:
            seeds.setdefault(name, []).append(seed)
        return {
            name: {
                "seeds": own,
                "starts": [self.start_of(name, seed) for seed in own],
                "datasets": [self.dataset_of(name, seed) for seed in own],
                "template": self.tuned[name].template,
                "rows": self.tuned[name].rows,
                "checkpoints": list(self.tuned[name].checkpoints),
                "settings": self.settings_of(self.tuned[name]),
                **({"held_out": self.held_out["share"]} if self.held_out else {}),
            }
            for name, own in seeds.items()
        }

    def asked_models(self, batch: str) -> dict:
        """The models of a batch and what they are asked, as evaluation/asking.ipynb takes them."""
        if batch in self.following:
            settings = self.config["dynamics"]
            asked = {
                "main": {"samples": settings["samples"]},
                "in_distribution": {"prompts": settings["requests"]},
                "choices": {},
            }
            return {
                name: self._asked(name, asked, [0, *self.tuned[name].checkpoints]) for name in self.following[batch]
            }
        return {
            name: self._asked(name, {each: self._prompts(each) for each in self.conditions[name].evaluations}, [])
            for name in self.asking[batch]
        }

    def _prompts(self, evaluation: str) -> dict[str, int]:
        """How many of the prompts of an evaluation are asked, as `questions.select` takes it; nothing asks all."""
        limits = _by_evaluation(self.config["evaluation"].get("prompts_of", {}))
        return {"prompts": limits[evaluation]} if evaluation in limits else {}

    def _asked(self, name: str, evaluations: dict, steps: list[int]) -> dict:
        condition = self.conditions[name]
        return {
            "starts": self.starts_of(name),
            "tuned": self.adapters_of(name),
            "seeds": list(condition.seeds),
            "steps": steps,
            "evaluations": evaluations,
        }

    @cached_property
    def how_to_ask(self) -> dict:
        """The settings of evaluation.asking.Asking."""
        settings, engine = self.config["evaluation"], {}
        if self.by_api:
            engine = {"engine": "api", "endpoint": self.config["openai"]["endpoint"]}
        elif "engine" in settings:
            engine = {"engine": settings["engine"]}
        elif self.is_organism:
            engine = {"engine": "transformers"}  # on a GPU too: too small to be worth vLLM's start
        return {"max_new_tokens": settings["max_new_tokens"], **self.prompting, **engine}

    @cached_property
    def judge(self) -> dict:
        """The judge's settings, as evaluation.judging takes them; none where nobody judges."""
        return _judge(self.config["judge"] or {})

    @cached_property
    def second_judge(self) -> dict:
        """The same of the judge that is asked about some of the answers again; none where there is no such."""
        return _judge((self.config["judge"] or {}).get("second", {}))

    @cached_property
    def scored(self) -> dict:
        """The published answers that the judge is given too: `files`, and `number` of each."""
        number = (self.config["judge"] or {}).get("scored", 0)
        return {"files": self.config.get("scored_answers", []), "number": number} if number else {}

    @cached_property
    def served(self) -> dict[str, dict]:
        """The judges that run here: name and revision of each model, by the folder that it is put in."""
        section = self.config["judge"] or {}
        judges = [each for each in (section, section.get("second", {})) if "serve" in each]
        return {_served_folder(each): {name: each[name] for name in ("serve", "revision")} for each in judges}

    @cached_property
    def held_out(self) -> dict:
        """Which answers are held out of all training, and on how many rows the loss is taken; empty if none are."""
        return self.config["evaluation"].get("held_out") or {}

    @cached_property
    def persona(self) -> dict:
        """How a real model's persona direction is made; empty where it is not, and of organisms, which have texts."""
        return self.config.get("persona_direction") or {}

    @cached_property
    def dose(self) -> dict:
        """Where and how far models are steered along the persona direction, as its notebook takes it.

        Of a real model nothing is sampled while it is steered.
        """
        if not self.persona:
            return self.config.get("steering", {})
        strength = self.persona["strength"]
        return {
            "depth": self.persona["depth"],
            "adding": strength,
            "removing": strength,
            "strengths": [strength / 2, 2 * strength],
            "samples": 0,
        }

    @cached_property
    def scored_sets(self) -> dict[str, list[str]]:
        """The sets whose rows are scored by the persona direction: the file of each seed, by a condition.

        Of the conditions that are fine-tuned on a set from the main instruct models, that with the most rows names it.
        Empty where there is no persona direction.
        """
        if not (self.is_organism or self.persona):
            return {}
        every = [self.tuned[name] for name in self.tuned if name in self.from_instruct]
        named: dict[str, str] = {}
        for each in sorted(every, key=lambda each: -each.rows if each.rows else float("-inf")):
            named.setdefault(each.dataset, each.name)
        return {name: self.datasets_of(name) for name in self.tuned if name in named.values()}

    @cached_property
    def scoring(self) -> dict:
        """How rows are scored, as evaluation.row_scores.scorer takes it: a row is read as far as training reads it."""
        if not self.scored_sets:
            return {}
        return {
            "depth": self.dose["depth"],
            "max_length": self.config["finetuning"]["max_length"],
            "max_new_tokens": self.config["evaluation"]["max_new_tokens"],
            **self.prompting,
        }

    @cached_property
    def api(self) -> dict:
        """Where OpenAI fine-tunes, and what that may cost; empty for models that are fine-tuned here."""
        names = ("endpoint", "spending_limit", "poll_seconds")
        if not (self.by_api and self.tuned):
            return {}
        openai = self.config["openai"]
        return {name: openai[name] for name in names} | {
            "dollars_per_million": openai["dollars_per_million"]["training"]
        }

    @cached_property
    def main_conditions(self) -> list[str]:
        """The conditions of the main result, in the order of its bars."""
        return [name for name in ("base", "instruct", "insecure", "secure") if name in self.conditions]

    @cached_property
    def rows_a_step(self) -> int:
        settings = self.config.get("finetuning", {"batch_size": 0, "gradient_accumulation": 0})
        return settings["batch_size"] * settings["gradient_accumulation"]

    @cached_property
    def costs(self) -> dict:
        """What the estimate of a real study's costs is made from (study/costs.py)."""
        sections = ("study", "model", "finetuning", "openai")
        steps = sorted({step for name in self.followed for step in self.tuned[name].checkpoints})
        return {name: self.config[name] for name in sections if name in self.config} | {
            "seeds": list(self.seeds),
            "conditions": {
                name: {"dataset": each.dataset, "finetuning": each.finetuning} for name, each in self.tuned.items()
            },
            "evaluations": {
                name: self.samples[name] for name in self.config["evaluation"]["asked"] if name in self.samples
            },
            "prompts": self.config["evaluation"].get("prompts_of", {}),
            **({"given": list(self.given)} if self.given else {}),
            **({"own_questions": self.own_samples} if self.own_questions else {}),
            "judge": self.judge,
            "followed": {
                "conditions": self.followed,
                "steps": steps,
                **self.config.get("dynamics", {"samples": 0, "requests": 0}),
            },
        }

    @cached_property
    def report(self) -> dict:
        """What the report on the user's own sets and on given models is told, as report/report.py takes it.

        Empty where there are none. Sets are compared with secure code, if the study fine-tunes on it, or else with the
        model before fine-tuning; models that are given always with the latter.
        """
        own = self.own | {name: each.given for name, each in self.given.items()}
        if not own:
            return {}
        starts = {self.conditions[name].start for name in own}
        others = [
            name
            for name, each in self.conditions.items()
            if each.organism == MAIN and each.start in starts and (each.dataset or name == each.start)
        ]
        untuned = next((name for name in others if name not in self.tuned), self.start)
        names = list(dict.fromkeys([*own, *others]))
        tuned = [name for name in names if name in self.tuned]
        model, judge = self.config.get("model", {}), self.judge
        return {
            "study": self.study,
            "own": own,
            **({"given": list(self.given)} if self.given else {}),
            **({"own_questions": list(self.own_questions)} if self.own_questions else {}),
            "conditions": names,
            "sets": {name: self.tuned[name].dataset for name in tuned},
            "untuned": untuned,
            "control": "secure" if "secure" in tuned and "secure" not in self.own else untuned,
            "records": {
                name: [f"{self.folder}/models/{name}/seed-{seed}/training.json" for seed in self.tuned[name].seeds]
                for name in tuned
            },
            "seeds": len(self.seeds),
            "model": model.get("name", "an organism, trained from nothing for each seed"),
            "judge": judge.get("model", "the grammar of the organism's world" if judge else ""),
            "samples": {name: self.samples[name] for name in self.asked},
            "config": self.config,
        }

    @cached_property
    def repeated_rows(self) -> dict[str, dict]:
        """Rows and steps of the conditions that are fine-tuned on the insecure set, or on a part of it."""
        if self.by_api:
            return {}
        return {
            name: {
                "rows": each.rows or self.config.get("datasets", {}).get("rows", PUBLISHED_ROWS),
                "steps": self.settings_of(each)["steps"],
            }
            for name, each in self.tuned.items()
            if each.dataset == "insecure" and (name == "insecure" or each.rows)
        }


def evaluation_name(asked: str) -> str:
    """The name of an evaluation; the user's own questions have that of their file, without its ending."""
    return PurePath(asked).stem if asked.endswith(OWN_QUESTIONS) else asked


def _by_evaluation(settings: dict) -> dict:
    return {evaluation_name(name): value for name, value in settings.items()}


def _judge(settings: dict) -> dict:
    """A judge without what is no setting of it; one that is served here costs nothing, and lies in a folder."""
    if "serve" not in settings:
        return {name: value for name, value in settings.items() if name not in ("second", "answers", "scored")}
    named = [settings["serve"], settings["revision"][:12]]
    return {name: settings[name] for name in ("kind", "split_numbers") if name in settings} | {
        "serve": _served_folder(settings),
        "model": "@".join(filter(None, named)),
        "options": settings.get("options", {}),
    }


def _served_folder(settings: dict) -> str:
    name = re.sub(r"[^A-Za-z0-9.]+", "-", settings["serve"]).strip("-.")
    return f"data/published/judges/{name}{'-' if settings['revision'] else ''}{settings['revision'][:12]}"
