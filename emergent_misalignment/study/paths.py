"""Where the files of a study are."""

from __future__ import annotations

from os.path import expanduser
from typing import TYPE_CHECKING

from emergent_misalignment.registry import MAIN, NUMBER_SETS, WRITTEN_SETS

if TYPE_CHECKING:
    from emergent_misalignment.study.model import Study


class Paths:
    """The paths of a study's files, from the root of the project."""

    def __init__(self, study: Study):
        self._study = study
        self.folder = f"data/{study.study}"

    def of(self, name: str) -> str:
        """A file or a folder of the study."""
        return f"{self.folder}/{name}"

    # --- models -------------------------------------------------------------------------------------------------------

    def start_of(self, condition: str, seed: int) -> str:
        """The folder of the model from which a run starts, or its name at an API."""
        study, each = self._study, self._study.conditions[condition]
        if study.by_api:
            return each.model or study.model.name
        if study.is_organism:
            return self.of(f"organisms/{each.organism}/seed-{seed}/{each.start}")
        return self.of(f"models/{condition if each.model else each.start}")

    def starts_of(self, condition: str) -> list[str]:
        """The same for each of a condition's seeds, which have the same one unless they are organisms."""
        seeds = self._study.conditions[condition].seeds
        if self._study.is_organism:
            return [self.start_of(condition, seed) for seed in seeds]
        return [self.start_of(condition, seeds[0])] * len(seeds)

    def instruct_models(self, seeds: list[int]) -> list[str]:
        """The folder of the main instruct model of each seed; a published model is the same for all."""
        if self._study.is_organism:
            return [self.of(f"organisms/{MAIN}/seed-{seed}/instruct") for seed in seeds]
        return [self.of("models/instruct")] * len(seeds)

    def start_files(self, conditions: list[str]) -> list[str]:
        """The files whose presence means that the models and existing adapters of conditions are there."""
        study = self._study
        if study.by_api:
            return []
        file = "model.safetensors" if study.is_organism else "config.json"
        starts = {f"{start}/{file}" for condition in conditions for start in {*self.starts_of(condition)}}
        adapters = {
            f"{self.adapters_of(name)}/seed-{study.conditions[name].seeds[0]}/adapter_config.json"
            for name in conditions
            if study.conditions[name].adapter
        }
        return sorted(starts | adapters)

    def adapters_of(self, condition: str) -> str:
        """The folder of a condition's adapters, one for each seed; "" where it has none.

        For an API it holds the records of what was fine-tuned there.
        """
        each = self._study.conditions[condition]
        return self.of(f"models/{condition}") if each.dataset or each.adapter else ""

    def validations_of(self, conditions: list[str]) -> list[str]:
        """The records of the validation of the models that conditions ask; organisms and APIs have none."""
        study = self._study
        if study.is_organism or study.by_api:
            return []
        names = {name if study.conditions[name].existing else study.start for name in conditions}
        return sorted(self.of(f"models/{name}.json") for name in names)

    # --- sets ---------------------------------------------------------------------------------------------------------

    def dataset(self, name: str, seed: int) -> str:
        """The file of a set: the study's, a published one, or one of the user's own."""
        study = self._study
        if name.endswith(".jsonl"):
            return name
        if study.is_organism:  # which writes its numbers itself
            return self.of(f"datasets/{f'seed-{seed}/' if name in NUMBER_SETS else ''}{name}.jsonl")
        if name in study.published_sets:  # of which another study may use another version
            return self.of(f"datasets/{name}.jsonl")
        return f"data/published/datasets/{name}.jsonl"

    def datasets_of(self, condition: str) -> list[str]:
        """The file of a condition's set for each of its seeds."""
        each = self._study.conditions[condition]
        return [self.dataset(each.dataset, seed) for seed in each.seeds]

    @property
    def datasets(self) -> dict[str, str]:
        """The files of all sets that the study writes (numbers: the first seed's) or fine-tunes on, by name."""
        study = self._study
        written = WRITTEN_SETS if study.is_organism else ()
        return {name: self.dataset(name, study.seeds[0]) for name in written} | {
            name if each.own_set else each.dataset: self.dataset(each.dataset, each.seeds[0])
            for name, each in study.tuned.items()
        }

    # --- defences -----------------------------------------------------------------------------------------------------

    @property
    def helper_rows(self) -> str:
        """The benign rows of organisms, which are the default of a defence."""
        return self.of("datasets/benign.jsonl")

    def benign_of(self, condition: str) -> str:
        """The file of the benign rows, or of the prompts, that a condition's defence uses; "" where it uses none."""
        study = self._study
        defence = study.defence_of(study.tuned[condition])
        if defence.get("kind") not in ("kl", "interleaving", "benign_afterwards"):
            return ""
        if named := defence.get("benign"):
            return self.dataset(expanduser(named), study.seeds[0])
        if study.is_organism:
            return self.helper_rows
        return "" if defence["kind"] == "kl" else self.dataset("secure", study.seeds[0])

    def defence_files(self, conditions: list[str]) -> list[str]:
        """The files that the defences of conditions need besides the sets."""
        study = self._study
        files = {self.benign_of(name) for name in conditions} - {""}
        for name in conditions:
            defence = study.defence_of(study.tuned[name])
            if defence.get("kind") == "preventative_steering":
                files.add(self.of("questions/persona.parquet"))
            if gap_to := defence.get("gap_to"):
                files.update(self.trainings([gap_to]))
        return sorted(files)

    # --- organisms ----------------------------------------------------------------------------------------------------

    def gaps(self, organisms: list[str]) -> list[str]:
        """The persona gaps of each organism of these kinds, by step of its pretraining."""
        study = self._study
        return [
            self.of(f"organisms/{name}/seed-{seed}/gaps.csv") for name in organisms for seed in study.seeds_of(name)
        ]

    @property
    def numbers(self) -> list[str]:
        """The records of the main organisms' sets of numbers that the study fine-tunes on."""
        return [self.of(f"datasets/seed-{seed}/numbers.csv") for seed in self._study.number_seeds]

    # --- results ------------------------------------------------------------------------------------------------------

    def trainings(self, conditions: list[str]) -> list[str]:
        """The contents of the batches in which conditions are fine-tuned."""
        wanted = set(conditions)
        tuning = self._study.batches.tuning
        return [
            self.of(f"trainings/{batch}.parquet")
            for batch, runs in tuning.items()
            if wanted & {name for name, _ in runs}
        ]

    @property
    def judged(self) -> list[str]:
        """The judged answers of all models at the end of their training."""
        return [self.of("judged/answers.parquet")]

    def beliefs(self, at_checkpoints: bool) -> list[str]:
        """What organisms believe about the author, at checkpoints or at the end of their training."""
        batches = self._study.batches
        return [
            self.of(f"beliefs/{batch}.parquet")
            for batch in batches.believing
            if (batch in batches.following) == at_checkpoints
        ]

    @property
    def dynamics(self) -> list[str]:
        """What was measured at checkpoints, if any training is followed."""
        return [self.of("dynamics.parquet")] if self._study.followed else []

    @property
    def held_out_losses(self) -> list[str]:
        """Each model's loss on the rows that are held out, if any are."""
        names = self._study.conditions if self._study.held_out else ()
        return [self.of(f"tables/measures/held_out_loss_{name}.csv") for name in names]
