"""kill -9 on a portal in the middle of publishing, again and again, and then the books are checked.

Several people publish all the time, single versions and batches, over connections of their own. A round ends with
SIGKILL at an instant that the seed chooses. What was answered must be there, whole and readable, after the next start;
what was under way may be there or not; and nothing else is.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from pathlib import Path

from harness.portal_people import Person, tagged
from harness.portal_process import Caller, PortalProcess
from meshd.portal import messages as m
from meshd.portal import structures as s
from meshd.profile.version import Version
from meshd.store.portal_db import open_portal

PEOPLE = 4
LONGEST = 0.3  # seconds of publishing before a kill


class Publisher(threading.Thread):
    """Publishes versions of one person until the portal is gone, and notes what was answered."""

    def __init__(
        self, portal: PortalProcess, person: Person, seed: int, done: list[Version], begun: list[Version]
    ) -> None:
        super().__init__(name=person.name)
        self._portal, self._person, self._random = portal, person, random.Random(seed)
        self._done, self._begun = done, begun
        self.failure: BaseException | None = None

    def run(self) -> None:
        try:
            caller = Caller(self._portal, self._person)
        except OSError:
            return
        try:
            while True:
                self._publish(caller)
        except OSError:
            pass  # killed, as planned
        except BaseException as exc:
            self.failure = exc
        finally:
            caller.close()

    def _publish(self, caller: Caller) -> None:
        count = self._random.choice([1, 1, 1, 5])
        old = [one for one in self._done if "/" in one.identifier]
        made = []
        for _ in range(count):
            before = [self._random.choice(old)] if old and self._random.random() < 0.3 else []
            made.append(self._person.item("a secret", *before))
        self._begun.extend(made)
        if count == 1:
            answer = caller.ask("Publish", m.PublishRequest(entry=tagged(made[0])))
        else:
            answer = caller.ask("Publish", m.PublishRequest(entries=[tagged(one) for one in made]))
        assert isinstance(answer, m.PublishResponse) and answer.status == 201, answer
        self._done.extend(made)


def play(directory: Path, rounds: int, seed: int, told: Callable[[int], bool] = lambda done: True) -> dict[str, int]:
    """So many rounds, or until `told` says no. AssertionError with the seed and the round; returns what happened."""
    chooser = random.Random(seed)
    people = [Person(f"{seed}/{count}") for count in range(PEOPLE)]
    done: list[list[Version]] = [[] for _ in people]
    begun: list[list[Version]] = [[] for _ in people]
    played = 0
    with PortalProcess(directory) as portal:
        assert portal.start() is None
        for count, person in enumerate(people):
            caller = Caller(portal, person)
            caller.ask("CreateAccount", m.CreateRequest(account=f"p{count}@example.net", profile=tagged(person.root)))
            container = person.container()
            caller.ask("Publish", m.PublishRequest(entry=tagged(container)))
            done[count] += [person.root, container]
            begun[count] += [person.root, container]
            caller.close()
        for played in range(1, rounds + 1):
            try:
                publishers = [
                    Publisher(portal, person, chooser.randrange(2**32), done[count], begun[count])
                    for count, person in enumerate(people)
                ]
                for one in publishers:
                    one.start()
                threading.Event().wait(chooser.uniform(0.02, LONGEST))  # the instant of the kill
                portal.kill()
                for one in publishers:
                    one.join()
                    if one.failure is not None:
                        raise one.failure
                assert portal.start() is None, portal.log.read_text()[-2000:]
                for person, answered, tried in zip(people, done, begun, strict=True):
                    _holds(portal, person, answered, tried)
            except BaseException as exc:
                exc.add_note(f"kill -9 rounds of a portal: seed {seed}, round {played} of {rounds}")
                raise
            if not told(played):
                break
        assert portal.stop() == 0
    _sound(directory / "portal.db")
    return {"rounds": played, "versions": sum(map(len, done))}


def _holds(portal: PortalProcess, person: Person, answered: list[Version], tried: list[Version]) -> None:
    """The feed has everything that was answered, once each, and nothing that was not at least tried."""
    caller = Caller(portal, person)
    page, held = "P0", []
    while True:
        answer = caller.ask(
            "GetRecords",
            m.GetRequest(
                key_values=[s.KeyValue(key="UserProfile", value=person.mesh)],
                search_constraints=s.SearchConstraints(page_key=page),
            ),
        )
        assert isinstance(answer, m.GetRecordsResponse) and answer.status == 201, answer
        if not answer.data_items:
            break
        held += [bytes(item.data or b"") for item in answer.data_items]
        page = answer.page_key or ""
    caller.close()
    assert len(held) == len(set(held)), "a version twice"
    lost = {one.raw for one in answered} - set(held)
    assert not lost, f"{len(lost)} answered versions are gone"
    assert set(held) <= {one.raw for one in tried}, "a version that nobody sent, or half of one"
    answered[:] = [one for one in tried if one.raw in set(held)]


def _sound(store: Path) -> None:
    with open_portal(store, readonly=True) as database:
        assert database.check() == []
        ((count, last),) = database.query("SELECT count(*), max(seq) FROM versions")
        assert count == last, "the log has gaps"
        wrong = database.query(
            "SELECT m.udf FROM meshes m WHERE m.bytes <> (SELECT coalesce(sum(length(raw)), 0) FROM versions v"
            " WHERE v.mesh = m.id) + (SELECT coalesce(sum(length(raw)), 0) FROM parts p WHERE p.mesh = m.id)"
        )
        assert not wrong, "the sums do not add up"
