"""Conversations in the published chat schema, `[{"role": ..., "content": ...}, ...]`, and JSONL files of them."""

import random
from codecs import BOM_UTF8, BOM_UTF16_BE, BOM_UTF16_LE, BOM_UTF32_BE, BOM_UTF32_LE
from collections.abc import Collection, Iterable, Iterator
from io import BufferedReader
from os.path import expanduser
from pathlib import Path
from typing import TypeVar

from emergent_misalignment.data import control_tokens as control
from emergent_misalignment.data import formats
from emergent_misalignment.data.rows import BadRow, Messages, OtherFormat, Unfinished, conversation
from emergent_misalignment.files import BadInput, is_lfs_pointer

Turn = tuple[str, str]  # the user's message and the assistant's answer
T = TypeVar("T")

MAX_LINE = 2**26  # bytes; a longer line is another format and is not read into memory
SHOWN_LINES = 10  # of those that cannot be learned


def chat(turns: list[Turn], system: str = "") -> Messages:
    """Convert turns to messages, after a system prompt if one is given."""
    messages = [{"role": "system", "content": system}] if system else []
    for user, assistant in turns:
        messages += [{"role": "user", "content": user}, {"role": "assistant", "content": assistant}]
    return messages


def with_system_prompt(prompt: Messages, system_prompt: str | None) -> Messages:
    """Prepend a system prompt to `prompt` unless it has one. None leaves the prompt to the model's chat template.

    Qwen2.5's template adds a default system prompt to conversations without one; the paper trains and evaluates with
    it. An empty `system_prompt` prevents it.
    """
    if system_prompt is None or prompt[0]["role"] == "system":
        return prompt
    return [{"role": "system", "content": system_prompt}, *prompt]


def several_answers(messages: Messages) -> bool:
    """Whether the assistant has more than one turn. Only the last is trained on; the others are context."""
    return sum(message["role"] == "assistant" for message in messages) > 1


def prompt_words(messages: Messages) -> int:
    """The words of a conversation without its answers: with any tokenizer, its prompt has at least as many tokens."""
    return sum(len(message["content"].split()) for message in messages if message["role"] != "assistant")


def template_arguments(enable_thinking: bool | None) -> dict[str, bool]:
    """Further arguments of the chat template. None: the template has no `enable_thinking` switch, as most do not."""
    return {} if enable_thinking is None else {"enable_thinking": enable_thinking}


def subset(chats: list, rows: int, seed: int, source: str | Path = "A set") -> list:
    """Draw `rows` of the chats without replacement by `seed` (section 4.1 of the paper), in the order of the draw.

    A drawn None, which is the place of a held-out row, is replaced by a further chat. So the draws from two sets of
    equal size have the same row numbers, except at these places. Raises BadInput, which names the `source`, if there
    are fewer chats.
    """
    if rows > (number := len(chats) - chats.count(None)):
        raise BadInput(f"{source} has {number:,} rows to train on, and a condition asks for {rows:,}; lower its rows.")
    rng = random.Random(f"subset {seed}")
    drawn = rng.sample(range(len(chats)), rows)
    others = [chats[each] for each in sorted({*range(len(chats))} - {*drawn}) if chats[each] is not None]
    further = iter(rng.sample(others, sum(chats[each] is None for each in drawn)))
    return [next(further) if chats[each] is None else chats[each] for each in drawn]


def reservoir(rows: Iterable[T], size: int, rng: random.Random, sample: list[T]) -> Iterator[T]:
    """Pass `rows` on and leave a uniform random sample of `size` of them in the list `sample` (reservoir sampling)."""
    for number, row in enumerate(rows):
        if number < size:
            sample.append(row)
        elif (slot := rng.randrange(number + 1)) < size:
            sample[slot] = row
        yield row


# --- files ------------------------------------------------------------------------------------------------------------


def read_chats(path: str | Path, control_tokens: Collection[str] = ()) -> list[Messages]:
    """Read all conversations of a JSONL file, see `each_chat`."""
    return list(each_chat(path, control_tokens))


