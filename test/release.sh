#!/usr/bin/env bash
# Builds a release by .goreleaser.yaml: archives, packages, bills of materials, a cask, checksums; and the notes.
# The same commit and the same Go give the same bytes, in any folder and at any time.
#
#	test/release.sh [DIR]            into DIR (bin/release), the notes into DIR-notes.md
#	test/release.sh --twice [DIR]    and again from a copy elsewhere, compiled again: both must be the same
#
# RELEASE_TAG is the released tag: it must belong to this commit and this version, and the tree must be clean.
# Without it, this is a trial. To build a published release again, use the Go that its bill of materials
# names (std): GOTOOLCHAIN=go1.26.8 RELEASE_TAG=v0.3.0 test/release.sh
#
# The first time on a machine it compiles GoReleaser, which takes some minutes.
set -euo pipefail
cd "$(dirname "$0")/.."

twice=no
if [ "${1-}" = --twice ]; then
	twice=yes
	shift
fi
out=${1:-bin/release}
goreleaser() { go tool -modfile=tools/goreleaser/go.mod goreleaser "$@"; }
# GoReleaser reads the repository's address from Git, and a copy may not have it.
export GIT_CONFIG_COUNT=1 GIT_CONFIG_KEY_0=remote.origin.url GIT_CONFIG_VALUE_0=https://github.com/resetd/resetd

version=$(awk '/^info:/ {info=1} info && $1 == "version:" {print $2; exit}' openapi.yaml)
# GoReleaser fails if this is not the tag of the commit, or if there are changes.
export GORELEASER_CURRENT_TAG=${RELEASE_TAG:-v$version}
skip=publish,announce
[ -n "${RELEASE_TAG-}" ] || skip+=,validate
export LC_ALL=C TZ=UTC
umask 022
rm -rf "$out"
mkdir -p bin "$out"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
goreleaser check # fails on what is deprecated too
goreleaser release --clean --skip=$skip
cp bin/goreleaser/*.{tar.gz,deb,rpm,cdx.json} bin/goreleaser/SHA256SUMS bin/goreleaser/homebrew/Casks/resetd.rb "$out"
(cd "$out" && sha256sum resetd.rb >>SHA256SUMS)
awk -v heading="## [$version]" 'index($0, "## ") == 1 {inside = index($0, heading) == 1; next} inside' CHANGELOG.md >"$out-notes.md"

name=resetd_${version}_$(go env GOHOSTOS)_$(go env GOHOSTARCH)
tar -xf "$out/$name.tar.gz" -C "$work"
revision=$(git rev-parse --short=12 HEAD)
said=$("$work/$name/resetd" version)
case $said in
"resetd $version "*"$revision"*) ;;
*)
	echo "the program says '$said', not version $version of $revision" >&2
	exit 1
	;;
esac

if [ $twice = yes ]; then
	echo "again, elsewhere and without a cache"
	git clone --quiet --no-checkout . "$work/elsewhere"
	git -C "$work/elsewhere" reset --quiet
	git ls-files -co --exclude-standard -z | xargs -0 cp --parents -t "$work/elsewhere" --
	env -u RELEASE_TAG RELEASE_CACHE="$work/cache" "$work/elsewhere/test/release.sh" "$work/again" >/dev/null
	if ! diff "$out/SHA256SUMS" "$work/again/SHA256SUMS"; then
		echo "the same sources gave other bytes" >&2
		exit 1
	fi
	echo "the same bytes twice"
fi
cat "$out/SHA256SUMS"
