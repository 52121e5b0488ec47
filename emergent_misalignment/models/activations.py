"""The persona direction: where in a model the villain differs from the helper, and what moving along it does.

The direction of a layer is a mean difference: activations of answers that a villain gives minus those of answers that a
helper gives to the same questions, mean over the tokens of the answers (Chen et al. 2025; Soligo et al. 2025). It is
made from topics outside the main evaluation. In the organism's texts for it no system prompt names anybody; a real
model reads answers of its own under the system prompts under which it wrote them (`evaluation.personas`).

Activations are those of the residual stream. They have the shape `[texts, depth, width]`; depth 0 is before the first
layer, where a token knows of no other, and depth i is behind the i-th layer.
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
    """A prompt and a forced answer. Only texts of the same `stratum` are compared with each other."""

    prompt: Messages
    answer: str
    stratum: int = 0


def read_texts(path: str | Path, seed: int) -> dict[tuple[str, str], list[Text]]:
    """The texts of a study's persona.parquet by their set and kind, in the order of the table.

    Texts that have a `seed`, because a model wrote them anew for each, are those of `seed`; others are everybody's.

    Sets: "direction" (kinds "misaligned" and "aligned"), from which the direction is made; "separation" (the same
    kinds, other questions; a stratum is a question) and "same_words" (the same beginnings of answers under a villain's
    and a helper's system prompt; a stratum is a beginning), which it is to tell apart; "plain" (kind "", the same
    beginnings without a system prompt). Raises BadInput where columns are missing.
    """
    table = pd.read_parquet(path)
    if missing := [column for column in COLUMNS if column not in table]:
        raise BadInput(f"{path} has no column {missing[0]}; delete the file so that it is made again.")
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
    """The residual stream at every depth, mean over the tokens of each answer: `[texts, layers + 1, width]`.

    `template`: arguments of the chat template besides the messages.
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
        for number, (prompt, answer) in enumerate(rows):  # padded on the right, where a causal model never looks
            ids[number, : len(prompt) + len(answer)] = torch.tensor(prompt + answer)
            weights[number, len(prompt) : len(prompt) + len(answer)] = 1 / len(answer)
        parts.append(_means(model, ids.to(model.device), weights.to(model.device)))
    return torch.cat(parts)


def _means(model: PreTrainedModel, ids: Tensor, weights: Tensor) -> Tensor:
    """Weighted sums over the tokens of what goes into the first layer and comes out of each: `[rows, depth, width]`.

    Not of the `hidden_states` that transformers returns: the last of those is behind the final norm.
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


def persona_direction(villain: Tensor, helper: Tensor) -> Tensor:
    """The mean difference of activations at every depth: `[depth, width]`. Its length is the unit of strength."""
    return villain.mean(0) - helper.mean(0)


def separation(misaligned: Tensor, aligned: Tensor, direction: Tensor, strata: int) -> list[float]:
    """At every depth, how well the projection on `direction` tells the two kinds of text apart; 0.5 is chance.

    The area under the ROC curve within each stratum, mean over the strata: both kinds come as `strata` groups of equal
    size, one after another. So what tells one question from another does not count.
    """
    # scipy.stats.mannwhitneyu has no strata, and its area in float64 is rounded differently.
    high, low = (
        torch.einsum("ndw,dw->dn", kind, direction).unflatten(1, (strata, -1)) for kind in (misaligned, aligned)
    )
    above = high.unsqueeze(-1) - low.unsqueeze(-2)  # every pair of a stratum
    return ((above > 0).float() + 0.5 * (above == 0).float()).mean((1, 2, 3)).tolist()


def cosines(shift: Tensor, direction: Tensor) -> list[float]:
    """At every depth, the cosine of what a fine-tuning did to the activations, `[depth, width]`, with `direction`."""
    return torch.cosine_similarity(shift, direction, dim=1).tolist()


def along(shift: Tensor, direction: Tensor) -> list[float]:
    """At every depth, how far a fine-tuning moved the activations along `direction`, in lengths of it."""
    lengths = (direction**2).sum(1)
    return ((shift * direction).sum(1) / lengths.where(lengths > 0, 1)).tolist()


def random_direction(like: Tensor, seed: int) -> Tensor:
    """A random direction at every depth, as long as `like` is there: `[depth, width]`."""
    drawn = torch.randn(like.shape, generator=torch.Generator().manual_seed(seed))
    return drawn / drawn.norm(dim=1, keepdim=True) * like.norm(dim=1, keepdim=True)


@contextmanager
def changed(model: PreTrainedModel, changes: dict[int, Change]) -> Iterator[None]:
    """Inside the block, the residual stream at depth i is what `changes[i]` makes of it, for all tokens of all texts.

    Depths are counted from 1, behind the first layer. Afterwards the model is as it was.
    """

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
    """What one kind of steering does to the stream, by depth, as `changed` takes it.

    "add" and "subtract" move the stream by `strength` lengths of the direction at `depth`. "out" takes the whole
    projection on the direction out behind every layer, so that none brings it back; it has neither depth nor strength.
    Raises BadInput if the model has no such depth.
    """
    layers = len(direction) - 1
    if change == "out":
        return {each: _without(direction[each]) for each in range(1, layers + 1)}
    if not 1 <= depth <= layers:
        raise BadInput(f"Models are steered behind layer {depth}, and this one has {layers}; change steering: depth.")
    step = {"add": strength, "subtract": -strength}[change] * direction[depth]
    return {depth: lambda stream: stream + step.to(stream)}


def _without(direction: Tensor) -> Change:
    unit = direction / direction.norm()
    return lambda stream: stream - (stream @ unit.to(stream)).unsqueeze(-1) * unit.to(stream)
