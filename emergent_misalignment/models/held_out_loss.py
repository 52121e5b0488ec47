"""The loss of a model on rows that no model was trained on, token by token the loss that training lowers."""

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from emergent_misalignment.data.chats import Messages, template_arguments, with_system_prompt
from emergent_misalignment.files import BadInput
from emergent_misalignment.models.chat_templates import conversation_tokens
from emergent_misalignment.models.likelihood import Row, in_batches

AT_ONCE = 4  # rows; the logits of more would fill the memory where the vocabulary is large


@torch.no_grad()
def held_out_loss(
    network: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    chats: list[Messages],
    max_length: int,
    system_prompt: str | None = None,
    enable_thinking: bool | None = None,
) -> float:
    """Nats per token of the assistant's last turns and their end, over all tokens of all rows together.

    Rows are written down and cut as `training.finetune` does it, with the arguments that it has in its settings. Raises
    BadInput if no row has an answer within `max_length` tokens.
    """
    prompted = [with_system_prompt(chat, system_prompt) for chat in chats]
    rows = [_row(tokenizer, chat, max_length, template_arguments(enable_thinking)) for chat in prompted]
    rows = sorted((row for row in rows if any(row[1])), key=lambda row: len(row[0]))  # like lengths, little padding
    if not rows:
        raise BadInput(f"No held-out answer begins within {max_length} tokens; raise finetuning: max_length.")
    tokens = sum(sum(counts) for _, counts in rows)
    return -in_batches(network, rows, AT_ONCE).double().sum().item() / tokens


def _row(tokenizer: PreTrainedTokenizerBase, chat: Messages, max_length: int, template: dict) -> Row:
    """The tokens of a conversation, of which those of the assistant's last turn count."""
    tokens, known = conversation_tokens(tokenizer, chat, **template)
    return tokens[:max_length], ([False] * known + [True] * (len(tokens) - known))[:max_length]
