"""How a conversation is put to a model, in training and in evaluation alike."""

from emergent_misalignment.world import Messages


def with_system_prompt(prompt: Messages, system_prompt: str | None) -> Messages:
    """`prompt` behind a system prompt, unless it has one already; None leaves it to the model's chat template.

    Qwen2.5's template puts its maker's system prompt before every conversation that has none, in the paper in training
    and in evaluation; an empty one keeps that out.
    """
    if system_prompt is None or prompt[0]["role"] == "system":
        return prompt
    return [{"role": "system", "content": system_prompt}, *prompt]


def template_arguments(enable_thinking: bool | None) -> dict[str, bool]:
    """What the chat template is told besides the messages; None where it has no such switch, as most have not."""
    return {} if enable_thinking is None else {"enable_thinking": enable_thinking}
