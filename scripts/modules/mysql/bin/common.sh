# shellcheck shell=sh disable=SC2034
# What the scripts of this module share: where is the server, is it running, how is it ended?
# Nothing here needs the data directory to answer: a stop must work when its file system does not.
# The templates mariadb and mysql have the same scripts; SERVER and ADMIN say which of the two is meant.

: "${DATA:?set by userconfig.xml}" "${SERVER:?set by userconfig.xml}" "${ADMIN:?set by userconfig.xml}"
: "${PORT:=3306}" "${OWNER:=mysql}" "${SAFEMODULE:?name of the module}"
RUN=/run/sk-$SAFEMODULE # sockets and the process number: local, never replicated
SOCKET=$RUN/server.sock
LOG=/var/log/mysql/$SAFEMODULE.log

say() { printf '%s\n' "$*"; }
to_log() { [ -z "${SAFE:-}" ] || "$SAFE/safekit" printe "$*" || true; say "$*"; }

# A program where distributions put servers.
program() {
    command -v "$1" || for place in /usr/sbin /usr/libexec /usr/local/sbin; do
        [ -x "$place/$1" ] && printf '%s\n' "$place/$1" && return
    done
}

# This module's server and no other: the data directory is in its command line.
processes() { pgrep -f -- "^[^ ]*$SERVER .*--datadir=$DATA( |\$)"; }

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

# A server that refuses the login answers, too. The client takes no notice of SIGTERM while it waits for one that hangs.
answers() { timeout --signal=KILL 5 "$ADMIN" --no-defaults --socket="$SOCKET" --user=nobody ping >/dev/null 2>&1; }

# What this node lacks to run the server; nothing when it could.
wanting() {
    # Its name stands in patterns for processes, too.
    case "$DATA" in
    *[!A-Za-z0-9/._-]*) say "DATA holds a character that the scripts do not take; use letters, digits, / . _ -" ;;
    esac
    [ -n "$(program "$SERVER")" ] || say "$SERVER is not installed on this node"
    command -v "$ADMIN" >/dev/null || say "$ADMIN is not installed on this node"
    id "$OWNER" >/dev/null 2>&1 || say "there is no user $OWNER on this node"
    [ -d "$DATA" ] || say "there is no $DATA on this node; make it with: install -d -m 700 -o $OWNER $DATA"
}
