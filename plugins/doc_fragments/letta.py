# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How to reach Letta: the same options for modules (DOCUMENTATION) and for plugins (PLUGINS)."""

from __future__ import annotations


class ModuleDocFragment:
    """The connection options of a Letta module or plugin."""

    DOCUMENTATION = r"""
options:
  base_url:
    description:
      - Where the API is.
      - Unset, the variable C(letta_base_url) counts, then the URL that the inventory listed the target from, then the
        environment variable E(LETTA_BASE_URL), then V(https://api.letta.com).
    type: str
  api_key:
    description:
      - The API key.
      - Unset, the variable C(letta_api_key) counts, then the environment variable E(LETTA_API_KEY). Vault values and
        templates work.
    type: str
  api_key_file:
    description:
      - A file with nothing but the API key in it.
      - Unset, the variable C(letta_api_key_file) counts, then the environment variable E(LETTA_API_KEY_FILE).
      - A key or file of a task goes before one of a variable, and that before one of the environment; where both are
        given at the same place, O(api_key) counts.
    type: path
  allow_http:
    description:
      - Whether the key may be sent in clear text, over C(http://) to another machine or to a proxy there. The relay
        goes the same way.
      - Without it C(http://) is for C(localhost) and for loopback addresses (C(127.0.0.0/8), C(::1)).
      - Unset, the variable C(letta_allow_http) counts, then the environment variable E(LETTA_ALLOW_HTTP).
    type: bool
    default: false
  timeout:
    description:
      - Seconds to wait for a connection, and for each answer, of one request.
      - Unset, the variable C(letta_timeout) counts, then the environment variable E(LETTA_TIMEOUT).
    type: float
    default: 30
  retries:
    description:
      - How often a request is repeated when it failed in a way that may pass, with growing pauses.
      - A listing is repeated when no connection or answer came, and on HTTP status 408, 429 and 5xx. A message only
        when it cannot have been accepted, or under the same C(client_message_id), of which a device drops repetitions.
      - Unset, the variable C(letta_retries) counts, then the environment variable E(LETTA_RETRIES).
    type: int
    default: 5
  deadline:
    description:
      - Seconds that one call may take with all its repetitions. A server that asks to wait longer than that, or longer
        than 60 s, fails the call at once.
      - A listing with all its pages may take five times as long. An answer may have 32 MB, and a listing 128 MB.
      - A pause that it asks for with status 429, or one of up to 60 s with 503, holds for all requests of the task. A
        call that waits for the sake of others has all of its time left when it begins; one that would have to wait
        longer than that is not made, and fails at once.
      - Unset, the variable C(letta_deadline) counts, then the environment variable E(LETTA_DEADLINE).
    type: float
    default: 120
  validate_certs:
    description:
      - Whether to verify the server's TLS certificate.
      - Unset, the variable C(letta_validate_certs) counts, then the environment variable E(LETTA_VALIDATE_CERTS).
    type: bool
    default: true
  ca_path:
    description:
      - A file or directory of certificate authorities to trust instead of the usual ones.
      - Unset, the variable C(letta_ca_path) counts, then the environment variable E(LETTA_CA_PATH).
    type: path
  client_cert:
    description:
      - A client certificate (PEM) for TLS.
      - Unset, the variable C(letta_client_cert) counts, then the environment variable E(LETTA_CLIENT_CERT).
    type: path
  client_key:
    description:
      - The private key of O(client_cert), where that file does not hold it.
      - Unset, the variable C(letta_client_key) counts, then the environment variable E(LETTA_CLIENT_KEY).
    type: path
notes:
  - An empty option, variable or environment variable is the same as an unset one.
  - A fact never counts as such a variable, nor as the agent or the conversation of a host, since a device sets its
    facts. C(set_fact) with C(cacheable) looks like a fact in the next run.
  - Proxies are taken from the environment variables E(HTTPS_PROXY), E(HTTP_PROXY), E(ALL_PROXY) and E(NO_PROXY).
requirements:
  - aiohttp >= 3.12
  - httpx >= 0.27
  - pydantic >= 2.8
  - jmespath >= 1.0
  - semantic_version >= 2.10
"""

    PLUGINS = r"""
options:
  base_url:
    description: Where the API is.
    type: str
    default: https://api.letta.com
    env:
      - name: LETTA_BASE_URL
    vars:
      - name: letta_base_url
  api_key:
    description:
      - The API key. Vault values and templates work.
    type: str
    env:
      - name: LETTA_API_KEY
    vars:
      - name: letta_api_key
  api_key_file:
    description:
      - A file with nothing but the API key in it.
      - A key or file given in the inventory source goes before one of an extra variable, and that before one of the
        environment; where both are given at the same place, O(api_key) counts.
    type: path
    env:
      - name: LETTA_API_KEY_FILE
    vars:
      - name: letta_api_key_file
  allow_http:
    description:
      - Whether the key may be sent in clear text, over C(http://) to another machine or to a proxy there. The relay
        goes the same way.
      - Without it C(http://) is for C(localhost) and for loopback addresses (C(127.0.0.0/8), C(::1)).
    type: bool
    default: false
    env:
      - name: LETTA_ALLOW_HTTP
    vars:
      - name: letta_allow_http
  timeout:
    description: Seconds to wait for a connection, and for each answer, of one request.
    type: float
    default: 30
    env:
      - name: LETTA_TIMEOUT
    vars:
      - name: letta_timeout
  retries:
    description:
      - How often a request is repeated when no connection or answer came, and on HTTP status 408, 429 and 5xx, with
        growing pauses.
    type: int
    default: 5
    env:
      - name: LETTA_RETRIES
    vars:
      - name: letta_retries
  deadline:
    description:
      - Seconds that one call (one page of the listing) may take with all its repetitions. A server that asks to wait
        longer than that, or longer than 60 s, fails the call at once.
      - The whole listing may take five times as long. A page may have 32 MB, and the listing 128 MB.
    type: float
    default: 120
    env:
      - name: LETTA_DEADLINE
    vars:
      - name: letta_deadline
  validate_certs:
    description: Whether to verify the server's TLS certificate.
    type: bool
    default: true
    env:
      - name: LETTA_VALIDATE_CERTS
    vars:
      - name: letta_validate_certs
  ca_path:
    description: A file or directory of certificate authorities to trust instead of the usual ones.
    type: path
    env:
      - name: LETTA_CA_PATH
    vars:
      - name: letta_ca_path
  client_cert:
    description: A client certificate (PEM) for TLS.
    type: path
    env:
      - name: LETTA_CLIENT_CERT
    vars:
      - name: letta_client_cert
  client_key:
    description: The private key of O(client_cert), where that file does not hold it.
    type: path
    env:
      - name: LETTA_CLIENT_KEY
    vars:
      - name: letta_client_key
notes:
  - An empty option, variable or environment variable is the same as an unset one.
  - Proxies are taken from the environment variables E(HTTPS_PROXY), E(HTTP_PROXY), E(ALL_PROXY) and E(NO_PROXY).
requirements:
  - aiohttp >= 3.12
  - httpx >= 0.27
  - pydantic >= 2.8
  - jmespath >= 1.0
  - semantic_version >= 2.10
"""
