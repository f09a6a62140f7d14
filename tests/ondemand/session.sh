#!/usr/bin/env bash
# What a batch job of Open OnDemand's `basic` template does with the scripts in folder $1, in the same order and with helpers that
# keep the same contract: before.sh is sourced, script.sh runs, after.sh is sourced, connection.yml is written, and clean.sh is
# sourced at the end.
# shellcheck disable=SC2317
cd "$1" || exit 1

port_used() {
  local port=${1#*:}
  (exec 3<> "/dev/tcp/127.0.0.1/${port}") 2> /dev/null
}
find_port() {
  local port
  port=$(shuf -i 20000-60000 -n 1)
  while port_used "${1:-localhost}:${port}"; do
    port=$(shuf -i 20000-60000 -n 1)
  done
  echo "${port}"
}
wait_until_port_used() {
  local i
  for ((i = 0; i < ${2:-30} * 2; i++)); do
    port_used "$1" && return 0
    # A server that is gone need not be waited for.
    kill -0 "${SCRIPT_PID}" 2> /dev/null || return 1
    sleep 0.5
  done
  return 1
}
create_passwd() {
  tr -cd '[:alnum:]' < /dev/urandom 2> /dev/null | head -c "${1:-32}"
}
clean_up() {
  echo "Cleaning up..."
  # shellcheck source=/dev/null
  [[ -e clean.sh ]] && source clean.sh
  [[ ${SCRIPT_PID:-} ]] && kill "${SCRIPT_PID}" 2> /dev/null
  wait
  exit "${1:-0}"
}
trap 'clean_up 1' TERM

host=$(hostname)
export host port
# shellcheck source=/dev/null
source before.sh
echo "Script starting..."
./script.sh &
SCRIPT_PID=$!
# shellcheck source=/dev/null
source after.sh
(
  umask 077
  # shellcheck disable=SC2154
  printf 'host: %s\nport: %s\npassword: %s\n' "${host}" "${port}" "${password}" > connection.yml
)
wait "${SCRIPT_PID}" || clean_up 1
clean_up
