"""The golden transcript of docs/specs/sync.md: the same bytes today as when the first release wrote them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from harness.sync_wire import DESKTOP_STORE, LAPTOP_STORE, Pair, change, drain, hello, vid
from meshd.sync import knock, names
from meshd.sync.events import PeerItem
from meshd.sync.frames import FrameReader
from meshd.sync.messages import CloseCode
from meshd.sync.session import Session

GOLDEN = Path(__file__).parents[1] / "vectors" / "sync.json"
KEY, NONCE8, SERVER16, NONCE16 = bytes(range(32)), bytes(range(8)), bytes(range(16)), bytes(range(16, 32))


def cut(data: bytes) -> list[str]:
    """The frames in `data`, in hexadecimal with their lengths."""
    reader = FrameReader()
    reader.receive_data(data)
    found: list[str] = []
    while (body := reader.next_body()) is not None:
        found.append((len(body).to_bytes(4, "big") + body).hex())
    return found


def conversation() -> list[dict[str, Any]]:
    """Laptop and desktop greet, the desktop fetches two of three versions, and the laptop goes to sleep."""
    wire = Pair()
    laptop, desktop = wire.laptop, wire.desktop
    said: list[dict[str, Any]] = []

    def flush(source: Session, target: Session) -> None:
        data = source.data_to_send()
        said.append({"from": "laptop" if source is laptop else "desktop", "frames": cut(data)})
        target.receive_data(data)
        said[-1]["events"] = [type(event).__name__ for event in drain(target)]

    laptop.start()
    flush(laptop, desktop)
    desktop.start()
    flush(desktop, laptop)
    laptop.profiles([b"a signed profile"])
    laptop.feed(DESKTOP_STORE, 41, b"some run", vid("last"))
    laptop.note("portal.example/mmm-log\n3\nAAAA\n")
    flush(laptop, desktop)
    desktop.feed(LAPTOP_STORE, 0)
    flush(desktop, laptop)
    laptop.changes([change(1, size=10), change(2, size=300, kind=2), change(4)], True)
    flush(laptop, desktop)
    desktop.want([vid(1), vid(2)], [10, 300])
    desktop.ping()
    flush(desktop, laptop)
    laptop.item(vid(1), 8, b"")
    laptop.item(vid(2), 2, b"c" * 300)
    flush(laptop, desktop)
    desktop.changes([change(1)], True, anew=True)
    desktop.ack(4)
    desktop.stability({"MAAAA": 4})
    flush(desktop, laptop)
    laptop.close(CloseCode.STOPPING, "going to sleep")
    flush(laptop, desktop)
    return said


def golden() -> dict[str, Any]:
    return {
        "about": "docs/specs/sync.md: a conversation by frames, length included; names and knocks of one key",
        "conversation": conversation(),
        "key": KEY.hex(),
        "name": {
            "nonce8": NONCE8.hex(),
            "instance": names.instance(KEY, NONCE8),
            "udf": hello().udf,
            "d": names.device_tag(KEY, NONCE8, hello().udf),
        },
        "knock": {
            "server16": SERVER16.hex(),
            "nonce16": NONCE16.hex(),
            "answers": {str(int(mode)): knock.answer(mode, KEY, SERVER16, NONCE16).hex() for mode in knock.Mode},
        },
    }


def test_the_bytes_are_those_of_the_golden_transcript() -> None:
    assert golden() == json.loads(GOLDEN.read_text())


def test_a_desktop_fed_from_the_golden_transcript_hears_what_was_said() -> None:
    """Read from the file alone, without the session that wrote it."""
    wire = Pair()
    wire.desktop.start()
    heard: list[str] = []
    items: list[PeerItem] = []
    for step in json.loads(GOLDEN.read_text())["conversation"]:
        if step["from"] == "desktop":
            if any(frame[8:].startswith("8208") for frame in step["frames"]):
                wire.desktop.want([vid(1), vid(2)], [10, 300])
            elif any(frame[8:].startswith("8204") for frame in step["frames"]):
                wire.desktop.feed(LAPTOP_STORE, 0)
            continue
        wire.desktop.receive_data(bytes.fromhex("".join(step["frames"])))
        events = drain(wire.desktop)
        assert [type(event).__name__ for event in events] == step["events"]
        heard += step["events"]
        items += [event for event in events if isinstance(event, PeerItem)]
    assert heard[0] == "PeerHello"
    assert heard[-1] == "PeerClosed"
    assert items == [PeerItem(vid(1), 8, b""), PeerItem(vid(2), 2, b"c" * 300)]
