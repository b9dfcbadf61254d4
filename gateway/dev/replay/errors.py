"""Why a replay stops: sentences that say what to do."""


class ReplayError(Exception):
    """Nothing more is to be learned by going on. The text tells the user why, and what to do about it."""


class ConnectionLost(Exception):
    """The server closed or broke the connection, or was silent for too long."""

    def __init__(self, message: str, *, after_silence: bool = False) -> None:
        super().__init__(message)
        self.after_silence = after_silence
