#!/usr/bin/env bash
# Counts the instructions of uncontended calls with 64-byte messages (valgrind's callgrind) and compares them with
# benches/instructions.txt, if the compiler is the same: fails if one of them has grown by more than a tenth.
# With --record it writes that file instead.
set -euo pipefail
cd "$(dirname "$0")/.."

record=benches/instructions.txt
few=64000
many=192000

command -v valgrind >/dev/null || { echo 'valgrind is not installed' >&2; exit 1; }
cargo build --quiet --release -p shmq-benches --bin instructions
program=${CARGO_TARGET_DIR:-target}/release/instructions

# All instructions of one run.
run() {
    valgrind --tool=callgrind --callgrind-out-file=/dev/null "$program" "$1" "$2" 2>&1 |
        sed -n 's/.*Collected : \([0-9]*\).*/\1/p'
}

# Of one more call (or pair of calls): what a run does once falls out of the difference.
each() {
    local less more
    less=$(run "$1" "$few")
    more=$(run "$1" "$many")
    echo $(((more - less + (many - few) / 2) / (many - few)))
}

compiler=$(rustc -vV | sed -n 's/^release: //p; s/^host: //p' | sort | xargs)
put=$(each put)
pair=$(each pair)
now=$(
    echo "compiler: $compiler"
    echo "put: $put"
    echo "get_into: $((pair - put))"
    echo "put and get_into: $pair"
    echo "put and get_into, exclusive ends: $(each held)"
    echo "put and get, typed: $(each typed)"
    echo "put_many and get_many, each message of 64: $(each batches)"
    echo "put_with and get_with: $(each in-place)"
)
echo "$now"
if [ "${1:-}" = --record ]; then
    echo "$now" >"$record"
    exit
fi

was=$(sed -n 's/^compiler: //p' "$record")
if [ "$was" != "$compiler" ]; then
    echo "not compared: $record is of another compiler ($was); --record replaces it"
    exit
fi
fatter=0
while IFS= read -r line; do
    call=${line%: *}
    count=${line##*: }
    before=$(sed -n "s/^$call: //p" "$record")
    if [ "$call" != compiler ] && [ -n "$before" ] && [ $((count * 10)) -gt $((before * 11)) ]; then
        echo "fatter by more than a tenth: $call: $before before, $count now"
        fatter=1
    fi
done <<<"$now"
exit "$fatter"
