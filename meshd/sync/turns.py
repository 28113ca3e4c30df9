"""What each side of a conversation may say, and when: the table of docs/specs/sync.md."""

from __future__ import annotations

import enum

from meshd.sync.messages import (
    Ack,
    Chain,
    Changes,
    Close,
    Evidence,
    Feed,
    HelloInfo,
    Item,
    Message,
    Note,
    Ping,
    Pong,
    Profiles,
    Stability,
    Trace,
    Want,
)


class Turn(enum.StrEnum):
    """How far one side has come. Both sides go the same way, each at its own pace."""

    OPENING = "opening"
    PROFILES = "profiles"
    OPEN = "open"
    CLOSED = "closed"


# What a side may say, and where that takes it.
TURNS: dict[Turn, dict[type[Message], Turn]] = {
    Turn.OPENING: {HelloInfo: Turn.PROFILES, Close: Turn.CLOSED},
    Turn.PROFILES: {
        Profiles: Turn.PROFILES,
        Feed: Turn.OPEN,
        Note: Turn.PROFILES,
        Evidence: Turn.PROFILES,
        Ping: Turn.PROFILES,
        Pong: Turn.PROFILES,
        Close: Turn.CLOSED,
    },
    Turn.OPEN: {
        Feed: Turn.OPEN,
        Changes: Turn.OPEN,
        Want: Turn.OPEN,
        Item: Turn.OPEN,
        Ack: Turn.OPEN,
        Note: Turn.OPEN,
        Evidence: Turn.OPEN,
        Stability: Turn.OPEN,
        Ping: Turn.OPEN,
        Pong: Turn.OPEN,
        Trace: Turn.OPEN,
        Chain: Turn.OPEN,
        Close: Turn.CLOSED,
    },
    Turn.CLOSED: {},
}
