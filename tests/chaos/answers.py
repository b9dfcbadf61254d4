"""Reading answers of all dialects: the usage that they tell, whether they ended properly, and what is content."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from tests.chaos.attempts import End

if TYPE_CHECKING:
    from tests.chaos.attempts import Attempt
    from tests.support.http import Stream

PROPER_ENDS = {
    "chat/completions": "[DONE]",
    "completions": "[DONE]",
    "messages": "message_stop",
    "responses": "response.completed",
}


def read_stream(attempt: Attempt, stream: Stream, hang_up_after: float | None) -> None:
    """Read a stream into its attempt: to the end, or until so many events were read."""
    proper = False
    for events, data in enumerate(stream.data(), 1):
        event = {} if data == "[DONE]" else json.loads(data)
        proper = proper or PROPER_ENDS[attempt.endpoint] in (data, event.get("type"))
        if "error" in event:
            attempt.code = str(event["error"].get("code"))
        take_usage(attempt, event)
        attempt.texts += _has_content(event)
        if hang_up_after is not None and events > hang_up_after:
            stream.hang_up()
            attempt.end = End.HUNG_UP
            return
    attempt.end = End.COMPLETE if proper and attempt.code is None and not stream.cut else End.CUT


def read_whole(attempt: Attempt, stream: Stream) -> None:
    """Read a whole answer into its attempt. Raises OSError or HTTPException where it breaks off."""
    document = json.loads(b"".join(stream.pieces()))
    if stream.cut:
        attempt.end = End.CUT
    elif attempt.status == 200:
        attempt.end = End.COMPLETE
        take_usage(attempt, document)
    else:
        attempt.end = End.REFUSED
        attempt.code = str(document["error"].get("code"))


def take_usage(attempt: Attempt, event: dict[str, Any]) -> None:
    """Take what an event or a whole answer tells of tokens; what comes later counts."""
    for holder in (event, event.get("message"), event.get("response")):
        usage = holder.get("usage") if isinstance(holder, dict) else None
        if not isinstance(usage, dict):
            continue
        if "prompt_tokens" in usage:  # OpenAI's completions
            attempt.prompt_tokens = usage["prompt_tokens"]
            attempt.completion_tokens = usage.get("completion_tokens") or 0
            attempt.cached_tokens = (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
        elif "input_tokens_details" in usage:  # OpenAI's responses
            attempt.prompt_tokens = usage["input_tokens"]
            attempt.completion_tokens = usage["output_tokens"]
            attempt.cached_tokens = usage["input_tokens_details"].get("cached_tokens") or 0
        else:  # Anthropic's, which leaves out of the input what was cached, and need not repeat it
            if "input_tokens" in usage:
                attempt.cached_tokens = usage.get("cache_read_input_tokens") or 0
                attempt.prompt_tokens = usage["input_tokens"] + attempt.cached_tokens
            attempt.completion_tokens = usage["output_tokens"]


def _has_content(event: dict[str, Any]) -> bool:
    kind = event.get("type")
    if kind is not None:
        return str(kind).endswith("delta") and kind != "message_delta"
    return any(choice.get("delta", {}).keys() - {"role"} or choice.get("text") for choice in event.get("choices") or ())
