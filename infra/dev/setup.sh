#!/usr/bin/env bash
# Prepares a Debian machine that has Rust, Python and a JDK. Every step looks first and does nothing when it is done.
#   setup.sh build   what `make build` and `make demo` need: system packages, Rust components
#   setup.sh test    build, and what the tests need: PostgreSQL, the jars of Kafka and Spark, Python environments, cargo-deny, kustomize and the
#                    compose loader (compiled once: minutes)
# Downloads go under ${CAUSEWAY_CACHE:-$HOME/.cache/causeway}; only system packages are installed elsewhere.
HERE=$(dirname "$(realpath "${BASH_SOURCE[0]}")")
# shellcheck source=SCRIPTDIR/common.sh
. "$HERE/common.sh"
CARGO_DENY_VERSION=0.20.2
KUSTOMIZE_VERSION=v5.6.0
COMPOSE_VERSION=v2.10.2

BUILD_PACKAGES=(
  build-essential pkg-config # C of zstd, SQLite and librdkafka, the stub libraries
  libssl-dev zlib1g-dev      # librdkafka
  libelf-dev                 # libbpf, which loads the probes (its own sources come with the crate)
  clang                      # compiles the probes
  mold                       # links the large binaries several times faster than the default linker
)
TEST_PACKAGES=(
  postgresql-15            # a real SQL catalog
  python3-venv curl procps # the server scripts
  shellcheck               # their lint
  systemd libcap2-bin      # systemd-analyze and setcap: the estate
)

# packages NAME...: install those that are missing, with root's rights
packages() {
  local missing=() name root=()
  command -v dpkg-query >/dev/null || die "this set-up knows Debian's packages only; install the equivalents of: $*"
  for name in "$@"; do
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$name" 2>/dev/null)" = installed ] || missing+=("$name")
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  if [ "$(id -u)" != 0 ]; then
    command -v sudo >/dev/null || die "as root, run: apt-get install ${missing[*]}"
    root=(sudo -n)
  fi
  echo "installing ${missing[*]}"
  local apt=("${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300)
  # A fresh image has no package lists, an old one has stale lists: both show as a failing install.
  "${apt[@]}" install --no-install-recommends "${missing[@]}" >"$CACHE/apt.log" 2>&1 </dev/null ||
    { "${apt[@]}" update && "${apt[@]}" install --no-install-recommends "${missing[@]}"; } >"$CACHE/apt.log" 2>&1 </dev/null ||
    { tail -n 15 "$CACHE/apt.log" >&2; die "apt-get could not install ${missing[*]}; log: $CACHE/apt.log"; }
}

rust() {
  local wanted have
  command -v cargo >/dev/null || die "cargo not found: install Rust with rustup"
  wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$HERE/../../Cargo.toml")
  have=$(rustc --version | cut -d' ' -f2)
  [ "$(printf '%s\n' "$wanted" "$have" | sort -V | head -n 1)" = "$wanted" ] || die "Rust $wanted or newer is needed, this is $have: rustup update"
  if ! cargo fmt --version >/dev/null 2>&1 || ! cargo clippy --version >/dev/null 2>&1; then
    rustup component add rustfmt clippy || die "rustfmt and clippy are needed: rustup component add rustfmt clippy"
  fi
}

# The pinned wheels exist for these versions of Python.
usable_python() { "$1" -c 'import ensurepip, sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' >/dev/null 2>&1 </dev/null; }

# python_venv DIR REQUIREMENTS: an environment with exactly what the file pins
python_venv() {
  local venv=$1 requirements=$2 wanted python found=''
  wanted=$(sha256sum "$requirements" | cut -d' ' -f1)
  [ "$(cat "$venv/.requirements" 2>/dev/null)" != "$wanted" ] || return 0
  for python in /usr/bin/python3 python3.11 python3.12 python3.13; do
    if usable_python "$python"; then found=$python; break; fi
  done
  [ -n "$found" ] || die "Python 3.11, 3.12 or 3.13 with venv not found"
  echo "installing infra/dev/${requirements#"$HERE/"} into $venv"
  rm -rf "$venv"
  "$found" -m venv "$venv" </dev/null || die "cannot make a Python environment in $venv"
  "$venv/bin/python" -m pip install -q --no-cache-dir --disable-pip-version-check --no-deps -r "$requirements" </dev/null >"$CACHE/pip.log" 2>&1 ||
    { tail -n 5 "$CACHE/pip.log" >&2; die "pip could not install $requirements; log: $CACHE/pip.log"; }
  echo "$wanted" >"$venv/.requirements"
}

java() {
  # Spark wants no newer Java than 21 (infra/dev/spark.sh), and its program is compiled when it is run.
  (use_java 17 21 && [ -x "$JAVA_HOME/bin/javac" ]) 2>/dev/null || packages openjdk-17-jdk-headless
  command -v mvn >/dev/null || packages maven
  use_java 17 21
}

cargo_deny() {
  [ "$("$CACHE/tools/bin/cargo-deny" --version 2>/dev/null)" != "cargo-deny $CARGO_DENY_VERSION" ] || return 0
  ! command -v cargo-deny >/dev/null || return 0
  echo "compiling cargo-deny $CARGO_DENY_VERSION into $CACHE/tools"
  env -u CARGO_TARGET_DIR cargo install -q --locked --root "$CACHE/tools" --version "$CARGO_DENY_VERSION" cargo-deny </dev/null
}

# go_tool NAME VERSION PACKAGE: compile a Go program into the cache, once; Go's checksum database holds what is fetched
go_tool() {
  local name=$1 version=$2 package=$3 built=$CACHE/tools/go/$1-$2
  if [ ! -x "$built" ]; then
    command -v go >/dev/null || die "go not found: $name is compiled with Go 1.24 or newer"
    echo "compiling $name $version into $CACHE/tools"
    mkdir -p "$CACHE/tools/go"
    # Not into GOPATH/bin: the program has the name of its last folder there.
    env GOBIN="$CACHE/tools/go/new" GOFLAGS=-trimpath go install "$package@$version" </dev/null >"$CACHE/go.log" 2>&1 ||
      { tail -n 5 "$CACHE/go.log" >&2; die "go could not install $package; log: $CACHE/go.log"; }
    mv "$CACHE/tools/go/new/"* "$built"
  fi
  mkdir -p "$CACHE/tools/bin"
  ln -sf "$built" "$CACHE/tools/bin/$name"
}
go_tools() {
  go_tool kustomize "$KUSTOMIZE_VERSION" sigs.k8s.io/kustomize/kustomize/v5
  go_tool compose-spec "$COMPOSE_VERSION" github.com/compose-spec/compose-go/v2/cmd
}

build() { packages "${BUILD_PACKAGES[@]}"; rust; }
test_() { build; packages "${TEST_PACKAGES[@]}"; java; "$HERE/kafka.sh" fetch; "$HERE/spark.sh" fetch; python_venv "$VENV" "$HERE/requirements.txt"; cargo_deny; estate_tools; }
estate_tools() { python_venv "$ESTATE_VENV" "$HERE/estate/requirements.txt"; go_tools; }

mkdir -p "$CACHE"
exec 9>"$CACHE/setup.lock"
flock 9
case ${1:-} in
  build) build ;;
  test) test_ ;;
  *) sed -n '3,5s/^# *//p' "$0" >&2; exit 2 ;;
esac
