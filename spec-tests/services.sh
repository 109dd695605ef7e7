# shellcheck shell=bash
# shellcheck disable=SC2034,SC2154 # sets what its callers use, and uses what needs.sh sets
# The services that the scripts start for themselves, each with its own folder, and stop by process id. Sourced, never run.
#
# Whoever sources this calls `stop_services` in its EXIT trap.

service_pids=()
# Of these, those that take seconds over an end that nobody waits for.
slow_pids=()

# start_registry BINARY FOLDER [FLAG...]: a fluyt-registry on a free port; sets registry_url and registry_host. It stores below
# FOLDER unless FLUYT_REGISTRY_STORE says where.
start_registry() {
  local binary=$1 folder=$2 line
  shift 2
  mkdir -p "$folder"
  : >"$folder/registry.out"
  "$binary" serve --listen 127.0.0.1:0 --store "${FLUYT_REGISTRY_STORE:-file://$folder/store}" "$@" >"$folder/registry.out" 2>"$folder/registry.log" </dev/null &
  service_pids+=($!)
  for _ in $(seq 100); do
    line=$(head -n 1 "$folder/registry.out")
    [ -z "$line" ] || break
    kill -0 "${service_pids[-1]}" 2>/dev/null || break
    sleep 0.1
  done
  registry_url=$(sed -nE 's/.*listening on (https?:\/\/[^,]*),.*/\1/p' <<<"$line")
  registry_host=${registry_url#*://}
  [ -n "$registry_url" ] || { cat "$folder/registry.log" >&2; say "error: fluyt-registry did not start (its first line: \`$line\`)"; return 1; }
}

# start_seaweedfs FOLDER: an S3 server below FOLDER on free ports, with its key in AWS_ACCESS_KEY_ID and so on; sets
# AWS_ENDPOINT_URL and s3_filer. `make_bucket` makes buckets.
start_seaweedfs() {
  local folder=$1 base
  base=$(free_ports 4 10000)
  mkdir -p "$folder/data"
  export AWS_ACCESS_KEY_ID=testkey AWS_SECRET_ACCESS_KEY=testsecretkey12345 AWS_REGION=us-east-1
  export AWS_ENDPOINT_URL=http://127.0.0.1:$((base + 3))
  s3_filer=http://127.0.0.1:$((base + 2))
  printf '{"identities":[{"name":"t","credentials":[{"accessKey":"%s","secretKey":"%s"}],"actions":["Admin","Read","Write","List","Tagging"]}]}' \
    "$AWS_ACCESS_KEY_ID" "$AWS_SECRET_ACCESS_KEY" >"$folder/s3.json"
  # Each of its ports takes another one, 10,000 higher, for gRPC.
  "$tools/python/bin/weed" server -ip=127.0.0.1 -ip.bind=127.0.0.1 -dir="$folder/data" -s3 -s3.config="$folder/s3.json" \
    -master.port="$base" -volume.port=$((base + 1)) -filer.port=$((base + 2)) -s3.port=$((base + 3)) \
    -s3.port.iceberg=0 -s3.port.lance=0 -volume.preStopSeconds=1 -volume.max=50 -master.volumeSizeLimitMB=256 \
    -master.volumePreallocate=false >"$folder/seaweedfs.log" 2>&1 </dev/null &
  service_pids+=($!)
  slow_pids+=($!)
  for _ in $(seq 300); do
    # The first object that it takes says that it is ready; the one bucket to the filer is a folder.
    ! curl -fsS -o /dev/null -T - "$s3_filer/buckets/ready/x" <<<x 2>/dev/null \
      || ! curl -sS -o /dev/null "$AWS_ENDPOINT_URL/" 2>/dev/null || return 0
    kill -0 "${service_pids[-1]}" 2>/dev/null || break
    sleep 0.2
  done
  tail -n 20 "$folder/seaweedfs.log" >&2
  say "error: SeaweedFS did not start (whole log: $folder/seaweedfs.log)"
  return 1
}

# make_bucket NAME: a bucket of the SeaweedFS that was started.
make_bucket() { curl -fsS -o /dev/null -X POST "$s3_filer/buckets/$1/"; }

# free_ports COUNT ALSO: prints the first of COUNT neighbouring ports that are free, and free again ALSO higher.
free_ports() {
  python3 - "$1" "$2" <<'PYTHON'
import os, socket, sys
count, also = int(sys.argv[1]), int(sys.argv[2])
def free(port):
    with socket.socket() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            s.bind(("127.0.0.1", port))
            return True
        except OSError:
            return False
base = 12000 + os.getpid() % 10000
while not all(free(p) and free(p + also) for p in range(base, base + count)):
    base = 12000 if base > 22000 else base + count
print(base)
PYTHON
}

# start_round_robin FOLDER HOST...: one address before several, which get one request each in turn; sets registry_host.
start_round_robin() {
  local folder=$1 port host
  shift
  port=$(free_ports 1 0)
  mkdir -p "$folder/temporary"
  {
    # As root nginx would change its user, who may not read the folder.
    [ "$(id -u)" != 0 ] || printf 'user root;\n'
    printf 'daemon off; pid %s/pid; error_log %s/error.log; worker_processes 1; events { worker_connections 1024; }\n' "$folder" "$folder"
    printf 'http { access_log off; client_max_body_size 0; proxy_http_version 1.1; proxy_request_buffering off; proxy_buffering off;\n'
    for host in client_body proxy fastcgi uwsgi scgi; do printf '%s_temp_path %s/temporary/%s;\n' $host "$folder" $host; done
    printf 'upstream replicas {\n'
    printf 'server %s;\n' "$@"
    # shellcheck disable=SC2016 # the variable is nginx's
    printf '}\nserver { listen 127.0.0.1:%s; location / { proxy_pass http://replicas; proxy_set_header Host $http_host; } }\n}\n' "$port"
  } >"$folder/nginx.conf"
  /usr/sbin/nginx -p "$folder" -c "$folder/nginx.conf" >"$folder/nginx.log" 2>&1 </dev/null &
  service_pids+=($!)
  registry_host=127.0.0.1:$port
  for _ in $(seq 100); do
    ! curl -fsS -o /dev/null "http://$registry_host/v2/" 2>/dev/null || return 0
    kill -0 "${service_pids[-1]}" 2>/dev/null || break
    sleep 0.1
  done
  cat "$folder/nginx.log" "$folder/error.log" >&2
  say "error: nginx did not start"
  return 1
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
  for pid in "${slow_pids[@]}"; do
    kill -9 "$pid" 2>/dev/null || true
  done
  for pid in "${service_pids[@]}"; do
    kill "$pid" 2>/dev/null || true
  done
  for pid in "${service_pids[@]}"; do
    wait "$pid" 2>/dev/null || true
  done
  service_pids=() slow_pids=()
}
