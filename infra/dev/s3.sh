#!/usr/bin/env bash
# S3 and SQS from moto (PyPI), on 127.0.0.1 only, with faults to order. In memory: a killed server comes back empty.
#   s3.sh up DATA_DIR [--port 14566|auto] [--bucket lake]   start, or start again; the first up fixes the options
#   s3.sh down|status|kill|env DATA_DIR                     env prints AWS_ENDPOINT_URL=... and S3_BUCKET=...
#   s3.sh fault DATA_DIR QUERY                              e.g. 'status=503&seconds=5'; see s3-server.py, 'clear' ends it
# Keys test/test (not checked), region us-east-1, path-style addresses.
HERE=$(dirname "$(realpath "${BASH_SOURCE[0]}")")
# shellcheck source=SCRIPTDIR/common.sh
. "$HERE/common.sh"

usage() { sed -n '3,5s/^# *//p' "$0" >&2; exit 2; }
[ $# -ge 2 ] || usage
CMD=$1 DIR=$(realpath -m "$2") PORT=14566 BUCKET=lake
shift 2
# shellcheck source=/dev/null
[ ! -f "$DIR/options" ] || . "$DIR/options"
if [ "$CMD" = up ]; then
  while [ $# -gt 0 ]; do
    [ $# -ge 2 ] || usage
    case $1 in --port) [ -f "$DIR/options" ] || PORT=$2 ;; --bucket) BUCKET=$2 ;; *) usage ;; esac
    shift 2
  done
fi
PIDFILE=$DIR/pid LOG=$DIR/server.log

up() {
  need curl setsid flock "$VENV/bin/python"
  mkdir -p "$DIR"
  if [ ! -f "$DIR/options" ]; then
    if [ "$PORT" = auto ]; then PORT=$(claim_port "$DIR"); fi
    declare -p PORT BUCKET >"$DIR/options"
  fi
  if ! running "$PIDFILE" "$DIR"; then
    port_free "$PORT"
    spawn "$PIDFILE" "$LOG" env TMPDIR="$DIR" "$VENV/bin/python" "$HERE/s3-server.py" --port "$PORT" --mark "$DIR"
  fi
  wait_for "s3 at http://127.0.0.1:$PORT" "$PIDFILE" "$DIR" "$LOG" http_ok "http://127.0.0.1:$PORT/__fault"
  curl -fsS -m 10 -o /dev/null -X PUT "http://127.0.0.1:$PORT/$BUCKET" || die "cannot create bucket $BUCKET"
}

case $CMD in
  up) up ;;
  down) stop "$PIDFILE" "$DIR" TERM ;;
  kill) stop "$PIDFILE" "$DIR" KILL ;;
  status)
    if running "$PIDFILE" "$DIR" && port_open "$PORT"; then echo "s3 up pid $(cat "$PIDFILE") rss $(rss_mb "$PIDFILE") MB http://127.0.0.1:$PORT"
    else echo "s3 down"; exit 1; fi ;;
  env)
    printf '%s\n' "AWS_ENDPOINT_URL=http://127.0.0.1:$PORT" AWS_ACCESS_KEY_ID=test AWS_SECRET_ACCESS_KEY=test AWS_REGION=us-east-1 "S3_BUCKET=$BUCKET" ;;
  fault) [ $# -eq 1 ] || usage; curl -fsS -m 5 -X POST "http://127.0.0.1:$PORT/__fault?$1" ;;
  *) usage ;;
esac
