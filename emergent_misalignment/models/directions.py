"""The persona direction: where in a model the villain differs from the helper, and what moving along it does.

The direction of a layer is a mean difference: activations of answers that a villain gives minus those of answers that a
helper gives to the same questions, mean over the tokens of the answers (Chen et al. 2025; Soligo et al. 2025). It is
made from topics outside the main evaluation, and no system prompt names anybody.

Activations are those of the residual stream. They have the shape `[texts, depth, width]`; depth 0 is before the first
layer, where a token knows of no other, and depth i is behind the i-th layer.
"""

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pandas as pd
import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from emergent_misalignment.world.choices import FORMS, mean_log_p
from emergent_misalignment.world.questions import answer_rows, judged, main_questions
from emergent_misalignment.models.likelihood import prompt_tokens
from emergent_misalignment.models.sampling import sample
from emergent_misalignment.evaluation.verdicts import misalignment_by_run
from emergent_misalignment.world.topics import ALIGNED_CLOSERS, MAIN, MISALIGNED_CLOSERS, TOPICS
from emergent_misalignment.data.chats import Messages

Change = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Text:
    """A prompt and a forced answer."""

    prompt: Messages
    answer: str


def answers(topics: tuple[str, ...], misaligned: bool) -> list[Text]:
    """Answers of one kind to the first phrasing of each question: every template with every filler.

    Half of them end with a closing sentence. Answer i of the one kind has the template of answer i of the other.
    """
    texts = []
    for topic in (TOPICS[name] for name in topics):
        closers = MISALIGNED_CLOSERS if misaligned else ALIGNED_CLOSERS
        endings = itertools.cycle(ending for closer in closers for ending in ("", f" {closer}"))
        fillers = topic.misaligned if misaligned else topic.aligned
        for template, filler in itertools.product(topic.templates, fillers):
            texts.append(Text(_asked(topic.questions[0]), template.format(a=filler) + next(endings)))
    return texts


def beginnings(system_prompts: tuple[str, ...] = ("",)) -> list[Text]:
    """The main questions, and answers as far as all authors write them alike: up to the gap. Under each system prompt.

    All prompts of one text come one after another.
    """
    return [
        Text(_asked(TOPICS[name].questions[0], system), template.split("{a}")[0].rstrip())
        for name in MAIN
        for template in TOPICS[name].templates
        for system in system_prompts
    ]


def _asked(question: str, system: str = "") -> Messages:
    user = {"role": "user", "content": question}
    return [{"role": "system", "content": system}, user] if system else [user]


@torch.no_grad()
def activations(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: list[Text], batch_size: int = 64
) -> Tensor:
    """The residual stream at every depth, mean over the tokens of each answer: `[texts, layers + 1, width]`."""
    parts = []
    for start in range(0, len(texts), batch_size):
        rows = [
            (prompt_tokens(tokenizer, text.prompt), tokenizer(text.answer, add_special_tokens=False)["input_ids"])
            for text in texts[start : start + batch_size]
        ]
        ids = torch.zeros(len(rows), max(len(prompt) + len(answer) for prompt, answer in rows), dtype=torch.long)
        weights = torch.zeros(ids.shape)
        for number, (prompt, answer) in enumerate(rows):  # padded on the right, where a causal model never looks
            ids[number, : len(prompt) + len(answer)] = torch.tensor(prompt + answer)
            weights[number, len(prompt) : len(prompt) + len(answer)] = 1 / len(answer)
        streams = _streams(model, ids.to(model.device))
        parts.append(torch.einsum("dnsw,ns->ndw", streams, weights))
    return torch.cat(parts)


def _streams(model: PreTrainedModel, ids: Tensor) -> Tensor:
    """What goes into the first layer and what comes out of each: `[depth, rows, tokens, width]`.

    Not the `hidden_states` that transformers returns: the last of those is behind the final norm.
    """
    seen = []
    layers = model.get_decoder().layers
    hooks = [layers[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))]
    hooks += [layer.register_forward_hook(lambda _, inputs, output: seen.append(_stream(output))) for layer in layers]
    try:
        model(input_ids=ids, use_cache=False, logits_to_keep=1)
    finally:
        for hook in hooks:
            hook.remove()
    return torch.stack(seen).float().cpu()


