# shellcheck shell=sh disable=SC2034
# What the scripts of this module share: the container, and how it is named.

: "${NAME:?set by userconfig.xml}" "${DIR:?set by userconfig.xml}" "${IMAGE:?set by userconfig.xml}" "${ENGINE:?set by userconfig.xml}" "${SAFEMODULE:?name of the module}"

say() { printf '%s\n' "$*"; }
to_log() { [ -z "${SAFE:-}" ] || "$SAFE/safekit" printe "$*" || true; say "$*"; }

# The command and its own options, in words.
engine() {
    # shellcheck disable=SC2086
    $ENGINE "$@"
}

exists() { engine container inspect "$NAME" >/dev/null 2>&1; }

# What this node lacks to run the container; nothing when it could.
wanting() {
    command -v "${ENGINE%% *}" >/dev/null || { say "${ENGINE%% *} is not installed on this node"; return; }
    # Never fetched by the module: a failover must not depend on a registry.
    engine image inspect "$IMAGE" >/dev/null 2>&1 ||
        say "the image $IMAGE is not on this node; fetch it with: ${ENGINE%% *} pull $IMAGE"
    [ -d "$DIR" ] || say "there is no $DIR on this node; make it with: install -d $DIR"
}
