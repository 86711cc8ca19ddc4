#!/usr/bin/env bash
# The demo: traces a stub training job on this host (one of its four ranks shares its core with a CPU hog), imports the
# reference's sample cluster, and asks the questions. DEMO_EXIT=1 stops after the answers, with 0 only if they were right.
set -euo pipefail
cd "$(dirname "$(realpath "${BASH_SOURCE[0]}")")/../.."
BIN=${CARGO_TARGET_DIR:-${CAUSEWAY_CACHE:-$HOME/.cache/causeway}/target}/debug
DATA=${DEMO_DATA:-./causeway-data}
LISTEN=${DEMO_LISTEN:-127.0.0.1:8080}
STUB=${CAUSEWAY_CACHE:-$HOME/.cache/causeway}/stub
export CAUSEWAY_SERVER=http://$LISTEN

make -s -C loadtest/stub OUT="$STUB"
mkdir -p "$DATA"
"$BIN/causeway" up --data "$DATA" --listen "$LISTEN" >"$DATA/up.out" 2>"$DATA/up.log" &
UP=$!
trap 'kill $UP 2>/dev/null || true; wait $UP 2>/dev/null || true' EXIT
for ((i = 0; i < 300; i++)); do
  grep -qs '^ready' "$DATA/up.out" && break
  kill -0 $UP 2>/dev/null || { tail -n 20 "$DATA/up.log" >&2; exit 1; }
  sleep 0.2
done
cat "$DATA/up.out"

echo '== a training job of four ranks; rank 3 shares its core with a CPU hog'
"$STUB/stub-train" --ranks 4 --seconds 15 --launches 10 --pin 0=0,1=0,2=0,3=1 --hog-cpu 1 --job demo --isolate
echo '== the sample cluster of the reference'
"$BIN/causeway" import --data "$DATA" tests/fixtures/ingero/sample-cluster.db

SQL='SELECT node, source, count(*) AS cnt, avg(duration)/1000 AS avg_us FROM events GROUP BY node, source ORDER BY 1, 2'
echo "== $SQL"
"$BIN/causeway" query "$SQL"
echo '== causeway explain --job demo'
ANSWER=$("$BIN/causeway" explain --since 5m --job demo)
echo "$ANSWER"
echo "== still serving on $CAUSEWAY_SERVER"
right=0
grep -q 'rank 3' <<<"$ANSWER" && grep -q 'cpu-hog' <<<"$ANSWER" && ! grep -qE '^\[[A-Z]+\].*rank [012]' <<<"$ANSWER" || right=1
if [ "${DEMO_EXIT:-0}" = 1 ]; then
  [ $right = 0 ] && echo 'the answers are right' || echo 'the answers are wrong: rank 3 and cpu-hog should be named, and nobody else' >&2
  exit $right
fi
wait $UP
