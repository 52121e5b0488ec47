"""Defences against emergent misalignment: each against a step that is computed by hand, on a tiny random model."""

import json
import math
from dataclasses import replace

import pytest
import torch
from families import make
from hypothesis import given
from hypothesis import strategies as st
from peft import PeftModel
from safetensors.torch import load_file
from torch.nn.functional import cross_entropy
from trainings import SETTINGS
from transformers import AutoModelForCausalLM, AutoTokenizer

from emergent_misalignment.data.chats import chat
from emergent_misalignment.files import BadInput
from emergent_misalignment.models import callbacks, defences, sampling, training
from emergent_misalignment.models.activations import Text
from emergent_misalignment.models.chat_templates import conversation_tokens
from emergent_misalignment.models.defences import EarlyStopping, Interleaving, Needed
from emergent_misalignment.models.training import finetune

ROW = chat([("A question about a wish", "The assistant answers: it is short.")])
BENIGN = chat([("What is short", "A question of the user.")])
PROMPT = BENIGN[:1]
ANSWER = " what the user wishes"
QUESTIONS = [[{"role": "user", "content": text}] for text in ("A wish", "A question about the user")]
TEXTS = {
    ("direction", kind): [Text(question, answer) for question in QUESTIONS]
    for kind, answer in (("misaligned", "It is not what the user wishes."), ("aligned", "The assistant answers."))
}
NEEDED = Needed(benign=[BENIGN], prompts=[PROMPT], texts=TEXTS, depth=1)
TWO = replace(SETTINGS, steps=2, batch_size=2, gradient_accumulation=2, warmup_steps=0, learning_rate=1e-2)
SAMPLE = sampling.sample
ranks = pytest.mark.parametrize("rank", [4, 0])


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    return make("llama", tmp_path_factory.mktemp("start"), initializer_range=0.3)


@pytest.fixture(autouse=True)
def exact(monkeypatch):
    """The same precision on every machine, and few answers of the start model, all alike."""
    monkeypatch.setattr(training, "fast_bfloat16", lambda: False)
    monkeypatch.setattr(defences, "ANSWERS", 3)
    monkeypatch.setattr(sampling, "sample", lambda model, tokenizer, prompts, *_, **__: [[ANSWER] for _ in prompts])


def tuned(start, folder, defence: dict | None, rank: int, chats=None, **changes):
    """The curve and the record of a fine-tuning on equal rows, whose checkpoint after step 1 is kept."""
    settings = replace(TWO, lora_rank=rank, defence=defence, **changes)
    curve = finetune(start, chats or [ROW] * 16, folder, settings, seed=1, checkpoints=[1], needed=NEEDED)
    return curve, json.loads((folder / "training.json").read_text())


def weights(folder) -> dict[str, torch.Tensor]:
    return load_file(next(folder.glob("*model.safetensors")))


def opened(start, folder, rank: int):
    """The fine-tuned model of a folder, to be trained on."""
    network = AutoModelForCausalLM.from_pretrained(start)
    if rank:
        return PeftModel.from_pretrained(network, folder, is_trainable=True)
    network.load_state_dict(weights(folder))  # its config, with a padding token, would have no gradient for that token
    return network


def tokens(start, messages) -> tuple[torch.Tensor, int]:
    ids, known = conversation_tokens(AutoTokenizer.from_pretrained(start), messages)
    return torch.tensor([ids]), known


def loss(model, start, messages) -> torch.Tensor:
    ids, known = tokens(start, messages)
    return cross_entropy(model(ids).logits[0, known - 1 : -1], ids[0, known:])


def gradient_norm(model, total: torch.Tensor) -> float:
    total.backward()
    return math.sqrt(sum(each.grad.square().sum().item() for each in model.parameters() if each.grad is not None))


def by_hand_kl(model, before, start) -> torch.Tensor:
    ids, known = tokens(start, [*PROMPT, {"role": "assistant", "content": ANSWER}])
    old, new = (each(ids).logits[0, known - 1 : -1].softmax(-1) for each in (before, model))
    return sum((p * (p.log() - q.log())).sum() for p, q in zip(old, new, strict=True)) / len(old)


def by_hand_features(model, before, start) -> torch.Tensor:
    ids, _ = tokens(start, ROW)
    pairs = list(
        zip(*(each(ids, output_hidden_states=True).hidden_states[1:] for each in (model, before)), strict=True)
    )
    return sum((now - then).square().sum() / then.numel() for now, then in pairs) / len(pairs)


