#!/usr/bin/env bash
# Fails if openapi.yaml breaks callers of the last release (test/released/openapi.yaml) and its
# version does not say so: that takes a greater minor version before 1.0, a greater major one from
# 1.0 on. Fails too if that document is not the one that was tagged. First the checks themselves are
# tested, with mutated copies.
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
# generated loses a type, a method or the class that has it, one written by hand the status, member,
# header or media type that it looks at.
cat >"$dir/levels" <<'END'
response-non-success-status-removed  err
response-optional-property-removed   err
response-media-type-name-specialized err
optional-response-header-removed     err
api-operation-id-removed             err
api-schema-removed                   err
api-tag-removed                      err
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

# What oasdiff does not compare: the codes, which clients branch on, and where the server's paths are.

# Of a document, as "SCHEMA CODE": the x-extensible-enum of each schema's member "code" or, as it was
# up to 0.1.0, what its description has in backticks.
codes() {
	awk '
		function end(code) {
			for (code in told) if (!listed) print schema, code
			delete told
			inside = listed = listing = 0
		}
		{ match($0, /^ */); depth = RLENGTH }
		NF && depth <= at { end() }
		depth == 0 { components = $1 == "components:" }
		depth == 2 { schemas = components && $1 == "schemas:" }
		depth == 4 { schema = $1; sub(/:$/, "", schema) }
		schemas && !inside && $1 == "code:" { inside = 1; at = depth; next }
		!inside { next }
		/:/ { listing = 0 }
		$1 == "x-extensible-enum:" { listed = listing = 1; sub(/.*:/, "") }
		listing { gsub(/[^A-Za-z0-9_]+/, " "); for (i = 1; i <= NF; i++) print schema, $i; next }
		{ while (match($0, /`[a-z_]+`/)) { told[substr($0, RSTART + 1, RLENGTH - 2)]; $0 = substr($0, RSTART + RLENGTH) } }
		END { end() }' "$1"
}

# Of a document, the paths of the URLs of its servers.
servers() {
	awk '
		/^[^ #-]/ { inside = $1 == "servers:" }
		inside && match($0, /^[ -]*url: */) {
			url = substr($0, RLENGTH + 1)
			gsub(/["\047]| +#.*/, "", url)
			sub(/^[a-z]+:\/\/[^\/]*/, "", url)
			sub(/\/+$/, "", url)
			print url == "" ? "/" : url
		}' "$1"
}

# A schema that is gone is told by oasdiff; of its codes there have to be some schema's.
lost() { # base, revision
	codes "$1" >"$dir/codes" && codes "$2" >"$dir/codes.now" &&
		awk 'FILENAME == ARGV[1] { has[$0]; has[$2]; schema[$1]; next }
			!(($1 in schema ? $0 : $2) in has) { print "error\t[code-removed] " $1 " has no code `" $2 "` any more" }' "$dir/codes.now" "$dir/codes" &&
		servers "$1" >"$dir/servers" && servers "$2" >"$dir/servers.now" &&
		awk 'FILENAME == ARGV[1] { has[$0]; next }
			!($0 in has) { print "error\t[server-removed] no server has the path " $0 " any more" }' "$dir/servers.now" "$dir/servers"
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
	0) : >"$dir/report" ;;
	1) ;;
	*)
		cat "$dir/report" >&2
		echo "oasdiff failed ($status)" >&2
		return 1
		;;
	esac
	lost "$1" "$2" >>"$dir/report" || return 1
	if [ ! -s "$dir/report" ]; then
		echo "openapi.yaml $to breaks no caller of $from"
		return 0
	fi
	cat "$dir/report"
	if may_break "$from" "$to"; then
		echo "These break callers of $from, as $to may. CHANGELOG.md must name them."
		return 0
	fi
	echo "These break callers of $from, and $to does not say so: take them back, or raise the version" >&2
	echo "(before 1.0 its minor, from 1.0 on its major part)." >&2
	return 1
}

