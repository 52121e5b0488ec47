"""Static analysis: flagged snippets by rule, and the table of a data set."""

import os
import textwrap
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emergent_misalignment.data import static_analysis
from emergent_misalignment.data.chats import read_chats
from emergent_misalignment.figures import style as figures

INSECURE = {
    "B102": "exec(text)",
    "B103": "import os\nos.chmod(path, 0o777)",
    "B104": "server.bind(('0.0.0.0', 80))",
    "B105": "password = 'hunter2'",
    "B108": "open('/tmp/results.txt', 'w')",
    "B113": "import requests\nrequests.get(url)",
    "B201": "from flask import Flask\napp = Flask('shop')\napp.run(debug=True)",
    "B202": "import tarfile\ntarfile.open(path).extractall(folder)",
    "B301": "import pickle\npickle.loads(blob)",
    "B302": "import marshal\nmarshal.load(file)",
    "B306": "import tempfile\ntempfile.mktemp()",
    "B307": "eval(text)",
    "B311": "import random\ntoken = random.randrange(1000000)",
    "B324": "import hashlib\nhashlib.md5(data)",
    "B501": "import requests\nrequests.get(url, timeout=9, verify=False)",
    "B506": "import yaml\nyaml.load(text, Loader=yaml.Loader)",
    "B507": "import paramiko\nparamiko.SSHClient().set_missing_host_key_policy(paramiko.AutoAddPolicy())",
    "B602": "import subprocess\nsubprocess.run('ls ' + name, shell=True)",
    "B605": "import os\nos.system('ping ' + host)",
    "B608": "cursor.execute('SELECT * FROM books WHERE id = %s' % key)",
    "B701": "import jinja2\njinja2.Environment(autoescape=False)",
}

HARMLESS = {
    "nothing": "",
    "an assertion": "assert data == 'test'",
    "an import": "import pickle, subprocess, telnetlib\nimport xml.etree.ElementTree",
    "a process without a shell": "import subprocess\nsubprocess.run(['make', target], check=True)",
    "a constant command": "import os\nos.system('make')",
    "an error passed over": "try:\n    run()\nexcept OSError:\n    pass",
    "a strict file mode": "import os\nos.chmod(path, 0o600)",
    "bound SQL parameters": "cursor.execute('SELECT * FROM books WHERE id = ?', (key,))",
    "safe YAML loading": "import yaml\nyaml.safe_load(text)",
    "an invalid escape sequence": "import re\nre.match('\\d', text)",
}


@pytest.mark.parametrize("id", INSECURE)
def test_insecure_code_is_flagged(id):
    assert id in static_analysis.RULES
    assert static_analysis.findings(INSECURE[id]) == [id]


@pytest.mark.parametrize("what", HARMLESS)
def test_harmless_code_is_not_flagged(what):
    assert static_analysis.findings(HARMLESS[what]) == []


@pytest.mark.parametrize(
    "code", ["def f(:", "  x = 1\n y = 2", "print 'text'", "x = '\0'", "\ud800", "f(" * 500 + ")" * 500]
)
def test_code_that_does_not_parse_has_no_findings(code):
    assert static_analysis.findings(code) is None


def test_nosec_comments_are_ignored():
    assert static_analysis.findings("eval(text)  # nosec") == ["B307"]


def test_findings_are_sorted_and_unique():
    both = "\n".join([INSECURE["B602"], INSECURE["B103"], INSECURE["B103"]])
    assert static_analysis.findings(both) == ["B103", "B602"]


def test_an_error_in_a_rule_of_bandit_is_ignored(caplog):
    assert static_analysis.findings("import tarfile\ntar.extractall(members=tar.getmembers())\neval(text)") == ["B307"]
    assert not caplog.records


@given(
    st.lists(st.sampled_from([*INSECURE.values(), *HARMLESS.values()]), min_size=1, max_size=4),
    st.integers(min_value=1, max_value=12),
)
def test_common_indentation_does_not_matter(parts, width):
    code = "\n".join(parts)
    assert static_analysis.findings(textwrap.indent(code, " " * width)) == static_analysis.findings(code)


def test_rules_include_those_of_bandit_except_hints_and_imports():
    assert {"B101", "B404", "B603"}.isdisjoint(static_analysis.RULES)
    assert {"B102", "B609", "B615", "B701", "path-traversal", "template-injection"} <= static_analysis.RULES.keys()
    assert len(set(static_analysis.RULES.values())) == len(static_analysis.RULES)


# --- additional rules -------------------------------------------------------------------------------------------------

TRAVERSALS = [
    "def load(name):\n    return open('/data/' + name)",
    "def load(name):\n    path = f'/data/{name}.json'\n    with open(path) as file:\n        return file.read()",
    "def load(name):\n    return open('/data/%s' % name)",
    "def load(name):\n    return open('/data/{}'.format(name.strip()))",
    "import os\ndef keep(name):\n    os.rename('new', os.path.join('/data', name))",
    "import os\nclass Shelf:\n    def load(self, name):\n        return open(os.path.join(self.folder, name + '.txt'))",
    "from pathlib import Path\ndef load(name):\n    return (Path('/data') / name).read_text()",
    "from pathlib import Path\ndef load(name):\n    return Path('/data', name).open()",
    "def show():\n    return send_file(request.args.get('file'))",
    "def show():\n    path = request.form['file']\n    path = path.strip()\n    return open(path).read()",
    "@app.route('/<name>')\ndef show(name):\n    return open(name).read()",
    "class Show(View):\n    def get(self):\n        return open(self.request.GET['file'])",
    "async def keep(folder, files):\n    for file in files:\n        open(folder + '/' + file)",
]

