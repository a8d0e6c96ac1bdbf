"""Forms as the original's clients send them: ``peer=a&peer=b&replace=true`` as body or query."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qsl

FIELDS_MAX: Final = 1000


class FormError(ValueError):
    """Not a form that we take; one sentence."""


@dataclass(slots=True, frozen=True)
class PeersForm:
    """``peers`` in the order given, each once; ``replace`` only for "true", as the original."""

    peers: list[str]
    replace: bool


def parse_peers(body: bytes, query: str = "") -> PeersForm:
    """The form of ``/connect`` and ``/forget``: URL-encoded bytes, fields of the body first.

    Raises:
        FormError: more than FIELDS_MAX fields, an unknown field, or a peer that is no plain text.
    """
    fields = fields_of(body, query)
    peers: dict[str, None] = {}
    replace: str | None = None
    for name, value in fields:
        if name == "peer":
            text = value.strip()
            if not text or not text.isprintable() or "\ufffd" in text:
                raise FormError(f"invalid peer name {json.dumps(value)}, should be host[:port]")
            peers[text] = None
        elif name == "replace":
            replace = value if replace is None else replace
        else:
            raise FormError(f"unknown field {name!r}; known here: peer, replace")
    return PeersForm(list(peers), replace == "true")


def fields_of(body: bytes, query: str) -> list[tuple[str, str]]:
    """Names and values, those of the body first. Raises FormError for too many."""
    return _fields(body.decode("utf-8", "replace")) + _fields(query)


def _fields(text: str) -> list[tuple[str, str]]:
    try:
        return parse_qsl(text, keep_blank_values=True, max_num_fields=FIELDS_MAX)
    except ValueError as err:
        raise FormError(f"more than {FIELDS_MAX} fields") from err
