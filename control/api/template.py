"""The part of Go's text/template that ``/report?format=`` understands; sans-IO.

    {{.Router.Name}}   {{.}}   {{"text"}}   {{len .Router.Peers}}   {{json .Router.Targets}}
    {{range .Router.Peers}}…{{else}}…{{end}}   {{if .Ready}}…{{else}}…{{end}}   {{- trims -}}

Data are what JSON has: dicts, lists, str, numbers, bool, None. A field that a dict does not have is
an error, but in an :class:`OpenMap` (a map in the original) it is None, as is any field of None;
one of a part that is :class:`~control.api.printable.Absent` is an error, too.
None, false, 0 and what is empty are false; None has length 0. Values print as Go prints them:
lists ``[a b]``, dicts as its structs ``{value …}``, an OpenMap ``map[key:value …]``, None
``<no value>`` and inside of others ``<nil>``. What does not print is escaped in
values, since other routers choose them; literal text stays as it is.

Rules: any text parses or raises :class:`TemplateError`, any data render or raise
:class:`RenderError`. Steps, depth and length are bounded: templates come from clients. Source of
truth: node specification 9, vectors; Go text/template for the words of errors.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from control.api.printable import ABSENT, Absent, Nil, json_text, printable

DEPTH_MAX: Final = 50
STEPS_MAX: Final = 1_000_000
OUTPUT_LEN_MAX: Final = 32 * 1024 * 1024

_TOKEN: Final = re.compile(
    r"""(?P<space>\s+)
      | (?P<path>(?:\.[^\W\d]\w*)+)
      | (?P<dot>\.)
      | (?P<quoted>"(?:[^"\\\n]|\\[^\n])*")
      | (?P<raw>`[^`]*`)
      | (?P<word>[^\W\d]\w*)
      | (?P<end>-?\}\})""",
    re.VERBOSE,
)
_OPEN: Final = re.compile(r"\{\{(?:-(?=\s))?")
_ESCAPE: Final = re.compile(r"\\(x[0-9A-Fa-f]{2}|u[0-9A-Fa-f]{4}|.)")
_ESCAPED: Final = {"n": "\n", "t": "\t", "r": "\r", '"': '"', "\\": "\\"}
_BLANKS: Final = " \t\r\n"
#: What the original's language lets follow a name without a blank.
_BEHIND_NAMES: Final = ",|:()"


class TemplateError(ValueError):
    """The text is no template; one sentence as Go writes it."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(f"template: format:{line}: {message}")


class RenderError(ValueError):
    """The template does not fit the data, or would print too much."""


class OpenMap(dict[str, Any]):
    """A dict whose missing keys are None to a template."""


class Partial(dict[str, Any]):
    """A dict with fields that are ``absent``: JSON and printing leave them out."""

    def __init__(self, fields: dict[str, Any], absent: frozenset[str]) -> None:
        super().__init__(fields)
        self.absent = absent


class Titled(dict[str, Any]):
    """A dict that prints as ``title``."""

    def __init__(self, title: str, fields: dict[str, Any]) -> None:
        super().__init__(fields)
        self.title = title


@dataclass(slots=True, frozen=True)
class _Value:
    """What an action prints: a literal, or the end of ``path`` (from dot), maybe by a function.

    ``misfit`` is why it prints nothing: it parses, but to run it is an error.
    """

    path: tuple[str, ...] = ()
    literal: str | None = None
    function: str | None = None
    misfit: str = ""


@dataclass(slots=True, frozen=True)
class _Block:
    """``range`` or ``if`` over a value."""

    kind: str
    value: _Value
    body: list[_Node] = field(default_factory=list)
    otherwise: list[_Node] = field(default_factory=list)


_Node = str | _Value | _Block


class Template:
    """A parsed template; renders any number of times."""

    def __init__(self, text: str) -> None:
        """Parse ``text``. Raises TemplateError."""
        self._nodes = _Parser(text).nodes()

    def render(self, data: Any) -> str:
        """The text for ``data`` (see the module). Raises RenderError."""
        return _Renderer().text(self._nodes, data)


class _Parser:
    """One pass over the text: literal text, then an action, and so on."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0

    def _error(self, message: str) -> TemplateError:
        return TemplateError(1 + self._text.count("\n", 0, self._at), message)

    def nodes(self) -> list[_Node]:
        root: list[_Node] = []
        current = root
        open_blocks: list[tuple[_Block, list[_Node]]] = []  # and what is continued after its end
        in_else: list[bool] = []
        for piece in self._pieces():
            if isinstance(piece, str):
                current.append(piece)
                continue
            keyword = piece[0]
            if keyword in ("range", "if"):
                if len(open_blocks) == DEPTH_MAX:
                    raise self._error(f"more than {DEPTH_MAX} blocks inside each other")
                block = _Block(keyword, self._value(piece[1:], of=keyword))
                current.append(block)
                open_blocks.append((block, current))
                in_else.append(False)
                current = block.body
            elif keyword == "else" and len(piece) == 1:
                if not open_blocks:
                    raise self._error("unexpected {{else}}")
                if in_else[-1]:
                    raise self._error("expected end; found {{else}}")
                in_else[-1] = True
                current = open_blocks[-1][0].otherwise
            elif keyword == "end" and len(piece) == 1:
                if not open_blocks:
                    raise self._error("unexpected {{end}}")
                current = open_blocks.pop()[1]
                in_else.pop()
            else:
                current.append(self._value(piece))
        if open_blocks:
            raise self._error("unexpected EOF")
        return root

    def _pieces(self) -> Iterator[str | list[str]]:
        """Literal texts, and actions as lists of tokens; both trimmed as the dashes say."""
        trim = False
        while True:
            opening = _OPEN.search(self._text, self._at)
            literal = self._text[self._at : opening.start() if opening else None]
            if trim:
                literal = literal.lstrip(_BLANKS)
            if opening is None:
                self._at = len(self._text)
                yield literal
                return
            yield literal.rstrip(_BLANKS) if opening[0].endswith("-") else literal
            self._at = opening.end()
            tokens = list(self._tokens())
            trim = tokens.pop().startswith("-")
            if not tokens:
                raise self._error("missing value for command")
            yield tokens

    def _tokens(self) -> Iterator[str]:
        before: str | None = "space"
        while True:
            found = _TOKEN.match(self._text, self._at)
            if found is None:
                raise self._error(self._complaint(behind_name=before in ("path", "word")))
            kind = found.lastgroup
            if kind in ("quoted", "raw") and before in ("path", "word"):
                raise self._error(self._complaint(behind_name=True))
            self._at = found.end()
            if kind not in ("space", "end") and before not in ("space", "word"):
                said = "<.>" if kind == "dot" else f'"{printable(found[0])}"'
                raise self._error(f"unexpected {said} in operand")
            if kind != "space":
                yield found[0]
            if kind == "end":
                return
            before = kind

    def _complaint(self, *, behind_name: bool) -> str:
        if self._at == len(self._text):
            return "unclosed action"
        char = self._text[self._at]
        if behind_name and char not in _BEHIND_NAMES:
            shown = f" '{char}'" if char.isprintable() else ""
            return f"bad character U+{ord(char):04X}{shown}"
        if char in '"`':
            return f"unterminated {'raw ' if char == '`' else ''}quoted string"
        return f"unexpected '{printable(char)}' in action"

    def _value(self, tokens: list[str], of: str = "command") -> _Value:
        if not tokens:
            raise self._error(f"missing value for {of}")
        function = tokens[0] if tokens[0] in ("len", "json") else None
        if function is None and tokens[0][0] not in '."`':
            raise self._error(f'function "{tokens[0]}" not defined')
        operands = tokens[1:] if function else tokens
        for word in operands:
            if word[0] not in '."`':
                raise self._error(f'function "{word}" not defined')
        if len(operands) != 1:  # the original, too, finds that only when it runs it
            wrong = (
                "wrong number of args for" if function else "can't give argument to non-function"
            )
            return _Value(misfit=f"{wrong} {function or operands[0]}")
        (operand,) = operands
        match operand[0]:
            case '"':
                return _Value(literal=self._unquoted(operand[1:-1]), function=function)
            case "`":
                return _Value(literal=operand[1:-1], function=function)
            case _:
                path = tuple(operand[1:].split(".")) if len(operand) > 1 else ()
                return _Value(path, function=function)

    def _unquoted(self, text: str) -> str:
        def character(found: re.Match[str]) -> str:
            code = found[1]
            if len(code) > 1:
                return chr(int(code[1:], 16))
            if code not in _ESCAPED:
                raise self._error(f"unknown escape \\{printable(code)} in a string")
            return _ESCAPED[code]

        # half a surrogate pair has no UTF-8
        return _ESCAPE.sub(character, text).encode("utf-8", "replace").decode()


