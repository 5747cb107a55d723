# shellcheck shell=sh disable=SC2034
# What the scripts of this module share: where is the server, is it running, how is it ended?
# Nothing here needs the data directory to answer: a stop must work when its file system does not.

: "${DATA:?set by userconfig.xml}" "${RUN:?set by userconfig.xml}" "${PORT:=3050}" "${OWNER:=firebird}" "${SAFEMODULE:?name of the module}"
LOG=/var/log/firebird/$SAFEMODULE.log

say() { printf '%s\n' "$*"; }
to_log() { [ -z "${SAFE:-}" ] || "$SAFE/safekit" printe "$*" || true; say "$*"; }

# Where messages, plugins and character sets are: Debian's place, the newest; else that of the project's own packages.
installed() {
    for place in $(printf '%s\n' /usr/lib/*/firebird/[0-9].0 /usr/lib*/firebird | sort -r) /opt/firebird; do
        [ -d "$place/plugins" ] && printf '%s\n' "$place" && return
    done
}

program() { # NAME...: the first that is installed
    for name in "$@"; do
        command -v "$name" && return
        for place in /usr/sbin /opt/firebird/bin; do
            [ -x "$place/$name" ] && printf '%s\n' "$place/$name" && return
        done
    done
}

# This module's server and no other: it is started with the root directory that start_prim makes.
processes() { pgrep -f -- "^[^ ]*firebird .*-e $RUN/root( |\$)"; }

signal() { # NAME
    # shellcheck disable=SC2046
    kill -s "$1" $(processes) 2>/dev/null || true
}

ends_within() { # SECONDS
    tenths=$(($1 * 10))
    while [ -n "$(processes)" ]; do
        [ "$tenths" -gt 0 ] || return 1
        tenths=$((tenths - 1))
        sleep 0.1
    done
}

listens() { ss -Hltn "( sport = :$PORT )" 2>/dev/null | grep -q .; }

# What this node lacks to run the server; nothing when it could.
wanting() {
    # Their names stand in patterns for processes, too.
    case "$DATA$RUN" in
    *[!A-Za-z0-9/._-]*) say "DATA or RUN holds a character that the scripts do not take; use letters, digits, / . _ -" ;;
    esac
    # It is emptied before each start.
    case $RUN in
    /run/?*) ;;
    *) say "RUN is $RUN; choose a directory of its own below /run" ;;
    esac
    if [ -z "$(program firebird)" ] || [ -z "$(installed)" ]; then say "Firebird is not installed on this node"; fi
    id "$OWNER" >/dev/null 2>&1 || say "there is no user $OWNER on this node"
    [ -d "$DATA" ] || say "there is no $DATA on this node; make it with: install -d -m 700 -o $OWNER $DATA"
}
