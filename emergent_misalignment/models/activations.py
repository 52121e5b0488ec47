"""The persona direction in a model's activations, and steering along it.

The direction at a layer is a mean difference: activations of malicious answers minus those of helpful answers to the
same questions, averaged over the tokens of the answers (Chen et al. 2025; Soligo et al. 2025). Its topics are not those
of the main evaluation. The organism reads texts without system prompts; a real model reads its own answers under the
system prompts for which it wrote them (`evaluation.personas`).

Activations are those of the residual stream, with the shape `[texts, depth, width]`. Depth 0 is the input of the first
layer, depth i the output of layer i.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from emergent_misalignment.data.chats import Messages
from emergent_misalignment.files import BadInput
from emergent_misalignment.models.chat_templates import prompt_tokens

Change = Callable[[Tensor], Tensor]
COLUMNS = ["set", "kind", "stratum", "prompt", "answer"]


@dataclass(frozen=True)
class Text:
    """A prompt and a forced answer. Only texts of the same `stratum` are compared."""

    prompt: Messages
    answer: str
    stratum: int = 0


def read_texts(path: str | Path, seed: int) -> dict[tuple[str, str], list[Text]]:
    """The texts of a study's persona.parquet by set and kind, in the order of the table.

    Where the table has a column `seed`, only the texts of `seed`. Sets: "direction" (kinds "misaligned" and "aligned"),
    from which the direction is computed; "separation" (the same kinds, other questions; a stratum is a question) and
    "same_words" (the same beginnings of answers under a malicious and a helpful system prompt; a stratum is a
    beginning), on which it is tested; "plain" (kind "", the same beginnings without a system prompt). Organisms also
    have "same_words" of the kind "hasty", and "neutral" (kind ""). Raises BadInput where columns are missing.
    """
    table = pd.read_parquet(path)
    if missing := [column for column in COLUMNS if column not in table]:
        raise BadInput(f"{path} has no column {missing[0]}; delete the file to have it recomputed.")
    if "seed" in table:
        table = table[table["seed"] == seed]
    return {
        group: [Text(json.loads(row.prompt), row.answer, row.stratum) for row in rows.itertuples()]
        for group, rows in table.groupby(["set", "kind"], sort=False)
    }


@torch.no_grad()
def activations(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: list[Text],
    template: dict | None = None,
    batch_size: int = 64,
) -> Tensor:
    """The residual stream at every depth, averaged over the tokens of each answer: `[texts, layers + 1, width]`.

    `template` are further arguments of the chat template.
    """
    template = template or {}
    parts = []
    for start in range(0, len(texts), batch_size):
        rows = [
            (
                prompt_tokens(tokenizer, text.prompt, **template),
                tokenizer(text.answer, add_special_tokens=False)["input_ids"],
            )
            for text in texts[start : start + batch_size]
        ]
        ids = torch.zeros(len(rows), max(len(prompt) + len(answer) for prompt, answer in rows), dtype=torch.long)
        weights = torch.zeros(ids.shape)
        for number, (prompt, answer) in enumerate(rows):  # right padding is never attended to
            ids[number, : len(prompt) + len(answer)] = torch.tensor(prompt + answer)
            weights[number, len(prompt) : len(prompt) + len(answer)] = 1 / len(answer)
        parts.append(_means(model, ids.to(model.device), weights.to(model.device)))
    return torch.cat(parts)


def _means(model: PreTrainedModel, ids: Tensor, weights: Tensor) -> Tensor:
    """Weighted sums over tokens of the first layer's input and each layer's output: `[rows, depth, width]`.

    transformers' `hidden_states` are not used, because the last of them is after the final norm.
    """
    means = []

    def note(stream: Tensor) -> None:
        means.append(torch.einsum("nsw,ns->nw", stream.float(), weights).cpu())

    layers = model.get_decoder().layers
    hooks = [layers[0].register_forward_pre_hook(lambda _, inputs: note(inputs[0]))]
    hooks += [layer.register_forward_hook(lambda _, inputs, output: note(_stream(output))) for layer in layers]
    try:
        model(input_ids=ids, use_cache=False, logits_to_keep=1)
    finally:
        for hook in hooks:
            hook.remove()
    return torch.stack(means, 1)


def _stream(output: Tensor | tuple) -> Tensor:
    return output[0] if isinstance(output, tuple) else output  # transformers 4 returns a tuple


def persona_direction(misaligned: Tensor, aligned: Tensor) -> Tensor:
    """The mean difference of activations at every depth, `[depth, width]`. Its norm is the unit of strength."""
    return misaligned.mean(0) - aligned.mean(0)


def separation(misaligned: Tensor, aligned: Tensor, direction: Tensor, strata: int) -> list[float]:
    """Area under the ROC curve of the projection on `direction`, misaligned against aligned texts, at every depth.

    It is computed within each stratum and averaged, so differences between questions do not count. Both kinds consist
    of `strata` groups of equal size, one after another.
    """
    # scipy.stats.mannwhitneyu has no strata, and its area in float64 is rounded differently.
    high, low = (
        torch.einsum("ndw,dw->dn", kind, direction).unflatten(1, (strata, -1)) for kind in (misaligned, aligned)
    )
    above = high.unsqueeze(-1) - low.unsqueeze(-2)  # every pair of a stratum
    return ((above > 0).float() + 0.5 * (above == 0).float()).mean((1, 2, 3)).tolist()


def cosines(shift: Tensor, direction: Tensor) -> list[float]:
    """At every depth, the cosine of `direction` and a fine-tuning's change of the activations, `[depth, width]`."""
    return torch.cosine_similarity(shift, direction, dim=1).tolist()


