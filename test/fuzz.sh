#!/usr/bin/env bash
# Runs every fuzz target for the given time or number of inputs, one after the other.
set -euo pipefail
cd "$(dirname "$0")/.."
time=${1:?a time, or a number of inputs like 20000x}
for dir in $(git ls-files '*_test.go' | xargs grep -l '^func Fuzz' | xargs -n1 dirname | sort -u); do
	for target in $(grep -ho '^func Fuzz[A-Za-z0-9_]*' "$dir"/*_test.go | sed 's/func //'); do
		echo "fuzz $dir $target for $time"
		if ! output=$(go test "./$dir" -run '^$' -fuzz "^$target\$" -fuzztime "$time" 2>&1); then
			echo "$output"
			exit 1
		fi
		tail -1 <<<"$output"
	done
done
