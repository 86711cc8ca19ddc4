#!/usr/bin/env bash
# What the server scripts share: where downloads live, how a process is started, awaited and stopped, how a port is chosen.
# Source it; it starts nothing by itself.
# shellcheck disable=SC2034  # VENV, ESTATE_VENV and PORT are for the scripts that source this file
set -euo pipefail
CACHE=${CAUSEWAY_CACHE:-$HOME/.cache/causeway}
VENV=$CACHE/venv
ESTATE_VENV=$CACHE/estate-venv
READY_TIMEOUT=${READY_TIMEOUT:-120}

die() { echo "error: $*" >&2; exit 1; }
need() { local c; for c in "$@"; do command -v "$c" >/dev/null || die "'$c' not found: run infra/dev/setup.sh test"; done; }
now_ms() { date +%s%3N; }
port_open() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }
port_free() { ! port_open "$1" || die "port $1 is already in use by another process"; }
http_ok() { curl -fsS -m 3 -o /dev/null "$1"; }
rss_mb() { awk '/^VmRSS/ {printf "%d", $2 / 1024}' "/proc/$(cat "$1")/status" 2>/dev/null || echo '?'; }

# claim_port DIR: print a base port with 29 ports after it that no other data directory holds. It stays claimed, so that
# a server comes back on the same port after a kill, until DIR is gone. Below 32768: the kernel hands out none of these.
claim_port() {
  local ports=$CACHE/ports start=$RANDOM i port
  mkdir -p "$ports"
  (
    flock 9
    for ((i = 0; i < 300; i++)); do
      port=$((20000 + 30 * ((start + i) % 300)))
      if [ -e "$ports/$port" ] && [ -d "$(cat "$ports/$port")" ]; then continue; fi
      if port_open "$port" || port_open $((port + 1)); then continue; fi
      echo "$1" >"$ports/$port"; echo "$port"; exit 0
    done
    die "no free port between 20000 and 29000; claims are in $ports"
  ) 9>"$ports/.lock"
}

# running PIDFILE MARKER: true when the recorded process lives and its command line holds MARKER (guards against pid reuse)
running() {
  local pid
  pid=$(cat "$1" 2>/dev/null) && [ -n "$pid" ] && grep -aqsF -- "$2" "/proc/$pid/cmdline"
}

# stop PIDFILE MARKER SIGNAL: signal, wait up to 30 s, then SIGKILL. SIGKILL takes the direct children too, as a power cut would.
stop() {
  local pid i children=()
  if running "$1" "$2"; then
    pid=$(cat "$1")
    if [ "$3" != KILL ]; then
      kill "-$3" "$pid" 2>/dev/null || true
      for ((i = 0; i < 300; i++)); do running "$1" "$2" || break; sleep 0.1; done
    fi
    if running "$1" "$2"; then
      mapfile -t children < <(pgrep -P "$pid")
      kill -KILL "$pid" "${children[@]}" 2>/dev/null || true
      for i in "$pid" "${children[@]}"; do while kill -0 "$i" 2>/dev/null; do sleep 0.05; done; done
    fi
  fi
  rm -f "$1"
}

# spawn PIDFILE LOG COMMAND...: start detached from this shell, its terminal and its standard input
spawn() {
  local pidfile=$1 log=$2
  shift 2
  setsid "$@" >"$log" 2>&1 </dev/null &
  echo $! >"$pidfile"
  # Between fork and exec the command line is still this shell's: wait until it is the server's own.
  while kill -0 $! 2>/dev/null && grep -aqsF -- "${BASH_SOURCE[-1]}" "/proc/$!/cmdline"; do sleep 0.02; done
}

# wait_for LABEL PIDFILE MARKER LOG COMMAND...: poll COMMAND until it succeeds; fail at once when the process dies
wait_for() {
  local label=$1 pidfile=$2 marker=$3 log=$4 t0
  shift 4
  t0=$(now_ms)
  until "$@" >/dev/null 2>&1; do
    if ! running "$pidfile" "$marker"; then tail -n 25 "$log" >&2 || true; die "$label exited while starting; log: $log"; fi
    if (($(now_ms) - t0 > READY_TIMEOUT * 1000)); then
      tail -n 25 "$log" >&2 || true
      die "$label not ready after $READY_TIMEOUT s; log: $log"
    fi
    sleep 0.1
  done
  echo "$label ready in $(($(now_ms) - t0)) ms (pid $(cat "$pidfile"), rss $(rss_mb "$pidfile") MB)"
}

# use_java MIN [MAX]: set JAVA_HOME to $JAVA_HOME or the newest installed JDK whose major version is >= MIN and <= MAX
use_java() {
  local dir version best=0 home='' max=${2:-999}
  for dir in ${JAVA_HOME:+"$JAVA_HOME"} /usr/lib/jvm/*; do
    if [ ! -x "$dir/bin/java" ] || [ ! -f "$dir/release" ]; then continue; fi
    version=$(sed -n 's/^JAVA_VERSION="\([0-9]*\).*/\1/p' "$dir/release")
    if ((${version:-0} >= $1 && ${version:-0} <= max && ${version:-0} > best)); then best=$version home=$dir; fi
    if [ "$dir" = "${JAVA_HOME:-}" ] && ((best > 0)); then break; fi
  done
  [ -n "$home" ] || die "no JDK $1 or newer${2:+, up to $2,} found: run infra/dev/setup.sh test, or set JAVA_HOME"
  export JAVA_HOME=$home
}

# maven_jars DIR GROUP:ARTIFACT:VERSION...: all runtime dependencies into DIR, once; leaves no Maven repository behind
maven_jars() (
  local dir=$1 tmp g a v dependency
  shift
  mkdir -p "$(dirname "$dir")"
  exec 9>"$dir.lock"
  flock 9
  [ ! -f "$dir/.complete" ] || return 0
  need mvn
  rm -rf "$dir"; tmp=$(mktemp -d "$dir.XXXXXX")
  trap 'rm -rf "$tmp"' EXIT
  {
    echo '<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion><groupId>dev</groupId>'
    echo '<artifactId>fetch</artifactId><version>1</version><packaging>pom</packaging><dependencies>'
    for dependency in "$@"; do
      IFS=: read -r g a v <<<"$dependency"
      echo "<dependency><groupId>$g</groupId><artifactId>$a</artifactId><version>$v</version></dependency>"
    done
    echo '</dependencies></project>'
  } >"$tmp/pom.xml"
  mvn -q -B -f "$tmp/pom.xml" -Dmaven.repo.local="$tmp/m2" dependency:copy-dependencies -DincludeScope=runtime \
    -DoutputDirectory="$tmp/jars" >"$tmp/log" 2>&1 </dev/null || { grep -m 3 ERROR "$tmp/log" >&2; die "maven could not fetch $*"; }
  touch "$tmp/jars/.complete"; mv "$tmp/jars" "$dir"
)