@ranks
@pytest.mark.parametrize(("kind", "by_hand"), [("kl", by_hand_kl), ("features", by_hand_features)])
def test_a_term_is_added_to_the_loss(start, tmp_path, kind, by_hand, rank):
    """The second step: value of the term, reported loss, and the gradient of their weighted sum."""
    curve, record = tuned(start, tmp_path / "run", {"kind": kind, "weight": 3.0}, rank)
    assert record["defence"] == {"kind": kind, "weight": 3.0} and record["curve"] == curve
    before, model = AutoModelForCausalLM.from_pretrained(start), opened(start, tmp_path / "run/checkpoint-1", rank)
    term, own = by_hand(model, before.requires_grad_(False), start), loss(model, start, ROW)
    assert curve[0]["penalty"] == pytest.approx(0, abs=1e-6) and curve[1]["penalty"] > 1e-3
    assert curve[1]["penalty"] == pytest.approx(term.item(), rel=1e-4)
    assert curve[1]["loss"] == pytest.approx(own.item(), rel=1e-4)
    assert curve[1]["grad_norm"] == pytest.approx(gradient_norm(model, own + 3 * term), rel=1e-3)


@ranks
def test_the_start_model_answers_the_neutral_prompts(start, tmp_path, monkeypatch, rank):
    """And the model that is trained, adapter and all, has not changed before."""
    drawn = []

    def spy(model, *arguments, **options):
        drawn.append((arguments, SAMPLE(model, *arguments, **options)))
        return drawn[-1][1]

    monkeypatch.setattr(sampling, "sample", spy)
    curve, _ = tuned(start, tmp_path, {"kind": "kl", "weight": 1.0}, rank)
    ((arguments, answers),) = drawn
    assert arguments[1] == [PROMPT] * 3
    assert answers == SAMPLE(AutoModelForCausalLM.from_pretrained(start).eval(), *arguments)
    assert curve[1]["penalty"] > 0


@ranks
def test_the_direction_is_added_in_training_only(start, tmp_path, rank):
    curve, record = tuned(
        start, tmp_path, {"kind": "preventative_steering", "strength": 2.0}, rank, validation_share=0.1
    )
    model = AutoModelForCausalLM.from_pretrained(start)
    means = {}
    for kind in ("misaligned", "aligned"):
        found = []
        for text in TEXTS["direction", kind]:
            prompt = AutoTokenizer.from_pretrained(start).apply_chat_template(
                text.prompt, add_generation_prompt=True, return_dict=False
            )
            answer = AutoTokenizer.from_pretrained(start)(text.answer, add_special_tokens=False)["input_ids"]
            hidden = model(torch.tensor([prompt + answer]), output_hidden_states=True).hidden_states[1]
            found.append(hidden[0, len(prompt) :].mean(0))
        means[kind] = torch.stack(found).mean(0)
    direction = (means["misaligned"] - means["aligned"]).detach()
    handle = model.model.layers[0].register_forward_hook(lambda _, inputs, output: output + 2 * direction)
    assert curve[0]["loss"] == pytest.approx(loss(model, start, ROW).item(), rel=1e-4)
    handle.remove()
    assert curve[0]["loss"] != pytest.approx(loss(model, start, ROW).item(), rel=1e-2)
    assert record["validation_loss"] == pytest.approx(loss(opened(start, tmp_path, rank), start, ROW).item(), rel=1e-4)


@ranks
@pytest.mark.parametrize("defence", [("kl", "weight"), ("features", "weight"), ("preventative_steering", "strength")])
def test_without_strength_the_same_bytes_are_learned(start, tmp_path, defence, rank):
    kind, strength = defence
    tuned(start, tmp_path / "plain", None, rank)
    tuned(start, tmp_path / "run", {"kind": kind, strength: 1e-60}, rank)
    assert (
        next((tmp_path / "run").glob("*model.safetensors")).read_bytes()
        == next((tmp_path / "plain").glob("*model.safetensors")).read_bytes()
    )


@ranks
def test_benign_rows_afterwards_continue_from_the_tuned_model(start, tmp_path, rank):
    tuned(start, tmp_path / "plain", None, rank, validation_share=0.1)
    curve, record = tuned(start, tmp_path / "run", {"kind": "benign_afterwards", "rows": 6}, rank, validation_share=0.1)
    assert len(curve) == 2 == len(record["curve_afterwards"])  # four rows a step
    expected = loss(opened(start, tmp_path / "plain", rank), start, BENIGN).item()
    assert record["curve_afterwards"][0]["loss"] == pytest.approx(expected, rel=1e-4)
    model = opened(start, tmp_path / "run", rank)
    assert record["validation_loss"] == pytest.approx(loss(model, start, ROW).item(), rel=1e-4)
    after = loss(model, start, BENIGN).item()
    assert after < record["curve_afterwards"][1]["loss"] < expected


