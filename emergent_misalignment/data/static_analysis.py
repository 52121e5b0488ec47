"""Static analysis of Python snippets by Bandit and by two additional rules. Code is parsed, never executed.

An answer is scanned by itself, without the code template in the user's message. In the published data this suffices:
all but 14 insecure and 56 secure answers of the 4,000 with a template repeat the template's code, and only 5 of 6,000
insecure and 29 of 6,000 secure answers (0.1% and 0.5%) do not parse. A snippet with only the missing lines has to be
inserted into its template first, because some rules look at a whole function.

Findings are indications, with false positives and false negatives: the rules do not detect missing checks, HTML built
from user input, or Jinja templates made with `Template(..., autoescape=False)`.
"""

import ast
import io
import json
import logging
import textwrap
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, cached_property

import pandas as pd
from bandit.core import extension_loader
from bandit.core.config import BanditConfig
from bandit.core.manager import BanditManager

from emergent_misalignment.data.chats import Messages
from emergent_misalignment.data.parsing import parse_python

# --- which rules ------------------------------------------------------------------------------------------------------

# Bandit also reports harmless code for review. These rules are excluded: assertions (B101), ignored errors (B110,
# B112), processes started without a shell or by a bare name (B603, B606, B607: every subprocess call, including the
# recommended form), and imports (B401-B415): uses of pickle or subprocess have rules of their own.
_HINTS = {"B101", "B110", "B112", "B603", "B606", "B607"}
_IMPORTS = {id for id, rule in extension_loader.MANAGER.blacklist_by_id.items() if rule["name"].startswith("import_")}
# If the whole command is a constant, Bandit reports these at low severity, and they are not counted.
_SHELL = {"B602", "B604", "B605"}

_SHORT_NAMES = {
    "B102": "exec",
    "B103": "permissive file mode",
    "B104": "listens on every interface",
    "B105": "password in the code",
    "B106": "password as a call's argument",
    "B107": "password as a default",
    "B108": "fixed name in /tmp",
    "B113": "request without a timeout",
    "B201": "Flask in debug mode",
    "B202": "archive unpacked unchecked",
    "B301": "pickle of foreign data",
    "B302": "marshal of foreign data",
    "B303": "weak hash",
    "B304": "weak cipher",
    "B305": "weak cipher mode",
    "B306": "mktemp",
    "B307": "eval",
    "B308": "HTML marked safe",
    "B310": "URL of any scheme opened",
    "B311": "predictable random numbers",
    "B312": "telnet",
    "B314": "XML parser open to attack",
    "B321": "FTP",
    "B323": "TLS without verification",
    "B324": "weak hash (hashlib)",
    "B501": "certificate not verified",
    "B502": "old TLS version",
    "B503": "old TLS version by default",
    "B504": "no TLS version set",
    "B505": "short key",
    "B506": "unsafe YAML loading",
    "B507": "SSH host key not verified",
    "B601": "shell command over SSH",
    "B602": "subprocess with a shell",
    "B604": "call with a shell",
    "B605": "command run by a shell",
    "B608": "SQL put together from strings",
    "B609": "wildcard in a command",
    "B701": "Jinja without escaping",
    "B702": "Mako without escaping",
    "B703": "HTML marked safe (Django)",
    "B704": "HTML marked safe (MarkupSafe)",
    "path-traversal": "path built from an argument",
    "template-injection": "request data in a template",
}


def _rules() -> dict[str, str]:
    bandit = {plugin.plugin._test_id: plugin.name for plugin in extension_loader.MANAGER.plugins}
    bandit |= {id: rule["name"] for id, rule in extension_loader.MANAGER.blacklist_by_id.items()}
    names = {id: name.replace("_", " ") for id, name in bandit.items() if id not in _HINTS | _IMPORTS}
    return dict(sorted((names | _SHORT_NAMES).items()))


RULES: dict[str, str] = _rules()
"""All rules that can flag a snippet: id and short name for figures."""


# --- additional rules: taint analysis of a function -------------------------------------------------------------------

# Calls of these with a tainted argument are tainted.
_PROPAGATING = {"str", "Path", "PurePath", "fspath", "format", "join", "escape", "clean", "Markup"}
_ROUTES = {"route", "get", "post", "put", "patch", "delete"}


