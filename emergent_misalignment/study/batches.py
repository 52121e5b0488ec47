"""The batches of a study: what one job does, and the parameters that its notebook gets.

For organisms a batch is all conditions and seeds of an experiment, because starting a job takes as long as fine-tuning
one model; for a real model it is one fine-tuning, or the answers of one condition. All answers are judged in one job,
because they share a spending limit.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from emergent_misalignment.evaluation.personas import DIRECTION
from emergent_misalignment.registry import CHOICES, MAIN

if TYPE_CHECKING:
    from emergent_misalignment.study.model import Study


class Batches:
    """The batches of each stage by their names, and their parameters."""

    def __init__(self, study: Study):
        self._study = study

    @cached_property
    def tuning(self) -> dict[str, list[tuple[str, int]]]:
        """The condition and the seed of each fine-tuning."""
        batches: dict[str, list] = {}
        for name, condition in self._study.tuned.items():
            for seed in condition.seeds:
                batch = condition.experiment if self._study.is_organism else f"{name}-{seed}"
                batches.setdefault(batch, []).append((name, seed))
        return batches

    @cached_property
    def asking(self) -> dict[str, list[str]]:
        """The conditions that are asked at the end of their training."""
        batches: dict[str, list[str]] = {}
        for name, condition in self._study.conditions.items():
            batches.setdefault(condition.experiment if self._study.is_organism else name, []).append(name)
        return batches

    @cached_property
    def following(self) -> dict[str, list[str]]:
        """The conditions that are asked at their checkpoints."""
        return {f"following-{name}": [name] for name in self._study.followed}

    @property
    def answers(self) -> dict[str, list[str]]:
        return self.asking | self.following

    @cached_property
    def judging(self) -> dict[str, list[str]]:
        """The batches of answers that one job judges."""
        return {"answers": list(self.asking)} | ({"following": list(self.following)} if self.following else {})

    @cached_property
    def believing(self) -> dict[str, list[str]]:
        """The conditions of main organisms whose beliefs about the author are read, at their end and at checkpoints."""
        study = self._study
        if not study.is_organism:
            return {}
        batches: dict[str, list[str]] = {}
        for name, condition in study.conditions.items():
            if condition.organism == MAIN and name != "in_context":  # which is the instruct model
                batches.setdefault(condition.experiment, []).append(name)
        return batches | self.following

    # --- parameters ---------------------------------------------------------------------------------------------------

    def finetunings(self, batch: str) -> dict[str, dict]:
        """The conditions of a batch, as models/finetuning.ipynb takes them."""
        study = self._study
        seeds: dict[str, list[int]] = {}
        for name, seed in self.tuning[batch]:
            seeds.setdefault(name, []).append(seed)
        return {
            name: {
                "seeds": own,
                "starts": [study.paths.start_of(name, seed) for seed in own],
                "datasets": [study.paths.dataset(study.tuned[name].dataset, seed) for seed in own],
                "template": study.tuned[name].template,
                "rows": study.tuned[name].rows,
                "checkpoints": list(study.tuned[name].checkpoints),
                "settings": study.settings_of(study.tuned[name]),
                **({"held_out": study.held_out["share"]} if study.held_out else {}),
                **({"defended_with": needed} if (needed := self._defended_with(name)) else {}),
            }
            for name, own in seeds.items()
        }

    def _defended_with(self, name: str) -> dict:
        """What a condition's defence needs besides its settings, as `models.finetuning.finetune_run` takes it."""
        study = self._study
        defence = study.defence_of(study.tuned[name])
        kind, benign = defence.get("kind"), study.paths.benign_of(name)
        needed = {"benign": benign} if benign else {}
        if kind == "kl" and not benign:
            needed["prompts"] = DIRECTION  # everyday questions, which no evaluation asks
        if kind == "preventative_steering":
            needed |= {"texts": study.paths.of("questions/persona.parquet"), "depth": study.dose["depth"]}
        if gap_to := defence.get("gap_to"):
            needed["misaligned"] = study.paths.adapters_of(gap_to)
        return needed

    def asked_models(self, batch: str) -> dict[str, dict]:
        """The models of a batch and what they are asked, as evaluation/asking.ipynb takes them."""
        study = self._study
        if batch in self.following:
            evaluations = {
                "main": {"samples": study.dynamics.samples},
                "in_distribution": {"prompts": study.dynamics.requests},
                CHOICES: {},
            }
            return {
                name: self._asked(name, evaluations, [0, *study.tuned[name].checkpoints])
                for name in self.following[batch]
            }
        limits = {name: {"prompts": number} for name, number in study.prompts.items()}
        return {
            name: self._asked(name, {each: limits.get(each, {}) for each in study.conditions[name].evaluations}, [])
            for name in self.asking[batch]
        }

    def _asked(self, name: str, evaluations: dict, steps: list[int]) -> dict:
        return self._models(name, steps) | {"evaluations": evaluations}

    def _models(self, name: str, steps: list[int]) -> dict:
        study = self._study
        return {
            "starts": study.paths.starts_of(name),
            "tuned": study.paths.adapters_of(name),
            "seeds": list(study.conditions[name].seeds),
            "steps": steps,
        }

    def believers(self, batch: str) -> dict[str, dict]:
        """The models of a batch, as evaluation/beliefs.ipynb takes them."""
        conditions = {name: self._study.conditions[name] for name in self.believing[batch]}
        if batch in self.following:
            return {
                name: self._models(name, [0, *each.checkpoints]) | {"contexts": ["chat"]}
                for name, each in conditions.items()
            }
        return {
            name: self._models(name, [])
            | {"contexts": ["chat", *(["triggered"] if "triggered" in each.evaluations else [])]}
            for name, each in conditions.items()
        }

    def requirements(self, model: str = "") -> dict:
        """What the study requires of a model that runs here, as `models.requirements.Requirements` takes it.

        `model` is a condition with an existing model, which is asked and not fine-tuned; "" is the study's own model.
        """
        study = self._study
        in_chat = [each for each in study.conditions.values() if each.template == "chat"]
        training = study.training if study.tuned else None
        own = {
            "name": study.model.name,
            "in_chat": bool(in_chat),
            "sets": {study.paths.dataset(each.dataset, each.seeds[0]): each.own_set for each in in_chat if each.dataset}
            | {
                path: bool(study.own_benign(each))
                for each in in_chat
                if each.dataset and (path := study.paths.benign_of(each.name))
            },
            "persona_direction": bool(study.persona),
            "inoculated": any(study.defence_of(each).get("kind") == "inoculation" for each in study.tuned.values()),
            "max_new_tokens": study.evaluation.max_new_tokens,
            "max_length": training.max_length if training else 0,
            "lora_rank": training.lora_rank if training else 0,
            "engine": study.evaluation.engine,
            **study.prompting,
        }
        if model not in study.existing:
            return own
        asked = {"in_chat": True, "sets": {}, "persona_direction": False, "inoculated": False}
        asked |= {"max_length": 0, "lora_rank": 0}
        return own | asked | {"name": study.existing[model].existing}
