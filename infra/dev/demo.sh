#!/usr/bin/env bash
# The demo: traces a stub training job on this host (one of its four ranks shares its core with a CPU hog), imports the
# reference's sample cluster, and asks the questions. Where this host may not be traced it says what is missing and shows
# simulated nodes instead. DEMO_EXIT=1 stops after the answers, with 0 only if they were right.
set -euo pipefail
cd "$(dirname "$(realpath "${BASH_SOURCE[0]}")")/../.."
CACHE=${CAUSEWAY_CACHE:-$HOME/.cache/causeway}
BIN=${CARGO_TARGET_DIR:-$CACHE/target}/debug
DATA=${DEMO_DATA:-./causeway-data}
LISTEN=${DEMO_LISTEN:-127.0.0.1:8080}
STUB=$CACHE/stub
SIMULATED=nodes=4,ranks=8,rate=4000
export CAUSEWAY_SERVER=http://$LISTEN
wrong=()

causeway() { "$BIN/causeway" "$@"; }

# `wait_until WHAT COMMAND…` runs the command until it succeeds, for a minute at most.
wait_until() {
  local what=$1
  shift
  for ((i = 0; i < 300; i++)); do
    "$@" && return
    kill -0 "$UP" 2>/dev/null || break
    sleep 0.2
  done
  echo "demo: $what did not happen; the last of $DATA/up.log:" >&2
  tail -n 20 "$DATA/up.log" >&2
  exit 1
}

serve() {
  mkdir -p "$DATA"
  "$BIN/causeway" up --data "$DATA" --listen "$LISTEN" "$@" >"$DATA/up.out" 2>"$DATA/up.log" &
  UP=$!
  trap 'kill $UP 2>/dev/null || true; wait $UP 2>/dev/null || true' EXIT
  wait_until 'getting ready' grep -qs '^ready' "$DATA/up.out"
  cat "$DATA/up.out"
}

# `sql_says ANSWER SQL`
sql_says() { [ "$(causeway query --format csv "$2" 2>/dev/null | tr -d '\r' | tail -n +2)" = "$1" ]; }

live() {
  local began answer
  make -s -C loadtest/stub OUT="$STUB"
  serve
  echo '== a training job of four ranks; rank 3 shares its core with a CPU hog that the scheduler prefers'
  began=$(date -u +%FT%T.%3NZ)
  "$STUB/stub-train" --job demo --ranks 4 --seconds 10 --launches 10 --cpu-us 500 --gpu-us 3000 \
    --apart 3 --hog-rank 3 --hog-nice -12 --isolate
  # Each rank frees twice, last of all: when that is in the tables, so is all before it.
  wait_until 'landing the last events of the job' sql_says 8 \
    "SELECT count(*) FROM silver.events WHERE job_id = 'demo' AND source = 1 AND op = 2 AND ts >= TIMESTAMP '$began'"
  echo '== causeway explain --job demo'
  answer=$(causeway explain --from "$began" --job demo)
  echo "$answer"
  [ "$(grep -c '^\[' <<<"$answer")" = 1 ] && grep -q '^\[.*\] rank 3 .*preempted by cpu-hog' <<<"$answer" &&
    grep -q 'Root cause: rank 3 was runnable but not running' <<<"$answer" && grep -q 'Evidence: .' <<<"$answer" ||
    wrong+=('rank 3 should be blamed, and no other rank, because cpu-hog had its CPU, with evidence')
}

simulated() {
  local nodes="node LIKE 'gpu-node-000%'"
  echo 'This host cannot be traced:'
  echo "$1"
  echo "So nothing below was measured here: the nodes called gpu-node-0000 and so on are simulated ($SIMULATED) and their events"
  echo 'are made up. They take the same way through spool, ingest and tables as those of an agent. See also: causeway doctor'
  serve --no-agent --simulate "$SIMULATED"
  wait_until 'landing events of the four simulated nodes' sql_says 4,4 \
    "SELECT (SELECT count(DISTINCT node) FROM events WHERE $nodes), (SELECT count(DISTINCT node) FROM ops.ledger WHERE $nodes)"
  echo '== causeway nodes'
  causeway nodes
}

sample() {
  local sql figures
  echo '== the sample cluster of the reference'
  causeway import --data "$DATA" tests/fixtures/ingero/sample-cluster.db
  sql='SELECT node, source, count(*) AS cnt, avg(duration)/1000 AS avg_us FROM events GROUP BY node, source'
  echo "== $sql"
  causeway query "$sql ORDER BY node, source"
  figures=$(causeway query --format csv "$sql ORDER BY node, source" 2>/dev/null |
    awk -F, '/^gpu-node-0[123],/ { printf "%s %d: %d %.3f\n", $1, $2, $3, $4 }')
  [ "$figures" = "$FIGURES" ] || wrong+=("the sample cluster's figures should be: $FIGURES")
  echo '== causeway explain, at the time of the sample: the chains that the reference stored'
  causeway explain --from 2026-04-03T12:00:00Z --to 2026-04-03T13:00:00Z | grep -E '^(FLEET|\[)'
}

# What the reference's own query gives on the sample: node source: count, mean microseconds.
FIGURES='gpu-node-01 3: 99 759.008
gpu-node-01 5: 101 769.802
gpu-node-02 3: 62 50061.249
gpu-node-02 4: 40 121.553
gpu-node-02 5: 98 1015.055
gpu-node-03 3: 58 50067.355
gpu-node-03 4: 36 183.242
gpu-node-03 5: 106 1037.200'

missing=$(causeway doctor 2>/dev/null | awk -F ' *[|] *' '$1 == "probes" && $3 == "fails" { print "  " $2 ": " $4 }' || true)
if [ -z "$missing" ]; then live; else simulated "$missing"; fi
sample
echo "== still serving on $CAUSEWAY_SERVER"
if [ "${DEMO_EXIT:-0}" = 1 ]; then
  [ ${#wrong[@]} = 0 ] || { printf 'wrong: %s\n' "${wrong[@]}" >&2; exit 1; }
  echo 'the answers are right'
  exit
fi
wait "$UP"