class _Renderer:
    """One rendering; counts what it costs."""

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._steps_left = STEPS_MAX
        self._room_left = OUTPUT_LEN_MAX

    def text(self, nodes: list[_Node], data: Any) -> str:
        self._run(nodes, data)
        return "".join(self._parts)

    def _run(self, nodes: list[_Node], dot: Any) -> None:
        for node in nodes:
            self._steps_left -= 1
            if self._steps_left < 0:
                raise RenderError("the template takes too many steps")
            if isinstance(node, str):
                self._print(node)
            elif isinstance(node, _Value):
                self._print(_shown(_evaluate(node, dot), literal=_is_literal(node)))
            else:
                self._block(node, dot)

    def _print(self, text: str) -> None:
        self._room_left -= len(text)
        if self._room_left < 0:
            raise RenderError("the template prints too much")
        self._parts.append(text)

    def _block(self, block: _Block, dot: Any) -> None:
        value = _evaluate(block.value, dot)
        if block.kind == "if":
            self._run(block.body if value else block.otherwise, dot)
            return
        if isinstance(value, dict):
            value = [value[key] for key in sorted(value)]
        elif value is not None and not isinstance(value, list | tuple | Nil):
            raise RenderError(f"range can't iterate over {printable(_shown(value))}")
        if not value:
            self._run(block.otherwise, dot)
            return
        for item in value:
            self._run(block.body, item)
            self._steps_left -= 1  # an empty body costs, too


