#!/usr/bin/env bash
# Runs test/supabase, the whole way with a real Supabase Auth: the server at SUPABASE_AUTH_URL (with its
# SUPABASE_SERVICE_ROLE_KEY; accounts of test.example are made and removed); or the binary SUPABASE_AUTH_BIN; or,
# with Docker, the image that Supabase has published last, or its version SUPABASE_AUTH_VERSION.
set -euo pipefail
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# Only the program is taken from the image: it needs nothing else, and the tests start and stop it.
from_image() {
	local version image container
	version=${SUPABASE_AUTH_VERSION:-$(curl -fsSL https://api.github.com/repos/supabase/auth/releases/latest | sed -nE 's/.*"tag_name": *"(v[0-9.]+)".*/\1/p')}
	image=docker.io/supabase/auth:$version
	echo "taking Supabase Auth from $image" >&2
	container=$(docker create "$image")
	docker cp "$container:/usr/local/bin/auth" "$work/auth" >&2
	docker rm "$container" >/dev/null
	export SUPABASE_AUTH_BIN=$work/auth
}

if [ -z "${SUPABASE_AUTH_URL:-}" ]; then
	if [ -z "${SUPABASE_AUTH_BIN:-}" ] && docker info >/dev/null 2>&1; then
		from_image
	fi
	if [ -n "${SUPABASE_AUTH_BIN:-}" ] && ! compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null && ! command -v initdb >/dev/null; then
		./test/install.sh initdb:postgresql
	fi
fi
# The page of README.md runs in Node.
source test/node.sh
tags=supabase,database
if [ -n "${SUPABASE_AUTH_URL:-}" ]; then
	tags=supabase
	echo "This Supabase Auth is not the tests' own: the tests that change its database, or stop something, are left out." >&2
fi
# Without any of the three, the tests say so and fail.
go test -tags "$tags" -count=1 -timeout 20m ./test/supabase "$@"
