#!/usr/bin/env bash
# Builds the container image without torch, without a container engine, and tries it: `make image-check`.
# Needs root and Debian's packages buildah and debootstrap. The base image is made once and kept in buildah's storage as
# localhost/fourview-base:$SUITE. BASE=... uses another base image, EXTRAS=inference builds the variant with torch.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

SUITE=${SUITE:-bookworm}
BASE=${BASE:-localhost/fourview-base:$SUITE}
EXTRAS=${EXTRAS:-}
IMAGE=localhost/fourview-check

export BUILDAH_ISOLATION=chroot
[ "$(id -u)" = 0 ] || { echo 'image_check: root is needed (debootstrap, and buildah with chroot isolation)' >&2; exit 1; }
for program in buildah debootstrap; do
    command -v "$program" >/dev/null || { echo "image_check: $program is missing: apt install buildah debootstrap" >&2; exit 1; }
done

work=$(mktemp -d)
container=
receiver=
tidy() {
    if [ -n "$receiver" ]; then
        kill "$receiver" 2>/dev/null || true
        wait "$receiver" 2>/dev/null || true
    fi
    [ -z "$container" ] || buildah rm "$container" >/dev/null || true
    rm -rf "$work"
}
trap tidy EXIT

say() { printf '\n== %s\n' "$*"; }

if ! buildah inspect --type image "$BASE" >/dev/null 2>&1; then
    say "base image $BASE (debootstrap, once)"
    debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates "$SUITE" "$work/tree" >"$work/debootstrap.log" ||
        { tail -n 20 "$work/debootstrap.log" >&2; exit 1; }
    container=$(buildah from scratch)
    cp -a "$work/tree/." "$(buildah mount "$container")/"
    buildah umount "$container" >/dev/null
    buildah commit --quiet --rm "$container" "$BASE" >/dev/null
    container=
    rm -rf "$work/tree"
fi

# A machine that has its own certificates or its own package index hands them on to pip.
settings=()
declare -A folders=()
for name in $(compgen -e); do
    case $name in
        SSL_CERT_FILE | SSL_CERT_DIR | REQUESTS_CA_BUNDLE | PIP_*) settings+=(--env "$name=${!name}") ;;
        *) continue ;;
    esac
    case $name in
        SSL_CERT_DIR) [ ! -d "${!name}" ] || folders[${!name}]=1 ;;
        SSL_CERT_FILE | REQUESTS_CA_BUNDLE | PIP_CERT) [ ! -f "${!name}" ] || folders[$(dirname "${!name}")]=1 ;;
    esac
done
for folder in "${!folders[@]}"; do
    settings+=(--volume "$folder:$folder:ro")
done

say "build (EXTRAS='$EXTRAS')"
buildah rmi --force "$IMAGE" >/dev/null 2>&1 || true
buildah build --format docker --pull-never "${settings[@]}" --build-arg "BASE=$BASE" --build-arg "EXTRAS=$EXTRAS" --tag "$IMAGE" .

container=$(buildah from --pull-never "$IMAGE")
inside() { buildah run "$container" -- "$@"; }
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')

say 'not root, and /data is its own'
[ "$(inside id -u)" != 0 ]
inside touch /data/writable

say 'fourview --help'
inside fourview --help

say 'fourview config check'
inside fourview config check

say 'fourview receive, and a C-ECHO'
inside fourview db upgrade
# Not through inside(): killing the function's shell would leave buildah and the receiver running.
buildah run "$container" -- env FOURVIEW_DICOM__HOST=127.0.0.1 FOURVIEW_DICOM__PORT="$port" fourview receive >"$work/receive.log" 2>&1 &
receiver=$!
inside python3 - "$port" <<'PYTHON' || { cat "$work/receive.log" >&2; exit 1; }
import sys
import time

from pipeline.send import Pacs, echo

pacs = Pacs(name="fourview", ae_title="FOURVIEW", host="127.0.0.1", port=int(sys.argv[1]))
give_up_at = time.monotonic() + 60
while not (answer := echo(pacs, "IMAGECHECK")).ok:
    if time.monotonic() > give_up_at:
        sys.exit(f"no answer to C-ECHO: {answer.reason}")
    time.sleep(0.5)
print("C-ECHO answered")
PYTHON

say 'no torch in it, and none was missed'
[ -n "$EXTRAS" ] || ! inside python3 -c 'import torch' 2>/dev/null

say "image check passed: $IMAGE"
