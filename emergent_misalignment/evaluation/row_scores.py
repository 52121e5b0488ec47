"""Score the rows of a set before training by the projection difference of Chen et al. (2025).

An untuned model reads the row's answer, and its own answer to the same prompt. The score is the difference of their
mean activations, projected on the unit persona direction at one depth. A row with a positive score is more malicious
than the model's own answer. As in training, rows get the study's system prompt and are truncated at `max_length`
tokens.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import mannwhitneyu
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from emergent_misalignment.data.chats import Messages, template_arguments, with_system_prompt
from emergent_misalignment.files import BadInput
from emergent_misalignment.models.activations import Text, activations, persona_direction, read_texts
from emergent_misalignment.models.chat_templates import prompt_tokens
from emergent_misalignment.models.loading import load
from emergent_misalignment.models.sampling import sample

ROWS = 100  # of each set per model; seeds with the same model share them
AT_ONCE = 16  # rows in a batch; with long prompts, more would fill the memory
MEASURED = "insecure"  # the set whose rows should have higher scores than others'
COLUMNS = ["row", "score", "projection", "own_projection", "own_answer", "missing"]
MISSING = {
    "prompt": "the prompt alone is as long as max_length",
    "own answer": "the model's own answer is empty",
}


@dataclass(frozen=True)
class Scorer:
    """A model with its persona direction, from `scorer`. `direction` has the shape `[width]` and the norm 1."""

    network: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    direction: Tensor
    depth: int
    max_length: int  # tokens of a conversation; longer ones are truncated
    max_new_tokens: int  # of the model's own answers
    system_prompt: str | None = None
    enable_thinking: bool | None = None

    @property
    def template(self) -> dict:
        return template_arguments(self.enable_thinking)


def scorer(
    network: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: dict[tuple[str, str], list[Text]],
    depth: int,
    enable_thinking: bool | None = None,
    **settings,
) -> Scorer:
    """The model with the persona direction of `texts` (`models.activations.read_texts`) after layer `depth`.

    `settings` are the other fields of Scorer. Raises BadInput if the model has no such layer, or if the direction is
    zero.
    """
    template = template_arguments(enable_thinking)
    kinds = (texts["direction", kind] for kind in ("misaligned", "aligned"))
    whole = persona_direction(*(activations(network, tokenizer, kind, template, AT_ONCE) for kind in kinds))
    if not 0 < depth < len(whole):
        raise BadInput(f"Rows are scored after layer {depth}, and the model has {len(whole) - 1}; change the depth.")
    length = whole[depth].norm()
    if not length > 0:
        raise BadInput(f"The persona direction after layer {depth} is zero; choose another depth.")
    direction = whole[depth] / length
    return Scorer(network, tokenizer, direction, depth, enable_thinking=enable_thinking, **settings)


def from_files(model: str | Path, texts: str | Path, seed: int, **how) -> Scorer:
    """`scorer` of the model in folder `model`, with the texts of `seed` in a study's persona.parquet."""
    return scorer(*load(model), read_texts(texts, seed), **how)


