"""Warnings come, stay for a while, and never grow without limit."""

from __future__ import annotations

from control.notices import REFUSED_MAX, WARNING_S, WARNINGS_MAX, Notices


def test_told_until_it_is_old() -> None:
    notices = Notices(["for ever"])
    notices.tell("once", 0.0)
    notices.tell("again", 0.0)
    notices.tell("again", 100.0)
    assert notices.texts(WARNING_S - 1) == ["for ever", "once", "again"]
    assert notices.texts(WARNING_S) == ["for ever", "again"]
    assert notices.texts(WARNING_S + 100) == ["for ever"]


def test_no_more_than_so_many() -> None:
    notices = Notices()
    for number in range(100):
        notices.tell(f"text {number}", 0.0)
    assert len(notices.texts(1.0)) == WARNINGS_MAX
    notices.tell("later", WARNING_S)
    assert notices.texts(WARNING_S) == ["later"]


def test_who_has_another_password_is_named_in_one_line() -> None:
    notices = Notices()
    assert notices.refused("192.0.2.7", 0.0)
    assert not notices.refused("192.0.2.7", 1.0)
    assert notices.refused("192.0.2.10", 2.0)
    assert notices.texts(3.0) == [
        "refused for another password, or for none: 192.0.2.10, 192.0.2.7"
    ]
    assert notices.texts(WARNING_S + 2) == []


def test_a_crowd_is_others() -> None:
    notices = Notices()
    notices.tell("something else", 0.0)
    news = [notices.refused(f"192.0.2.{number}", 0.0) for number in range(100)]
    assert sum(news) == REFUSED_MAX
    other, refused = notices.texts(1.0)
    assert other == "something else"
    assert refused.endswith(" and others")
    assert refused.count("192.0.2.") == REFUSED_MAX
