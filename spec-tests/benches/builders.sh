# shellcheck shell=bash
# shellcheck disable=SC2034,SC2154 # sets what its callers use, and uses what they set
# The builders that a benchmark compares, and the registry that all push to. Sourced, never run.
#
# Each keeps its things below $place: start_all begins, stop_all ends what runs there; forget BUILDER empties a builder's store;
# build BUILDER CONTEXT ROW NUMBER builds the context and pushes it as ROW-BUILDER:NUMBER.

registry="" registry_pid="" buildkitd_pid="" socket=""
buildkit_reason="" buildah_reason="" fluyt_version="" buildkit_version_found="" buildah_version_found=""

find_builders() {
  fluyt_version=$("$fluyt" --version | awk '{ print $NF }')
  if [ -x "$tools/buildkitd" ] && command -v runc >/dev/null; then
    buildkit_version_found=${buildkit_version#v} # what is built from a module does not know its version
  else
    buildkit_reason="buildkitd could not be built, or runc is not installed"
  fi
  if command -v buildah >/dev/null; then
    buildah_version_found=$(buildah --version | awk '{ print $3 }')
  else
    buildah_reason="it is not installed"
  fi
}

flags_said() {
  printf 'gzip each; BuildKit: warm daemon, overlayfs, host network; buildah: --layers where steps are many, overlay, host network; %s' \
    "$(df --output=fstype "$place" | tail -n 1)"
}

able() {
  case $1 in
    fluyt | fluyt-r2) return 0 ;;
    buildkit) [ -z "$buildkit_reason" ] ;;
    buildah) [ -z "$buildah_reason" ] ;;
  esac
}

# failed BUILDER ROW: says why; a peer that fails takes part in this row no more.
failed() {
  say "error: $1 cannot do $2:"
  tail -n 15 "$folder/log" >&2
  [[ $1 != fluyt* ]] || unable=1
}

start_all() {
  local line
  mkdir -p "$place/registry" "$place/run"
  : >"$place/run/registry"
  "$binaries/fluyt-registry" serve --listen 127.0.0.1:0 --store "file://$place/registry" \
    >"$place/run/registry" 2>"$place/run/registry.log" &
  registry_pid=$!
  for _ in $(seq 100); do
    line=$(head -n 1 "$place/run/registry" || true)
    [ -z "$line" ] || break
    sleep 0.1
  done
  registry=$(sed -E 's|.*http://([^,]*),.*|\1|' <<<"$line")
  [ -n "$registry" ] || stop "the registry does not start: $(tail -n 3 "$place/run/registry.log")"
  able buildkit || return 0
  socket=$place/run/buildkitd.sock
  printf '[registry."%s"]\n  http = true\n' "$registry" >"$place/run/buildkitd.toml"
  "$tools/buildkitd" --config "$place/run/buildkitd.toml" --root "$place/buildkit" --addr "unix://$socket" --oci-worker=true \
    --containerd-worker=false --oci-worker-net=host --oci-worker-snapshotter=overlayfs >"$place/run/buildkitd.log" 2>&1 &
  buildkitd_pid=$!
  for _ in $(seq 100); do
    "$tools/buildctl" --addr "unix://$socket" debug workers >/dev/null 2>&1 && return 0
    sleep 0.1
  done
  buildkit_reason="buildkitd does not start: $(tail -n 1 "$place/run/buildkitd.log")"
}

stop_all() {
  local pid
  for pid in $buildkitd_pid $registry_pid; do
    kill "$pid" 2>/dev/null || continue
    wait "$pid" 2>/dev/null || true
  done
  buildkitd_pid="" registry_pid=""
  # What a builder leaves mounted would keep its folder from being removed.
  [ -z "${place:-}" ] || awk -v place="$place/" 'index($2, place) == 1 { print $2 }' /proc/self/mounts | sort -r | xargs -r -n 1 umount -l 2>/dev/null || true
  [ -z "${place:-}" ] || rm -rf "${place:?}"/{registry,run,buildkit,buildah,fluyt,fluyt-r2,forgotten,unpack}
}

