# shellcheck shell=sh disable=SC2034
# What the scripts of this module share: where is the server, is it running, how is it ended?
# Nothing here needs the data directory to answer: a stop must work when its file system does not.

: "${DATA:?set by userconfig.xml}" "${RUN:?set by userconfig.xml}" "${PASSWORD:?set by userconfig.xml}"
: "${PORT:=6379}" "${OWNER:=redis}" "${SAFEMODULE:?name of the module}"
CONF=$RUN/redis.conf
LOG=/var/log/redis/$SAFEMODULE.log

say() { printf '%s\n' "$*"; }
to_log() { [ -z "${SAFE:-}" ] || "$SAFE/safekit" printe "$*" || true; say "$*"; }

# This module's server and no other: it is started with the name of its configuration and goes on showing it.
processes() { pgrep -f -- "^[^ ]*redis-server .*$CONF( |\$)"; }

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

answers() {
    [ "$(REDISCLI_AUTH=$PASSWORD timeout --signal=KILL 5 redis-cli -h 127.0.0.1 -p "$PORT" PING 2>/dev/null)" = PONG ]
}

# What this node lacks to run the server; nothing when it could.
wanting() {
    # Their names stand in patterns for processes, too.
    case "$DATA$RUN" in
    *[!A-Za-z0-9/._-]*) say "DATA or RUN holds a character that the scripts do not take; use letters, digits, / . _ -" ;;
    esac
    command -v redis-server >/dev/null || say "redis-server is not installed on this node"
    command -v redis-cli >/dev/null || say "redis-cli is not installed on this node"
    id "$OWNER" >/dev/null 2>&1 || say "there is no user $OWNER on this node"
    [ -d "$DATA" ] || say "there is no $DATA on this node; make it with: install -d -m 700 -o $OWNER $DATA"
}
