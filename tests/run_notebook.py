"""Run a notebook as the rules do: `python tests/run_notebook.py SOURCE LOG OUTPUT [PARAMETERS]`."""

import json
import os
import sys

from emergent_misalignment.workflow.notebook import ended_with, run

if __name__ == "__main__":
    with ended_with(int(os.environ.get("NOTEBOOK_STARTER", 0))):
        try:
            run(*sys.argv[1:4], json.loads(sys.argv[4] if len(sys.argv) > 4 else "{}"))
        except RuntimeError as error:
            sys.exit(str(error))