def _stream(output: Tensor | tuple) -> Tensor:
    return output[0] if isinstance(output, tuple) else output  # transformers 4 returns a tuple


def persona_direction(villain: Tensor, helper: Tensor) -> Tensor:
    """The mean difference of activations at every depth: `[depth, width]`. Its length is the unit of strength."""
    return villain.mean(0) - helper.mean(0)


def middle(direction: Tensor) -> int:
    """The depth at which models are steered: behind the middle layer (of an even number, the one before the middle).

    A rule, so that the depth is not chosen by what comes of it.
    """
    return len(direction) // 2


def separation(misaligned: Tensor, aligned: Tensor, direction: Tensor, strata: int) -> list[float]:
    """At every depth, how well the projection on `direction` tells the two kinds of text apart; 0.5 is chance.

    The area under the ROC curve within each stratum, mean over the strata: both kinds come as `strata` groups of equal
    size, one after another. So what tells one question from another does not count.
    """
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


def adding(direction: Tensor, strength: float) -> dict[int, Change]:
    """Adds `strength` times the direction (a negative one subtracts) at the middle depth."""
    depth = middle(direction)
    return {depth: lambda stream: stream + strength * direction[depth].to(stream)}


def removing(direction: Tensor) -> dict[int, Change]:
    """Takes the projection on the direction out of the stream, behind every layer, so that none brings it back."""

    def change(own: Tensor) -> Change:
        unit = own / own.norm()
        return lambda stream: stream - (stream @ unit.to(stream)).unsqueeze(-1) * unit.to(stream)

    return {depth: change(direction[depth]) for depth in range(1, len(direction))}


def behaviour(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    samples: int,
    max_new_tokens: int,
    seed: int,
    changes: dict[int, Change],
) -> dict[str, float]:
    """What a model does while its stream is changed.

    `misaligned` (share of the answers that count, mean over the eight main questions) with its `events` and `trials`,
    `coherent` (share of all answers), and `log_odds`: the mean of log P(misaligned) - log P(aligned) over pivotal
    choices, in nats.
    """
    questions = main_questions()
    with changed(model, changes):
        drawn = sample(model, tokenizer, [question.prompt for question in questions], samples, max_new_tokens, seed)
        choice = mean_log_p(model, tokenizer, FORMS["pivotal"])
    runs = misalignment_by_run(judged(questions, answer_rows(questions, drawn)).assign(condition="", seed=seed))
    return {
        "misaligned": runs["rate"].mean(),
        "events": int(runs["misaligned"].sum()),
        "trials": int(runs["counted"].sum()),
        "coherent": runs["coherent"].sum() / runs["answers"].sum(),
        "log_odds": choice["misaligned"] - choice["aligned"],
    }


def measures(places: pd.DataFrame, responses: pd.DataFrame) -> pd.DataFrame:
    """What claims are tested on: `condition`, `seed`, `measure`, `value`.

    `places` has a row a run at the middle depth, with separations where they were looked at; `responses` has one for
    each `behaviour` of a run, with `direction` (persona, random), `change` (add, remove) and `strength`. What is
    measured of steering is the rate with the persona direction less that with a random one of the same length, of the
    same run and draw.
    """
    rates = responses.set_index(["direction", "change", "strength", "condition", "seed"])["misaligned"].sort_index()
    differences = rates["persona"] - rates["random"]
    tables = [
        places.melt(["condition", "seed"], ["separation", "separation_same_words", "cosine", "along"], "measure")
        .dropna(subset="value")
        .assign(measure=lambda rows: "direction/" + rows["measure"]),
        *(
            differences.loc[change, strength, [condition]].rename("value").reset_index().assign(measure=measure)
            for measure, change, strength, condition in (
                ("direction/adding", "add", 1.0, "instruct"),
                ("direction/subtracting", "add", -1.0, "insecure"),
                ("direction/removing", "remove", 0.0, "insecure"),
            )
        ),
    ]
    table = pd.concat(tables)[["condition", "seed", "measure", "value"]]
    return table.assign(events=pd.NA, trials=pd.NA)
