"""Why a replay stops: sentences that say what to do."""

MESSAGE_CHARS_MAX = 160


class ReplayError(Exception):
    """Nothing more is to be learned by going on. The text tells the user why, and what to do about it."""


class ConnectionLost(Exception):
    """The server closed or broke the connection, or was silent for too long."""

    def __init__(self, message: str, *, after_silence: bool = False) -> None:
        super().__init__(message)
        self.after_silence = after_silence


class Unreadable(ConnectionLost):
    """What came is no answer: not HTTP, not an event stream, no JSON."""


def printable(text: str) -> str:
    """Return what a server said as one short line that a terminal shows and does not obey."""
    shown = "".join(letter if letter.isprintable() else " " for letter in text)
    return " ".join(shown.split())[:MESSAGE_CHARS_MAX]
