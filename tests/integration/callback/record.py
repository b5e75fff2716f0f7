"""Writes the result of every task to the file RECORD_FILE.

One JSON object a line: ``{task, host, outcome, result}``.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = """
name: record
type: notification
short_description: Record task results for tests
description: Writes each task's result as a line of JSON.
"""


class CallbackModule(CallbackBase):
    """Record results as the tasks of a playbook would see them."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "notification"
    CALLBACK_NAME = "record"
    CALLBACK_NEEDS_ENABLED = True

    def _record(self, outcome: str, result: Any) -> None:
        entry = {
            "task": result.task.name or result.task.action,
            "host": result.host.get_name(),
            "outcome": outcome,
            "result": json.loads(self._dump_results(result.result, indent=0)),
        }
        with Path(os.environ["RECORD_FILE"]).open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")

    def v2_runner_on_ok(self, result: Any) -> None:
        self._record("ok", result)

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        self._record("failed", result)

    def v2_runner_on_skipped(self, result: Any) -> None:
        self._record("skipped", result)

    def v2_runner_on_unreachable(self, result: Any) -> None:
        self._record("unreachable", result)
