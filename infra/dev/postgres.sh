#!/usr/bin/env bash
# A private PostgreSQL 15 (Debian's postgresql-15) on 127.0.0.1 only, with password authentication.
#   postgres.sh up DATA_DIR [--port 15432|auto]   start, or start again; the first up fixes the port
#   postgres.sh down|status|kill|env DATA_DIR     kill is SIGKILL; env prints PGHOST=... and DATABASE_URL=...
# User causeway with password causeway-secret (superuser), database iceberg.
# As root the server runs as user postgres, who must be able to reach DATA_DIR: /tmp will do, a private home will not.
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
DB_USER=causeway DB_PASSWORD=causeway-secret DB_NAME=iceberg
BIN=/usr/lib/postgresql/15/bin

usage() { sed -n '3,4s/^# *//p' "$0" >&2; exit 2; }
[ $# -ge 2 ] || usage
CMD=$1 DIR=$(realpath -m "$2") PORT=15432
shift 2
# shellcheck source=/dev/null
[ ! -f "$DIR/options" ] || . "$DIR/options"
case $CMD-$#-${1:-} in up-2---port) [ -f "$DIR/options" ] || PORT=$2 ;; *-0-) ;; *) usage ;; esac
DATA=$DIR/data PIDFILE=$DIR/pid LOG=$DIR/server.log

AS=()
if [ "$(id -u)" = 0 ]; then AS=(setpriv --reuid=postgres --regid=postgres --init-groups --); fi
sql() { PGPASSWORD=$DB_PASSWORD psql -h 127.0.0.1 -p "$PORT" -U "$DB_USER" -d postgres -qAt -v ON_ERROR_STOP=1 -c "$1" </dev/null; }

# Temporary directories are made 0700: let user postgres pass through those that are ours, and name any other in the way.
open_path() {
  local path=$DIR
  while [ "$path" != / ]; do
    if ! "${AS[@]}" test -x "$path"; then
      case $path in
        "$DIR" | /tmp/* | /var/tmp/*) chmod o+x "$path" ;;
        *) "${AS[@]}" test -e "$path" && die "user postgres cannot enter $path: choose a directory under /tmp" ;;
      esac
    fi
    path=$(dirname "$path")
  done
  "${AS[@]}" test -x "$DIR" || die "user postgres cannot reach $DIR: choose a directory under /tmp"
}

init() {
  local new=$DIR/data.new
  rm -rf "$new" "$new.password"; mkdir -m 700 "$new"
  (umask 077; echo "$DB_PASSWORD" >"$new.password")
  if [ ${#AS[@]} -gt 0 ]; then chown postgres: "$new" "$new.password"; fi
  "${AS[@]}" "$BIN/initdb" -D "$new" -U "$DB_USER" --auth=scram-sha-256 --pwfile="$new.password" --encoding=UTF8 --locale=C.UTF-8 \
    >"$DIR/initdb.log" 2>&1 </dev/null || { tail -n 5 "$DIR/initdb.log" >&2; die "initdb failed; log: $DIR/initdb.log"; }
  rm "$new.password"; mv "$new" "$DATA"
}

up() {
  need "$BIN/postgres" psql setsid flock
  mkdir -p "$DIR"
  if [ ! -f "$DIR/options" ]; then
    if [ "$PORT" = auto ]; then PORT=$(claim_port "$DIR"); fi
    declare -p PORT >"$DIR/options"
  fi
  if [ ${#AS[@]} -gt 0 ]; then open_path; fi
  [ -d "$DATA" ] || init
  if ! running "$PIDFILE" "$DATA"; then
    port_free "$PORT"
    spawn "$PIDFILE" "$LOG" "${AS[@]}" "$BIN/postgres" -D "$DATA" -p "$PORT" -c listen_addresses=127.0.0.1 -c unix_socket_directories= \
      -c shared_buffers=64MB -c max_connections=100
  fi
  wait_for "postgres at 127.0.0.1:$PORT" "$PIDFILE" "$DATA" "$LOG" sql 'select 1'
  [ -n "$(sql "select 1 from pg_database where datname = '$DB_NAME'")" ] || sql "create database $DB_NAME"
}

case $CMD in
  up) up ;;
  down) stop "$PIDFILE" "$DATA" INT ;;
  kill) stop "$PIDFILE" "$DATA" KILL ;;
  status)
    if running "$PIDFILE" "$DATA"; then echo "postgres up pid $(cat "$PIDFILE") rss $(rss_mb "$PIDFILE") MB port $PORT"
    else echo "postgres down"; exit 1; fi ;;
  env)
    printf '%s\n' PGHOST=127.0.0.1 "PGPORT=$PORT" "PGUSER=$DB_USER" "PGPASSWORD=$DB_PASSWORD" "PGDATABASE=$DB_NAME" \
      "DATABASE_URL=postgres://$DB_USER:$DB_PASSWORD@127.0.0.1:$PORT/$DB_NAME" ;;
  *) usage ;;
esac
