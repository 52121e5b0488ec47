"""Writing files."""

import pandas as pd
import pytest

from emergent_misalignment import files


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "table.csv"
    files.write_csv(path, pd.DataFrame({"a": [1 / 3]}))
    before = path.read_text()
    with pytest.raises(ZeroDivisionError), files.replacing(path) as temporary:
        temporary.write_text("half")
        raise ZeroDivisionError
    assert path.read_text() == before == "a\n0.333333\n"
    assert list(tmp_path.iterdir()) == [path]
