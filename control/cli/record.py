"""Commands whose options are one record: a dataclass with an annotated field for each of them.

    @dataclass(frozen=True, kw_only=True)
    class Options:
        port: Annotated[int, typer.Option("--port", min=1)] = 6783

    @app.command()
    @takes(Options)
    def launch(options: Options) -> None: ...

:func:`takes` shows the fields to typer as the command's parameters, so help, environment, checks
and errors are typer's; :func:`arguments` is the way back, from a record to a command line.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar, get_type_hints

from typer.models import ArgumentInfo, OptionInfo

R = TypeVar("R")


def takes(
    record: type[R], panels: Sequence[str] = ()
) -> Callable[[Callable[[R], None]], Callable[..., None]]:
    """Make a function of one ``record`` into one that typer can make a command of.

    The help shows ``panels`` in this order, and within each the fields in theirs; typer alone would
    go by the fields, which inheritance has put in an order that says nothing.
    """

    def decorate(function: Callable[[R], None]) -> Callable[..., None]:
        @functools.wraps(function)
        def command(**values: Any) -> None:
            function(record(**values))

        found = sorted(_fields(record), key=lambda each: _place(each[1], panels))
        command.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
            [_parameter(field, hint) for field, _, hint in found]
        )
        command.__annotations__ = {field.name: hint for field, _, hint in found}
        return command

    return decorate


def arguments(options: object, record: type) -> list[str]:
    """The command line that gives a command of ``record`` these values.

    ``options`` may have further attributes. What is None is left to the command's own default.
    """
    given: list[str] = []
    words: list[str] = []
    for field, info, _ in _fields(record):
        value = getattr(options, field.name)
        if isinstance(info, ArgumentInfo):
            words += map(str, value or ())
        elif isinstance(value, bool):
            given += [_name(info)] if value else []
        else:
            each = value if isinstance(value, list) else [] if value is None else [value]
            # "=" so that a value beginning with "-" is not taken for another option
            given += [f"{_name(info)}={one}" for one in each]
    return [*given, "--", *words] if words else given


_Info = ArgumentInfo | OptionInfo


def _fields(record: type) -> Iterator[tuple[dataclasses.Field[Any], _Info, Any]]:
    """Each field with what typer is told of it and its whole annotation."""
    hints = get_type_hints(record, include_extras=True)
    for field in dataclasses.fields(record):
        hint = hints[field.name]
        (info,) = (each for each in hint.__metadata__ if isinstance(each, _Info))
        yield field, info, hint


def _parameter(field: dataclasses.Field[Any], hint: Any) -> inspect.Parameter:
    default = inspect.Parameter.empty if field.default is dataclasses.MISSING else field.default
    kind = inspect.Parameter.KEYWORD_ONLY
    return inspect.Parameter(field.name, kind, default=default, annotation=hint)


def _place(info: _Info, panels: Sequence[str]) -> int:
    panel = info.rich_help_panel
    return panels.index(panel) + 1 if panel in panels else 0


def _name(info: OptionInfo) -> str:
    # within Annotated the first name is where typer otherwise has the default
    return str(info.default)
