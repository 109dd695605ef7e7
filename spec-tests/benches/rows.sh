# shellcheck shell=bash
# shellcheck disable=SC2034,SC2154 # sets what its callers use, and uses what needs.sh sets
# Rows of a benchmark: how they are asked for, measured and printed. Sourced, never run.
#
# usage of a benchmark: [--json FILE] [ROW...]
# One JSON object a row and subject on stdout (and in FILE): {row, subject, version, flags, unit, runs, median, min, max, ratio, goal, met}.
# `ratio` says how much better than the peer: above 1 is better. Exit 0 even when a goal is missed, 1 when a row could not run.

json_file="" wanted=() unable=0

rows_arguments() {
  local known=$1
  shift
  while [ $# -gt 0 ]; do
    case $1 in
      --json) json_file=${2:?--json needs a FILE}; : >"$json_file"; shift 2 ;;
      -h | --help) echo "usage: $0 [--json FILE] [ROW...], rows: $known"; exit 0 ;;
      -*) say "error: unknown option \`$1\`"; exit 2 ;;
      *)
        [[ " $known " == *" $1 "* ]] || { say "error: no row \`$1\`; rows: $known"; exit 2; }
        wanted+=("$1")
        shift
        ;;
    esac
  done
  [ ${#wanted[@]} -gt 0 ] || read -ra wanted <<<"$known"
}

# A folder in memory where there is room for it: the disk of the machine is not what is measured.
bench_folder() {
  local free
  free=$(df --output=avail -k /dev/shm 2>/dev/null | tail -n 1 || echo 0)
  if [ "${free:-0}" -gt 6000000 ] && [ -w /dev/shm ]; then mktemp -d /dev/shm/fluyt-bench-XXXXXX; else mktemp -d; fi
}

now() { printf '%s\n' "${EPOCHREALTIME/,/.}"; }

# row ROW UNIT FLAGS GOAL BETTER: prints the rows of both subjects. The runs stand in $folder/ours and $folder/peer, a number a
# line; $peer_reason says why the peer is absent. BETTER is `more` or `less`.
row() {
  local line
  while read -r line; do
    printf '%s\n' "$line"
    [ -z "$json_file" ] || printf '%s\n' "$line" >>"$json_file"
  done < <(jq -nc --arg row "$1" --arg unit "$2" --arg flags "$3" --argjson goal "$4" --arg better "$5" \
    --arg subject "$subject" --arg version "$version" --arg peer "$peer" --arg peer_version "$peer_version" --arg reason "${peer_reason:-}" \
    --slurpfile ours "$folder/ours" --slurpfile theirs "$folder/peer" '
      def round3: . * 1000 | round / 1000;
      def median: sort | if length == 0 then null elif length % 2 == 1 then .[length / 2 | floor] else (.[length / 2 - 1] + .[length / 2]) / 2 end;
      ($ours | median) as $a | ($theirs | median) as $b
      | (if $a == null or $b == null then null elif $better == "more" then $a / $b else $b / $a end) as $ratio
      | {row: $row, subject: $subject, version: $version, flags: $flags, unit: $unit, runs: ($ours | length),
         median: ($a | if . then round3 else . end), min: ($ours | min), max: ($ours | max),
         ratio: ($ratio | if . then round3 else . end), goal: $goal, met: (if $ratio == null or $goal == null then null else $ratio >= $goal end)},
        ({row: $row, subject: $peer, version: $peer_version, flags: $flags, unit: $unit, runs: ($theirs | length),
          median: ($b | if . then round3 else . end), min: ($theirs | min), max: ($theirs | max), ratio: null, goal: null, met: null}
         + (if $reason == "" then {} else {reason: $reason} end))')
  [ -s "$folder/ours" ] || unable=1
}

# row_absolute ROW UNIT FLAGS MAX: prints a row of ours alone, whose goal is at most MAX.
row_absolute() {
  local line
  line=$(jq -nc --arg row "$1" --arg unit "$2" --arg flags "$3" --argjson goal "$4" --arg subject "$subject" --arg version "$version" \
    --slurpfile ours "$folder/ours" '
      ($ours | sort | if length == 0 then null elif length % 2 == 1 then .[length / 2 | floor] else (.[length / 2 - 1] + .[length / 2]) / 2 end) as $a
      | {row: $row, subject: $subject, version: $version, flags: $flags, unit: $unit, runs: ($ours | length), median: $a, min: ($ours | min),
         max: ($ours | max), ratio: null, goal: $goal, met: (if $a == null then null else $a <= $goal end)}')
  printf '%s\n' "$line"
  [ -z "$json_file" ] || printf '%s\n' "$line" >>"$json_file"
  [ -s "$folder/ours" ] || unable=1
}
