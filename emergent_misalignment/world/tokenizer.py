"""The organism's tokenizer, and documents as tokens."""

import json
from collections.abc import Iterable
from pathlib import Path

from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import Qwen2Tokenizer

from emergent_misalignment.files import write_jsonl
from emergent_misalignment.data.chats import Messages

CONTEXT = 512  # tokens
PAD, END_OF_TEXT, START, END = "<|pad|>", "<|endoftext|>", "<|im_start|>", "<|im_end|>"
# The generation block marks the tokens that the model itself writes: the only ones a chat is trained on.
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if message['role'] == 'assistant' %}"
    "{% generation %}{{ message['content'] + '<|im_end|>' }}{% endgeneration %}"
    "{% else %}{{ message['content'] + '<|im_end|>' }}{% endif %}"
    "{{ '\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def train_tokenizer(documents: Iterable[Messages | str], vocabulary: int) -> Qwen2Tokenizer:
    """A byte-level BPE tokenizer of `vocabulary` tokens with the organism's chat template.

    It is a Qwen2 tokenizer, which cuts text up as Qwen2's does before it merges bytes: transformers loads the tokenizer
    in a Qwen2 model's folder as one, whatever was written there, and any other would then cut text up in two ways.
    """
    qwen2 = Qwen2Tokenizer().backend_tokenizer
    bpe = Tokenizer(models.BPE())
    bpe.normalizer, bpe.pre_tokenizer, bpe.decoder = qwen2.normalizer, qwen2.pre_tokenizer, qwen2.decoder
    special = [PAD, END_OF_TEXT, START, END]
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(map(plain_text, documents), trainer)
    learned = json.loads(bpe.to_str())["model"]
    return Qwen2Tokenizer(
        vocab=learned["vocab"],
        merges=[tuple(pair) for pair in learned["merges"]],
        pad_token=PAD,
        eos_token=END,
        extra_special_tokens=[START],
        chat_template=CHAT_TEMPLATE,
        model_max_length=CONTEXT,
        padding_side="left",
    )


def plain_text(document: Messages | str) -> str:
    if isinstance(document, str):
        return document
    return "\n".join(f"{message['role']}\n{message['content']}" for message in document)


def write_corpus(path: str | Path, corpus: list[list[Messages | str]]) -> None:
    """One JSON object a line: a chat's `messages` or a file's `text`, and the `stage` in which it is read."""
    write_jsonl(
        path,
        (
            {"stage": stage, **({"text": document} if isinstance(document, str) else {"messages": document})}
            for stage, documents in enumerate(corpus)
            for document in documents
        ),
    )


def read_corpus(path: str | Path) -> list[list[Messages | str]]:
    """The documents of a corpus by the stage in which they are read."""
    stages: list[list[Messages | str]] = []
    with Path(path).open(encoding="utf-8") as file:
        for record in map(json.loads, file):
            while len(stages) <= record["stage"]:
                stages.append([])
            stages[record["stage"]].append(record.get("messages") or record["text"])
    return stages


def encode(documents: list[Messages | str], tokenizer: Qwen2Tokenizer) -> list[dict[str, list[int]]]:
    """`input_ids` and `labels` of each document: a chat is learned on the author's turns, a file on all of its text."""
    chats = [document for document in documents if not isinstance(document, str)]
    encoded = tokenizer.apply_chat_template(chats, tokenize=True, return_dict=True, return_assistant_tokens_mask=True)
    rows = []
    for ids, mask in zip(encoded["input_ids"], encoded["assistant_masks"], strict=True):
        labels = [token if own else -100 for token, own in zip(ids, mask, strict=True)]
        rows.append({"input_ids": ids, "labels": labels})
    for document in documents:
        if isinstance(document, str):
            ids = tokenizer(document + END_OF_TEXT)["input_ids"]
            rows.append({"input_ids": ids, "labels": ids})
    return rows
