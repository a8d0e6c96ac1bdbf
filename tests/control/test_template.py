"""The template language of reports: what it prints, what it refuses, what it may cost."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from control.api import report
from control.api.printable import ABSENT, json_text
from control.api.template import OpenMap, RenderError, Template, TemplateError
from tests.control.views import node, samples

DATA: dict[str, Any] = {
    "Name": "n\x1bm",
    "Count": 3,
    "Share": 0.5,
    "Ready": True,
    "Off": False,
    "Nothing": None,
    "Empty": [],
    "List": ["a", "b"],
    "Peers": [{"Nick": "h1", "Links": ["x", "y"]}, {"Nick": "h2", "Links": []}],
    "Map": {"b": 2, "a": None},
    "Attrs": OpenMap(mtu=1438),
    "Gone": ABSENT,
}


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("", ""),
        ("plain } text", "plain } text"),
        ("{{.Count}}", "3"),
        ("{{ .Share }}", "0.5"),
        ("{{.Name}}", "n\\x1bm"),
        ("{{.Ready}} {{.Off}} {{.Nothing}}", "true false <no value>"),
        ("{{.List}} {{.Map}} {{.Empty}}", "[a b] {2 <nil>} []"),
        ("{{.Attrs}} {{.Peers}}", "map[mtu:1438] [{h1 [x y]} {h2 []}]"),
        ('{{"}}\\t\\"\\x41\\u00e9\\\\"}}', '}}\t"Aé\\'),
        ("{{`a\\n\n`}}", "a\\n\n"),
        ("{{len .List}} {{len .Name}} {{len .Map}} {{len .Nothing}}", "2 3 2 0"),
        ('{{len "é"}}', "2"),
        ("{{json .List}} {{json .Nothing}} {{json .Name}}", '["a","b"] null "n\\u001bm"'),
        ('{{json "x"}}', '"x"'),
        ("{{range .Peers}}{{.Nick}}:{{len .Links}} {{end}}", "h1:2 h2:0 "),
        ("{{range .Peers}}{{range .Links}}{{.}}{{else}}-{{end}};{{end}}", "xy;-;"),
        ("{{range .Nothing}}x{{else}}none{{end}}", "none"),
        ("{{range .Map}}{{.}},{{end}}", "<no value>,2,"),
        ("{{if .Ready}}yes{{else}}no{{end}}{{if .Off}}yes{{end}}", "yes"),
        ("{{if .Empty}}x{{end}}{{if .Nothing}}x{{end}}{{if .Count}}some{{end}}", "some"),
        ("a {{- .Count -}} \n b", "a3b"),
        ("{{.Attrs.mtu}} {{.Attrs.encrypted}} {{.Nothing.Deep.Er}}", "1438 <no value> <no value>"),
        ("a\n{{.Count}}\n", "a\n3\n"),
        ("{{.Gone}} {{json .Gone}} {{if .Gone}}a{{else}}b{{end}}", "<nil> null b"),
    ],
)
def test_renders(template: str, text: str) -> None:
    assert Template(template).render(DATA) == text


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{", "template: format:1: unclosed action"),
        ("a\n{{.Name", "template: format:2: unclosed action"),
        ("{{}}", "template: format:1: missing value for command"),
        ("{{if}}x{{end}}", "template: format:1: missing value for if"),
        ("{{range}}x{{end}}", "template: format:1: missing value for range"),
        ("{{range .A}}", "template: format:1: unexpected EOF"),
        ("{{end}}", "template: format:1: unexpected {{end}}"),
        ("{{else}}", "template: format:1: unexpected {{else}}"),
        ("{{if .A}}{{else}}{{else}}{{end}}", "template: format:1: expected end; found {{else}}"),
        ("{{foo .A}}", 'template: format:1: function "foo" not defined'),
        ("{{len x}}", 'template: format:1: function "x" not defined'),
        ('{{"a}}', "template: format:1: unterminated quoted string"),
        ("{{`a}}", "template: format:1: unterminated raw quoted string"),
        ("{{.A.}}", "template: format:1: unexpected <.> in operand"),
        ('{{"x"y}}', 'template: format:1: unexpected "y" in operand'),
        ("{{. A}}", 'template: format:1: function "A" not defined'),
        ('{{"\\q"}}', "template: format:1: unknown escape \\q in a string"),
        ("{{$x}}", "template: format:1: unexpected '$' in action"),
        ("{{.A\x1b}}", "template: format:1: bad character U+001B"),
        ("{{.A}", "template: format:1: bad character U+007D '}'"),
        ('{{.A"x"}}', "template: format:1: bad character U+0022 '\"'"),
        ("{{len`x}}", "template: format:1: bad character U+0060 '`'"),
        ("{{.A|len}}", "template: format:1: unexpected '|' in action"),
        ("{{\x1b}}", "template: format:1: unexpected '\\x1b' in action"),
        ("{{if .A}}" * 51 + "{{end}}" * 51, "template: format:1: more than 50 blocks"),
    ],
)
def test_refuses(template: str, message: str) -> None:
    with pytest.raises(TemplateError) as caught:
        Template(template)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    "template",
    [
        *("{{.Nope}}", "{{.Name.Deep}}", "{{.List.a}}", "{{len .Count}}", "{{range .Name}}{{end}}"),
        *("{{len}}", "{{json}}", "{{len .Name .Name}}", "{{.Name .Count}}"),
        *("{{.Gone.A}}", "{{len .Gone}}", "{{range .Gone}}{{end}}"),
    ],
)
def test_does_not_fit(template: str) -> None:
    with pytest.raises(RenderError):
        Template(template).render(DATA)


@pytest.mark.parametrize(
    "template",
    [
        "{{range .}}{{end}}",
        "{{range .}}" + "{{.}}" * 2000 + "{{end}}",
        "{{range .}}" + "x" * 60_000 + "{{end}}",
    ],
)
def test_cost_is_bounded(template: str) -> None:
    with pytest.raises(RenderError, match="too m"):
        Template(template).render([0] * 1_100_000)


_VECTORS = [
    each
    for each in samples()
    if each["path"].startswith("/report?format=") and "IPAM" not in each["path"]
]


@pytest.mark.parametrize("each", _VECTORS, ids=lambda each: each["path"])
def test_vectors(each: dict[str, Any]) -> None:
    (text,) = parse_qs(urlsplit(each["path"]).query)["format"]
    if each["status"] == 400:
        with pytest.raises(TemplateError) as caught:
            Template(text)
        assert f"{caught.value}\n" == each["body"]
    elif each["status"] == 500:
        with pytest.raises(RenderError):
            Template(text).render(report.build(node()))
    else:
        assert Template(text).render(report.build(node())) == each["body"]


def test_the_vectors_cover_each_kind_of_answer() -> None:
    assert {each["status"] for each in _VECTORS} == {200, 400, 500}


def test_templates_of_scripts() -> None:
    data = report.build(node())
    template = (
        "{{range .Router.Connections}}{{if .Outbound}}->{{end}} {{.Address}} {{.Attrs.name}}"
        "{{if .Attrs.encrypted}} encrypted{{end}}{{end}}"
    )
    assert Template(template).render(data) == "-> 10.95.0.2:6783 sleeve"
    assert Template("{{json .}}").render(data) == json_text(data)
    template = "{{.VersionCheck}}, {{.VersionCheck.Enabled}}"
    assert Template(template).render(data) == "version check update disabled, false"


def test_parts_that_are_off() -> None:
    data = report.for_template(node())
    assert Template("{{json .}}").render(data) == json_text(report.build(node()))
    for part in ("IPAM", "DNS", "Proxy", "Plugin"):
        ask = f"{{{{if .{part}}}}}on{{{{else}}}}off{{{{end}}}} {{{{.{part}}}}}"
        assert Template(ask).render(data) == "off <nil>"
        with pytest.raises(RenderError):
            Template(f"{{{{.{part}.Range}}}}").render(data)


_PIECES = st.sampled_from(
    [
        *(
            "{{",
            "}}",
            "{{-",
            "-}}",
            "range",
            "if",
            "else",
            "end",
            "len",
            "json",
            ".",
            "x",
            "`",
            '"',
        ),
        *("\\", "{{end}}", "{{else}}", "{{.}}", ".Peers", ".Nick", ".Map", ".Attrs.mtu"),
    ]
)
_BLANKS = st.sampled_from([" ", "\n"])
_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


@given(st.lists(_PIECES | _BLANKS | st.text(max_size=3)).map("".join), _VALUES)
@example("{{range .Peers}}{{.Nick}}{{end}}", DATA)
@example('{{"\\ud800"}}', None)
def test_any_template_and_any_data(text: str, data: Any) -> None:
    """Parses and renders, or raises one of its own errors; the text can be sent."""
    try:
        Template(text).render(data).encode()
    except (TemplateError, RenderError):
        pass
