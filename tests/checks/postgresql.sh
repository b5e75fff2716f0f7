#!/usr/bin/env bash
# Makes sure that there is a PostgreSQL server for the tests of the ledger, which start it themselves, each in a directory of
# its own. Without one they are skipped.
set -euo pipefail

installed() {
    command -v postgres >/dev/null || compgen -G '/usr/lib/postgresql/*/bin/postgres' >/dev/null
}

! installed || exit 0
settings=/etc/postgresql-common/createcluster.conf
if [[ $(id -u) == 0 ]] && command -v apt-get >/dev/null && ! grep -qs '^create_main_cluster' "$settings"; then
    # Debian's package would make a cluster, and start it now and at each boot. What it reads before has to be there first.
    mkdir -p "${settings%/*}"
    echo 'create_main_cluster = false' >>"$settings"
fi
tests/checks/debian.sh "a server which the tests of the ledger start themselves" postgresql || true
installed || echo "make: the tests of a ledger in PostgreSQL are skipped, since its server is missing" \
    "(on Debian: sudo apt-get install postgresql)" >&2