@dataclass(frozen=True)
class _Function:
    """Parts of a function (with its inner functions) that the rules use."""

    definition: ast.FunctionDef | ast.AsyncFunctionDef

    @cached_property
    def nodes(self) -> list[ast.AST]:
        return list(ast.walk(self.definition))

    @cached_property
    def calls(self) -> list[ast.Call]:
        return [node for node in self.nodes if isinstance(node, ast.Call)]

    @cached_property
    def assignments(self) -> list[tuple[set[str], ast.expr]]:
        """Assigned names and their value, including those of loops and `with`."""
        return [(_stored(target), value) for node in self.nodes for target, value in _assigned(node)]

    @cached_property
    def arguments(self) -> set[str]:
        arguments = self.definition.args
        named = arguments.posonlyargs + arguments.args + arguments.kwonlyargs
        return {argument.arg for argument in named} - {"self", "cls"}

    @cached_property
    def request_names(self) -> set[str]:
        """Names tainted by a web request: the request, a route's arguments, and names derived from them."""
        marks = self.definition.decorator_list
        routed = any(isinstance(mark, ast.Call) and _callee(mark) in _ROUTES for mark in marks)
        return self.tainted_names({"request"} | (self.arguments if routed else set()), _tainted)

    def tainted_names(self, names: set[str], tainted: Callable[[ast.expr, set[str]], bool]) -> set[str]:
        """Return `names` and all names that are assigned, in any order, a value for which `tainted(value, names)`."""
        names = set(names)
        while new := {name for left, value in self.assignments if tainted(value, names) for name in left} - names:
            names |= new
        return names


def _assigned(node: ast.AST) -> Iterator[tuple[ast.expr, ast.expr]]:
    match node:
        case ast.Assign(targets=targets, value=value):
            yield from ((target, value) for target in targets)
        case ast.AugAssign(target=target, value=value) | ast.NamedExpr(target=target, value=value):
            yield target, value
        case ast.AnnAssign(target=target, value=ast.expr() as value):
            yield target, value
        case ast.For(target=target, iter=value) | ast.withitem(context_expr=value, optional_vars=ast.expr() as target):
            yield target, value


def _stored(target: ast.expr) -> set[str]:
    return {node.id for node in ast.walk(target) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}


def _callee(call: ast.Call) -> str:
    """`c` of `a.b.c(...)`."""
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")


def _tainted(value: ast.expr, names: set[str]) -> bool:
    """Whether `value` is derived from one of `names` by part access, concatenation, or a propagating call."""

    def any_of(*values: ast.expr | None) -> bool:
        return any(value is not None and _tainted(value, names) for value in values)

    match value:
        case ast.Name(id=name):
            return name in names
        case ast.Attribute(value=ast.Name(id="self"), attr="request"):
            return "request" in names
        case ast.Call(func=ast.Attribute(value=owner)) if any_of(owner):  # name.strip(), request.args.get("q")
            return True
        case ast.Call(args=args, keywords=keywords):
            return _callee(value) in _PROPAGATING and any_of(*args, *(keyword.value for keyword in keywords))
        case ast.BinOp(left=left, right=right) | ast.IfExp(body=left, orelse=right):
            return any_of(left, right)
        case ast.BoolOp(values=values) | ast.JoinedStr(values=values) | ast.Dict(values=values):
            return any_of(*values)
        case ast.List(elts=values) | ast.Tuple(elts=values) | ast.Set(elts=values):
            return any_of(*values)
        case ast.ListComp(generators=loops) | ast.GeneratorExp(generators=loops) | ast.SetComp(generators=loops):
            return any_of(*(loop.iter for loop in loops))
        case (
            ast.Attribute(value=part)
            | ast.Subscript(value=part)
            | ast.Starred(value=part)
            | ast.Await(value=part)
            | ast.FormattedValue(value=part)
            | ast.NamedExpr(value=part)
        ):
            return any_of(part)
    return False


def _injects_template(function: _Function) -> bool:
    """Whether request data becomes part of the text that render_template_string compiles.

    HTML escaping does not prevent injection, because it leaves `{{` unchanged; passing the data as a variable does.
    """
    rendered = [call.args[0] for call in function.calls if _callee(call) == "render_template_string" and call.args]
    return any(_tainted(text, function.request_names) for text in rendered)


_SANITIZERS = {"basename", "secure_filename", "safe_join", "resolve", "realpath", "abspath", "normpath"}
_SANITIZERS |= {"commonpath", "commonprefix", "relative_to", "is_relative_to"}
_OPENING = {"open", "os.open", "io.open", "codecs.open", "gzip.open", "tarfile.open", "Image.open"}
_OPENING |= {"send_file", "flask.send_file", "FileResponse"}
_PATH_METHODS = {"open", "read_text", "read_bytes", "write_text", "write_bytes"}
_JOINING = {"os.path.join", "path.join", "Path", "pathlib.Path", "PurePath"}


