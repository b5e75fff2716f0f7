# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Letta's relay: a WebSocket through which a client and a device exchange frames.

Source of the rules: Letta Code's own remote client, and answers of real devices (0.34). Frames are JSON objects with a
`type`. Frames from the device carry a `seq` to acknowledge, and a `ping` is answered with a `pong`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
import uuid
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NoReturn, Self

from ..._deps import aiohttp
from ...errors import ApiError
from ...http.problems import hide_secrets, make_redirect_error, make_status_error, make_tls_error
from ...http.retry import call_with_retries
from ...http.sanitize import parse_json, sanitize
from ...http.settings import HttpSettings
from ...text import one_line
from ..conversation import DEFAULT_CONVERSATION

Frame = Mapping[str, Any]

# The status of the loop while no turn is under way.
_IDLE = "WAITING_ON_INPUT"
# A device answers nothing to a command without an agent, but the agent need not exist.
_NO_AGENT = "agent-none"
# Seconds after a device's answer within which its states come, if they come.
_STATES_COME_WITHIN = 1.0
# Seconds for a relay to accept the end of a connection. A network that takes no more data would block for ever.
_CLOSED_WITHIN = 2.0
# Most megabytes of a frame, which may hold the whole output of a command. Nothing in a relay is compressed.
_LONGEST_FRAME = 16
# The frames that report a device's states: type, key, shape.
_STATES = (
    ("update_device_status", "device_status", dict),
    ("update_loop_status", "loop_status", dict),
    ("update_queue", "queue", list),
)
# Seconds for a device to find an agent; old devices do not know the question.
_LOOK_UP_WITHIN = 5.0