# publish NAME CONTEXT: an image that the rows start from.
publish() {
  "$fluyt" --store "$place/fluyt/publish" build -t "$registry/$1" --push "$2" >"$folder/log" 2>&1 || { failed fluyt "$1"; exit 3; }
  rm -rf "$place/fluyt/publish"
}

buildah_flags() { printf '%s\n' --root "$place/buildah/root" --runroot "$place/buildah/run" --storage-driver overlay; }

# On a disk what is forgotten is put aside: ext4 without a journal passes by every inode deleted in the last minute when it makes a file,
# so that a row of many small files would measure what removed the store before it.
forget() {
  case $1 in
    fluyt | fluyt-r2)
      if [ "$medium" = disk ]; then
        mkdir -p "$place/forgotten"
        [ ! -e "$place/$1/store" ] || mv "$place/$1/store" "$(mktemp -d "$place/forgotten/XXXXXX")"
      else
        rm -rf "$place/$1/store"
      fi
      ;;
    buildkit) "$tools/buildctl" --addr "unix://$socket" prune --all >/dev/null ;;
    buildah)
      umount -l "$place/buildah/root/overlay" 2>/dev/null || true # it leaves its folder mounted on itself
      rm -rf "$place/buildah"
      ;;
  esac
}

build() {
  local builder=$1 context=$2 name=$registry/$3-$1:$4 flags layers=false
  case $builder in
    fluyt) "${measured[@]}" "$fluyt" --store "$place/fluyt/store" build --progress plain -t "$name" --push "$context" ;;
    fluyt-r2) "$fluyt" --store "$place/fluyt-r2/store" build --isolation r2 --progress plain -t "$name" --push "$context" ;;
    buildkit)
      "$tools/buildctl" --addr "unix://$socket" build --progress plain --frontend dockerfile.v0 --local context="$context" \
        --local dockerfile="$context" --output "type=image,name=$name,push=true,registry.insecure=true"
      ;;
    buildah)
      mapfile -t flags < <(buildah_flags)
      case $3 in cached* | chained* | stages*) layers=true ;; esac
      "${measured[@]}" buildah "${flags[@]}" bud --quiet --layers="$layers" --network host --tls-verify=false -t "$name" "$context" \
        && "${measured_more[@]}" buildah "${flags[@]}" push --quiet --tls-verify=false "$name"
      ;;
  esac
}
measured=() measured_more=()

# timed COMMAND...: prints how many seconds it took.
timed() {
  local start end
  start=$(now)
  "$@" >"$folder/log" 2>&1 </dev/null || return 1
  end=$(now)
  awk -v s="$start" -v e="$end" 'BEGIN { printf "%.3f\n", e - s }'
}

# peak build BUILDER...: prints the largest resident memory of the builder in MiB: of its process, or of BuildKit's daemon.
peak() {
  local kib
  if [ "$2" = buildkit ]; then
    echo 5 >"/proc/$buildkitd_pid/clear_refs" # the peak counts from here
    "$@" >"$folder/log" 2>&1 </dev/null || return 1
    kib=$(awk '/^VmHWM/ { print $2 }' "/proc/$buildkitd_pid/status")
  else
    measured=(/usr/bin/time -f %M -o "$folder/peak") measured_more=(/usr/bin/time -a -f %M -o "$folder/peak")
    "$@" >"$folder/log" 2>&1 </dev/null || { measured=() measured_more=(); return 1; }
    measured=() measured_more=()
    kib=$(sort -n "$folder/peak" | tail -n 1)
  fi
  awk -v kib="$kib" 'BEGIN { printf "%.1f\n", kib / 1024 }'
}

# pushed_bytes BUILDER ROW NUMBER: the size of the layers that were pushed.
pushed_bytes() {
  local accept=application/vnd.oci.image.manifest.v1+json,application/vnd.docker.distribution.manifest.v2+json
  curl -sf -H "Accept: $accept" "http://$registry/v2/$2-$1/manifests/$3" | jq '[.layers[].size] | add' || true
}
