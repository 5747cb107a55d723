# shellcheck shell=bash disable=SC2034
# What the scripts of this module share: where is the server, is it running, how is it ended?
# Nothing here needs the data directory to answer: a stop must work when its file system does not.

: "${PGDATA:?set by userconfig.xml}" "${PGPORT:=5432}" "${PGUSER:=postgres}" "${SAFEMODULE:=postgresql}"
export PGPORT
RUN_DIR=/run/sk-$SAFEMODULE              # Unix socket: local, never replicated
LOG_DIR=/var/log/postgresql
LOG=$LOG_DIR/$SAFEMODULE.log

say() { printf '%s\n' "$*"; }
to_log() { [ -z "${SAFE:-}" ] || "$SAFE/safekit" printe -m "$SAFEMODULE" "$*" || true; say "$*"; }

as_owner() { setpriv --reuid "$PGUSER" --regid "$(id -gn "$PGUSER")" --init-groups -- env HOME=/ "$@"; }

# Binaries of the version that made the data directory, as Debian installs them; else what is in PATH.
find_binaries() {
    local version=''
    [ ! -r "$PGDATA/PG_VERSION" ] || version=$(cat "$PGDATA/PG_VERSION")
    if [ -n "$version" ] && [ -x "/usr/lib/postgresql/$version/bin/postgres" ]; then
        printf '/usr/lib/postgresql/%s/bin\n' "$version"
    elif [ -n "$version" ] && [ -x "/usr/pgsql-$version/bin/postgres" ]; then
        printf '/usr/pgsql-%s/bin\n' "$version"
    elif command -v postgres >/dev/null; then
        dirname "$(readlink -f "$(command -v postgres)")"
    else
        find /usr/lib/postgresql /usr/pgsql-* -maxdepth 2 -name bin -type d 2>/dev/null | sort -V | tail -n 1
    fi
}

# Pids of this cluster's processes: they have changed into the data directory and stay there; the first one also
# names it in its command line, should the mount that it stands in be gone.
cluster_processes() {
    local pid
    for pid in $(pgrep -x 'post.*'); do
        if [ "$(readlink "/proc/$pid/cwd" 2>/dev/null)" = "$PGDATA" ] ||
            tr '\0' '\n' 2>/dev/null <"/proc/$pid/cmdline" | grep -Fqx -e "$PGDATA"; then
            printf '%s\n' "$pid"
        fi
    done
}

# The one whose parent is not of the cluster.
postmaster() {
    local pid parent all
    all=$(cluster_processes)
    for pid in $all; do
        parent=$(sed -n 's/^PPid:[[:space:]]*//p' "/proc/$pid/status" 2>/dev/null) || continue
        printf '%s\n' "$all" | grep -qx "${parent:-0}" || printf '%s\n' "$pid"
    done
}

nothing_left() { [ -z "$(cluster_processes)" ]; }

wait_for_end() { # SECONDS
    local deadline=$((SECONDS + $1))
    until nothing_left; do
        [ "$SECONDS" -lt "$deadline" ] || return 1
        sleep 0.05
    done
}

signal() { # NAME PIDS, as one word
    # shellcheck disable=SC2086
    [ -z "$2" ] || kill -s "$1" $2 2>/dev/null || true
}