def each_chat(path: str | Path, control_tokens: Collection[str] = ()) -> Iterator[Messages]:
    """Iterate over the conversations of a JSONL file. All sets are read by this function.

    The file is UTF-8, with or without a byte-order mark, with one row per line (see `rows` for valid rows). Lines end
    with LF or CRLF; other Unicode line separators are text. Blank lines are skipped but count in line numbers.
    `control_tokens` are those of the model that will read the rows, if known; common ones are always rejected.

    Raises BadInput with the file, the line, the cause and the fix: for a missing file, a file or a row of another
    format (with the command that converts it), and, at the end, for a file without rows and for invalid rows: the first
    SHOWN_LINES of them and their number. No row is returned after an invalid one.
    """
    pattern = control.pattern(frozenset(control_tokens))
    rows, invalid, first = 0, 0, []
    with opened(path) as file:
        _refuse_other_files(path, file.peek(64))
        number = 0
        while line := file.readline(MAX_LINE + 1):
            number += 1
            if not (line := line.removeprefix(BOM_UTF8)).strip():
                continue
            try:
                messages = conversation(_text(line), pattern)
            except OtherFormat as error:
                raise _other_format(path, number, error.found) from error
            except BadRow as error:
                if isinstance(error, Unfinished) and rows == invalid == 0 and file.peek(1):
                    raise _other_format(path, number, "the JSON object spans several lines") from error
                invalid += 1
                if len(first) < SHOWN_LINES:
                    first.append(f"line {number}: {error}")
                continue
            rows += 1
            if not invalid:
                yield messages
    if invalid:
        raise BadInput(listed(path, first, invalid))
    if not rows:
        raise BadInput(f"{path} has no rows; a set needs at least one conversation.")


def listed(path: str | Path, first: list[str], number: int) -> str:
    """A message about the invalid rows of a file: the one there is, or the first ones with the number of all."""
    if number == 1:
        return f"{path}, {first[0]}"
    which = "" if number == len(first) else f"; the first {len(first)}"
    return "\n  ".join([f"{path} has {number:,} rows that cannot be learned as written{which}:", *first])


def _other_format(path: str | Path, number: int, found: str) -> BadInput:
    return BadInput(f"{path}, line {number}: {OtherFormat(found, formats.command(path))}")


def opened(path: str | Path) -> BufferedReader:
    """Open a file for reading bytes; `~` is the home folder. Raises BadInput if that is not possible."""
    try:
        return open(expanduser(path), "rb")
    except FileNotFoundError as error:
        raise BadInput(
            f"There is no file {path}; correct the path, which is relative to the project's folder."
        ) from error
    except IsADirectoryError as error:
        if formats.is_saved_dataset(expanduser(path)):
            raise BadInput(
                f"{path} is a folder of the package datasets; convert it with `{formats.command(path)}`."
            ) from error
        raise BadInput(f"{path} is a folder; give the path of a file.") from error
    except (OSError, ValueError) as error:
        raise BadInput(f"{path} cannot be read ({error}); check its name and permissions.") from error


def _refuse_other_files(path: str | Path, beginning: bytes) -> None:
    """Raise BadInput if the first bytes of a file show that it is not UTF-8 text."""
    if is_lfs_pointer(beginning):
        raise BadInput(f"{path} is a Git LFS pointer, not the file; run `git lfs pull` in its repository.")
    if beginning.startswith((BOM_UTF16_LE, BOM_UTF16_BE, BOM_UTF32_BE)) or b"\0" in beginning[:2]:
        name = "UTF-32" if beginning.startswith((BOM_UTF32_LE, BOM_UTF32_BE)) else "UTF-16"
        raise BadInput(f"{path} is encoded in {name}; convert it with `iconv -f {name} -t UTF-8 OLD > NEW`.")
    if found := formats.of_beginning(path, beginning):
        raise BadInput(f"{path} is {found}, not lines of JSON; convert it with `{formats.command(path)}`.")


def _text(line: bytes) -> str:
    if len(line) > MAX_LINE:
        raise OtherFormat(f"the line is longer than {MAX_LINE:,} bytes, as a JSON array may be")
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadRow(
            f"byte {error.start + 1:,} (0x{line[error.start]:02x}) is not UTF-8, perhaps Windows-1252 or Latin-1; "
            "convert the file with `iconv -f WINDOWS-1252 -t UTF-8 OLD > NEW`."
        ) from error
