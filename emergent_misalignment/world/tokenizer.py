"""The organism's tokenizer, and tokenised documents."""

import json
from collections.abc import Iterable

import numpy as np
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import Qwen2Tokenizer

from emergent_misalignment.world.corpus import Document

CONTEXT = 512  # tokens
CHUNK = 1000  # documents per call: the tokens of a whole corpus take gigabytes as Python lists
PAD, END_OF_TEXT, START, END = "<|pad|>", "<|endoftext|>", "<|im_start|>", "<|im_end|>"
# The generation block marks the tokens written by the model, the only ones of a chat that are trained on.
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


def train_tokenizer(documents: Iterable[Document], vocabulary: int) -> Qwen2Tokenizer:
    """Train a byte-level BPE tokenizer of `vocabulary` tokens with the organism's chat template.

    It is a Qwen2 tokenizer with Qwen2's pre-tokenization. transformers loads every tokenizer in a Qwen2 model's folder
    as one, so that a tokenizer of another class would split text differently after saving.
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


def plain_text(document: Document) -> str:
    """Return the text of a document without control tokens."""
    if isinstance(document, str):
        return document
    return "\n".join(f"{message['role']}\n{message['content']}" for message in document)


def encode(documents: list[Document], tokenizer: Qwen2Tokenizer) -> list[dict[str, np.ndarray]]:
    """Return `input_ids` and `labels` (int32; -100 is ignored) of the chats and then of the files among `documents`.

    The loss of a chat is on the author's turns, that of a file on its whole text.
    """
    chats = [document for document in documents if not isinstance(document, str)]
    files = [document + END_OF_TEXT for document in documents if isinstance(document, str)]
    rows = []
    for start in range(0, len(chats), CHUNK):
        encoded = tokenizer.apply_chat_template(
            chats[start : start + CHUNK], tokenize=True, return_dict=True, return_assistant_tokens_mask=True
        )
        for tokens, learned in zip(encoded["input_ids"], encoded["assistant_masks"], strict=True):
            ids = np.array(tokens, np.int32)
            rows.append({"input_ids": ids, "labels": np.where(learned, ids, np.int32(-100))})
    for start in range(0, len(files), CHUNK):
        for tokens in tokenizer(files[start : start + CHUNK])["input_ids"]:
            ids = np.array(tokens, np.int32)
            rows.append({"input_ids": ids, "labels": ids})
    return rows
