#!/usr/bin/env bash
# Finds Node and npm for the tests, or installs them if there is apt-get, and then installs the packages in the lock
# file of test/web. Source it for the PATH, or run it with a command.
set -euo pipefail

# The tools of test/web ask for 20.19, 22.16, or 24 and later ("engines" in its package.json).
node_is_fit() {
	node -e '
		const [major, minor] = process.versions.node.split(".").map(Number);
		const fit = (major === 20 && minor >= 19) || (major === 22 && minor >= 16) || major >= 24;
		process.exit(fit ? 0 : 1);
	' 2>/dev/null
}

# npm_ci runs npm ci, unless node_modules is already what the lock file says.
npm_ci() {
	local dir=$1 lock
	lock=$(sha256sum <"$dir/package-lock.json")
	if [ "$(cat "$dir/node_modules/.installed" 2>/dev/null)" = "$lock" ]; then
		return
	fi
	echo "installing what $dir/package-lock.json names" >&2
	# No package runs scripts during the installation; none of them needs to.
	(cd "$dir" && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error >/dev/null)
	echo "$lock" >"$dir/node_modules/.installed"
}

find_node() {
	local web bin
	web=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)/web
	"$web"/../install.sh node:nodejs npm
	if ! node_is_fit; then
		# Debian 12 has Node 18, which can fetch a later version: npm has Node as a package too.
		npm_ci "$web/node"
		for bin in "$web"/node/node_modules/node-*/bin; do
			export PATH="$bin:$PATH"
		done
		if ! node_is_fit; then
			echo "The tests of the client, of the pages and of openapi.yaml need Node 20.19, 22.16, or 24 and later." >&2
			echo "Here it is $(node --version 2>&1), and npm has no other for this machine ($(uname -sm))." >&2
			exit 1
		fi
	fi
	npm_ci "$web"
}

find_node
if [ "${BASH_SOURCE[0]}" = "$0" ] && [ $# -gt 0 ]; then
	exec "$@"
fi
