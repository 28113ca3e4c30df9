"""Log lines: readable in a terminal, with priorities in the journal, and never a way for secrets or forged lines."""

from __future__ import annotations

import io
import logging
import os
import warnings

import pytest

from meshd.daemon import logging as meshd_logging
from meshd.errors import FormatError

log = logging.getLogger("meshd.sync")


@pytest.fixture
def written(tmp_path):
    """The log's text, as a terminal or (`journal=True`) the journal gets it."""
    root, ours = logging.getLogger(), logging.getLogger("meshd")
    before = (root.handlers[:], root.level, ours.level)
    files = []

    def start(level="info", *, journal=False):
        file = (tmp_path / "log").open("w")
        files.append(file)
        found = os.fstat(file.fileno())
        environ = {"JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino}"} if journal else {"JOURNAL_STREAM": "1:2"}
        meshd_logging.start(level, stream=file, environ=environ)

        def text():
            file.flush()
            return (tmp_path / "log").read_text()

        return text

    yield start
    logging.captureWarnings(False)
    root.handlers[:], root.level = before[0], before[1]
    ours.setLevel(before[2])
    for file in files:
        file.close()


def failing():
    try:
        try:
            int("hunter2")
        except ValueError as exc:
            raise FormatError("row 7 is no number") from exc
    except FormatError:
        log.exception("import refused")


def test_a_person_sees_time_level_and_area(written):
    text = written()
    log.warning("desktop is %d versions behind", 3)
    log.debug("not shown")
    assert text().rstrip("\n").split(" ", 1)[1] == "warning sync: desktop is 3 versions behind"


def test_the_journal_gets_a_priority_on_every_line(written):
    text = written(journal=True)
    log.info("ready")
    failing()
    lines = text().splitlines()
    assert lines[0] == "<6>sync: ready"
    assert len(lines) > 3
    assert all(line.startswith("<3>") for line in lines[1:])


def test_the_level_counts_for_meshd_and_libraries_are_heard_from_warnings_on(written):
    text = written("debug")
    log.debug("shown")
    logging.getLogger("zeroconf").info("not shown")
    logging.getLogger("zeroconf").warning("shown too")
    assert "shown" in text() and "not shown" not in text() and "zeroconf: shown too" in text()


def test_an_error_of_ours_is_told_and_a_librarys_that_quotes_values_is_not(written):
    text = written()
    failing()
    assert "FormatError: row 7 is no number" in text()
    assert "ValueError" in text()
    assert "in failing" in text()
    assert "hunter2" not in text()


def test_groups_are_told_member_by_member(written):
    text = written()
    try:
        raise ExceptionGroup("hunter2", [FormatError("first"), KeyError("hunter2")])
    except ExceptionGroup:
        log.exception("peer dropped")
    assert "FormatError: first" in text() and "KeyError" in text() and "hunter2" not in text()


def test_what_a_peer_sent_can_neither_forge_a_line_nor_drive_a_terminal(written):
    text = written(journal=True)
    log.warning("name %s", "x\n<0>meshd: forged\x1b[2J\u202e" + "y" * 5000)
    assert text().count("\n") == 1
    assert "\\x0a<0>" in text() and "\\x1b[2J\\u202e" in text()
    assert len(text()) < 2200


def test_a_line_that_does_not_format_does_not_show_its_arguments(written):
    text = written()
    [handler] = [one for one in logging.getLogger().handlers if type(one).__module__ == meshd_logging.__name__]
    handler.handle(logging.LogRecord("meshd.sync", logging.WARNING, __file__, 1, "%d items", ("hunter2",), None))
    assert "could not be written" in text() and "hunter2" not in text()


def test_python_warnings_arrive_in_the_log(written):
    text = written()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning(DeprecationWarning("old"), DeprecationWarning, "file.py", 3)
    assert "DeprecationWarning" in text()


def test_a_stream_without_a_file_is_no_journal():
    assert not meshd_logging.is_journal(io.StringIO(), {"JOURNAL_STREAM": "1:2"})


def test_lines_of_one_kind_are_measured_and_errors_are_not():
    measured = meshd_logging.Measured()

    def record(level, text, at=0.0):
        made = logging.LogRecord("meshd.sync", level, "", 1, text, (), None)
        made.created = at
        return made

    flood = [record(logging.INFO, "lost %s") for _ in range(500)]
    assert sum(measured.filter(one) for one in flood) == meshd_logging.EACH
    assert "left out" in flood[meshd_logging.EACH - 1].getMessage()
    assert measured.filter(record(logging.INFO, "another"))
    assert all(measured.filter(record(logging.ERROR, "a fault")) for _ in range(500))
    assert measured.filter(record(logging.INFO, "lost %s", at=61.0))
