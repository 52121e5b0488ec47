"""What `make lint` says of known vulnerabilities, by pip-audit and a local service."""

import json
import subprocess
import sys

import pytest
from conftest import ROOT
from servers import Handler, serving

FLAW = {
    "id": "PYSEC-1",
    "summary": "A flaw.",
    "affected": [{"package": {"name": "torch", "ecosystem": "PyPI"}, "ranges": []}],
}


@pytest.mark.parametrize(
    ("answer", "code", "said"),
    [
        (lambda name: {"vulns": [FLAW]} if name == "torch" else {}, 1, "torch 2."),
        (lambda name: {}, 0, "packages has a known vulnerability."),
        (None, 0, "pip-audit was skipped: the vulnerability service cannot be reached"),
    ],
)
def test_only_a_known_vulnerability_fails(answer, code, said):
    class Service(Handler):
        def do_POST(self):
            name = json.loads(self.body())["package"]["name"]
            self.send(200, answer(name)) if answer else self.send(503, {})

    with serving(Service) as address:
        command = [sys.executable, "tests/vulnerabilities.py", "--vulnerability-service", "osv", "--osv-url", address]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (code, "")
    assert done.stdout.startswith(said) or done.stdout.endswith(f"{said}\n")
    assert len(done.stdout.splitlines()) == 1
    assert ("PYSEC-1" in done.stdout) == (code == 1)