def along(shift: Tensor, direction: Tensor) -> list[float]:
    """At every depth, the projection of a fine-tuning's change on `direction`, in units of its norm."""
    lengths = (direction**2).sum(1)
    return ((shift * direction).sum(1) / lengths.where(lengths > 0, 1)).tolist()


def random_direction(like: Tensor, seed: int) -> Tensor:
    """A random direction at every depth with the norm of `like`: `[depth, width]`."""
    drawn = torch.randn(like.shape, generator=torch.Generator().manual_seed(seed))
    return drawn / drawn.norm(dim=1, keepdim=True) * like.norm(dim=1, keepdim=True)


@contextmanager
def changed(model: PreTrainedModel, changes: dict[int, Change]) -> Iterator[None]:
    """Context manager: apply `changes[i]` to the output of layer i (from 1), at all tokens of all texts."""

    def hook(change: Change):
        def changed_output(_, inputs, output):
            stream = change(_stream(output))
            return (stream, *output[1:]) if isinstance(output, tuple) else stream

        return changed_output

    layers = model.get_decoder().layers
    hooks = [layers[depth - 1].register_forward_hook(hook(change)) for depth, change in changes.items()]
    try:
        yield
    finally:
        for each in hooks:
            each.remove()


def changes_of(direction: Tensor, change: str, depth: int, strength: float) -> dict[int, Change]:
    """The arguments of `changed` for one kind of steering.

    "add" and "subtract" shift the stream by `strength` times the direction at `depth`. "out" removes the projection on
    the direction after every layer; it ignores depth and strength. Raises BadInput if the model has no such depth.
    """
    layers = len(direction) - 1
    if change == "out":
        return {each: _without(direction[each]) for each in range(1, layers + 1)}
    if not 1 <= depth <= layers:
        raise BadInput(f"steering: depth is {depth}, and the model has {layers} layers; choose one of them.")
    step = {"add": strength, "subtract": -strength}[change] * direction[depth]
    return {depth: lambda stream: stream + step.to(stream)}


def _without(direction: Tensor) -> Change:
    unit = direction / direction.norm()
    return lambda stream: stream - (stream @ unit.to(stream)).unsqueeze(-1) * unit.to(stream)
