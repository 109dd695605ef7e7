# shellcheck shell=bash
# shellcheck disable=SC2034,SC2154 # sets what its callers use, and uses what needs.sh sets
# The services that the scripts start for themselves, each with its own folder, and stop by process id. Sourced, never run.
#
# Whoever sources this calls `stop_services` in its EXIT trap.

service_pids=()

# start_registry BINARY FOLDER [FLAG...]: a fluyt-registry on a free port; sets registry_url and registry_host.
start_registry() {
  local binary=$1 folder=$2 line
  shift 2
  mkdir -p "$folder"
  : >"$folder/registry.out"
  "$binary" serve --listen 127.0.0.1:0 --store "file://$folder/store" "$@" >"$folder/registry.out" 2>"$folder/registry.log" </dev/null &
  service_pids+=($!)
  for _ in $(seq 100); do
    line=$(head -n 1 "$folder/registry.out")
    [ -z "$line" ] || break
    kill -0 "${service_pids[-1]}" 2>/dev/null || break
    sleep 0.1
  done
  registry_url=$(sed -nE 's/.*listening on (http:\/\/[^,]*),.*/\1/p' <<<"$line")
  registry_host=${registry_url#http://}
  [ -n "$registry_url" ] || { cat "$folder/registry.log" >&2; say "error: fluyt-registry did not start (its first line: \`$line\`)"; return 1; }
}

# start_dockerd FOLDER: a Docker daemon of our own below FOLDER; sets DOCKER_HOST. It ends when this script does, however
# that ends, because it watches a pipe that only this script holds open.
start_dockerd() {
  local folder=$1
  mkdir -p "$folder"
  mkfifo "$folder/alive" 2>/dev/null || true
  "$repository/spec-tests/dockerd" "$folder" <"$folder/alive" >"$folder/dockerd.log" 2>&1 &
  service_pids+=($!)
  exec {dockerd_alive}>"$folder/alive"
  export DOCKER_HOST=unix://$folder/docker.sock
  for _ in $(seq 300); do
    ! docker version >/dev/null 2>&1 || return 0
    kill -0 "${service_pids[-1]}" 2>/dev/null || break
    sleep 0.1
  done
  tail -n 20 "$folder/dockerd.log" >&2
  say "error: dockerd did not start (whole log: $folder/dockerd.log)"
  return 1
}

stop_services() {
  local pid
  [ -z "${dockerd_alive:-}" ] || exec {dockerd_alive}>&-
  for pid in "${service_pids[@]}"; do
    kill "$pid" 2>/dev/null || true
  done
  for pid in "${service_pids[@]}"; do
    wait "$pid" 2>/dev/null || true
  done
  service_pids=()
}
