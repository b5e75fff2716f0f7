# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Qoder, as the other parts see it."""

from __future__ import annotations

from ..base import Provider
from .client import Client
from .models import FIELDS, NAME, Query, read_environments
from .replies import Conversations

PROVIDER = Provider(
    name=NAME,
    base_url="https://api.qoder.com/api/v1/cloud",
    fields=FIELDS,
    query=Query,
    client=Client,
    environments=read_environments,
    conversations=Conversations,
    agent="agent",
    conversation="session_id",
    first_seen="created_at",
    volatile={"updated_at": "updated_at"},
    sessions=True,
    environment_variables={
        "api_key": ("QODER_ACCESS_TOKEN", "QODER_PAT"),
        "base_url": ("QODER_MANAGED_BASE_URL",),
    },
    refused={
        "approvals": "an approval is not sent to an environment of Qoder by this collection; answer it in the session",
        "self_update": "an environment of Qoder is a template, which has nothing to update",
    },
)
