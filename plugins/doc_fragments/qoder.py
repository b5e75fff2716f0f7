# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How to reach Qoder: the options for plugins (PLUGINS), and what modules for several providers say (DOCUMENTATION)."""

from __future__ import annotations


class ModuleDocFragment:
    """The connection options of a Qoder plugin."""

    DOCUMENTATION = r"""
options: {}
notes:
  - For environments of Qoder the connection options that a task leaves out come from the variables C(qoder_base_url),
    C(qoder_api_key) and so on, then from the environment variables E(QODER_MANAGED_BASE_URL), E(QODER_ACCESS_TOKEN) or
    E(QODER_PAT), E(QODER_API_KEY_FILE), E(QODER_TIMEOUT) and so on. The usual URL is
    V(https://api.qoder.com/api/v1/cloud).
"""

    PLUGINS = r"""
options:
  base_url:
    description: Where the API is.
    type: str
    default: https://api.qoder.com/api/v1/cloud
    env:
      - name: QODER_MANAGED_BASE_URL
    vars:
      - name: qoder_base_url
  api_key:
    description:
      - The access token. Vault values and templates work.
      - Of the environment variables E(QODER_ACCESS_TOKEN) goes before E(QODER_PAT).
    type: str
    # Of several that are set Ansible takes the last one.
    env:
      - name: QODER_PAT
      - name: QODER_ACCESS_TOKEN
    vars:
      - name: qoder_api_key
  api_key_file:
    description:
      - A file with nothing but the access token in it.
      - A key or file given in the inventory source goes before one of an extra variable, and that before one of the
        environment; where both are given at the same place, O(api_key) counts.
    type: path
    env:
      - name: QODER_API_KEY_FILE
    vars:
      - name: qoder_api_key_file
  allow_http:
    description:
      - Whether the key may be sent in clear text, over C(http://) to another machine or to a proxy there.
      - Without it C(http://) is for C(localhost) and for loopback addresses (C(127.0.0.0/8), C(::1)).
    type: bool
    default: false
    env:
      - name: QODER_ALLOW_HTTP
    vars:
      - name: qoder_allow_http
  timeout:
    description: Seconds to wait for a connection, and for each answer, of one request.
    type: float
    default: 30
    env:
      - name: QODER_TIMEOUT
    vars:
      - name: qoder_timeout
  retries:
    description:
      - How often a request is repeated when no connection or answer came, and on HTTP status 408, 429 and 5xx, with
        growing pauses.
    type: int
    default: 5
    env:
      - name: QODER_RETRIES
    vars:
      - name: qoder_retries
  deadline:
    description:
      - Seconds that one call (one page of the listing) may take with all its repetitions. A server that asks to wait
        longer than that, or longer than 60 s, fails the call at once.
      - The whole listing may take five times as long. A page may have 32 MB, and the listing 128 MB.
    type: float
    default: 120
    env:
      - name: QODER_DEADLINE
    vars:
      - name: qoder_deadline
  validate_certs:
    description: Whether to verify the server's TLS certificate.
    type: bool
    default: true
    env:
      - name: QODER_VALIDATE_CERTS
    vars:
      - name: qoder_validate_certs
  ca_path:
    description: A file or directory of certificate authorities to trust instead of the usual ones.
    type: path
    env:
      - name: QODER_CA_PATH
    vars:
      - name: qoder_ca_path
  client_cert:
    description: A client certificate (PEM) for TLS.
    type: path
    env:
      - name: QODER_CLIENT_CERT
    vars:
      - name: qoder_client_cert
  client_key:
    description: The private key of O(client_cert), where that file does not hold it.
    type: path
    env:
      - name: QODER_CLIENT_KEY
    vars:
      - name: qoder_client_key
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