class Relay:
    """The channel to a device for one agent's conversation. Use as an async context manager, more than once if needed.

    On entering, the device has answered once. A relay or a device that does not answer is found before any command is
    sent, and only this part is retried. Every call raises ApiError.

    device_status: the device's last report on itself (`current_permission_mode`, `pending_control_requests`, ...).
    loop_status: its last report on the conversation (`status`, `active_run_ids`, ...).
    queue: the conversation's messages that wait on the device (`content`, `paused`, ...).
    Old devices do not report all of them; those are empty, or None for the queue.
    """

    def __init__(
        self,
        settings: HttpSettings,
        connection_id: str | None,
        agent_id: str | None = None,
        conversation_id: str | None = None,
    ) -> None:
        self._settings = settings
        self.url = settings.url("v1", "environments", str(connection_id), "status", "ws")
        self.runtime = {"agent_id": agent_id or _NO_AGENT, "conversation_id": conversation_id or DEFAULT_CONVERSATION}
        self.device_status: dict[str, Any] = {}
        self.loop_status: dict[str, Any] = {}
        self.queue: list[Any] | None = None
        self._session: Any = None
        self._socket: Any = None
        self._doubt = ""
        # Of the device's first answer, until that has come.
        self._time_limit: asyncio.Timeout | None = None

    @property
    def busy(self) -> bool | None:
        """Whether a turn is under way in the conversation or waits for approval; None if the device does not say."""
        device, loop = self.device_status, self.loop_status
        if not device and not loop:
            return None
        is_idle = loop.get("status", _IDLE) == _IDLE
        signs = (loop.get("active_run_ids"), device.get("is_processing"), device.get("pending_control_requests"))
        return not is_idle or any(signs)

    async def __aenter__(self) -> Self:
        await self.open(self.sync)
        return self

    async def __aexit__(self, *_exc_info: object) -> None:
        await self.close()

    async def open(self, greet: Callable[[], Awaitable[object]]) -> None:
        """Connect, and have the device answer. Both are retried together, unless the device does not answer at all.

        greet: asks the device something that does no harm when it is repeated.
        """
        try:
            await call_with_retries(self._settings, f"GET {self.url}", lambda: self._connect(greet), repeatable=True)
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Close the connection, if there is one. The relay may be opened again."""
        if self._session is not None:
            if self._socket is not None:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_CLOSED_WITHIN):
                        await self._socket.close()
            await self._session.close()
        self._session = self._socket = None

    async def request(self, command: Frame, answer: str, within: float) -> Frame:
        """Send a command, once, and wait for its answer.

        answer: the `type` of the answering frame, which carries the command's `request_id`. within: seconds.
        The ApiError of a command that was sent says `may_be_accepted`, since the device may have run it.
        """
        request_id = str(uuid.uuid4())
        return await self.exchange(
            {**command, "request_id": request_id},
            lambda frame: frame.get("type") == answer and frame.get("request_id") == request_id,
            within,
        )

    async def exchange(self, command: Frame, wanted: Callable[[Frame], bool], within: float) -> Frame:
        """Send a command, once, and wait for a frame that is `wanted`."""
        name = str(command["type"])
        await self.send(command)
        try:
            async with asyncio.timeout(within):
                while not wanted(frame := await self.receive(name)):
                    pass
                return frame
        except TimeoutError:
            message = f"{self.url}: no answer to {name} within {within:g} s{self._doubt}"
            raise ApiError(message, code="timeout", may_be_accepted=True) from None
        except ApiError as error:
            raise error.but(may_be_accepted=True) from None

    async def sync(self) -> None:
        """Have the device report its states again."""
        self.device_status, self.loop_status, self.queue = {}, {}, None
        # Unless forced, a device leaves out a state that it has sent before, to any client.
        sync = {"type": "sync", "recover_approvals": False, "force_device_status": True}
        reply = await self._look_up(sync, "sync_response", self._settings.timeout)
        if reply.get("success") is False:
            raise ApiError(f"{self.url}: the device refused: {describe_refusal(reply)}", code="refused")
        # The states come along with the answer, over another socket and in any order.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_STATES_COME_WITHIN):
                while not (self.device_status and self.loop_status) or self.queue is None:
                    await self.receive("sync")

    async def require_runtime(self) -> None:
        """Raise ApiError with the code `no_agent` if the device does not find the agent or its conversation.

        Unless it is asked, a device accepts frames for an agent that does not exist. The device is asked and not the
        API, since it may have agents of its own.
        """
        for name in [name for name, value in self.runtime.items() if value != DEFAULT_CONVERSATION]:
            try:
                await self.retrieve(name.removesuffix("_id"), self.runtime[name])
            except ApiError as error:
                if error.code != "timeout":
                    raise

    async def retrieve(self, kind: str, identity: str) -> Any:
        """An `agent` or a `conversation`, as the device has it. The ApiError has the code `no_agent` if it has none."""
        question = {"type": f"{kind}_retrieve", f"{kind}_id": identity}
        reply = await self._look_up(question, f"{kind}_retrieve_response", _LOOK_UP_WITHIN)
        if reply.get("success") is False:
            missing = f"the device does not find {identity!r}: {describe_refusal(reply)}"
            raise ApiError(f"{kind}_id: {missing}", code="no_agent")
        return reply.get(kind)

    async def send(self, frame: Frame) -> None:
        """Send a frame about this agent's conversation."""
        try:
            await self._socket.send_str(json.dumps({**frame, "runtime": self.runtime}))
        except (aiohttp.ClientError, OSError) as error:
            # A frame that the socket refuses to write was not sent.
            cause = "the connection was cut" if isinstance(error, ConnectionError) else error
            raise self.make_drop_error(str(frame["type"]), cause) from None

    async def receive(self, name: str) -> Frame:
        """The next frame from the device. Pings are answered, frames acknowledged, and states remembered.

        name: what the caller waits for, for the error.
        """
        while True:
            message = await self._socket.receive()
            if message.type not in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY):
                raise self._make_close_error(name, message)
            frame = self._parse(message.data)
            if frame is None:
                self._doubt = "; frames that are not JSON came meanwhile"
                continue
            await self._answer(frame)
            # What a device reports unasked has neither, and does not show that it hears us.
            if self._time_limit is not None and frame.keys() & {"request_id", "terminal_id"}:
                self._time_limit.reschedule(None)
            if frame.get("type") != "ping":
                self._remember(frame)
                return frame

    def make_drop_error(self, name: str, cause: object) -> ApiError:
        """The error of a connection that ended while `name` was waited for."""
        message = f"{self.url}: no answer to {name}: {one_line(cause)}{self._doubt}"
        return ApiError(message, code="dropped", transient=True)

    def is_ours(self, frame: Frame) -> bool:
        """Whether a frame is about this agent's conversation, or about none."""
        runtime = frame.get("runtime")
        named = runtime if isinstance(runtime, dict) else {}
        return all(named.get(name) in (None, value) for name, value in self.runtime.items())

    async def _look_up(self, question: Frame, answer: str, within: float) -> Frame:
        """As `request`, for a question that only reads: after an error it may be asked again."""
        try:
            return await self.request(question, answer, within)
        except ApiError as error:
            raise error.but(may_be_accepted=False, transient=error.code != "too_long") from None

    async def _connect(self, greet: Callable[[], Awaitable[object]]) -> None:
        await self.close()
        trace = aiohttp.TraceConfig()
        trace.on_request_redirect.append(self._refuse_redirect)
        self._session = aiohttp.ClientSession(trace_configs=[trace])
        try:
            async with asyncio.timeout(self._settings.timeout):
                agent_id, conversation_id = self.runtime["agent_id"], self.runtime["conversation_id"]
                self._socket = await self._session.ws_connect(
                    self.url,
                    params={"agentId": agent_id, "conversationId": conversation_id, "channel": "control"},
                    headers=self._settings.headers(),
                    ssl=self._settings.tls_context(),
                    proxy=self._settings.proxy,
                    max_msg_size=_LONGEST_FRAME * 1024**2,
                )
        except TimeoutError:
            message = f"{self.url}: no connection within the timeout of {self._settings.timeout:g} s"
            raise ApiError(message, code="timeout", transient=True) from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise self._make_connect_error(error) from None
        try:
            async with asyncio.timeout(self._settings.relay_timeout) as self._time_limit:
                await greet()
        except TimeoutError:
            within = f"the relay_timeout of {self._settings.relay_timeout:g} s"
            raise ApiError(f"{self.url}: the device did not answer within {within}", code="timeout") from None
        finally:
            self._time_limit = None

    def _parse(self, data: str | bytes) -> Frame | None:
        """A frame; None for what is not a JSON object in a text."""
        try:
            frame = parse_json(data, self._settings.api_key) if isinstance(data, str) else None
        except ValueError:
            return None
        return frame if isinstance(frame, dict) else None

    async def _answer(self, frame: Frame) -> None:
        seq = frame.get("seq")
        answers: list[Frame] = [{"type": "ack", "seq": seq}] if isinstance(seq, int) else []
        if frame.get("type") == "ping":
            answers.append({"type": "pong"})
        # The next receive reports the state of the connection.
        with contextlib.suppress(aiohttp.ClientError, OSError):
            for answer in answers:
                await self._socket.send_str(json.dumps(answer))

    def _remember(self, frame: Frame) -> None:
        for kind, state, shape in _STATES:
            if frame.get("type") == kind and isinstance(frame.get(state), shape) and self.is_ours(frame):
                setattr(self, state, frame[state])

    def _make_close_error(self, name: str, message: Any) -> ApiError:
        code = message.data if message.type is aiohttp.WSMsgType.CLOSE else self._socket.close_code
        if message.type is aiohttp.WSMsgType.ERROR and code == aiohttp.WSCloseCode.MESSAGE_TOO_BIG:
            error = self.make_drop_error(name, f"a frame is longer than {_LONGEST_FRAME} MB")
            return error.but(code="too_long", transient=False)
        if code in (None, aiohttp.WSCloseCode.ABNORMAL_CLOSURE):
            return self.make_drop_error(name, "the connection was cut")
        why = sanitize(str(message.extra or ""), self._settings.api_key)
        return self.make_drop_error(name, f"the relay closed the connection ({one_line(f'{code} {why}', 120)})")

    def _make_connect_error(self, error: Any) -> ApiError:
        if isinstance(error, (aiohttp.ClientConnectorCertificateError, aiohttp.ClientSSLError, ssl.SSLError)):
            return make_tls_error(self.url, getattr(error, "certificate_error", error))
        if isinstance(error, (aiohttp.InvalidURL, ValueError)):
            return ApiError(f"{self.url}: {one_line(error)}", code="invalid")
        why = getattr(error, "os_error", error)
        if isinstance(error, aiohttp.ClientResponseError):
            # The error's own text contains the address of a proxy, and with it the password.
            why = f"{error.status} {one_line(sanitize(error.message, self._settings.api_key))}"
        if isinstance(error, aiohttp.WSServerHandshakeError):
            wait = error.headers.get("Retry-After") if error.headers else None
            found = make_status_error(f"{self.url}: {why}", error.status, wait)
            # As for messages, these mean that the connection is gone.
            return found.but(code="offline", transient=False) if error.status in (404, 503) else found
        proxy = "the proxy answered " if isinstance(error, aiohttp.ClientHttpProxyError) else ""
        return ApiError(f"{self.url}: cannot connect: {proxy}{one_line(why)}", code="connect", transient=True)

    async def _refuse_redirect(self, _session: Any, _context: Any, params: Any) -> NoReturn:
        """Raise ApiError: the key must reach no other host."""
        location = hide_secrets(sanitize(params.response.headers.get("Location", ""), self._settings.api_key))
        raise make_redirect_error(self.url, location, params.response.status, may_be_accepted=False)


def find_loop_error(frame: Frame) -> Frame | None:
    """What a frame says about an error of a turn; None for any other frame."""
    delta = frame.get("delta") if frame.get("type") == "stream_delta" else None
    return delta if isinstance(delta, dict) and delta.get("message_type") == "loop_error" else None


def describe_loop_error(error: Frame) -> str:
    """The device's words in what `find_loop_error` has found, on one line."""
    return one_line(error.get("message") or "without a reason")


def describe_refusal(reply: Frame) -> str:
    """Why a device refused, in its words."""
    return one_line(reply.get("error") or reply.get("output") or "without a reason")