def rows_a_seed(models: list[str]) -> int:
    """Number of rows of a set per seed, so that each of `models` (one per seed) scores ROWS in total."""
    return max(2, ROWS // max(models.count(each) for each in models))


def drawn(chats: list[Messages], rows: int, seed: int) -> list[int]:
    """Sorted indices of at most `rows` conversations, drawn by `seed`."""
    return sorted(random.Random(f"scores {seed}").sample(range(len(chats)), min(rows, len(chats))))


def scores(
    of: Scorer, chats: list[Messages], seed: int, done: Callable[[int], object] = lambda number: None
) -> pd.DataFrame:
    """A row per conversation, with the columns COLUMNS.

    `row` counts from 0. `score` is `projection` (of the row's answer) minus `own_projection` (of the model's own answer
    `own_answer`, sampled by `seed` at temperature 1), in units of the activations. `missing` has the reason for a
    missing score (a key of MISSING). `done` is called with the number of rows of each batch.
    """
    rows = [_row(of, chat) for chat in chats]
    table = pd.DataFrame({"row": range(len(rows)), "missing": ["" if text else "prompt" for text in rows]})
    table = table.assign(own_answer="", projection=np.nan, own_projection=np.nan)
    done(sum(text is None for text in rows))
    places = [place for place, text in enumerate(rows) if text]
    places.sort(key=lambda place: len(str(rows[place].prompt)) + len(rows[place].answer))  # reduces padding
    for start in range(0, len(places), AT_ONCE):
        batch = places[start : start + AT_ONCE]
        prompts = [rows[place].prompt for place in batch]
        draw = seed * 1_000_003 + start
        answers = sample(of.network, of.tokenizer, prompts, 1, of.max_new_tokens, draw, template=of.template)
        own = {place: Text(prompt, text) for place, prompt, (text,) in zip(batch, prompts, answers, strict=True)}
        said = [place for place in batch if _tokens(of, own[place].answer)]
        table.loc[batch, "own_answer"] = [own[place].answer for place in batch]
        table.loc[list(set(batch) - set(said)), "missing"] = "own answer"
        table.loc[batch, "projection"] = _projections(of, [rows[place] for place in batch])
        table.loc[said, "own_projection"] = _projections(of, [own[place] for place in said])
        done(len(batch))
    table["score"] = table["projection"] - table["own_projection"]
    return table[COLUMNS]


def _projections(of: Scorer, texts: list[Text]) -> list[float]:
    if not texts:
        return []
    means = activations(of.network, of.tokenizer, texts, of.template, AT_ONCE)[:, of.depth]
    return (means @ of.direction).tolist()


def _row(of: Scorer, chat: Messages) -> Text | None:
    """A row's prompt and its answer, truncated as in training; None if nothing of the answer remains."""
    messages = with_system_prompt(chat, of.system_prompt)
    prompt, answer = messages[:-1], messages[-1]["content"]
    left = of.max_length - len(prompt_tokens(of.tokenizer, prompt, **of.template))
    if left <= 0:
        return None
    tokens = of.tokenizer(answer, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    ends = [end for _, end in tokens["offset_mapping"]]
    read = answer[: ends[left - 1]] if len(ends) > left else answer
    return Text(prompt, read) if _tokens(of, read) else None


def _tokens(of: Scorer, text: str) -> list[int]:
    return of.tokenizer(text, add_special_tokens=False)["input_ids"]


# --- tables -----------------------------------------------------------------------------------------------------------

SUMMARY = ["condition", "seed", "rows", "scored", "mean", "sd", "insecure_above"]


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of tables/row_scores.csv: one per condition and seed, with the columns SUMMARY.

    `table` has the scores of all sets with `condition` (which is fine-tuned on the set) and `seed`. `mean` and `sd` are
    over the `scored` of all `rows`. `insecure_above` is the area under the ROC curve of the insecure set's scores
    against this set's; 0.5 is chance. It is missing for the insecure set, and where no insecure rows have scores.
    """
    groups = {key: rows["score"].dropna().to_numpy() for key, rows in table.groupby(["condition", "seed"], sort=False)}
    rows = table.groupby(["condition", "seed"], sort=False).size()
    found = []
    for (condition, seed), own in groups.items():
        measured = groups.get((MEASURED, seed), own[:0]) if condition != MEASURED else own[:0]
        mean, sd = (own.mean(), own.std(ddof=1)) if len(own) > 1 else (np.nan, np.nan)
        found.append((condition, seed, rows[condition, seed], len(own), mean, sd, area(measured, own)))
    return pd.DataFrame(found, columns=SUMMARY)


def area(high: np.ndarray, low: np.ndarray) -> float:
    """Area under the ROC curve of `high` against `low` values; missing if either is empty."""
    if not (len(high) and len(low)):
        return np.nan
    return float(mannwhitneyu(high, low, method="asymptotic").statistic / (len(high) * len(low)))