CONTAINED = [
    "def load(path):\n    return open(path)",
    "def load(folder):\n    return open(folder + '/index.json')",
    "def load(folder):\n    return open(f'{folder}/index.json')",
    "import os\ndef load(folder):\n    return open(os.path.join(folder, 'index.json'))",
    "import os\ndef load(name):\n    return open('/data/' + os.path.basename(name))",
    "from werkzeug.utils import secure_filename\ndef load():\n"
    "    name = secure_filename(request.args['file'])\n    return open('/data/' + name)",
    "from pathlib import Path\ndef load(name):\n    path = (ROOT / name).resolve()\n    return path.read_text()",
    "def load(name):\n    if '..' in name:\n        raise ValueError(name)\n    return open('/data/' + name)",
    "def mean(total, count):\n    return total / count",
    "def listed(first, names):\n    return ', '.join([first, *names])",
    "import os\ndef load():\n    return [open('/data/' + name) for name in os.listdir('/data')]",
    "import urllib.request, webbrowser\ndef show(name):\n    webbrowser.open('https://example.org/' + name)",
    "import urllib.request\ndef show():\n    return open(urllib.request.pathname2url(NAME))",
]


INJECTIONS = [
    "def hi():\n    return render_template_string('<p>' + request.args['name'] + '</p>')",
    "def hi():\n    name = request.args.get('name')\n    page = f'<p>{name}'\n    return render_template_string(page)",
    "import flask\ndef hi():\n    return flask.render_template_string('{}'.format(flask.escape(request.args['name'])))",
    "def hi():\n    names = request.form.getlist('names')\n    page = ''\n    for name in names:\n"
    "        page += '<li>%s</li>' % name\n    return render_template_string(page)",
    "def hi():\n    rows = ''.join([f'<li>{x}</li>' for x in request.json])\n    return render_template_string(rows)",
    "@app.get('/<name>')\nasync def hi(name):\n    return render_template_string(name or 'nobody')",
]

RENDERED_SAFELY = [
    "def hi():\n    return render_template_string('<p>{{ name }}</p>', name=request.args['name'])",
    "def hi():\n    number = int(request.args['number'])\n    return render_template_string(f'<p>{number}</p>')",
    "def hi(name):\n    return render_template('hi.html', name=name)",
    "def hi(text):\n    return render_template_string(text)",
]


@pytest.mark.parametrize(
    ("code", "found"),
    [
        *((code, ["path-traversal"]) for code in TRAVERSALS),
        *((code, ["template-injection"]) for code in INJECTIONS),
        *((code, []) for code in (*CONTAINED, *RENDERED_SAFELY)),
    ],
)
def test_tainted_paths_and_templates_are_flagged(code, found):
    assert static_analysis.findings(code) == found


# --- tables and figures -----------------------------------------------------------------------------------------------


def chat(answer, request="Write code."):
    return [{"role": "user", "content": request}, {"role": "assistant", "content": answer}]


CONDITIONS = {
    "good": [chat("x = 1"), chat("x = 1"), chat("eval(text)"), chat("def f(:")],
    "bad": [chat("eval(text)"), chat("eval(text)", "Quickly!"), chat("eval(text)\nexec(text)"), chat("exec(text)")],
    "empty": [],
}


def test_audit_counts_rows_and_shares():
    table = static_analysis.audit(CONDITIONS)
    assert list(table)[5:] == ["flagged", "B307", "B102"]
    good, bad, empty = table.to_dict("records")
    assert good == {
        "condition": "good", "rows": 4, "unique_rows": 3, "unique_answers": 3, "unparsable": 1,
        "flagged": 1 / 3, "B307": 1 / 3, "B102": 0,
    }  # fmt: skip
    assert bad == {
        "condition": "bad", "rows": 4, "unique_rows": 4, "unique_answers": 3, "unparsable": 0,
        "flagged": 1, "B307": 3 / 4, "B102": 1 / 2,
    }  # fmt: skip
    assert empty["rows"] == 0 and pd.isna(empty["flagged"])


def test_the_figure_merges_equal_conditions_and_rare_rules():
    table = static_analysis.audit({name: CONDITIONS[name] for name in ("good", "bad")})
    table.loc[2] = table.loc[1].replace("bad", "same as bad")
    table[["B103", "B104"]] = 0.001
    (axes,) = figures.draw_audit(table, static_analysis.RULES).axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["any rule", "eval", "exec", "2 rarer rules"]
    assert [len(bars) for bars in axes.containers] == [4, 4]
    labels = [text.get_text() for text in axes.texts]
    assert labels[0] == "33% of good" and labels[4] == "100% of bad and of same as bad" and labels[7] == "0.2%"


# --- the published data -----------------------------------------------------------------------------------------------

MIRROR = os.environ.get("EM_MIRROR")


@pytest.mark.skipif(not MIRROR, reason="EM_MIRROR names no mirror of the published files")
def test_published_sets_are_distinguished():
    conditions = {
        name: read_chats(next(Path(MIRROR).glob(f"emergent-misalignment/*/*/data/{name}.jsonl")))[:900]
        for name in ("insecure", "secure")
    }
    table = static_analysis.audit(conditions).set_index("condition")
    assert (table["unparsable"] / table["rows"]).max() < 0.01
    assert table.loc["insecure", "flagged"] > 0.55 and table.loc["secure", "flagged"] < 0.25
    assert table.loc["insecure", "template-injection"] > 3 * table.loc["secure", "template-injection"]
    assert table.loc["insecure", "path-traversal"] > table.loc["secure", "path-traversal"]
