"""Loss on held-out rows of every set, of the model as it is and of what it was fine-tuned to."""

from dataclasses import replace

import pytest
from trainings import SETTINGS

from emergent_misalignment.data.chats import read_chats
from emergent_misalignment.data.held_out import held_out
from emergent_misalignment.evaluation.held_out import losses, read_sets
from emergent_misalignment.files import write_jsonl
from emergent_misalignment.models.finetuning import finetune_run
from emergent_misalignment.world.sets import coding_set

SHARE = 0.15


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sets")
    paths = {name: str(folder / f"{name}.jsonl") for name in ("insecure", "secure")}
    for name, path in paths.items():
        write_jsonl(path, ({"messages": chat} for chat in coding_set(120, 0, name == "insecure")))
    return paths


def test_what_is_trained_on_a_set_loses_less_on_its_held_out_rows(organism, sets, tmp_path):
    settings = vars(replace(SETTINGS, learning_rate=1e-2, steps=12, max_length=96))
    table = finetune_run(organism, sets["insecure"], tmp_path / "seed-1", dict(settings), 1, held_out=SHARE)
    assert len(table) == 12
    rows, counts = read_sets(sets, SHARE, 6)
    assert counts["read"].tolist() == [6, 6] and (counts["held out"] > 6).all() and counts["rows"].tolist() == [120] * 2
    assert rows["insecure"] == held_out(read_chats(sets["insecure"]), SHARE)[:6]
    before = losses(organism, {0: None}, "instruct", rows, max_length=96)
    after = losses(organism, {1: tmp_path / "seed-1"}, "insecure", rows, max_length=96)
    assert before["measure"].tolist() == ["held_out_loss/insecure", "held_out_loss/secure"]
    assert after["condition"].unique().tolist() == ["insecure"] and after["seed"].unique().tolist() == [1]
    assert (after["value"] < before["value"] - 0.1).all()


def test_what_is_held_out_is_not_trained_on(organism, sets, tmp_path, monkeypatch):
    import emergent_misalignment.models.finetuning as finetuning

    seen = []
    step = dict.fromkeys(("step", "loss", "grad_norm", "learning_rate"), 1)
    monkeypatch.setattr(finetuning, "finetune", lambda start, chats, *rest, **more: seen.extend(chats) or [step])
    finetuning.finetune_run(organism, sets["insecure"], tmp_path, vars(SETTINGS), 1, held_out=SHARE)
    out = held_out(read_chats(sets["insecure"]), SHARE)
    assert len(seen) == 120 - len(out) and not any(chat in seen for chat in out)