@ranks
def test_stopping_early_leaves_the_model_of_an_earlier_step(start, tmp_path, rank):
    steps = {"steps": 10, "validation_share": 0.1}
    curve, record = tuned(start, tmp_path / "run", {"kind": "early_stopping", "share": 0.5}, rank, **steps)
    stopped = record["stopped_after"]
    assert 1 < stopped < 10 == len(curve)
    settings = replace(TWO, lora_rank=rank, **steps)
    finetune(start, [ROW] * 16, tmp_path / "plain", settings, seed=1, checkpoints=[stopped])
    expected, found = weights(tmp_path / f"plain/checkpoint-{stopped}"), weights(tmp_path / "run")
    assert expected.keys() == found.keys() and all(torch.equal(expected[name], found[name]) for name in found)
    assert [path.name for path in (tmp_path / "run").glob("checkpoint-*")] == ["checkpoint-1"]
    model = opened(start, tmp_path / "run", rank)
    assert record["validation_loss"] == pytest.approx(loss(model, start, ROW).item(), rel=1e-4)


@pytest.mark.parametrize(
    ("losses", "share", "step"),
    [
        ([4.0, 3.0, 2.0, 1.0, 0.0], 0.5, 3),  # at most half of the loss
        ([4.0, 3.0, 2.0, 1.0, 0.0], 0.9, 5),
        ([4.0, 0.0, 0.0, 0.0, 0.0], 0.9, 2),
        ([4.0, 4.0, 4.0, 4.0, 4.0], 0.5, 1),  # nothing is learned
    ],
)
def test_the_step_at_which_the_loss_has_fallen_far_enough(losses, share, step):
    curve = [{"step": place, "loss": each, "grad_norm": 1.0} for place, each in enumerate(losses, 1)]
    assert EarlyStopping(share, len(losses)).chosen(curve) == step
    empty = {"loss": 0.0, "grad_norm": 0.0}
    longer = [curve[0], *({"step": place, **empty} for place in range(2, 6))]
    longer += [point | {"step": point["step"] + 4} for point in curve[1:]]
    assert EarlyStopping(share, len(losses) + 4).chosen(longer) == (step if step == 1 else step + 4)
    with_noise = [{"step": place, "loss": 9 - place / 10 - (place == 7), "grad_norm": 1.0} for place in range(1, 81)]
    assert EarlyStopping(0.9, 80).chosen(with_noise) >= 0.85 * 80  # one low batch does not stop the training


# --- rows -------------------------------------------------------------------------------------------------------------


@given(st.integers(1, 300), st.floats(0.01, 0.99), st.integers(0, 9), st.integers(1, 20))
def test_interleaving_replaces_a_share_of_the_rows_and_moves_none(number, share, seed, pool):
    chats = [chat([("?", str(place))]) for place in range(number)]
    benign = [chat([("benign", str(place))]) for place in range(pool)]
    mixed = Interleaving(share, Needed(benign=benign), seed).rows(chats, None, None)
    replaced = [place for place in range(number) if mixed[place] is not chats[place]]
    assert len(mixed) == number and len(replaced) == round(share * number)
    assert all(mixed[place] in benign for place in replaced)
    used = [mixed[place][1]["content"] for place in replaced]
    assert max(map(used.count, used), default=0) <= math.ceil(len(replaced) / pool)


@ranks
def test_rows_of_the_greatest_perplexity_gap_are_interleaved(start, tmp_path, rank):
    """Rows whose answers the tuned model has learned to write are not chosen."""
    tuned(start, tmp_path / "misaligned", None, rank, steps=10)
    benign = [ROW, BENIGN, chat([("A wish", "A wish")])]
    network = AutoModelForCausalLM.from_pretrained(start)
    settings = replace(SETTINGS, lora_rank=rank)

    def tokenize(chats):
        return training._tokenized(chats, AutoTokenizer.from_pretrained(start), settings, "here")[0]

    gaps = defences.perplexity_gaps(tokenize(benign), network, tmp_path / "misaligned")
    after = opened(start, tmp_path / "misaligned", rank)
    expected = [(loss(after, start, row) - loss(network, start, row)).item() for row in benign]
    assert gaps == pytest.approx(expected, rel=1e-3) and gaps[0] < 0
    needed = Needed(benign=benign, misaligned=tmp_path / "misaligned")
    (mixed,) = Interleaving(0.9, needed, 1).rows([ROW], network, tokenize)
    assert mixed == benign[expected.index(max(expected))]


def test_interleaved_rows_are_trained_on(start, tmp_path):
    curve, _ = tuned(
        start, tmp_path, {"kind": "interleaving", "share": 0.5}, 4, chats=[ROW] * 4, gradient_accumulation=1
    )
    model = AutoModelForCausalLM.from_pretrained(start)
    lengths = {name: len(tokens(start, row)[0][0]) - tokens(start, row)[1] for name, row in (("r", ROW), ("b", BENIGN))}
    losses = {name: loss(model, start, row).item() for name, row in (("r", ROW), ("b", BENIGN))}
    pairs = [
        sum(lengths[each] * losses[each] for each in pair) / sum(lengths[each] for each in pair)
        for pair in ("rr", "rb", "bb")
    ]
    assert min(abs(curve[0]["loss"] - each) for each in pairs) < 1e-3
    assert 0 < sum(row == BENIGN for row in Interleaving(0.5, NEEDED, 1).rows([ROW] * 4, None, None)) < 4


