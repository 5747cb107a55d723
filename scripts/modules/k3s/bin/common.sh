# shellcheck shell=sh disable=SC2034
# What the scripts of this module share: is k3s running, and how is all of it ended?
# Nothing here needs the replicated directories to answer: a stop must work when their file systems do not.
# The script k3s-killall.sh that k3s installs is not used: it deletes what it has unmounted, and what it unmounts may be a
# volume on a replicated directory.

: "${UNIT:=k3s}" "${SAFEMODULE:?name of the module}"

say() { printf '%s\n' "$*"; }
to_log() { [ -z "${SAFE:-}" ] || "$SAFE/safekit" printe "$*" || true; say "$*"; }

# The supervisors of the containers stay when k3s itself is stopped; the containers are their children.
supervisors() { pgrep -f -- '^[^ ]*/k3s/data/[^ ]*/bin/containerd-shim'; }

# A process and all its descendants.
family() {
    for pid in "$@"; do
        printf '%s\n' "$pid"
        # shellcheck disable=SC2046
        family $(pgrep -P "$pid")
    done
}

# Mounts that containers leave: they would keep the replicated directories busy.
mounts() { awk '$2 ~ "^(/run/k3s|/var/lib/kubelet/pods|/var/lib/kubelet/plugins)/" { print $2 }' /proc/self/mounts | sort -r; }

# What this node lacks to run the cluster; nothing when it could.
wanting() {
    systemctl cat "$UNIT" >/dev/null 2>&1 || say "there is no unit $UNIT on this node; install k3s"
    [ -r /etc/rancher/k3s/config.yaml ] || say "there is no /etc/rancher/k3s/config.yaml on this node; README.md says what it holds"
    # The cluster knows its node by it: another one would be refused after a failover.
    [ -r /etc/rancher/node/password ] ||
        say "there is no /etc/rancher/node/password on this node; make one, the same on both: openssl rand -hex 16"
    for directory in server storage; do
        [ -d "/var/lib/rancher/k3s/$directory" ] || say "there is no /var/lib/rancher/k3s/$directory on this node; make it with mkdir -p"
    done
}
