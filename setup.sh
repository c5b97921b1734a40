# Sourced by ./dev and ./test: makes sure of a C compiler and a Rust toolchain, and installs Debian packages by name where it may.
# Starts and enables no service: a policy file that forbids it stands there for as long as packages are installed.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
rust_wanted=$(sed -n 's/^channel = "\(.*\)"/\1/p' "$root/rust-toolchain.toml")
tell() { echo "$*" >&2; }

# may_install: whether this is root on a Debian-like system.
may_install() { [ "$(id -u)" = 0 ] && command -v apt-get > /dev/null; }

# install PACKAGE…: installs what is missing of these; tells the line to type where it may not.
install() {
  local missing=() p
  for p in "$@"; do dpkg-query -W -f '${db:Status-Status}' "$p" 2> /dev/null | grep -qx installed || missing+=("$p"); done
  [ ${#missing[@]} = 0 ] && return 0
  if ! may_install; then
    tell "missing packages; as root: apt-get install --no-install-recommends ${missing[*]}"
    return 1
  fi
  tell "installing: ${missing[*]}"
  local policy=/usr/sbin/policy-rc.d mine=
  [ -e $policy ] || { printf '#!/bin/sh\nexit 101\n' > $policy; chmod +x $policy; mine=1; }
  { apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "${missing[@]}"; } \
    > "${TMPDIR:-/tmp}/hostler-apt.log" 2>&1
  local status=$?
  [ -n "$mine" ] && rm -f $policy
  [ $status = 0 ] || { tail -n 5 "${TMPDIR:-/tmp}/hostler-apt.log" >&2; tell "apt-get failed; its log is ${TMPDIR:-/tmp}/hostler-apt.log"; }
  return $status
}

# rust_ready: whether rustc here is the pinned version or newer.
rust_ready() {
  local have
  have=$(cd "$root" && rustc --version 2> /dev/null | cut -d' ' -f2) && [ -n "$have" ] || return 1
  [ "$(printf '%s\n%s\n' "$rust_wanted" "${have%%-*}" | sort -V | head -n 1)" = "$rust_wanted" ]
}

# use_newer_rust: without the pinned toolchain an installed newer one serves.
use_newer_rust() {
  command -v rustup > /dev/null || return 1
  local name
  for name in $(rustup toolchain list 2> /dev/null | awk '{print $1}' | grep -v nightly); do
    if RUSTUP_TOOLCHAIN=$name rust_ready; then export RUSTUP_TOOLCHAIN=$name; return 0; fi
  done
  return 1
}

# need_toolchain: a C compiler for SQLite and libpq, and Rust.
need_toolchain() {
  command -v cc > /dev/null || install gcc libc6-dev || return 1
  export PATH="$PATH:$HOME/.cargo/bin"
  rust_ready && return 0
  use_newer_rust && return 0
  if command -v rustup > /dev/null; then
    tell "installing Rust $rust_wanted"
    rustup toolchain install "$rust_wanted" --profile minimal -c rustfmt -c clippy && rust_ready && return 0
  elif may_install && apt-cache show rustup > /dev/null 2>&1 && install rustup; then
    rustup toolchain install "$rust_wanted" --profile minimal -c rustfmt -c clippy && rust_ready && return 0
  fi
  tell "Rust $rust_wanted or newer is needed. Install rustup (Debian: apt-get install rustup; others: see rust-lang.org), then:"
  tell "  rustup toolchain install $rust_wanted -c rustfmt -c clippy"
  return 1
}
