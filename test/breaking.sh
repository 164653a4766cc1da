#!/usr/bin/env bash
# Fails if openapi.yaml breaks callers of the last release (test/released/openapi.yaml) and its
# version does not say so: that takes a greater minor version before 1.0, a greater major one from
# 1.0 on. First the check itself is tested, with mutated copies.
#
#	test/breaking.sh                  the check and its own test
#	test/breaking.sh BASE REVISION    compare two documents, nothing else
#
# After a release: cp openapi.yaml test/released/openapi.yaml, then raise the version.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
released=$root/test/released/openapi.yaml
current=$root/openapi.yaml
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
go -C "$root" build -modfile=tools/oasdiff/go.mod -o "$dir/oasdiff" github.com/oasdiff/oasdiff

# What oasdiff takes for information only, and what breaks a client all the same: one that was
# generated loses a type or a method, one written by hand the value that it branches on.
cat >"$dir/levels" <<'END'
response-non-success-status-removed err
response-optional-property-removed  err
optional-response-header-removed    err
api-operation-id-removed            err
END

version() { # of a document
	local found
	found=$(awk '/^info:/ {info=1; next} /^[^ ]/ {info=0} info && $1 == "version:" {print $2; exit}' "$1" | tr -d "\"'")
	if ! [[ $found =~ ^[0-9]+\.[0-9]+\.[0-9]+$ ]]; then
		echo "$1: the version '$found' is not MAJOR.MINOR.PATCH" >&2
		return 1
	fi
	echo "$found"
}

may_break() { # from one version to another?
	local from to
	IFS=. read -r -a from <<<"$1"
	IFS=. read -r -a to <<<"$2"
	((to[0] > from[0])) || ((to[0] == 0 && to[1] > from[1]))
}

compare() { # base, revision
	local from to status=0
	from=$(version "$1")
	to=$(version "$2")
	if [ "$(printf '%s\n' "$from" "$to" | sort -V | tail -1)" != "$to" ]; then
		echo "version $to is lower than the released $from" >&2
		return 1
	fi
	"$dir/oasdiff" breaking "$1" "$2" \
		--severity-levels "$dir/levels" --fail-on WARN --color never >"$dir/report" 2>&1 || status=$?
	case $status in
	0)
		echo "openapi.yaml $to breaks no caller of $from"
		return 0
		;;
	1) cat "$dir/report" ;;
	*)
		cat "$dir/report" >&2
		echo "oasdiff failed ($status)" >&2
		return 1
		;;
	esac
	if may_break "$from" "$to"; then
		echo "These break callers of $from, as $to may. CHANGELOG.md must name them."
		return 0
	fi
	echo "These break callers of $from, and $to does not say so: take them back, or raise the version" >&2
	echo "(before 1.0 its minor, from 1.0 on its major part)." >&2
	return 1
}

if [ $# = 2 ]; then
	compare "$1" "$2"
	exit
elif [ $# != 0 ]; then
	sed -n '2,9p' "$0" >&2
	exit 2
fi

# The test of the check.

numbered() { # document on standard input, with this version
	awk -v to="$1" '/^info:/ {info=1} info && !done && $1 == "version:" {print "  version: " to; done=1; next} {print}'
}

without() { # document on standard input, without the first KEY after the line SECTION
	awk -v section="$1" -v key="$2" '
		{ match($0, /^ */); depth = RLENGTH }
		dropping && (depth > at || $0 == "") { next }
		{ dropping = 0 }
		$0 == section { inside = 1 }
		inside && !dropped && index($0, key) == 1 { dropping = 1; dropped = 1; at = depth; next }
		{ print }'
}

expect() { # outcome, what it is, base version, version; the mutated document on standard input
	local status=0
	cat >"$dir/mutated"
	if cmp -s "$released" "$dir/mutated" && [ "$2" != "nothing" ]; then
		echo "test of the check: the mutation '$2' does not fit test/released/openapi.yaml any more" >&2
		exit 1
	fi
	numbered "$3" <"$released" >"$dir/base.yaml"
	numbered "$4" <"$dir/mutated" >"$dir/revision.yaml"
	(compare "$dir/base.yaml" "$dir/revision.yaml") >"$dir/outcome" 2>&1 || status=$?
	if { [ "$1" = passes ] && [ $status != 0 ]; } || { [ "$1" = fails ] && [ $status = 0 ]; }; then
		echo "test of the check: $2, from $3 to $4, should be such that it $1; it said:" >&2
		cat "$dir/outcome" >&2
		exit 1
	fi
	if [ "$1" = fails ] && ! grep -q "${5:-does not say so}" "$dir/outcome"; then
		echo "test of the check: $2, from $3 to $4, failed for another reason:" >&2
		cat "$dir/outcome" >&2
		exit 1
	fi
}

acknowledgment() { sed '/^    Acknowledgment:/,/^    Error:/ s/required: \[ok, message\]/required: [ok]/' "$released" | without '    Acknowledgment:' '        message:'; }
member() { # a new member of the request, required or not
	sed "/^    SendPasswordResetRequest:/,/^    Acknowledgment:/ {
		s/required: \[email\]/required: [email$1]/
		s/^      properties:/&\n        locale: {type: string}/
	}" "$released"
}

expect passes "nothing" 0.1.0 0.1.0 <"$released"
expect fails "nothing" 0.1.0 0.0.9 "is lower than" <"$released"
acknowledgment | expect fails "a removed response property" 0.1.0 0.1.0
acknowledgment | expect fails "a removed response property" 0.1.0 0.1.7
acknowledgment | expect passes "a removed response property" 0.1.9 0.2.0
acknowledgment | expect passes "a removed response property" 0.9.0 1.0.0
acknowledgment | expect fails "a removed response property" 1.1.0 1.2.0
acknowledgment | expect passes "a removed response property" 1.1.0 2.0.0
without '    Error:' '        code:' <"$released" | expect fails "a removed optional response property" 0.1.0 0.1.0
member ', locale' | expect fails "a new required member of the request" 0.1.0 0.1.0
member ', locale' | expect passes "a new required member of the request" 0.1.0 0.2.0
member '' | expect passes "a new optional member of the request" 0.1.0 0.1.0
without "paths:" "        '413':" <"$released" | expect fails "a removed error status" 0.1.0 0.1.0
without "paths:" "        '200':" <"$released" | expect fails "a removed success status" 0.1.0 0.1.0
without "        '200':" "            RateLimit:" <"$released" | expect fails "a removed optional header" 0.1.0 0.1.0
without "paths:" "  /auth/send-password-reset:" <"$released" | sed 's/^paths:/paths: {}/' | expect fails "a removed operation" 0.1.0 0.1.0
sed 's/^      operationId: .*/      operationId: other/' "$released" | expect fails "a renamed operationId" 0.1.0 0.1.0
sed '/^    Error:/,/^    RateLimitedError:/ s/type: number/type: string/' "$released" | expect fails "a changed type" 0.1.0 0.1.0
sed "s/^        '413':/        '418':\n          description: A teapot\n&/" "$released" | expect passes "a new error status" 0.1.0 0.1.0

# What is tagged is what clients were built from, whatever test/released says.
now=$(version "$current")
if git -C "$root" rev-parse -q --verify "refs/tags/v$now" >/dev/null && ! git -C "$root" diff --quiet "v$now" -- openapi.yaml; then
	echo "openapi.yaml differs from that of the tag v$now: copy the tag's to test/released, and raise the version" >&2
	exit 1
fi
compare "$released" "$current"
