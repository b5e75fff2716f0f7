"""Faults on demand: rules say which API calls fail, and how.

The faults in here know HTTP only. Those that depend on what a provider answers (a page without its cursor, a row
without its id) belong to the provider.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from email.utils import formatdate
from random import Random
from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict, PrivateAttr, model_validator

from .api import ApiError, Call, DropError, Reply
from .fleet import Row

RouteName = Literal[
    "list",
    "retrieve",
    "messages",
    "register",
    "device",
    "relay",
    "agents",
    "conversations",
    "conversation_list",
    "agent_list",
    "history",
    "turn",
    "runs",
    "cancel",
    "qoder_list",
    "qoder_environment",
    "qoder_work",
    "qoder_create",
    "qoder_session",
    "qoder_send",
    "qoder_events",
    "any",
]

HttpFault = Literal[
    "status",
    "html_200",
    "not_json",
    "truncated_json",
    "redirect",
    "slow",
    "drop_before",
    "drop_after",
    "drop_during",
]
LettaFault = Literal[
    "success_false",
    "repeat_cursor",
    "no_has_next_page",
    "no_connections",
    "next_page_after_empty",
    "invalid_rows",
    "nan",
]
RelayFault = Literal[
    "relay_close",
    "relay_cut_before",
    "relay_cut_after",
    "relay_cut_during",
    "relay_not_json",
    "relay_silent",
]
QoderFault = Literal[
    "cursor_cycle",
    "no_cursor",
    "no_next_page",
    "no_has_more",
    "no_data",
    "without_id",
]
"""Qoder also has some of Letta's faults: repeat_cursor, next_page_after_empty and invalid_rows."""
LettaDamage = Literal[
    "no_id",
    "id_number",
    "name_null",
    "device_missing",
    "heartbeat_text",
    "metadata_list",
    "version_number",
    "not_an_object",
]
QoderDamage = Literal[
    "no_id",
    "id_number",
    "id_empty",
    "name_null",
    "name_template",
    "name_markup",
    "name_huge",
    "config_text",
    "networking_list",
    "packages_text",
    "metadata_list",
    "archived_text",
    "type_number",
    "content_text",
    "stop_reason_text",
    "not_an_object",
]

REPLACES_REPLY = {"status", "html_200", "redirect", "drop_before", "success_false"}
"""Faults that replace the request; all others change the reply to a request that took effect."""
MAY_TAKE_EFFECT = {"status", "html_200", "redirect", "not_json", "slow", "success_false"}
"""Faults for which a rule can set ``accepted``."""

QODER_PAGES: set[RouteName] = {"qoder_list", "qoder_events"}
ONLY_ON: dict[str, set[RouteName]] = {
    "success_false": {"messages"},
    "repeat_cursor": {"list", *QODER_PAGES},
    "no_has_next_page": {"list"},
    "no_connections": {"list"},
    "next_page_after_empty": {"list", *QODER_PAGES},
    "invalid_rows": {"list", *QODER_PAGES},
    "nan": {"list"},
    "cursor_cycle": {"qoder_list"},
    "no_cursor": QODER_PAGES,
    "no_next_page": QODER_PAGES,
    "no_has_more": QODER_PAGES,
    "no_data": QODER_PAGES,
    "without_id": {"qoder_environment", "qoder_create", "qoder_session", "qoder_send"},
    **{fault: {"relay"} for fault in get_args(RelayFault)},
}
"""Faults that are possible on some routes only, and match only the calls of those."""

BEFORE_UPGRADE = {"status", "html_200", "redirect", "slow", "drop_before"}
"""HTTP faults that a WebSocket can have: they come before the socket opens."""
SOCKETS = {"device", "relay"}

HTML = "<!DOCTYPE html><html><head><title>{0}</title></head><body><h1>{0}</h1><hr>gateway</body></html>"


