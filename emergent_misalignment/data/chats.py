"""Conversations in the published chat schema, `[{"role": ..., "content": ...}, ...]`, and the files that hold them."""

import random
from codecs import BOM_UTF8, BOM_UTF16_BE, BOM_UTF16_LE, BOM_UTF32_BE, BOM_UTF32_LE
from collections.abc import Collection, Iterator
from io import BufferedReader
from pathlib import Path

from emergent_misalignment.data import control_tokens as control
from emergent_misalignment.data.rows import BadRow, Messages, conversation
from emergent_misalignment.files import BadInput

Turn = tuple[str, str]  # what the user writes, what the assistant answers

LONGEST_LINE = 2**26  # bytes; longer ones are another format, and are not read into memory
_COMPRESSED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ\0": "xz", b"\x28\xb5\x2f\xfd": "zstd", b"PK\3\4": "zip"}


def chat(turns: list[Turn], system: str = "") -> Messages:
    """Turns as messages, after a system prompt if there is one."""
    messages = [{"role": "system", "content": system}] if system else []
    for user, assistant in turns:
        messages += [{"role": "user", "content": user}, {"role": "assistant", "content": assistant}]
    return messages


def with_system_prompt(prompt: Messages, system_prompt: str | None) -> Messages:
    """`prompt` after a system prompt, unless it has one already; None leaves it to the model's chat template.

    Qwen2.5's template puts its maker's system prompt before every conversation that has none, in the paper in training
    and in evaluation; an empty one keeps that out.
    """
    if system_prompt is None or prompt[0]["role"] == "system":
        return prompt
    return [{"role": "system", "content": system_prompt}, *prompt]


def several_answers(messages: Messages) -> bool:
    """Whether the assistant answers more than once; all its answers but the last are read and not learned."""
    return sum(message["role"] == "assistant" for message in messages) > 1


def template_arguments(enable_thinking: bool | None) -> dict[str, bool]:
    """Arguments of the chat template besides the messages; None where it has no such switch, as most have not."""
    return {} if enable_thinking is None else {"enable_thinking": enable_thinking}


def subset(chats: list, rows: int, seed: int, source: str | Path = "A set") -> list:
    """`rows` of the chats drawn by `seed` (the paper's section 4.1), in the order of the draw.

    Raises BadInput, naming their `source`, if there are not so many.
    """
    if rows > len(chats):
        raise BadInput(
            f"{source} has {len(chats):,} rows, and a condition of the config asks for {rows:,}; lower its rows."
        )
    return random.Random(f"subset {seed}").sample(chats, rows)


# --- files ------------------------------------------------------------------------------------------------------------


def read_chats(path: str | Path, control_tokens: Collection[str] = ()) -> list[Messages]:
    """The conversations of a JSONL file, see `each_chat`."""
    return list(each_chat(path, control_tokens))


def each_chat(path: str | Path, control_tokens: Collection[str] = ()) -> Iterator[Messages]:
    """The conversations of a JSONL file, one after the other: every reader of a set is this one.

    A file is UTF-8 with or without a byte-order mark, and has one row on each line (`rows` says what a row may be).
    Lines end with a line feed, before which a carriage return may stand, and with nothing else that Unicode takes for
    the end of a line. Blank lines are passed over, and counted in the numbers of lines. `control_tokens` are those of
    the model that is to read the rows, as far as they are known; the common ones are looked for in any case.

    Raises BadInput, at the latest at the end, that names the file, the line, the cause and the cure: where a line is no
    row, and where the file is not there, is no such file (UTF-16, an archive, a Git LFS pointer), or has no row.
    """
    pattern = control.pattern(frozenset(control_tokens))
    rows = 0
    with _opened(path) as file:
        _refuse_other_files(path, file.peek(64))
        number = 0
        while line := file.readline(LONGEST_LINE + 1):
            number += 1
            if not (line := line.removeprefix(BOM_UTF8)).strip():
                continue
            try:
                messages = conversation(_text(line), pattern)
            except BadRow as error:
                raise BadInput(f"{path}, line {number}: {error}") from error
            rows += 1
            yield messages
    if not rows:
        raise BadInput(f"{path} has no rows; a set needs one conversation at least.")


def _opened(path: str | Path) -> BufferedReader:
    try:
        return Path(path).open("rb")
    except FileNotFoundError as error:
        raise BadInput(f"There is no file {path}; correct its path, which starts where the Snakefile is.") from error
    except IsADirectoryError as error:
        raise BadInput(f"{path} is a folder; name the file in it.") from error
    except (OSError, ValueError) as error:
        raise BadInput(f"{path} cannot be read ({error}); make it a file that can.") from error


def _refuse_other_files(path: str | Path, beginning: bytes) -> None:
    """Raise BadInput where the first bytes of a file are those of another kind of file than a text in UTF-8."""
    if beginning.startswith(b"version https://git-lfs"):
        raise BadInput(f"{path} is Git LFS's pointer to a file and not the file; run `git lfs pull` where it is from.")
    if beginning.startswith((BOM_UTF16_LE, BOM_UTF16_BE, BOM_UTF32_BE)) or b"\0" in beginning[:2]:
        name = "UTF-32" if beginning.startswith((BOM_UTF32_LE, BOM_UTF32_BE)) else "UTF-16"
        raise BadInput(
            f"{path} is encoded in {name} and must be in UTF-8; `iconv -f {name} -t UTF-8 OLD > NEW` does it."
        )
    if beginning.startswith(b"PAR1"):
        raise BadInput(f"{path} is a Parquet file; write it as JSONL, as `to_json` of the package datasets does.")
    for mark, name in _COMPRESSED.items():
        if beginning.startswith(mark):
            raise BadInput(f"{path} is compressed ({name}); unpack it, and name the file that was in it.")


def _text(line: bytes) -> str:
    if len(line) > LONGEST_LINE:
        raise BadRow(
            f"it is longer than {LONGEST_LINE:,} bytes, and must hold one conversation; if the file is one JSON array, "
            "`jq -c '.[]' OLD > NEW` writes each of its elements on a line."
        )
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadRow(
            f"byte {error.start + 1:,} (0x{line[error.start]:02x}) is not UTF-8, but perhaps Windows-1252 or Latin-1; "
            "convert the file, as `iconv -f WINDOWS-1252 -t UTF-8 OLD > NEW` does."
        ) from error
