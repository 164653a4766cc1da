#!/usr/bin/env bash
# Builds the image from the Dockerfile, and runs it as deploy/ does: read-only, without capabilities, as its own
# user, with secrets as files and a Redis with deploy/'s users.
#
#	test/container.sh [--clean]
#
# --clean compiles everything again, twice, instead of using this machine's cache of compiled packages. It takes
# some minutes longer, and tests better whether builds are reproducible.
#
# Nothing is pulled from a registry. An image made of busybox and this machine's Go replaces the Dockerfile's base,
# and this machine's redis-server replaces Redis. So every step of the Dockerfile and the whole resulting image are
# tested, but not the images behind the digests in the Dockerfile and deploy/.
#
# Storage, containers and images are separate, and are removed at the end, also after an error. It needs root on
# Linux, and podman, buildah, runc, static busybox and redis-server, which it installs if there is apt-get.
set -euo pipefail
cd "$(dirname "$0")/.."
began=$SECONDS
clean=${1:-}
if [ $# -gt 1 ] || [[ $clean != "" && $clean != --clean ]]; then
	echo "usage: container.sh [--clean]" >&2
	exit 2
fi

# In bytes; a third more than the image has. The smallest base with a shell would add 8 MB.
max_size=40000000
version=0.0.0-container
revision=0123456789abcdef0123456789abcdef01234567
created=2026-01-02T03:04:05Z

if [ "$(uname -s)" != Linux ] || [ "$(id -u)" != 0 ]; then
	echo "container.sh gives containers file systems and networks of their own: it needs root on Linux." >&2
	exit 1
fi
# A busybox with shared libraries would need them in the image.
busybox=busybox
if ! command -v busybox >/dev/null || ldd "$(command -v busybox)" >/dev/null 2>&1; then
	busybox=:busybox-static
fi
certificates=()
[ -e /etc/ssl/certs/ca-certificates.crt ] || certificates=(:ca-certificates)
./test/install.sh buildah podman runc redis-server "$busybox" "${certificates[@]}"

dir=$(mktemp -d /tmp/resetd-container-XXXXXX)
export CONTAINERS_CONF=$dir/containers.conf CONTAINERS_STORAGE_CONF=$dir/storage.conf
# These settings also work inside of another container: no systemd, no journal, no higher limits.
cat >"$CONTAINERS_CONF" <<-CONF
	[containers]
	# With podman's own profile, AppArmor of Ubuntu 24.04 does not pass runc's signals to containers: podman
	# stop would wait in vain, and kill. Without AppArmor the option has no effect.
	apparmor_profile = "unconfined"
	default_ulimits = ["nofile=1024:4096", "nproc=4096:4096"]
	log_driver = "k8s-file"
	[engine]
	cgroup_manager = "cgroupfs"
	events_logger = "file"
	runtime = "runc"
	tmp_dir = "$dir/libpod"
CONF
cat >"$CONTAINERS_STORAGE_CONF" <<-CONF
	[storage]
	driver = "overlay"
	graphroot = "$dir/storage"
	runroot = "$dir/run"
CONF

# Without systemd nothing runs health checks, which podman reports as an error each time.
podman() { command podman "$@" 2> >(grep -v 'systemd connection' >&2); }

clean_up() {
	status=$?
	trap - EXIT
	if [ "$status" != 0 ]; then
		for name in $(podman ps -a --format '{{.Names}}'); do
			echo "--- log of $name" >&2
			podman logs "$name" >&2 || true
		done
	fi
	{
		podman rm --all --force --time 0
		buildah rm --all
		podman image umount --all --force
		podman rmi --all --force
		wait
		# podman leaves its storage mounted on itself, and its remaining processes mount it again.
		for _ in $(seq 20); do
			awk -v dir="$dir/" 'index($2, dir) == 1 { print $2 }' /proc/mounts | sort -r | xargs -r umount -l
			rm -rf "$dir" && break
			sleep 0.5
		done
	} >/dev/null 2>&1 || true
	if [ -e "$dir" ]; then
		echo "left behind: $dir" >&2
		status=1
	fi
	exit "$status"
}
trap clean_up EXIT
trap 'exit 130' INT TERM

source test/assert.sh

# --- The replacing images.

# install_into copies programs into /bin of an image's root, and their libraries to the same paths as here.
install_into() { # ROOT PROGRAM...
	local root=$1 program library
	shift
	mkdir -p "$root/bin"
	for program in "$@"; do
		cp -L "$program" "$root/bin/"
		for library in $({ ldd "$program" 2>/dev/null || true; } | grep -oE '/[^ ]+'); do
			mkdir -p "$root$(dirname "$library")"
			cp -L "$library" "$root$library"
		done
	done
}

base=$(sed -nE 's/^FROM .*(docker\.io\/library\/golang:[^ ]+) AS build$/\1/p' Dockerfile)
[[ $base =~ ^docker\.io/library/golang:1\.[0-9]+\.[0-9]+-[a-z0-9.]+@sha256:[0-9a-f]{64}$ ]] ||
	failed "the base of the build is not named by a whole version and a digest: '$base'"
go mod download
container=$(buildah from scratch)
root=$(buildah mount "$container")
mkdir -p "$root"/{tmp,etc/ssl/certs,usr/local/go,downloaded}
install_into "$root" "$(command -v busybox)"
ln -s busybox "$root/bin/sh"
cp /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
# Modules come from this machine's downloads.
buildah config --env HOME=/root --env PATH=/usr/local/go/bin:/bin --env GOPATH=/go --env "GOPROXY=file:///downloaded,$(go env GOPROXY)" "$container"
buildah commit --quiet "$container" localhost/golang >/dev/null

container=$(buildah from scratch)
root=$(buildah mount "$container")
mkdir -p "$root/run/secrets"
install_into "$root" "$(command -v redis-server)" "$(command -v redis-cli)"
# The entrypoint of the published image loads modules, so deploy/ replaces it. Here it is a program that fails.
buildah config --env PATH=/bin --entrypoint '["/not-replaced"]' "$container"
buildah commit --quiet "$container" localhost/redis >/dev/null

CGO_ENABLED=0 go build -o "$dir/outside" ./test/container
container=$(buildah from scratch)
buildah copy --quiet "$container" "$dir/outside" /outside >/dev/null
buildah commit --quiet "$container" localhost/outside >/dev/null
buildah rm --all >/dev/null

# --- The build.

# The build uses a copy, which does not change, with files in it that must stay out.
context=$dir/context
mkdir -p "$context"/{.git,deploy/compose/secrets,test}
cp -R Dockerfile .dockerignore LICENSE go.mod go.sum README.md cmd gen impl "$context/"
cp -R test/licences test/container test/container.sh "$context/test/"
touch "$context"/{.env,.git/config,deploy/compose/secrets/redis_url,test/left.go}
echo 'package main' >"$context/cmd/resetd/left_test.go"
printf 'FROM scratch\nCOPY . /\n' >"$dir/Dockerfile.everything"
buildah bud --quiet --isolation chroot -f "$dir/Dockerfile.everything" --ignorefile .dockerignore -t localhost/everything "$context" >/dev/null
mounted=$(podman image mount localhost/everything)
same "what the build sees" "LICENSE cmd gen go.mod go.sum impl test " "$(find "$mounted" -mindepth 1 -maxdepth 1 -printf '%f\n' | LC_ALL=C sort | tr '\n' ' ')"
same "what the build sees of test/" "licences/known.go licences/main.go " "$(find "$mounted/test" -type f -printf '%P\n' | LC_ALL=C sort | tr '\n' ' ')"
same "what the build sees of tests" "" "$(find "$mounted" -name '*_test.go' -o -name testdata)"
ok "only sources reach the build"

caches=("$(go env GOCACHE)" "$(go env GOCACHE)")
if [ -n "$clean" ]; then
	caches=("$dir/cache1" "$dir/cache2")
fi
mkdir -p "${caches[@]}"
build() { # TAG OPTION...
	local tag=$1
	shift
	buildah bud --quiet --isolation chroot --format docker --pull-never --timestamp 0 \
		--build-context "$base=container-image://localhost/golang" \
		-v "$(go env GOROOT):/usr/local/go:ro" -v "${caches[0]}:/root/.cache/go-build" -v "$(go env GOMODCACHE)/cache/download:/downloaded:ro" \
		--build-arg "VERSION=$version" --build-arg "REVISION=$revision" --build-arg "CREATED=$created" \
		"$@" -t "localhost/$tag" "$context" >/dev/null 2>"$dir/build.log" || failed "the build of $tag: $(tail -n 30 "$dir/build.log")"
}
build resetd
ok "the Dockerfile builds ($((SECONDS - began)) s)"

# --- The contents of the image.

inspect() { podman image inspect --format "$1" localhost/resetd; }
same user 65532:65532 "$(inspect '{{.Config.User}}')"
same entrypoint '[/resetd]' "$(inspect '{{.Config.Entrypoint}}')"
same command '[serve]' "$(inspect '{{.Config.Cmd}}')"
same "exposed ports" 'map[8080/tcp:{}]' "$(inspect '{{.Config.ExposedPorts}}')"
same "stop signal" SIGTERM "$(inspect '{{.Config.StopSignal}}')"
same "health check" '[CMD /resetd healthcheck] 10s 5s' "$(inspect '{{.HealthCheck.Test}} {{.HealthCheck.Interval}} {{.HealthCheck.Timeout}}')"
has environment ADMIN_ADDR=:9090 "$(inspect '{{.Config.Env}}')"
for label in title=resetd licenses=Apache-2.0 source=https://github.com/resetd/resetd "version=$version" "revision=$revision" "created=$created"; do
	same "label ${label%%=*}" "${label#*=}" "$(inspect "{{index .Config.Labels \"org.opencontainers.image.${label%%=*}\"}}")"
done
[ -n "$(inspect '{{index .Config.Labels "org.opencontainers.image.description"}}')" ] || failed "there is no description"
ok "user, command, port, health check and labels"

mounted=$(podman image mount localhost/resetd)
same "files in the image" "/etc/ssl/certs/ca-certificates.crt 644 0:0,/licenses/LICENSE 644 0:0,/licenses/THIRD_PARTY_LICENSES 644 0:0,/resetd 755 0:0," \
	"$(find "$mounted" ! -type d -printf '/%P %m %U:%G\n' | LC_ALL=C sort | tr '\n' ',')"
cmp -s "$mounted/etc/ssl/certs/ca-certificates.crt" /etc/ssl/certs/ca-certificates.crt || failed "the TLS roots are not those of the base"
cp "$mounted/resetd" "$dir/resetd"
built=$(go version -m "$dir/resetd")
has "the binary" CGO_ENABLED=0 "$built"
has "the binary" "GOARCH=$(go env GOHOSTARCH)"$'\n' "$built"$'\n'
go run ./test/licences -texts "$dir/licences"
cmp "$mounted/licenses/THIRD_PARTY_LICENSES" "$dir/licences" || failed "the licences in the image are not those of the release"
cmp "$mounted/licenses/LICENSE" LICENSE || failed "the licence in the image is not that of the project"
size=$(inspect '{{.Size}}')
[ "$size" -le "$max_size" ] || failed "the image has $size bytes, more than $max_size"
ok "one binary, the TLS roots and the licences of both: $((size / 1000000)) MB, at most $((max_size / 1000000))"

# Another folder without a container gives the same bytes.
mkdir -p "$dir/else/where"
cp -R "$context"/{go.mod,go.sum,cmd,gen,impl} "$dir/else/where/"
(cd "$dir/else/where" && GOCACHE=${caches[1]} CGO_ENABLED=0 GOFLAGS=-mod=readonly go build -trimpath -buildvcs=false \
	-ldflags "-s -w -X main.version=$version -X main.commit=$revision" -o "$dir/again" ./cmd/resetd)
same "the binary of another build" "$(sha256sum <"$dir/resetd")" "$(sha256sum <"$dir/again")"
ok "built twice, the same: sha256 $(sha256sum <"$dir/resetd" | cut -c1-16)…"

# The release also has the other architecture, which is compiled here. Arguments choose it, because with
# --platform buildah would look for a replacing base on that platform. Its modules were downloaded and unpacked
# above.
other=arm64
[ "$(go env GOHOSTARCH)" != arm64 ] || other=amd64
build "resetd-$other" --build-arg TARGETOS=linux --build-arg "TARGETARCH=$other" -v "$(go env GOMODCACHE):/go/pkg/mod:ro"
foreign=$(podman image mount "localhost/resetd-$other")
built=$(go version -m "$foreign/resetd")
has "the binary of linux/$other" GOOS=linux$'\n' "$built"$'\n'
has "the binary of linux/$other" "GOARCH=$other"$'\n' "$built"$'\n'
cmp -s "$foreign/licenses/THIRD_PARTY_LICENSES" "$mounted/licenses/THIRD_PARTY_LICENSES" || failed "the licences of linux/$other are others"
ok "built for linux/$other too ($((SECONDS - began)) s)"

# --- The image at run time. All containers share one network, which has only the loopback.

mkdir "$dir/ca"
chmod 0777 "$dir/ca"
hardened=(--read-only --read-only-tmpfs=false --cap-drop ALL --security-opt no-new-privileges --memory 256m --cpus 1 --pids-limit 128)
podman run --detach --name outside --network none "${hardened[@]}" --user 65532:65532 \
	-v "$dir/ca:/ca" localhost/outside /outside serve /ca >/dev/null
out() { podman exec outside /outside "$@"; }
resetd=(--network container:outside "${hardened[@]}")
api=http://127.0.0.1:8080/api/auth/send-password-reset
# A listener on 127.0.0.1 is not reachable at 127.0.0.2, which stands for the pod's address.
admin=http://127.0.0.2:9090
out until 200 http://127.0.0.1:7000/mails

has "resetd version" "resetd $version (revision $revision" "$(podman run --rm "${resetd[@]}" localhost/resetd version)"
for program in /bin/sh sh /bin/busybox; do
	if podman run --rm "${resetd[@]}" --entrypoint "$program" localhost/resetd -c true >/dev/null 2>&1; then
		failed "$program runs in the image"
	fi
done
ok "there is no shell"

# Without settings it starts, and is alive.
podman run --detach --name bare "${resetd[@]}" localhost/resetd >/dev/null
out until 200 http://127.0.0.1:8080/healthz
out until 200 "$admin/livez"
podman healthcheck run bare >/dev/null || failed "the health check says no"
ok "without settings: alive, and the operator's port answers on every address"

pid=$(podman inspect --format '{{.State.Pid}}' bare)
same "the process's user" "65532 65532 65532 65532" "$(awk '/^Uid:/ { print $2, $3, $4, $5 }' "/proc/$pid/status")"
same "the process's group" "65532 65532 65532 65532" "$(awk '/^Gid:/ { print $2, $3, $4, $5 }' "/proc/$pid/status")"
ok "user 65532, without capabilities or anything to write to"

before=$SECONDS
podman stop --time 30 bare >/dev/null
same "the exit status" 0 "$(podman inspect --format '{{.State.ExitCode}}' bare)"
ok "podman stop: status 0 after $((SECONDS - before)) s"

# This run has all settings and secrets as in deploy/compose.yaml, and its Redis.
deploy/compose/redis-secret.sh "$dir/secrets" 127.0.0.1
if deploy/compose/redis-secret.sh "$dir/secrets" 2>/dev/null; then
	failed "redis-secret.sh makes up a second password over the first"
fi
printf 'container-service-role-key\n' >"$dir/secrets/supabase_key"
printf 'container-mailgun-key\n' >"$dir/secrets/mailgun_key"
composed=$(sed -n '/^  redis:/,/^networks:/p' deploy/compose.yaml)
redis_entrypoint=$(sed -n 's/^    entrypoint: //p' <<<"$composed")
redis_command=()
while IFS= read -r argument; do
	argument=${argument#\"}
	redis_command+=("${argument%\"}")
done < <(sed -n '/^    command:/,/^    secrets:/s/^      - //p' <<<"$composed")
same "the entrypoint of Redis" '["redis-server"]' "$redis_entrypoint"
same "the first argument of Redis" /run/secrets/redis_conf "${redis_command[0]-}"
redis_memory=$(sed -n 's/^    mem_limit: //p' <<<"$composed")
podman run --detach --name redis --network container:outside "${hardened[@]}" --memory "$redis_memory" --user 999:1000 --entrypoint "$redis_entrypoint" \
	-v "$dir/secrets/redis_conf:/run/secrets/redis_conf:ro" --tmpfs /data:mode=1777 localhost/redis "${redis_command[@]}" >/dev/null
for _ in $(seq 300); do
	[ "$(podman exec redis redis-cli -e ping 2>/dev/null)" = PONG ] && break
	sleep 0.1
done
same "Redis' health check" PONG "$(podman exec redis redis-cli -e ping)"
for command in "get resetd:x" "config get maxmemory" "acl list"; do
	# shellcheck disable=SC2086 # words
	if said=$(podman exec redis redis-cli -e $command 2>&1); then
		failed "Redis does '$command' for a client without a password: $said"
	fi
	has "Redis' answer to '$command'" NOPERM "$said"
done
ok "deploy/'s Redis: nothing without its password but ping"

settings=(
	--env SUPABASE_URL=https://127.0.0.1:7001 --env SUPABASE_AUTH_URL=https://127.0.0.1:7001/auth/v1
	--env MAILGUN_API_BASE=https://127.0.0.1:7002 --env MAILGUN_DOMAIN=mg.example.com --env SITE_URL=https://app.example.com
	--env RATE_LIMIT=1000-M --env RECIPIENT_LIMIT=100-M --env UPSTREAM_TIMEOUT=15s
	--env REDIS_URL_FILE=/run/secrets/redis_url --env MAILGUN_API_KEY_FILE=/run/secrets/mailgun_key
	--env SUPABASE_SERVICE_ROLE_KEY_FILE=/run/secrets/supabase_key
)
for secret in redis_url mailgun_key supabase_key; do
	settings+=(-v "$dir/secrets/$secret:/run/secrets/$secret:ro")
done

podman run --detach --name full "${resetd[@]}" "${settings[@]}" \
	-v "$dir/ca/ca.pem:/etc/ssl/certs/ca-certificates.crt:ro" localhost/resetd >/dev/null
out until 200 "$admin/readyz"
has "the answer" '"ok":true' "$(out ask POST "$api" '{"email":"known@example.com"}')"
has "the mails" "1 delivered, 1 test messages" "$(out ask GET http://127.0.0.1:7000/mails/1)"
has metrics 'resetd_limits_in{store="redis"} 1' "$(out ask GET "$admin/metrics")"
as_resetd() { podman exec redis redis-cli -e -u "$(cat "$dir/secrets/redis_url")" --no-auth-warning "$@" 2>&1; }
has "what is counted in Redis" resetd:ip: "$(as_resetd scan 0 count 1000)"
for command in "get other:x" "flushall" "config get maxmemory" "keys resetd:*"; do
	# shellcheck disable=SC2086 # words
	if said=$(set -f && as_resetd $command); then
		failed "Redis does '$command' for resetd: $said"
	fi
	has "Redis' answer to '$command'" NOPERM "$said"
done
ok "TLS by the image's roots, keys by files, a mail, limits in deploy/'s Redis"

echo "container: all of it holds ($((SECONDS - began)) s)"
