# Shared by tests/compose/run and tests/kubernetes/run; sourced, not run.
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
cache=${OTTLA_TESTS_CACHE:-$HOME/.cache/ottla-tests}
python=$cache/venv/bin/python
passed=0

say() { printf '%s %s\n' "$(date -u +%H:%M:%S)" "$*"; }
die() { say "FAILED: $*" >&2; exit 1; }
pass() { passed=$((passed + 1)); say "ok $passed: $*"; }
# until_true SECONDS WHAT COMMAND…
until_true() {
  local until=$((SECONDS + $1)) what=$2; shift 2
  until "$@" > "$work/until" 2>&1; do
    [ $SECONDS -lt $until ] || { cat "$work/until" >&2; die "$what: not in time"; }
    sleep 0.2
  done
}
now_ms() { date +%s%3N; }

# A Kafka client that is not ours, in the environment that tests/interop uses too.
install_clients() {
  if [ ! -x "$python" ]; then
    python3 -c 'import ensurepip' 2> /dev/null || install_packages python3-venv
    mkdir -p "$cache"; python3 -m venv "$cache/venv"
  fi
  "$python" -c 'import confluent_kafka' 2> /dev/null ||
    "$cache/venv/bin/pip" install -q --disable-pip-version-check \
      "$(grep confluent-kafka "$root/tests/interop/requirements.txt")"
}
install_packages() {
  timeout 300 apt-get update -qq
  DEBIAN_FRONTEND=noninteractive timeout 900 apt-get install -y -qq --no-install-recommends "$@" > /dev/null
}

workload=
# start_workload BOOTSTRAP TOPIC: writes until stop_workload, which proves that nothing failed and nothing is lost.
start_workload() {
  workload_bootstrap=$1 workload_topic=$2
  "$python" "$root/tests/deploy/workload.py" --bootstrap "$1" --topic "$2" --result "$work/$2.json" > "$work/$2.log" 2>&1 &
  workload=$!
  sleep 2
}
stop_workload() {
  kill -TERM "$workload" 2> /dev/null || true
  local code=0; wait "$workload" || code=$?
  workload=
  say "   $(tail -1 "$work/$workload_topic.log")"
  [ $code -eq 0 ] || { cat "$work/$workload_topic.log" >&2; die "requests of the workload failed"; }
  check_workload "$workload_bootstrap" "$workload_topic"
}
check_workload() {
  local text
  text=$("$python" "$root/tests/deploy/workload.py" --bootstrap "$1" --topic "$2" --check "$work/$2.json") ||
    { echo "$text" >&2; die "records of $2 are not what was acknowledged"; }
  say "   $text"
}