# What is called released is what was tagged, wherever that tag is: not in a shallow clone, nor without
# git. In the directory itself, and not in a repository around it.
tagged() { # directory, released document
	local tag
	tag=v$(version "$2")
	if git --git-dir="$1/.git" rev-parse -q --verify "refs/tags/$tag" >/dev/null 2>&1 &&
		! git --git-dir="$1/.git" show "refs/tags/$tag:openapi.yaml" 2>/dev/null | cmp -s - "$2"; then
		echo "$2 is not what the tag $tag has: git show $tag:openapi.yaml >test/released/openapi.yaml" >&2
		return 1
	fi
}

if [ $# = 2 ]; then
	compare "$1" "$2"
	exit
elif [ $# != 0 ]; then
	sed -n '2,10p' "$0" >&2
	exit 2
fi

# The test of the checks.

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

# Outcome, what it is, base version, version, and what has to be said of it; the mutated document, of
# the released one or of $base, on standard input.
expect() {
	local status=0 base=${base:-$released}
	cat >"$dir/mutated"
	if cmp -s "$base" "$dir/mutated" && [ "$2" != "nothing" ]; then
		echo "test of the check: the mutation '$2' does not fit $base any more" >&2
		exit 1
	fi
	numbered "$3" <"$base" >"$dir/base.yaml"
	numbered "$4" <"$dir/mutated" >"$dir/revision.yaml"
	(compare "$dir/base.yaml" "$dir/revision.yaml") >"$dir/outcome" 2>&1 || status=$?
	if { [ "$1" = passes ] && [ $status != 0 ]; } || { [ "$1" = fails ] && [ $status = 0 ]; }; then
		echo "test of the check: $2, from $3 to $4, should be such that it $1; it said:" >&2
		cat "$dir/outcome" >&2
		exit 1
	fi
	if [ "$1" = fails ] && ! grep -qF "${5:-does not say so}" "$dir/outcome"; then
		echo "test of the check: $2, from $3 to $4, failed for another reason:" >&2
		cat "$dir/outcome" >&2
		exit 1
	fi
}

error=$(grep -E '^    Error(Body)?:$' "$released") # which was Error in 0.1.0
acknowledgment() { sed '/^    Acknowledgment:/,/^    Error/ s/required: \[ok, message\]/required: [ok]/' "$released" | without '    Acknowledgment:' '        message:'; }
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
without "$error" '        code:' <"$released" | expect fails "a removed optional response property" 0.1.0 0.1.0
member ', locale' | expect fails "a new required member of the request" 0.1.0 0.1.0
member ', locale' | expect passes "a new required member of the request" 0.1.0 0.2.0
member '' | expect passes "a new optional member of the request" 0.1.0 0.1.0
without "paths:" "        '413':" <"$released" | expect fails "a removed error status" 0.1.0 0.1.0
without "paths:" "        '200':" <"$released" | expect fails "a removed success status" 0.1.0 0.1.0
without "        '200':" "            RateLimit:" <"$released" | expect fails "a removed optional header" 0.1.0 0.1.0
without "paths:" "  /auth/send-password-reset:" <"$released" | sed 's/^paths:/paths: {}/' | expect fails "a removed operation" 0.1.0 0.1.0
sed 's/^      operationId: .*/      operationId: other/' "$released" | expect fails "a renamed operationId" 0.1.0 0.1.0
sed '/^    Error/,/^    RateLimitedError/ s/type: number/type: string/' "$released" | expect fails "a changed type" 0.1.0 0.1.0
sed "s/^        '413':/        '418':\n          description: A teapot\n&/" "$released" | expect passes "a new error status" 0.1.0 0.1.0

sed -E 's/\bRateLimitedError(Body)?\b/Refusal/' "$released" | expect fails "a renamed schema" 0.1.0 0.1.1 "[api-schema-removed]"
sed -E 's/\bRateLimitedError(Body)?\b/Refusal/' "$released" | expect passes "a renamed schema" 0.1.0 0.2.0
sed 's/tags: \[auth\]/tags: [account]/; s/- name: auth$/- name: account/' "$released" | expect fails "a renamed tag" 0.1.0 0.1.1 "[api-tag-removed]"
sed '/^      responses:/,/^components:/ s#application/json:#application/problem+json:#' "$released" |
	expect fails "a more special media type" 0.1.0 0.1.1 "[response-media-type-name-specialized]"
sed 's#^\( *- url: .*\)/api$#\1/v2#' "$released" | expect fails "another path of the servers" 0.1.0 0.1.1 "[server-removed] no server has the path /api "
sed 's#^\( *- url: .*\)/api$#\1/v2#' "$released" | expect passes "another path of the servers" 0.1.0 0.2.0
sed '/^servers:/,/^security:/ { /^security:/!d }' "$released" | expect fails "no servers" 0.1.0 0.1.1 "[server-removed]"
sed 's#https://example\.com/#https://other.example/#' "$released" | expect passes "another host" 0.1.0 0.1.1
sed 's#^servers:#&\n  - url: /v2#' "$released" | expect passes "one more path of the servers" 0.1.0 0.1.1
for base in "$released" "$current"; do
	sed 's/rate_limited/too_many/' "$base" | expect fails "a renamed code" 0.1.0 0.1.1 'has no code `rate_limited`'
	sed 's/rate_limited/too_many/' "$base" | expect passes "a renamed code" 0.1.0 0.2.0
	sed '/^ *- overloaded$/d; s/, `overloaded`//' "$base" | expect fails "a removed code" 0.1.0 0.1.1 'has no code `overloaded`'
	sed 's/^\( *\)- overloaded$/&\n\1- other/; s/, `overloaded`/&, `other`/' "$base" | expect passes "a new code" 0.1.0 0.1.1
done
base=$current
sed '/^ *- overloaded$/d' "$base" | expect fails "a code removed from its list alone" 0.1.0 0.1.1 'ErrorBody has no code `overloaded`'
sed '/^    RateLimited/,$ s/- rate_limited$/- too_many/' "$base" | expect fails "a code renamed in one of two schemas" 0.1.0 0.1.1 'RateLimitedErrorBody has no code `rate_limited`'
unset base

if command -v git >/dev/null; then
	mkdir "$dir/repository"
	repository() { git --git-dir="$dir/repository/.git" "$@"; }
	expect_tagged() { # outcome, what it is, released document
		if tagged "$dir/repository" "$3" 2>/dev/null; then set -- "$@" passes; else set -- "$@" fails; fi
		if [ "$1" != "$4" ]; then
			echo "test of the check: $2 should be such that it $1" >&2
			exit 1
		fi
	}
	(echo; cat "$released") >"$dir/other.yaml"
	expect_tagged passes "no repository" "$dir/other.yaml"
	repository init -q
	expect_tagged passes "no tag" "$dir/other.yaml"
	# A tag of a tree: it takes no commit, and so no name of who made it.
	repository update-ref "refs/tags/v$(version "$released")" \
		"$(printf '100644 blob %s\topenapi.yaml\n' "$(repository hash-object -w --stdin <"$released")" | repository mktree)"
	expect_tagged passes "what was tagged" "$released"
	expect_tagged fails "something else than what was tagged" "$dir/other.yaml"
fi

tagged "$root" "$released"
# What is tagged is what clients were built from, whatever test/released says.
now=$(version "$current")
if git -C "$root" rev-parse -q --verify "refs/tags/v$now" >/dev/null 2>&1 && ! git -C "$root" diff --quiet "v$now" -- openapi.yaml; then
	echo "openapi.yaml differs from that of the tag v$now: copy the tag's to test/released, and raise the version" >&2
	exit 1
fi
compare "$released" "$current"
