# shellcheck shell=bash
# shellcheck disable=SC2034,SC2154 # sets what its callers use, and uses what they set
# How long an image takes from its blobs on this machine to folders that can be mounted. Sourced, never run.
#
# Ours and skopeo's and containerd's check both digests of every layer; GNU tar checks nothing.

# unpack_in_turns NAME: each unpacks the large base, one after the other, so many times.
unpack_in_turns() {
  local name=$1 subject_of number context=$place/unpack/context
  mkdir -p "$context"
  printf 'FROM %s/large-base\nRUN true\n' "$registry" >"$context/Dockerfile"
  "$fluyt" --store "$place/unpack/pulled" pull --output "$place/unpack/layout" "$registry/large-base" >"$folder/log" 2>&1 </dev/null \
    || { failed fluyt "$name"; return 0; }
  unpackers=(fluyt tar)
  ! command -v skopeo >/dev/null || unpackers+=(skopeo)
  start_containerd && unpackers+=(containerd)
  for subject_of in fluyt tar skopeo containerd; do : >"$folder/$name.$subject_of"; done
  for number in $(seq "$runs"); do
    for subject_of in "${unpackers[@]}"; do
      "before_$subject_of"
      timed "unpack_$subject_of" >>"$folder/$name.$subject_of" || failed "$subject_of" "$name"
      "after_$subject_of"
    done
    say "$name: run $number of $runs ($(cut -d ' ' -f 1 /proc/loadavg) load)"
  done
  stop_containerd
  against "$name" "GNU tar" tar "$(tar --version | awk 'NR == 1 { print $NF }')" 2
  against "$name-skopeo" skopeo skopeo "$(skopeo --version 2>/dev/null | awk '{ print $NF }')" null
  against "$name-containerd" containerd containerd "$(containerd --version 2>/dev/null | awk '{ print $3 }')" null
  rm -rf "$place/unpack"
}

# against ROW PEER FILES VERSION GOAL
against() {
  local base=${1%-"$3"}
  subject=fluyt version=$fluyt_version peer=$2 peer_version=$4 peer_reason=""
  [ -s "$folder/$base.$3" ] || peer_reason="it is not installed, or could not do it"
  cp "$folder/$base.fluyt" "$folder/ours"
  cp "$folder/$base.$3" "$folder/peer"
  row "$1" s "376 MB in four layers of gzip on $medium, blobs on this machine; ours with a RUN of true, skopeo into overlay storage, containerd by import; tar one layer after the other" "$5" less
}

# The store has the blobs, and nothing is unpacked.
before_fluyt() {
  rm -rf "$place/unpack/store"
  cp -a "$place/unpack/pulled" "$place/unpack/store"
  sync -f "$place/unpack/store"
}
unpack_fluyt() { "$fluyt" --store "$place/unpack/store" build --progress plain "$place/unpack/context"; }
after_fluyt() { rm -rf "$place/unpack/store"; }

before_tar() { mkdir -p "$place/unpack/tar"; }
unpack_tar() {
  local digest number=0
  for digest in $(layers_of_layout); do
    mkdir -p "$place/unpack/tar/$number"
    tar -xzf "$place/unpack/layout/blobs/sha256/$digest" -C "$place/unpack/tar/$number"
    number=$((number + 1))
  done
}
after_tar() { rm -rf "$place/unpack/tar"; }

layers_of_layout() {
  local manifest
  manifest=$(jq -r '.manifests[0].digest' "$place/unpack/layout/index.json")
  jq -r '.layers[].digest' "$place/unpack/layout/blobs/sha256/${manifest#sha256:}" | cut -d : -f 2
}

before_skopeo() { :; }
unpack_skopeo() {
  skopeo copy --quiet "oci:$place/unpack/layout" "containers-storage:[overlay@$place/unpack/skopeo+$place/unpack/skopeo-run]localhost/large:1"
}
after_skopeo() {
  umount -l "$place/unpack/skopeo/overlay" 2>/dev/null || true
  rm -rf "$place/unpack/skopeo" "$place/unpack/skopeo-run"
}

containerd_pid=""
start_containerd() {
  command -v containerd >/dev/null && command -v ctr >/dev/null || return 1
  tar -cf "$place/unpack/layout.tar" -C "$place/unpack/layout" .
  printf 'version = 2\nroot = "%s"\nstate = "%s"\ndisabled_plugins = ["io.containerd.grpc.v1.cri"]\n[grpc]\naddress = "%s"\n' \
    "$place/unpack/containerd" "$place/unpack/containerd-state" "$place/unpack/containerd.sock" >"$place/unpack/containerd.toml"
  containerd --config "$place/unpack/containerd.toml" >"$folder/containerd.log" 2>&1 &
  containerd_pid=$!
  for _ in $(seq 100); do
    ctr --address "$place/unpack/containerd.sock" version >/dev/null 2>&1 && return 0
    sleep 0.1
  done
  stop_containerd
  return 1
}
stop_containerd() {
  [ -n "$containerd_pid" ] || return 0
  kill "$containerd_pid" 2>/dev/null || true
  wait "$containerd_pid" 2>/dev/null || true
  containerd_pid=""
}
before_containerd() { :; }
unpack_containerd() { ctr --address "$place/unpack/containerd.sock" images import --base-name localhost/large "$place/unpack/layout.tar"; }
after_containerd() {
  ctr --address "$place/unpack/containerd.sock" images list -q | xargs -r ctr --address "$place/unpack/containerd.sock" images remove --sync >/dev/null 2>&1 || true
}
