#!/usr/bin/env bash
# Builds what a release consists of: for each platform an archive with the program and the licences
# of what is in it, and a bill of materials (CycloneDX); checksums; and the notes beside them. The
# same commit and the same Go give the same bytes, in any folder and at any time.
#
#	test/release.sh [DIR]            into DIR (bin/release), the notes into DIR-notes.md
#	test/release.sh --twice [DIR]    and a second time from a copy elsewhere, compiled anew: they must agree
#
# RELEASE_TAG is the tag that is released: it must be that of this commit and this version, and the
# tree must be clean. Without it, this is a trial. To build a published release again, take the Go
# that its bill of materials names (std): GOTOOLCHAIN=go1.26.8 RELEASE_TAG=v0.3.0 test/release.sh
set -euo pipefail
cd "$(dirname "$0")/.."

twice=no
if [ "${1-}" = --twice ]; then
	twice=yes
	shift
fi
out=${1:-bin/release}
if ! tar --version 2>/dev/null | grep -c GNU >/dev/null; then
	echo "The archives need GNU tar; on macOS: brew install gnu-tar, and its directory first on the PATH." >&2
	exit 1
fi

version=$(awk '/^info:/ {info=1} info && $1 == "version:" {print $2; exit}' openapi.yaml)
# The versions of document, program and changelog agree, and with the tag.
go test -count=1 -run '^TestVersions$' ./test/repo >/dev/null || go test -count=1 -run '^TestVersions$' ./test/repo
if [ -n "${RELEASE_TAG-}" ]; then
	if [ "$(git rev-parse "refs/tags/$RELEASE_TAG^{commit}")" != "$(git rev-parse HEAD)" ]; then
		echo "$RELEASE_TAG is not the tag of what is checked out" >&2
		exit 1
	fi
	if [ -n "$(git status --porcelain)" ]; then
		echo "the tree is not that of $RELEASE_TAG:" >&2
		git status --short >&2
		exit 1
	fi
fi
if [ -z "${REVISION-}" ]; then
	REVISION=$(git rev-parse HEAD)
	[ -z "$(git status --porcelain)" ] || REVISION+=-dirty
fi
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
# What else of the environment could change a byte.
export CGO_ENABLED=0 GOAMD64=v1 GOARM64=v8.0 GOEXPERIMENT='' GOFLAGS=-mod=readonly GOWORK=off LC_ALL=C TZ=UTC
cache=${RELEASE_CACHE:-$(go env GOCACHE)} # of what is shipped, apart from the tools'
umask 022

rm -rf "$out"
mkdir -p "$out"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
go build -modfile=tools/cyclonedx-gomod/go.mod -o "$work/cyclonedx-gomod" github.com/CycloneDX/cyclonedx-gomod/cmd/cyclonedx-gomod
go build -o "$work/licences" ./test/licences
"$work/licences"
"$work/licences" -texts "$out/THIRD_PARTY_LICENSES"

for platform in $("$work/licences" -platforms); do
	name=resetd_${version}_${platform/\//_}
	echo "$name"
	mkdir "$work/$name"
	GOOS=${platform%/*} GOARCH=${platform#*/} GOCACHE=$cache go build -trimpath -buildvcs=false \
		-ldflags "-s -w -X main.version=$version -X main.commit=$REVISION" -o "$work/$name/resetd" ./cmd/resetd
	cp LICENSE "$out/THIRD_PARTY_LICENSES" README.md CHANGELOG.md "$work/$name"
	chmod 644 "$work/$name"/*
	chmod 755 "$work/$name" "$work/$name/resetd"
	tar -C "$work" --sort=name --format=ustar --mtime="@$SOURCE_DATE_EPOCH" --owner=0 --group=0 --numeric-owner -c "$name" |
		gzip -9n >"$out/$name.tar.gz"
	# Without a time and a number of its own, or no two would be the same.
	"$work/cyclonedx-gomod" bin -json -std -noserial -notimestamp -version "v$version" -output "$out/$name.cdx.json" "$work/$name/resetd" 2>"$work/sbom.log" ||
		{ cat "$work/sbom.log" >&2; exit 1; }
	"$work/licences" -sbom "$out/$name.cdx.json"
	if [ "$platform" = "$(go env GOHOSTOS)/$(go env GOHOSTARCH)" ]; then
		said=$("$work/$name/resetd" version)
		case $said in
		"resetd $version "*"${REVISION:0:12}"*) ;;
		*)
			echo "the program says '$said', not version $version of $REVISION" >&2
			exit 1
			;;
		esac
	fi
done
(cd "$out" && sha256sum -- * >../"$(basename "$out").sums" && mv ../"$(basename "$out").sums" SHA256SUMS)
awk -v heading="## [$version]" 'index($0, "## ") == 1 {inside = index($0, heading) == 1; next} inside' CHANGELOG.md >"$out-notes.md"

if [ $twice = yes ]; then
	mkdir "$work/elsewhere"
	git ls-files -co --exclude-standard -z | xargs -0 cp --parents -t "$work/elsewhere" --
	echo "once more, elsewhere and compiled anew"
	env -u RELEASE_TAG REVISION="$REVISION" RELEASE_CACHE="$work/cache" "$work/elsewhere/test/release.sh" "$work/again" >/dev/null
	if ! diff "$out/SHA256SUMS" "$work/again/SHA256SUMS"; then
		echo "the same sources gave other bytes" >&2
		exit 1
	fi
	echo "the same bytes twice"
fi
cat "$out/SHA256SUMS"
