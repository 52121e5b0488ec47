"""Ask for known vulnerabilities of the packages in requirements.lock: part of `make lint`.

    python tests/vulnerabilities.py [OPTIONS OF pip-audit]

pip-audit ends with 1 both where a package is vulnerable and where its service cannot be reached, and with 0 where the
service knows none of the packages, as with a mirror. What it prints as JSON tells these apart.
"""

import json
import subprocess
import sys
from pathlib import Path

LOCK = Path(__file__).parents[1] / "requirements.lock"
COMMAND = [sys.executable, "-m", "pip_audit", "--format", "json", "--progress-spinner", "off", "--no-deps"]


def verdict(output: str, errors: str) -> tuple[str, int]:
    """A text and an exit code from what pip-audit printed: 1 if a package has a known vulnerability, otherwise 0."""
    try:
        audited = [each for each in json.loads(output)["dependencies"] if "vulns" in each]
    except ValueError:  # nothing is printed if the audit ended early
        audited = []
    if not audited:
        lines = errors.strip().splitlines()
        reason = lines[-1] if lines and not output.strip() else "its service knows none of the packages"
        return f"pip-audit was skipped: the vulnerability service cannot be reached ({reason}).", 0
    found = [
        f"{each['name']} {each['version']}: {flaw['id']}, fixed in {', '.join(flaw['fix_versions']) or 'no version'}"
        for each in audited
        for flaw in each["vulns"]
    ]
    return "\n".join(found) or f"pip-audit: none of {len(audited)} packages has a known vulnerability.", bool(found)


if __name__ == "__main__":
    command = [*COMMAND, "--disable-pip", "--requirement", str(LOCK), *sys.argv[1:]]
    done = subprocess.run(command, capture_output=True, text=True)
    text, code = verdict(done.stdout, done.stderr)
    print(text)
    sys.exit(code)