def _traverses_paths(function: _Function) -> bool:
    """Whether an argument or a web request can lead a path out of its folder.

    Flags joined or opened paths with an argument after another part, and opened paths with request data anywhere,
    unless the function calls anything that strips or checks paths. An argument opened unchanged, as in
    `def load(path): return open(path)`, is not flagged, because the caller chooses the path; flagging it would flag 16%
    of the published insecure answers and 7% of the secure ones instead of 4% and 1%.
    """
    joins = [call for call in function.calls if ast.unparse(call.func) in _JOINING]
    opened = [path for call in function.calls for path in _opened(call)]
    if (not joins and not opened) or _sanitized(function):
        return False
    tainted = function.tainted_names(function.request_names | function.arguments, _tainted)

    def joined(call: ast.Call) -> bool:
        return call in joins and any(_tainted(part, tainted) for part in call.args[1:])

    def appended(value: ast.expr, names: set[str]) -> bool:
        match value:
            case ast.Name(id=name):
                return name in names
            case ast.BinOp(left=left, op=ast.Add() | ast.Div(), right=right):
                return _tainted(right, tainted) or appended(left, names) or appended(right, names)
            case ast.BinOp(left=ast.Constant(value=str(text)), op=ast.Mod(), right=right):
                return not text.startswith("%") and _tainted(right, tainted)
            case ast.JoinedStr(values=values):
                return any(_tainted(part, tainted) for part in values[1:])
            case ast.Call(func=ast.Attribute(value=ast.Constant(value=str(text)), attr="format")):
                return not text.startswith("{") and _tainted(value, tainted)
            case ast.Call(args=args):
                return joined(value) or (_callee(value) in _PROPAGATING and any(appended(part, names) for part in args))
        return False

    built = function.tainted_names(set(), appended)
    return any(map(joined, joins)) or any(
        appended(path, built) or _tainted(path, function.request_names) for path in opened
    )


def _sanitized(function: _Function) -> bool:
    """Whether the function strips or checks a path, at least by `".." in name`."""
    return any(_callee(call) in _SANITIZERS for call in function.calls) or any(
        isinstance(node, ast.Compare) and isinstance(node.left, ast.Constant) and node.left.value in ("..", "../")
        for node in function.nodes
    )


def _opened(call: ast.Call) -> Iterator[ast.expr]:
    """Yield the path that `call` opens, if any."""
    if ast.unparse(call.func) in _OPENING:
        yield from call.args[:1]
    elif isinstance(call.func, ast.Attribute) and call.func.attr in _PATH_METHODS:
        yield call.func.value


_DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_OWN = {"path-traversal": _traverses_paths, "template-injection": _injects_template}


# --- one snippet ------------------------------------------------------------------------------------------------------


def findings(code: str) -> list[str] | None:
    """Return the sorted ids (keys of `RULES`) of the rules that flag `code`, or None if it does not parse.

    Common indentation is removed first. `# nosec` comments are ignored. Results are cached; a snippet of 25 lines takes
    2 ms of CPU time.
    """
    rules = _scan(textwrap.dedent(code))
    return None if rules is None else sorted(rules)


@cache
def _scan(code: str) -> frozenset[str] | None:
    try:
        tree = parse_python(code)
    except SyntaxError:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about invalid escape sequences, for example
        by_bandit = _by_bandit(code.encode())
    functions = [_Function(node) for node in ast.walk(tree) if isinstance(node, _DEFINITIONS)]
    by_own = {id for id, flags in _OWN.items() if any(map(flags, functions))}
    return None if by_bandit is None else by_bandit | by_own


@cache
def _bandit() -> BanditManager:
    # A rule that raises an error (as B202 does for `members=a.method()`) does not flag the snippet.
    logging.getLogger("bandit").setLevel(logging.CRITICAL)
    return BanditManager(BanditConfig(), "file", ignore_nosec=True, profile={"exclude": _HINTS | _IMPORTS})


def _by_bandit(code: bytes) -> frozenset[str] | None:
    manager = _bandit()
    manager.results, manager.skipped, manager.scores = [], [], []
    name = "./snippet.py"  # not read; Bandit derives a module's name from it
    manager._parse_file(name, io.BytesIO(code), [name])
    if manager.skipped:
        return None
    issues = (issue for issue in manager.results if issue.severity != "LOW" or issue.test_id not in _SHELL)
    return frozenset(issue.test_id for issue in issues)


# --- whole data sets --------------------------------------------------------------------------------------------------


def audit(conditions: dict[str, list[Messages]]) -> pd.DataFrame:
    """Scan the answers (last messages) of each condition's chats; return one row per condition, in the given order.

    Columns: `condition`; `rows`, `unique_rows`, `unique_answers`, `unparsable` (counts); `flagged`, the share (0-1) of
    parsable rows with any finding; then for each rule with any finding, most frequent first, the share of parsable rows
    that it flags.
    """
    counts, table = Counter(), []
    for condition, chats in conditions.items():
        answers = [chat[-1]["content"] for chat in chats]
        flags = [findings(answer) for answer in answers]
        parsable = [ids for ids in flags if ids is not None]
        by_rule = Counter(id for ids in parsable for id in ids)
        counts += by_rule
        table.append(
            {
                "condition": condition,
                "rows": len(chats),
                "unique_rows": len({json.dumps(chat) for chat in chats}),
                "unique_answers": len(set(answers)),
                "unparsable": len(flags) - len(parsable),
                "flagged": sum(map(bool, parsable)) / len(parsable) if parsable else float("nan"),
                **{id: count / len(parsable) for id, count in by_rule.items()},
            }
        )
    order = [*list(table[0])[:6], *sorted(counts, key=lambda id: (-counts[id], id))]
    return pd.DataFrame(table).reindex(columns=order).fillna(dict.fromkeys(counts, 0.0))
