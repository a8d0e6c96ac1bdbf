"""What every test shares: the event loops, and the rule that nothing is skipped in silence.

Async tests carry ``@pytest.mark.anyio`` and run on plain asyncio and on uvloop. Tests marked
``netns`` start real routers, which choose their own loop, so those run once.

A test that is skipped where everything can be had (as root, or with ``CI`` set) is a hole in the
set-up: the run then fails and prints the reasons.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

_UVLOOP = pytest.param(("asyncio", {"use_uvloop": True}), id="uvloop")
_ASYNCIO = pytest.param(("asyncio", {"use_uvloop": False}), id="asyncio")

_skipped: list[tuple[str, str]] = []


@pytest.fixture(params=[_UVLOOP, _ASYNCIO], scope="session")
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, object]]:
    """The loop that an async test runs on."""
    backend: tuple[str, dict[str, object]] = request.param
    return backend


def skips_fail() -> bool:
    """Whether this run has no excuse for a skipped test."""
    return os.geteuid() == 0 or os.environ.get("CI", "").lower() in ("1", "true", "yes")


def pytest_configure(config: pytest.Config) -> None:
    """Refuse a sanitizer run that would test the ordinary build."""
    if os.environ.get("WEFT_SANITIZED"):
        import native._datapath

        module = Path(native._datapath.__file__)
        if ROOT / "build" / "sanitize" not in module.parents:
            raise pytest.UsageError(f"sanitizer run would use {module}")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Run tests that start whole processes on one loop only."""
    dropped = [
        item
        for item in items
        if item.get_closest_marker("netns")
        and "[asyncio" in item.name
        and "uvloop" not in item.name
    ]
    if dropped:
        gone = set(dropped)
        items[:] = [item for item in items if item not in gone]
        config.hook.pytest_deselected(items=dropped)


def _remember(nodeid: str, report: pytest.TestReport | pytest.CollectReport) -> None:
    if report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        _skipped.append((nodeid, reason))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Note each skipped test."""
    _remember(report.nodeid, report)


def pytest_collectreport(report: pytest.CollectReport) -> None:
    """Note each module that skipped itself as a whole."""
    _remember(report.nodeid, report)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Turn skips into a failed run where nothing may be skipped."""
    if _skipped and skips_fail() and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say which skips made the run fail."""
    if _skipped and skips_fail():
        terminalreporter.section("skipped, which counts as failed here", red=True, bold=True)
        for nodeid, reason in _skipped:
            terminalreporter.line(f"{nodeid}: {reason}")
