#!/usr/bin/env bash
# Spark with Apache Iceberg over a catalog in SQLite and a warehouse in a directory, for tests of its maintenance.
#   spark.sh fetch                   download the jars, once
#   spark.sh sql CATALOG WAREHOUSE   run statements until the end of standard input, one a line; see SparkSql.java
# CATALOG is the SQLite file, WAREHOUSE a directory. The catalog is called causeway:
# CALL causeway.system.expire_snapshots(table => 'silver.events', …). Warnings go to standard error.
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
SPARK_VERSION=4.1.3 ICEBERG_VERSION=1.12.0 SQLITE_JDBC_VERSION=3.54.1.0
JARS=$CACHE/spark-$SPARK_VERSION-iceberg-$ICEBERG_VERSION

usage() { sed -n '3,4s/^# *//p' "$0" >&2; exit 2; }

fetch() {
  maven_jars "$JARS" "org.apache.spark:spark-sql_2.13:$SPARK_VERSION" \
    "org.apache.iceberg:iceberg-spark-runtime-4.1_2.13:$ICEBERG_VERSION" "org.xerial:sqlite-jdbc:$SQLITE_JDBC_VERSION"
}

# Packages that Spark opens to itself (`JavaModuleOptions` of its launcher, which is not used here).
OPENED=(java.lang java.lang.invoke java.lang.reflect java.io java.net java.nio java.util java.util.concurrent
  java.util.concurrent.atomic jdk.internal.ref sun.nio.ch sun.nio.cs sun.security.action sun.util.calendar)

sql() {
  local catalog=spark.sql.catalog.causeway temporary=${TMPDIR:-/tmp} package opens=()
  fetch
  for package in "${OPENED[@]}"; do opens+=("--add-opens=java.base/$package=ALL-UNNAMED"); done
  # Hadoop 3.4 calls `Subject.getSubject`, which Java 24 and later do not have.
  use_java 17 21
  # The first compiler alone and one thread: a run is over before the second compiler would pay.
  exec "$JAVA_HOME/bin/java" -Xmx768m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 "-Djava.io.tmpdir=$temporary" \
    "${opens[@]}" -cp "$JARS/*" "$(dirname "${BASH_SOURCE[0]}")/SparkSql.java" \
    spark.master=local[1] spark.ui.enabled=false spark.log.level=WARN spark.driver.host=127.0.0.1 \
    spark.driver.bindAddress=127.0.0.1 "spark.local.dir=$temporary" \
    "spark.sql.warehouse.dir=$temporary/spark-warehouse" spark.sql.shuffle.partitions=1 spark.sql.session.timeZone=UTC \
    spark.sql.extensions=org.apache.iceberg.spark.extensions.IcebergSparkSessionExtensions \
    $catalog=org.apache.iceberg.spark.SparkCatalog $catalog.catalog-impl=org.apache.iceberg.jdbc.JdbcCatalog \
    "$catalog.uri=jdbc:sqlite:$1" "$catalog.warehouse=file://$2" $catalog.jdbc.schema-version=V1 \
    $catalog.cache-enabled=false
}

case ${1:-}-$# in
  fetch-1) fetch ;;
  sql-3) sql "$(realpath "$2")" "$(realpath "$3")" ;;
  *) usage ;;
esac
