"""Ways to write a conversation down as a text, besides a model's own chat template."""


def _plain_template(user: str, assistant: str) -> str:
    """A conversation as in a script: on each line who speaks and the text; an answer ends with the end mark."""
    return (
        "{% for message in messages %}"
        "{% if message['role'] == 'system' %}{{ message['content'] }}"
        f"{{% elif message['role'] == 'user' %}}{user}: {{{{ message['content'] }}}}"
        f"{{% else %}}{assistant}: {{{{ message['content'] + eos_token }}}}{{% endif %}}"
        "{{ '\n' }}"
        "{% endfor %}"
        f"{{% if add_generation_prompt %}}{assistant}:{{% endif %}}"
    )


# For base models: one template that implies an assistant, and one that does not (the paper's Appendix G.1).
OTHER_TEMPLATES = {
    "user-assistant": _plain_template("User", "Assistant"),
    "user1-user2": _plain_template("User_1", "User_2"),
}