class Rule(BaseModel):
    """One rule; the first of several matching rules applies.

    ``nth`` counts the calls that match route and target, from 1.
    """

    model_config = ConfigDict(extra="forbid")

    fault: HttpFault | LettaFault | RelayFault | QoderFault
    route: RouteName = "any"
    target: str | None = None
    """An environment id, device id or connection id (for conversations and their list: an agent id).

    Of Qoder: an environment, session or agent id, or the name of an account.
    """
    nth: int | list[int] | None = None
    per_target: bool = False
    """Count for each environment separately, so that nth=1 is the first call of each."""
    share: float | None = None
    """The share of the matching calls that fail, drawn from the seed."""
    seed: int = 1
    times: int | None = None
    """The largest number of times that the rule applies."""
    accepted: bool | None = None
    """Whether the request takes effect before it fails; each fault has its own default."""

    status: int | None = None
    """status: default 500; redirect: default 307."""
    body: Literal["envelope", "error_envelope", "html", "empty"] = "envelope"
    """envelope: the provider's own envelope; error_envelope: Letta's other envelope."""
    message: str = "The sandbox was told to fail"
    error_code: str = "SANDBOX_FAULT"
    echo_key: bool = False
    """Let the message repeat the bearer key of the request."""
    retry_after: float | str | None = None
    """A number of seconds, or any text, sent as it is."""
    retry_after_date: float | None = None
    """An HTTP date this many seconds from now."""
    location: str = "https://elsewhere.invalid/"
    seconds: float = 1.0
    """slow: seconds that the reply takes."""
    reset: bool = False
    """drop_*: end the connection with a TCP reset rather than by closing it."""
    code: int = 1011
    """relay_close: the close code of the relay."""
    command: int = 1
    """relay_cut_*, relay_silent: at which of a client's commands, from 1."""
    rows: list[int | str] = [0]
    """invalid_rows, nan: positions in the page (from 0, -1 is the last) or environment ids."""
    damage: LettaDamage | QoderDamage | None = None
    """invalid_rows: the damage of the rows; None takes another kind for each row."""

    _calls: Counter[str] = PrivateAttr(default_factory=Counter)
    _fired: int = PrivateAttr(default=0)
    _random: Random = PrivateAttr()

    @model_validator(mode="after")
    def _check_fault(self) -> Rule:
        if not self._possible(self.route) and self.route != "any":
            raise ValueError(f"{self.fault} is a fault of the route {' or '.join(sorted(ONLY_ON[self.fault]))}")
        if self.accepted is not None and self.fault not in MAY_TAKE_EFFECT:
            raise ValueError(f"accepted is decided by the fault {self.fault} itself")
        return self

    def model_post_init(self, context: object, /) -> None:
        self._random = Random(self.seed)

    @property
    def takes_effect(self) -> bool:
        return self.fault not in REPLACES_REPLY if self.accepted is None else self.accepted

    def applies(self, call: Call) -> bool:
        """Count a matching call, and return whether it is one of those that fail."""
        if call.route in SOCKETS and self.fault not in {*BEFORE_UPGRADE, *get_args(RelayFault)}:
            return False
        if self.route not in ("any", call.route) or not self._possible(call.route):
            return False
        if self.target is not None and self.target not in call.subjects:
            return False
        key = call.subjects[0] if self.per_target and call.subjects else ""
        self._calls[key] += 1
        drawn = self.share is None or self._random.random() < self.share
        wanted = [self.nth] if isinstance(self.nth, int) else self.nth
        counted = wanted is None or self._calls[key] in wanted
        return drawn and counted and (self.times is None or self._fired < self.times)

    def _possible(self, route: str) -> bool:
        return route in ONLY_ON.get(self.fault, {route})

    def fire(self) -> None:
        self._fired += 1

    def state(self) -> dict[str, object]:
        return {**self.model_dump(exclude_unset=True), "calls": self._calls.total(), "fired": self._fired}


class Faults:
    """The rules in the order in which they were added."""

    def __init__(self) -> None:
        self.rules: list[Rule] = []

    def choose(self, call: Call) -> Rule | None:
        # Every rule counts every call that it matches, so that one rule does not shift the numbers of another.
        applying = [rule for rule in self.rules if rule.applies(call)]
        if not applying:
            return None
        applying[0].fire()
        return applying[0]


def positions(rule: Rule, rows: list[Row]) -> list[int]:
    """Return the positions in this page of the rows that a rule names; other rows do not matter."""
    by_id = {row["id"]: position for position, row in enumerate(rows)}
    named = [by_id.get(row) if isinstance(row, str) else row for row in rule.rows]
    return [position for position in named if position is not None and -len(rows) <= position < len(rows)]


async def spoil(rule: Rule, call: Call, reply: Reply | None, refusal: Callable[[ApiError], Reply]) -> Reply | None:
    """Return the reply with a fault instead of the real one; None for a reply means that there is none (yet).

    ``refusal`` puts an error into the provider's envelope.
    """
    match rule.fault:
        case "status":
            reply = _status(rule, call, refusal)
        case "html_200":
            reply = Reply(200, HTML.format("Welcome"), "text/html; charset=utf-8")
        case "not_json":
            reply = Reply(200, "upstream says: ok")
        case "truncated_json":
            whole = reply.content() if reply else b""
            reply = Reply(200, whole[: len(whole) // 2])
        case "redirect":
            reply = Reply(rule.status or 307, "", "text/plain", {"location": rule.location})
        case "slow":
            await asyncio.sleep(rule.seconds)
        case "drop_before" | "drop_after":
            raise DropError(reset=rule.reset)
        case "drop_during":
            raise DropError(reset=rule.reset, during=reply)
    return reply


def _status(rule: Rule, call: Call, refusal: Callable[[ApiError], Reply]) -> Reply:
    status = rule.status or 500
    headers = {}
    if rule.retry_after is not None:
        after = rule.retry_after
        headers["retry-after"] = f"{after:g}" if isinstance(after, float) else after
    if rule.retry_after_date is not None:
        headers["retry-after"] = formatdate(time.time() + rule.retry_after_date, usegmt=True)
    message = f"{rule.message}: {call.bearer}" if rule.echo_key else rule.message
    match rule.body:
        case "empty":
            return Reply(status, "", "text/plain", headers)
        case "html":
            return Reply(status, HTML.format(f"{status} {message}"), "text/html; charset=utf-8", headers)
        case "error_envelope":
            return Reply(status, {"error": message, "errorCode": rule.error_code}, headers=headers)
        case "envelope":
            reply = refusal(ApiError(status, rule.error_code, message))
            reply.headers |= headers
            return reply
