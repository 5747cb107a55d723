# shellcheck shell=sh disable=SC2034
# What the scripts know of this nginx. Sourced by them; RUN, PORT, ROOT and GRACE come from userconfig.xml.
NGINX=$(command -v nginx || echo /usr/sbin/nginx)
CONF=$RUN/nginx.conf
PIDFILE=$RUN/nginx.pid

# The main process, when it is one of ours. It leads a session in which the workers stay even when it is gone.
session() {
    for file in "$PIDFILE" "$RUN/session"; do
        [ -r "$file" ] && tr -cd 0-9 <"$file" && return
    done
    return 1
}

# What the application has written and the clients have not taken yet.
unsent() {
    ss -Htn state fin-wait-1 state closing state last-ack "( sport = :$PORT )" 2>/dev/null | grep -q .
}

# Waits at most $2 seconds until no process of the session $1 is left, nor anything for its clients in the kernel.
# The file of the number may go before they do.
gone_within() {
    tenths=$(($2 * 10))
    while pgrep -s "$1" -x nginx >/dev/null || unsent; do
        [ "$tenths" -gt 0 ] || return 1
        tenths=$((tenths - 1))
        sleep 0.1
    done
}
