#!/usr/bin/env bash
# Tests the packages of a release: installs, configures, upgrades, removes and purges the .deb on a system that
# systemd has booted, with the service running in its sandbox; and the .rpm where it differs.
#
#	test/packages.sh [DIR]    packages in DIR (bin/release), as test/release.sh makes them
#
# The system is this machine's own in a container of systemd-nspawn. It keeps what is written in memory until the
# end, and its network has only the loopback. It needs root on Linux, dpkg, systemd 250 or later, systemd-nspawn,
# redis-server and rpm, and installs what is missing if there is apt-get.
set -euo pipefail
cd "$(dirname "$0")/.."
began=$SECONDS

if [ "$(uname -s)" != Linux ] || [ "$(id -u)" != 0 ]; then
	echo "packages.sh boots a system of its own to install into: it needs root on Linux." >&2
	exit 1
fi
./test/install.sh dpkg-deb:dpkg systemd-analyze:systemd systemd-nspawn:systemd-container redis-server rpm
if [ "$(systemctl --version | awk 'NR == 1 { print $2 }')" -lt 250 ]; then
	echo "packages.sh needs systemd 250 or later, as the unit does: Debian 12, Ubuntu 24.04." >&2
	exit 1
fi
release=$(cd "${1:-bin/release}" && pwd) || {
	echo "there are no packages yet: test/release.sh makes them" >&2
	exit 1
}
case $(dpkg --print-architecture) in
amd64) deb=amd64 rpm=x86_64 ;;
arm64) deb=arm64 rpm=aarch64 ;;
*)
	echo "there are no packages for $(dpkg --print-architecture)" >&2
	exit 1
	;;
esac
packages=("$release"/resetd_*_"$deb".deb "$release"/resetd-*-1."$rpm".rpm)

dir=$(mktemp -d /tmp/resetd-packages-XXXXXX)
clean_up() {
	status=$?
	trap - EXIT
	umount --lazy "$dir/root" 2>/dev/null || true
	rmdir "/run/systemd/nspawn/propagate/${dir##*/}" 2>/dev/null || true # which nspawn leaves
	umount --lazy "$dir" 2>/dev/null || true
	rmdir "$dir" || status=1
	exit "$status"
}
trap clean_up EXIT
trap 'exit 130' INT TERM
# This is a separate file system, because an overlay must not lie within its lower one.
mount -t tmpfs -o mode=755 tmpfs "$dir"
mkdir "$dir"/{upper,work,root}
mount -t overlay overlay -o "lowerdir=/,upperdir=$dir/upper,workdir=$dir/work" "$dir/root"

inside=$dir/root/resetd-test
mkdir "$inside"
cp "${packages[0]}" "$inside/new.deb"
cp "${packages[1]}" "$inside/new.rpm"
cp test/assert.sh test/packages/inside.sh "$inside/"
CGO_ENABLED=0 go build -o "$inside/outside" ./test/container
# The version before has an older number, and a file of settings that has changed since.
dpkg-deb --raw-extract "$inside/new.deb" "$dir/old"
sed -i 's/^Version: .*/Version: 0.0.1/' "$dir/old/DEBIAN/control"
sed -i 's/^# The settings of resetd.service/# The old settings of resetd.service/' "$dir/old/etc/resetd/resetd.env"
(cd "$dir/old" && find usr -type f -exec md5sum {} + >DEBIAN/md5sums)
dpkg-deb --root-owner-group --build "$dir/old" "$inside/old.deb" >/dev/null
rm -rf "$dir/old"
# One server answers for supabase.example.com and mailgun.example.com.
rm -f "$dir/root/etc/resolv.conf"
echo "nameserver 127.0.0.1" >"$dir/root/etc/resolv.conf"
cat >"$dir/root/etc/systemd/system/resetd-test.service" <<-END
	[Unit]
	Description=The test of resetd's packages
	SuccessAction=exit
	FailureAction=exit
	[Service]
	Type=oneshot
	ExecStart=/bin/bash /resetd-test/inside.sh
	StandardOutput=file:/resetd-test/log
	StandardError=file:/resetd-test/log
END

how=()
# Without systemd on the outside, nothing gives the container a scope or a name.
[ -d /run/systemd/system ] || how=(--keep-unit --register=no)
status=0
timeout --kill-after 10 400 systemd-nspawn --quiet "${how[@]}" --machine="${dir##*/}" --directory="$dir/root" --bind-ro="$dir/upper:/upper" --private-network \
	--resolv-conf=off --timezone=off --link-journal=no --console=pipe --boot systemd.unit=resetd-test.service systemd.show_status=no \
	</dev/null >"$dir/console" 2>&1 || status=$?
cat "$inside/log" 2>/dev/null || true
if [ "$status" != 0 ] || ! grep -q '^all of it holds$' "$inside/log" 2>/dev/null; then
	echo "--- the console" >&2
	tail -n 40 "$dir/console" >&2
	echo "--- the service's log" >&2
	grep -v '"level":"INFO"' "$inside/journal" | tail -n 40 >&2 || true
	echo "packages: FAILED (status $status)" >&2
	exit 1
fi
echo "packages: all of it holds ($((SECONDS - began)) s)"
