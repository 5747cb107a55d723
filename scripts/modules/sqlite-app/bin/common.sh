# shellcheck shell=sh disable=SC2034
# What the scripts of this module share: which processes are the application's, how are they ended?
# Nothing here needs the replicated directory to answer: a stop must work when its file system does not.

: "${DIR:?set by userconfig.xml}" "${COMMAND:?set by userconfig.xml}" "${OWNER:?set by userconfig.xml}"
: "${PORT:?set by userconfig.xml}" "${SAFEMODULE:?name of the module}"
MARK=SK_APPLICATION_OF=$SAFEMODULE # in the environment of the application, and of whatever it starts
LOG=/var/log/sk-$SAFEMODULE.log

say() { printf '%s\n' "$*"; }
to_log() { [ -z "${SAFE:-}" ] || "$SAFE/safekit" printe "$*" || true; say "$*"; }

processes() { grep -lzxF -- "$MARK" /proc/[0-9]*/environ 2>/dev/null | cut -d/ -f3; }

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

# What this node lacks to run the application; nothing when it could.
wanting() {
    command -v "${COMMAND%% *}" >/dev/null || say "${COMMAND%% *} cannot be run on this node"
    id "$OWNER" >/dev/null 2>&1 || say "there is no user $OWNER on this node"
    [ -d "$DIR" ] || say "there is no $DIR on this node; make it with: install -d -m 700 -o $OWNER $DIR"
}
