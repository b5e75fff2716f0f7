"""A simulated device's reactions to the frames that a real one would get over its control socket."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable
from typing import Any

from pydantic import ValidationError

from . import status
from .agents import Agents
from .api import ApiError
from .commands import UPGRADE, Command, Upgrade, answers_commands, default_command, metadata_of, upgrade_result
from .conversations import Conversation, Run, iso
from .device import Devices
from .fleet import Environment, Fleet
from .messages import SendMessageBody, UserMessage
from .relay import Relay, Scope, scope_of
from .sockets import Frame
from .turns import GiveUpTurn

MODES = {"unrestricted", "standard", "acceptEdits", "strict"}
OLD_MODES = {"default": "standard", "bypassPermissions": "unrestricted", "fullAccess": "unrestricted"}
"""Older names of modes, which devices still accept."""


class SimulatedDevices:
    def __init__(self, fleet: Fleet, agents: Agents, devices: Devices, relay: Relay) -> None:
        self._fleet, self._agents, self._devices, self._relay = fleet, agents, devices, relay
        self._receivers: dict[str, Callable[[Environment, Frame], None]] = {
            "execute_command": self._execute_command,
            "sync": self._sync,
            "input": self._input,
            "abort_message": self._abort,
            "resume_queue": self._resume,
            "change_device_state": self._change_state,
            "monitor_stop": self._stop_monitor,
            "get_cwd_map": self._list_directories,
            "agent_retrieve": self._retrieve,
            "conversation_retrieve": self._retrieve,
        }
        self.reset()

    def reset(self) -> None:
        self.upgrade = Upgrade()
        self._commands: dict[tuple[str, str], Command] = {}
        # The settings of each conversation; None is the device's initial value.
        self._modes: dict[tuple[str, Scope | None], str] = {}
        self.background: dict[tuple[str, Scope], list[dict[str, Any]]] = {}
        """The processes that go on in the background of each conversation."""
        # What was last sent over a connection about a conversation.
        self._said: dict[tuple[str | None, Scope], dict[str, Any]] = {}

    def set_command(self, environment: Environment, command: Command) -> None:
        self._commands[environment.id, command.command_id] = command

    def receive(self, environment: Environment, frame: Frame) -> None:
        """Give a device a frame; it drops a frame that real devices cannot read, as they do."""
        receiver = self._receivers.get(str(frame.get("type")))
        if receiver is not None and _is_scope(frame.get("runtime")):
            receiver(environment, frame)

    def deliver(self, environment: Environment, body: SendMessageBody) -> None:
        """Take messages; new ones start a turn of their agent."""
        new = self._devices.deliver(environment, body)
        if new:
            runtime = {"agent_id": body.agent_id, "conversation_id": body.conversation_id or "default"}
            self._agents.deliver(environment.id, runtime["conversation_id"], body.agent_id, new, time.time())
            ids = [message.client_message_id for message in body.messages if isinstance(message, UserMessage)]
            self._give_up(environment, runtime, ids)

    def _give_up(self, environment: Environment, runtime: Frame, ids: list[str]) -> None:
        """Let a device say that it drops messages, when their turn is one that never reaches the agent."""
        conversation = self._conversation(runtime)
        active = conversation.active if conversation is not None else None
        if active is None or not isinstance(active.turn, GiveUpTurn):
            return
        ended = {"message": active.turn.message, "stop_reason": "error", "is_terminal": True}

        def say() -> None:
            self._say(environment, runtime, "loop_error", **ended, client_message_ids=ids)
            self._send_state(environment, runtime)

        asyncio.get_running_loop().call_later(active.turn.seconds, say)

    def _execute_command(self, environment: Environment, frame: Frame) -> None:
        command_id, request_id, runtime = frame.get("command_id"), frame.get("request_id"), frame["runtime"]
        if not isinstance(command_id, str) or not isinstance(request_id, str) or runtime["agent_id"] is None:
            return
        restarts = False
        command = self._commands.get((environment.id, command_id))
        if command is None and command_id == UPGRADE:
            command, restarts = upgrade_result(environment, self.upgrade)
        command = command or default_command(environment, command_id)
        spoken = {"command_id": command_id, "input": f"/{command_id} {frame.get('args') or ''}".rstrip()}
        self._say(environment, runtime, "slash_command_start", **spoken)

        def finish() -> None:
            result = {"success": command.success, "output": command.output}
            self._say(environment, runtime, "slash_command_end", **spoken, **result)
            if answers_commands(environment):
                self._send(environment, type="execute_command_response", request_id=request_id, **result)
            if restarts:
                self._restart(environment)

        # A reaction that takes no time may not come later than the next one.
        if command.seconds:
            asyncio.get_running_loop().call_later(command.seconds, finish)
        else:
            finish()

    def _restart(self, environment: Environment) -> None:
        """Let a device leave for its update, and come back on another connection with another version."""
        upgrade, later = self.upgrade, asyncio.get_running_loop().call_later

        def leave() -> None:
            if self._fleet.get(environment.id) is environment:
                self._relay.close(environment.row.get("connectionId"))
                self._fleet.offline(environment)

        def go() -> None:
            leave()
            if upgrade.comes_back:
                later(upgrade.seconds, come_back)

        def come_back() -> None:
            if self._fleet.get(environment.id) is environment:
                version = upgrade.comes_back_at or upgrade.version
                self._fleet.patch(environment, {"metadata": {"lettaCodeVersion": version}})
                self._devices.restart(environment)
                self._fleet.online(environment)
                if upgrade.stays is not None:
                    later(upgrade.stays, leave)

        later(upgrade.lingers, go)

    def _sync(self, environment: Environment, frame: Frame) -> None:
        self._send_state(environment, frame["runtime"], known=frame.get("force_device_status") is not True)
        self._respond(environment, frame, "sync_response", success=True)
        # A real device sends states over another socket than answers: some states arrive later.
        self._send_queue(environment, frame["runtime"])

    def _input(self, environment: Environment, frame: Frame) -> None:
        payload = frame.get("payload") or {}
        take = self._take_approval if payload.get("kind") == "approval_response" else self._take_messages
        self._respond(environment, frame, "input_accepted", **take(environment, frame["runtime"], payload))

    def _take_messages(self, environment: Environment, runtime: Frame, payload: Frame) -> Frame:
        agent_id, conversation_id = scope_of(runtime)
        body = {"messages": payload.get("messages"), "conversationId": conversation_id}
        try:
            parsed = SendMessageBody.model_validate(body | ({"agentId": agent_id} if agent_id else {}))
        except ValidationError:
            return {"accepted": False, "error": "Unsupported input payload kind"}
        if any(not hasattr(message, "role") for message in parsed.messages):
            return {"accepted": False, "error": "Approval payloads require approval_response"}
        conversation = self._conversation(runtime)
        busy = conversation is not None and conversation.active is not None
        new = self._devices.take(environment, parsed)
        if new and conversation is not None:
            conversation.enqueue(environment.id, new, time.time())
        return {"accepted": True, "disposition": "queued" if busy else "started"}

    def _take_approval(self, environment: Environment, runtime: Frame, payload: Frame) -> Frame:
        conversation = self._conversation(runtime)
        waiting = status.pending(environment, conversation)
        if conversation is None or not waiting or payload.get("request_id") != waiting[0]["request_id"]:
            return {"accepted": False, "error": "Approval request is no longer pending"}
        decision = payload.get("decision") or {}
        approval = {
            "type": "approval",
            "approve": decision.get("behavior") == "allow",
            "tool_call_id": waiting[0]["request"]["tool_call_id"],
            "reason": decision.get("message") or payload.get("error"),
        }
        run = conversation.answer([approval], time.time())
        conversation.settle(time.time())
        self._show_turn(environment, runtime, run)
        return {"accepted": True}

    def _abort(self, environment: Environment, frame: Frame) -> None:
        conversation = self._conversation(frame["runtime"])
        run = conversation.active.run if conversation is not None and conversation.active is not None else None
        aborted = conversation is not None and conversation.abort(environment.id, frame.get("run_id"), time.time())
        if aborted and run is not None:
            self._say(environment, frame["runtime"], "status", message="Interrupted", level="warning", run_id=run.id)
            self._finish_turn(environment, frame["runtime"], run, "cancelled")
            self._send_state(environment, frame["runtime"])
        self._respond(environment, frame, "abort_message_response", aborted=aborted, success=True)
        if aborted:
            self._send_queue(environment, frame["runtime"])

    def _resume(self, environment: Environment, frame: Frame) -> None:
        conversation = self._conversation(frame["runtime"])
        resumed = conversation.resume(environment.id, time.time()) if conversation is not None else 0
        self._respond(environment, frame, "resume_queue_response", resumed=resumed, success=True)
        self._send_queue(environment, frame["runtime"])

    def _change_state(self, environment: Environment, frame: Frame) -> None:
        payload, scope = frame.get("payload") or {}, scope_of(frame["runtime"])
        if isinstance(payload.get("mode"), str):
            mode = OLD_MODES.get(payload["mode"], payload["mode"])
            if mode not in MODES:
                message = f"Unsupported permission mode: {payload['mode']}"
                ended = {"message": message, "stop_reason": "error", "is_terminal": False}
                self._say(environment, frame["runtime"], "loop_error", **ended)
                return
            self._modes.setdefault((environment.id, None), self._mode(environment, scope))
            self._modes[environment.id, scope] = environment.row["currentMode"] = mode
        if isinstance(payload.get("cwd"), str):
            environment.row["metadata"] = {**metadata_of(environment), "workingDirectory": payload["cwd"]}
        self._send_state(environment, frame["runtime"])
        # Any change of the state makes a device look at its queue.
        if (conversation := self._conversation(frame["runtime"])) is not None:
            conversation.contact(environment.id, time.time())
            self._send_state(environment, frame["runtime"])

    def _stop_monitor(self, environment: Environment, frame: Frame) -> None:
        running = self.background.get((environment.id, scope_of(frame["runtime"])), [])
        named = [process for process in running if process.get("process_id") == frame.get("process_id")]
        if not named or named[0]["kind"] != "monitor":
            answer = {"success": False, "stopped": False, "error": "Monitor not found"}
        else:
            running.remove(named[0])
            answer = {"success": True, "stopped": True}
        self._respond(environment, frame, "monitor_stop_response", process_id=frame.get("process_id"), **answer)

    def _list_directories(self, environment: Environment, frame: Frame) -> None:
        """Answer the conversations that have a working directory of their own on the device."""
        directories = environment.row.get("metadata", {}).get("cwd_map", {})
        self._respond(environment, frame, "get_cwd_map_response", success=True, cwd_map=directories)

    def _retrieve(self, environment: Environment, frame: Frame) -> None:
        """Look up an agent or a conversation, for clients that have only its id."""
        kind = frame["type"].removesuffix("_retrieve")
        named = str(frame.get(f"{kind}_id"))
        try:
            found = self._agents.conversation(*(("default", named) if kind == "agent" else (named,)))
            result = {"success": True, kind: {"id": named, "agent_id": found.agent_id}}
        except ApiError as error:
            result = {"success": False, kind: None, "error": f"{error.status} {error.message}"}
        self._respond(environment, frame, f"{frame['type']}_response", **result)

    def _mode(self, environment: Environment, scope: Scope) -> str:
        began_with = self._modes.get((environment.id, None), environment.row.get("currentMode", "unrestricted"))
        return self._modes.get((environment.id, scope), began_with)

    def _conversation(self, runtime: Frame) -> Conversation | None:
        agent_id, conversation_id = scope_of(runtime)
        try:
            conversation = self._agents.conversation(conversation_id, agent_id or "")
        except ApiError:
            return None
        conversation.settle(time.time())
        return conversation

    def _send_state(self, environment: Environment, runtime: Frame, *, known: bool = False) -> None:
        """Report the state of the device and the loop. known: leave out the device's own state if it was sent."""
        conversation, scope = self._conversation(runtime), scope_of(runtime)
        background = list(self.background.get((environment.id, scope), []))
        device = status.device(environment, conversation, self._mode(environment, scope), background)
        loop = status.loop(environment, conversation)
        said = (environment.row.get("connectionId"), scope)
        if not known or self._said.get(said) != device:
            self._send(environment, type="update_device_status", runtime=runtime, device_status=device)
        self._said[said] = device
        self._send(environment, type="update_loop_status", runtime=runtime, loop_status=loop)

    def _send_queue(self, environment: Environment, runtime: Frame) -> None:
        queue = status.queue(environment, self._conversation(runtime))
        self._send(environment, type="update_queue", runtime=runtime, queue=queue, removed=[])

    def _show_turn(self, environment: Environment, runtime: Frame, run: Run) -> None:
        for row in run.said:
            self._send(environment, type="stream_delta", runtime=runtime, delta={"type": "message", **row})
        self._finish_turn(environment, runtime, run, str(run.stop_reason))

    def _finish_turn(self, environment: Environment, runtime: Frame, run: Run, stop_reason: str) -> None:
        ended = {"turn_id": f"turn-{uuid.uuid4()}", "run_id": run.id, "stop_reason": stop_reason}
        self._send(environment, type="turn_finished", runtime=runtime, **ended)

    def _say(self, environment: Environment, runtime: Frame, message_type: str, **fields: Any) -> None:
        delta = {"id": f"lifecycle-{uuid.uuid4()}", "date": iso(time.time()), "message_type": message_type, **fields}
        self._send(environment, type="stream_delta", runtime=runtime, delta=delta)

    def _respond(self, environment: Environment, frame: Frame, response: str, **fields: Any) -> None:
        if frame.get("request_id"):
            known = {"request_id": frame["request_id"], "runtime": frame["runtime"]}
            self._send(environment, type=response, **known, **fields)

    def _send(self, environment: Environment, **frame: Any) -> None:
        self._relay.publish(environment.row.get("connectionId"), frame)


def _is_scope(runtime: Any) -> bool:
    """Whether a device can read it: the conversation is a text, the agent is a text or null."""
    if not isinstance(runtime, dict) or "agent_id" not in runtime:
        return False
    agent_id, conversation_id = runtime["agent_id"], runtime.get("conversation_id")
    return bool(conversation_id and isinstance(conversation_id, str)) and (
        agent_id is None or bool(agent_id and isinstance(agent_id, str))
    )