def _is_literal(value: _Value) -> bool:
    return value.function is not None or value.literal is not None


def _evaluate(value: _Value, dot: Any) -> Any:
    if value.misfit:
        raise RenderError(value.misfit)
    found = dot if value.literal is None else value.literal
    for name in value.path:
        found = _field(found, name)
    if value.function == "len":
        if found is None:
            return 0
        if isinstance(found, str):
            return len(found.encode())
        if not isinstance(found, dict | list | tuple | Nil):
            raise RenderError(f"len of type {type(found).__name__}")
        return len(found)
    return json_text(found) if value.function == "json" else found


def _field(found: Any, name: str) -> Any:
    if found is None:
        return None
    if not isinstance(found, dict):
        raise RenderError(f"can't evaluate field {name} in type {type(found).__name__}")
    if name not in found and isinstance(found, Partial) and name in found.absent:
        return ABSENT
    if name not in found and not isinstance(found, OpenMap):
        raise RenderError(f"can't evaluate field {name}")
    return found.get(name)


def _shown(value: Any, *, literal: bool = False) -> str:
    """``value`` as Go's fmt prints it."""
    if isinstance(value, str):
        return value if literal else printable(value)
    if value is None:
        return "<no value>"
    if isinstance(value, Absent):
        return "<nil>"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Titled):
        return value.title
    if isinstance(value, OpenMap):
        pairs = (f"{printable(key)}:{_inside(value[key])}" for key in sorted(value))
        return f"map[{' '.join(pairs)}]"
    if isinstance(value, dict):
        return f"{{{' '.join(map(_inside, value.values()))}}}"
    if isinstance(value, list | tuple | Nil):
        return f"[{' '.join(map(_inside, value))}]"
    return str(value)


def _inside(value: Any) -> str:
    return "<nil>" if value is None else _shown(value)