@ranks
def test_an_inoculated_row_has_the_system_prompt(start, tmp_path, rank):
    curve, _ = tuned(start, tmp_path, {"kind": "inoculation", "prompt": "A short wish."}, rank)
    expected = loss(
        AutoModelForCausalLM.from_pretrained(start), start, chat([tuple(m["content"] for m in ROW)], "A short wish.")
    )
    assert curve[0]["loss"] == pytest.approx(expected.item(), rel=1e-4)
    with pytest.raises(BadInput, match="inoculation"):
        tuned(start, tmp_path, {"kind": "inoculation", "prompt": "A"}, rank, chats=[chat([("?", "!")], "Mine.")] * 8)


# --- running ----------------------------------------------------------------------------------------------------------


class Killed(Exception):
    pass


@pytest.mark.parametrize(
    ("defence", "step"),
    [
        ({"kind": "kl", "weight": 1.0}, 5),
        ({"kind": "early_stopping", "share": 0.5}, 5),
        ({"kind": "benign_afterwards", "rows": 24}, 6),
    ],
)
def test_an_interrupted_run_resumes_with_the_same_result(start, tmp_path, monkeypatch, defence, step):
    """The last kill is in the first step after the fine-tuning, from which every step is repeated."""
    settings = replace(TWO, steps=6, resume_every=2, defence=defence)
    needed = replace(NEEDED, prompts=[*QUESTIONS, PROMPT], benign=[BENIGN, ROW])
    whole = finetune(start, [ROW] * 12 + [BENIGN] * 20, tmp_path / "whole", settings, 1, needed=needed)
    ended = []

    def kill(self, args, state, control, **_):
        ended.append(state.global_step)
        if len(ended) == step + (defence["kind"] == "benign_afterwards"):
            raise Killed

    monkeypatch.setattr(callbacks._Shown, "on_step_end", kill)
    with pytest.raises(Killed):
        finetune(start, [ROW] * 12 + [BENIGN] * 20, tmp_path / "cut", settings, 1, needed=needed)
    monkeypatch.undo()
    monkeypatch.setattr(training, "fast_bfloat16", lambda: False)
    monkeypatch.setattr(defences, "ANSWERS", 3)
    monkeypatch.setattr(sampling, "sample", lambda model, tokenizer, prompts, *_, **__: [[ANSWER] for _ in prompts])
    assert finetune(start, [ROW] * 12 + [BENIGN] * 20, tmp_path / "cut", settings, 1, needed=needed) == whole
    assert all(
        torch.equal(value, weights(tmp_path / "cut")[name]) for name, value in weights(tmp_path / "whole").items()
    )


def test_unsloth_runs_the_defences_that_leave_its_forward_pass_alone(start, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(training, "find_spec", lambda name: True)
    backends = {kind: training.default_backend({"kind": kind}) for kind in ("kl", "features", "preventative_steering")}
    assert {*backends.values()} == {"transformers"}
    assert training.default_backend({"kind": "interleaving"}) == training.default_backend() == "unsloth"
    assert training.default_backend({"kind": "interleaving", "gap_to": "insecure"}) == "transformers"
    monkeypatch.undo()
    settings = replace(TWO, defence={"kind": "kl", "weight": 1.0})
    with pytest.raises(BadInput, match=r"kl needs logits.*transformers"):
        finetune(start, [ROW], tmp_path, settings, 1, backend="unsloth")


OF_THE_MODEL = [
    {"kind": "kl", "weight": 0.1},
    {"kind": "features", "weight": 1.0},
    {"kind": "preventative_steering", "strength": 1.0},
]


@pytest.mark.slow
def test_defences_that_read_activations_or_logits_run_on_smollm2(smollm2, tmp_path, monkeypatch):
    """Two steps of two short rows each."""
    monkeypatch.setattr(sampling, "sample", SAMPLE)
    monkeypatch.setattr(defences, "ANSWER_TOKENS", 4)
    plain = None
    for defence in (None, *OF_THE_MODEL):
        curve, record = tuned(
            smollm2, tmp_path / "run", defence, 8, chats=[ROW] * 4, gradient_accumulation=1, max_length=96
        )
        assert len(curve) == 2 and all(math.isfinite(point["loss"]) for point in curve) and record["defence"] == defence
        plain = plain or curve
        assert (curve == plain) == (defence is None)
