#!/usr/bin/env bash
# Installs the Debian packages of missing commands, or names them if it cannot.
#
#	test/install.sh COMMAND[:PACKAGE]...    PACKAGE if its name is not the command's
set -euo pipefail
missing=()
for needed in "$@"; do
	command -v "${needed%%:*}" >/dev/null || missing+=("${needed#*:}")
done
[ "${#missing[@]}" != 0 ] || exit 0
if ! command -v apt-get >/dev/null || [ "$(id -u)" != 0 ]; then
	echo "This needs packages of Debian or Ubuntu: ${missing[*]}. As root it would install them;" >&2
	echo "here: sudo apt-get install ${missing[*]}, or on macOS: brew install, under much the same names." >&2
	exit 1
fi
echo "installing ${missing[*]}" >&2
exec 9<"$0" && flock 9 # apt-get does not wait for another one
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
