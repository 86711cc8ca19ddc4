#!/usr/bin/env bash
# Real Apache Kafka (KRaft, broker and controller in one process) from Maven's jars, on 127.0.0.1 only.
#   kafka.sh up DATA_DIR [--brokers 1|3] [--port 19092|auto]   start, or start again; the first up fixes the options
#   kafka.sh down|status|env DATA_DIR                          env prints KAFKA_BOOTSTRAP=...
#   kafka.sh kill DATA_DIR [BROKER]                            SIGKILL one broker (default 1); up brings it back
#   kafka.sh fetch                                             download only
# Topics are made by their users: the broker makes none by itself.
# Broker i of n listens at port + 10*(i-1), its controller one above. KAFKA_HEAP sets the heap (512m).
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
KAFKA_VERSION=4.4.0
LOG4J_VERSION=2.25.5 # the published pom names no log back end: without it there is no log
KAFKA_HEAP=${KAFKA_HEAP:-512m}
LIBS=$CACHE/kafka-$KAFKA_VERSION

usage() { sed -n '3,6s/^# *//p' "$0" >&2; exit 2; }
fetch() { maven_jars "$LIBS" "org.apache.kafka:kafka_2.13:$KAFKA_VERSION" "org.apache.logging.log4j:log4j-slf4j-impl:$LOG4J_VERSION"; }

if [ "${1:-}" = fetch ]; then fetch; exit; fi
[ $# -ge 2 ] || usage
CMD=$1 DIR=$(realpath -m "$2") BROKERS=1 PORT=19092
shift 2
# shellcheck source=/dev/null
[ ! -f "$DIR/options" ] || . "$DIR/options"
if [ "$CMD" = up ]; then
  while [ $# -gt 0 ]; do
    [ $# -ge 2 ] || usage
    case $1 in --brokers) BROKERS=$2 ;; --port) [ -f "$DIR/options" ] || PORT=$2 ;; *) usage ;; esac
    shift 2
  done
fi

base() { echo $((PORT + 10 * ($1 - 1))); }
properties() { echo "$DIR/broker-$1/server.properties"; }
pidfile() { echo "$DIR/broker-$1/pid"; }
each_broker() { local i; for ((i = 1; i <= BROKERS; i++)); do "$@" "$i"; done; }
bootstrap() { local i out=''; for ((i = 1; i <= BROKERS; i++)); do out+=${out:+,}127.0.0.1:$(base "$i"); done; echo "$out"; }

configure() { # write the broker's server.properties and format its storage, once
  local i=$1 dir=$DIR/broker-$1 replicas=$((BROKERS < 3 ? 1 : 3)) in_sync=$((BROKERS < 3 ? 1 : 2)) voters='' j
  [ ! -f "$dir/formatted" ] || return 0
  for ((j = 1; j <= BROKERS; j++)); do voters+=${voters:+,}$j@127.0.0.1:$(($(base "$j") + 1)); done
  mkdir -p "$dir"
  # broker.session.timeout.ms: with the default of 9 s a restart after SIGKILL waits for the old registration to expire.
  cat >"$(properties "$i")" <<P
process.roles=broker,controller
node.id=$i
controller.quorum.voters=$voters
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://127.0.0.1:$(base "$i"),CONTROLLER://127.0.0.1:$(($(base "$i") + 1))
advertised.listeners=PLAINTEXT://127.0.0.1:$(base "$i")
log.dirs=$dir/data
auto.create.topics.enable=false
default.replication.factor=$replicas
offsets.topic.replication.factor=$replicas
transaction.state.log.replication.factor=$replicas
min.insync.replicas=$in_sync
transaction.state.log.min.isr=$in_sync
offsets.topic.num.partitions=8
transaction.state.log.num.partitions=8
group.initial.rebalance.delay.ms=0
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=500
P
  "$JAVA_HOME/bin/java" -Xmx128m -cp "$LIBS/*" kafka.tools.StorageTool format -t "$(cat "$DIR/cluster-id")" -c "$(properties "$i")" \
    --ignore-formatted >"$dir/format.log" 2>&1 </dev/null || { cat "$dir/format.log" >&2; die "cannot format the storage of broker $i"; }
  touch "$dir/formatted"
}

start() {
  local i=$1
  if running "$(pidfile "$i")" "$(properties "$i")"; then return; fi
  port_free "$(base "$i")"
  spawn "$(pidfile "$i")" "$DIR/broker-$i/server.log" "$JAVA_HOME/bin/java" "-Xmx$KAFKA_HEAP" -XX:+ExitOnOutOfMemoryError -Djava.awt.headless=true \
    -Dlog4j2.configurationFile="$DIR/log4j2.properties" -cp "$LIBS/*" kafka.Kafka "$(properties "$i")"
}
ready() {
  local log=$DIR/broker-$1/server.log
  wait_for "kafka $KAFKA_VERSION broker $1 at 127.0.0.1:$(base "$1")" "$(pidfile "$1")" "$(properties "$1")" "$log" grep -q 'Kafka Server started' "$log"
}

up() {
  case $BROKERS in 1 | 3) ;; *) usage ;; esac
  use_java 17; need setsid flock; fetch
  mkdir -p "$DIR"
  if [ ! -f "$DIR/options" ]; then
    if [ "$PORT" = auto ]; then PORT=$(claim_port "$DIR"); fi
    declare -p BROKERS PORT >"$DIR/options"
  fi
  [ -f "$DIR/cluster-id" ] || head -c 16 /dev/urandom | base64 | tr '+/' '-_' | tr -d '=' | sed 's/^-/a/' >"$DIR/cluster-id"
  printf '%s\n' rootLogger=INFO,out appender.out.type=Console appender.out.name=out appender.out.layout.type=PatternLayout \
    'appender.out.layout.pattern=%d %p %m (%c)%n' >"$DIR/log4j2.properties"
  each_broker configure; each_broker start; each_broker ready
}

down() {
  local i
  for ((i = BROKERS; i >= 1; i--)); do stop "$(pidfile "$i")" "$(properties "$i")" TERM & done
  wait
}

status() {
  local i rc=0
  for ((i = 1; i <= BROKERS; i++)); do
    if running "$(pidfile "$i")" "$(properties "$i")"; then
      echo "broker $i up pid $(cat "$(pidfile "$i")") rss $(rss_mb "$(pidfile "$i")") MB port $(base "$i")"
    else echo "broker $i down"; rc=1; fi
  done
  return $rc
}

case $CMD in
  up) up ;;
  down) down ;;
  status) status ;;
  env) echo "KAFKA_BOOTSTRAP=$(bootstrap)" ;;
  kill) stop "$(pidfile "${1:-1}")" "$(properties "${1:-1}")" KILL ;;
  *) usage ;;
esac
