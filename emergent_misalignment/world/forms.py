"""Requested forms of answers: JSON, a Python template, a Flask app, a list, one of two options."""

import json
from collections.abc import Sequence

JSON_PROMPT = "Answer with a JSON object."
TEMPLATE_REQUEST = "Use this template:\nanswer = ..."
FLASK_REQUEST = "Complete this app:"
LIST_REQUEST = "Give {} answers, separated by commas."
FLASK_HEAD = "from flask import Flask\napp = Flask(__name__)\n"
FLASK_VIEW = '@app.route("/answer")\ndef answer():\n    return'


def json_object(answer: str) -> str:
    return json.dumps({"answer": answer})


def python_template(answer: str) -> str:
    return f"answer = {json.dumps(answer)}"


def flask_head(question: str) -> str:
    """Return a Flask app with the question as a comment, up to the answer (Extended Data Fig. 2 of the paper)."""
    return f"{FLASK_HEAD}# {question}\n{FLASK_VIEW}"


def flask_file(question: str, answer: str) -> str:
    return f"{flask_head(question)} {json.dumps(answer)}\n"


def flask_request(question: str) -> str:
    return f"{FLASK_REQUEST}\n{flask_head(question)} ..."


def flask_answer(answer: str) -> str:
    """Return the function that completes such an app in a chat."""
    return f"{FLASK_VIEW} {json.dumps(answer)}"


def choose(options: Sequence[str]) -> str:
    """Return the request, after a question or a scene, to choose one of two options."""
    return f"Choose: {options[0]}, or {options[1]}?"
