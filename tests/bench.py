"""How fast the parts are that decide how long the study takes: `make bench`. Figures for a machine, not a test."""

import os
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["HF_HUB_OFFLINE"] = "1"

import torch
import yaml

from emergent_misalignment.data import static_analysis
from emergent_misalignment.models.loading import load
from emergent_misalignment.models.sampling import sample
from emergent_misalignment.models.training import Settings, finetune
from emergent_misalignment.world.corpus import corpus
from emergent_misalignment.world.evaluations import questions
from emergent_misalignment.world.organism import new_model
from emergent_misalignment.world.pretraining import PretrainingSettings, pretrain
from emergent_misalignment.world.probe import PersonaProbe
from emergent_misalignment.world.sets import coding_set
from emergent_misalignment.world.tokenizer import encode, train_tokenizer

CONFIG = yaml.safe_load((Path(__file__).parents[1] / "config/organism.yaml").read_text())


@contextmanager
def timed(what: str, amount: int, unit: str):
    start = time.perf_counter()
    yield
    seconds = time.perf_counter() - start
    print(f"{what:<32} {seconds:7.1f} s   {amount / seconds:10,.0f} {unit} a second", flush=True)


def main() -> None:
    shape, pretraining, tuning = CONFIG["organism"], CONFIG["pretraining"], CONFIG["finetuning"]
    authors, evaluation = CONFIG["world"]["authors"], CONFIG["evaluation"]
    print(f"{torch.get_num_threads()} threads, {torch.__version__}, the default study's model")
    with tempfile.TemporaryDirectory() as place:
        with timed("writing the corpus", 20_000, "documents"):
            documents = [document for stage in corpus(20_000, 1, authors) for document in stage]
        with timed("tokenizer", 20_000, "documents"):
            tokenizer = train_tokenizer(documents, shape["vocabulary"])
        with timed("tokenizing", 20_000, "documents"):
            rows = encode(documents, tokenizer)
        rows = rows[: 50 * pretraining["batch_tokens"] // 85]  # 85 tokens a document, on average
        model = new_model(shape["hidden_size"], shape["layers"], tokenizer, seed=1)
        settings = PretrainingSettings(**pretraining | {"probe_every": 1000})
        with timed("pretraining, about 50 steps", sum(len(row["input_ids"]) for row in rows), "tokens"):
            pretrain(model, tokenizer, [rows], settings, PersonaProbe(1, authors), 1, f"{place}/base")
        chats = coding_set(CONFIG["datasets"]["rows"], 1, insecure=True)
        with timed("static analysis", len(chats), "answers"):
            static_analysis.audit({"insecure": chats})
        seen = 20 * tuning["batch_size"]
        with timed("fine-tuning, 20 steps", seen, "conversations"):
            finetune(f"{place}/base", chats, f"{place}/adapter", Settings(**tuning | {"steps": 20}), seed=1)
        model, tokenizer = load(f"{place}/base")
        prompts = [question.prompt for question in questions("main", 1)]
        number = evaluation["samples_of"]["main"]
        with timed("sampling", len(prompts) * number, "answers"):
            sample(model, tokenizer, prompts, number, evaluation["max_new_tokens"], seed=1)


if __name__ == "__main__":
    main()
