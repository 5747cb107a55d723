# shellcheck shell=sh disable=SC2034
# What the scripts of this module share: is the machine on, how is it switched off?
# Nothing here needs the replicated directory to answer: a stop must work when its file system does not.

: "${DIR:?set by userconfig.xml}" "${RUN:?set by userconfig.xml}" "${SAFEMODULE:?name of the module}" "${QEMU:=qemu-system-x86_64}"
LOG=/var/log/sk-$SAFEMODULE.log

say() { printf '%s\n' "$*"; }
to_log() { [ -z "${SAFE:-}" ] || "$SAFE/safekit" printe "$*" || true; say "$*"; }

# This module's machine and no other: the file of its process number is in its command line.
processes() { pgrep -f -- "^[^ ]*qemu-system-[^ ]* .*-pidfile $RUN/pid( |\$)"; }

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

# What this node lacks to run the machine; nothing when it could.
wanting() {
    # Their names stand in patterns for processes, too.
    case "$DIR$RUN" in
    *[!A-Za-z0-9/._-]*) say "DIR or RUN holds a character that the scripts do not take; use letters, digits, / . _ -" ;;
    esac
    # It is emptied before each start.
    case $RUN in
    /run/?*) ;;
    *) say "RUN is $RUN; choose a directory of its own below /run" ;;
    esac
    command -v "$QEMU" >/dev/null || say "$QEMU is not installed on this node"
    [ -d "$DIR" ] || say "there is no $DIR on this node; make it with: install -d -m 700 $DIR"
}
