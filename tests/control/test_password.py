"""Where the password comes from, and that it shows nowhere."""

from __future__ import annotations

from pathlib import Path

import pytest

from base.errors import ConfigError
from control.password import NO_PASSWORD, find_password, take_password


def _file(folder: Path, content: bytes, mode: int = 0o600) -> Path:
    path = folder / "password"
    path.write_bytes(content)
    path.chmod(mode)
    return path


@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n"])
def test_a_file_holds_one_line(tmp_path: Path, end: bytes) -> None:
    path = _file(tmp_path, b"correct horse" + end)
    assert find_password(path, {"WEAVE_PASSWORD": "another"}).value == b"correct horse"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is empty"),
        (b"\n", "is empty"),
        (b"short\n", "shorter than 8 bytes"),
        (b"two lines\nof text\n", "not one line"),
        (b"a zero\0byte", "not one line"),
        (b"x" * 5000, "longer than 4096"),
    ],
)
def test_what_a_file_may_not_hold(tmp_path: Path, content: bytes, says: str) -> None:
    with pytest.raises(ConfigError, match=r"--password-file: .*" + says) as caught:
        find_password(_file(tmp_path, content), {})
    assert "short\n" not in str(caught.value)
    assert "two lines" not in str(caught.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--password-file: cannot read .*No such file"):
        find_password(tmp_path / "none", {})


def test_a_file_that_others_can_read_is_warned_of(tmp_path: Path) -> None:
    password = find_password(_file(tmp_path, b"correct horse", 0o644), {})
    assert password.value == b"correct horse"
    assert "chmod 600" in password.warnings[0]


def test_the_variable_counts_as_it_is() -> None:
    password = find_password(None, {"WEAVE_PASSWORD": "weave", "CREDENTIALS_DIRECTORY": "/none"})
    assert password.value == b"weave"
    assert "shorter than 8" in password.warnings[0]
    assert find_password(None, {"WEAVE_PASSWORD": " spaces stay \n"}).value == b" spaces stay \n"


def test_the_credential_comes_last(tmp_path: Path) -> None:
    (tmp_path / "weave-password").write_text("from systemd\n")
    environ = {"CREDENTIALS_DIRECTORY": str(tmp_path)}
    assert find_password(None, environ).value == b"from systemd"
    assert find_password(None, {**environ, "WEAVE_PASSWORD": "variable"}).value == b"variable"
    (tmp_path / "weave-password").write_text("")
    with pytest.raises(ConfigError, match=r"credential weave-password: .*is empty"):
        find_password(None, environ)


def test_without_one_there_is_a_warning() -> None:
    for environ in ({}, {"WEAVE_PASSWORD": ""}, {"CREDENTIALS_DIRECTORY": "/none"}):
        password = find_password(None, environ)
        assert password.value is None
        assert password.warnings == (NO_PASSWORD,)


def test_it_is_not_shown() -> None:
    assert "variable" not in repr(find_password(None, {"WEAVE_PASSWORD": "variable"}))


def test_children_do_not_inherit_it(tmp_path: Path) -> None:
    environ = {"WEAVE_PASSWORD": "variable", "PATH": "/bin"}
    assert take_password(None, environ).value == b"variable"
    assert environ == {"PATH": "/bin"}
    environ = {"WEAVE_PASSWORD": "variable"}
    with pytest.raises(ConfigError):
        take_password(tmp_path / "none", environ)
    assert environ == {}
