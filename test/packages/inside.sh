#!/usr/bin/env bash
# Tests the packages, only on the system that test/packages.sh has booted.
set -euo pipefail
cd /resetd-test
export LC_ALL=C DEBIAN_FRONTEND=noninteractive
[ "$(systemctl show --property=FragmentPath --value resetd-test.service)" = /etc/systemd/system/resetd-test.service ]
trap 'journalctl --no-pager --unit=resetd.service >journal 2>&1 || true' EXIT

source assert.sh
service() { systemctl show --property="$1" --value resetd.service; }
state() { echo "$(systemctl is-enabled resetd.service 2>/dev/null) $(systemctl is-active resetd.service)"; }
# files lists all files that were written, except for those that change by themselves, and the records of
# dpkg, rpm and systemd.
files() {
	find /upper ! -type c \( ! -type d -o -name '*resetd*' \) | sed 's|^/upper||' | grep -vE '^/(resetd-test|root|run|tmp)(/|$)|^/var/(cache|log|tmp|lib/(dpkg|rpm|systemd|private))(/|$)' | sort
}
api=http://127.0.0.1:8080/api/auth/send-password-reset
# --- Its surroundings, before anything is installed.

mkdir ca
./outside serve ca &
./outside names &
mkdir -p /run/resetd-test-redis
chown redis:redis /run/resetd-test-redis
chmod 750 /run/resetd-test-redis
setpriv --reuid=redis --regid=redis --init-groups redis-server --port 0 --unixsocket /run/resetd-test-redis/sock --unixsocketperm 770 --save '' --dir /run/resetd-test-redis >/dev/null &
./outside until 200 http://127.0.0.1:7000/mails
cat ca/ca.pem >>/etc/ssl/certs/ca-certificates.crt

files >before

# --- The package.

said=$(dpkg -i old.deb 2>&1) || failed "the installation: $said"
has "the installation" "neither started nor enabled" "$said"
has "the installation" "systemctl enable --now resetd" "$said"
same "the service after the installation" "disabled inactive" "$(state)"
same "what is installed" "/etc/resetd 755 root:root
/etc/resetd/resetd.env 640 root:root
/etc/resetd/secrets 700 root:root
/usr/bin/resetd 755 root:root
/usr/lib/systemd/system/resetd-check.service 644 root:root
/usr/lib/systemd/system/resetd.service 644 root:root
/usr/share/doc/resetd 755 root:root
/usr/share/doc/resetd/CHANGELOG.md 644 root:root
/usr/share/doc/resetd/README.md 644 root:root
/usr/share/doc/resetd/THIRD_PARTY_LICENSES 644 root:root
/usr/share/doc/resetd/copyright 644 root:root" "$(dpkg -L resetd | grep resetd | sort | xargs stat --format '%n %a %U:%G')"
has "the status of the file of settings" "/etc/resetd/resetd.env" "$(dpkg-query --show --showformat '${Conffiles}' resetd)"
same "what is set" "" "$(grep -v '^#' /etc/resetd/resetd.env | tr -d '\n')"
ok "installed, and not started before it is configured"

said=$(systemd-analyze verify /usr/lib/systemd/system/resetd.service /usr/lib/systemd/system/resetd-check.service 2>&1) || failed "systemd-analyze verify: $said"
same "what systemd-analyze verify finds" "" "$(grep resetd <<<"$said" || true)"
systemd-analyze security --no-pager --threshold=15 resetd.service >security || failed "the sandbox: $(grep -v ✓ security)"
ok "systemd-analyze: verified, $(tail -n 1 security | sed 's/^[^a-zA-Z]*//')"

# --- Wrong settings.

cp /etc/resetd/resetd.env untouched
echo "RATE_LIMIT=often" >>/etc/resetd/resetd.env
systemctl start resetd.service || true
for _ in $(seq 300); do [ "$(service ActiveState)" = failed ] && break || sleep 0.1; done
same "the state with wrong settings" "failed 2 0" "$(service ActiveState) $(service ExecMainStatus) $(service NRestarts)"
has "the log" "RATE_LIMIT: " "$(journalctl --no-pager --unit=resetd.service --output=cat)"
systemctl reset-failed resetd.service
cp untouched /etc/resetd/resetd.env
ok "wrong settings are named, status 2, and not tried again"

# --- The service, in its sandbox, with everything that it may reach.

# set_to and secret change lines of the file by removing the #.
set_to() { # NAME VALUE
	grep -q "^#$1=" /etc/resetd/resetd.env || failed "resetd.env has no $1"
	sed -i "s|^#$1=.*|$1=$2|" /etc/resetd/resetd.env
}
secret() { # NAME KEY
	install -m 0600 /dev/stdin "/etc/resetd/secrets/$1" <<<"$2"
	grep -q "^#$1_FILE=/run/credentials/" /etc/resetd/resetd.env || failed "resetd.env has no $1_FILE"
	sed -i "s|^#\($1_FILE=.*\)|\1|" /etc/resetd/resetd.env
}
set_to SUPABASE_URL https://supabase.example.com:7001
set_to SUPABASE_AUTH_URL https://supabase.example.com:7001/auth/v1
set_to MAILGUN_API_BASE https://mailgun.example.com:7002
set_to MAILGUN_DOMAIN mg.example.com
set_to MAIL_FROM "'Example <no-reply@mg.example.com>'"
set_to SITE_URL https://app.example.com
set_to RATE_LIMIT 1000-M
set_to RECIPIENT_LIMIT 100-M
set_to SHUTDOWN_DELAY 1s
secret SUPABASE_SERVICE_ROLE_KEY container-service-role-key
secret MAILGUN_API_KEY container-mailgun-key
secret REDIS_URL unix:///run/resetd-test-redis/sock
# This is what docs/install.md says of a Redis behind a socket.
mkdir /etc/systemd/system/resetd.service.d
mkdir /etc/systemd/system/resetd-check.service.d
printf '[Service]\nSupplementaryGroups=redis\n' | tee /etc/systemd/system/{resetd,resetd-check}.service.d/override.conf >/dev/null
systemctl daemon-reload

check() {
	local status=0
	systemctl start resetd-check.service 2>/dev/null || status=$?
	echo "status $status: $(journalctl --no-pager --unit=resetd-check.service --output=cat --cursor-file=cursor)"
}
said=$(check)
has "the check before the first start" "status 0" "$said"
has "the check before the first start" "ok      redis" "$said"
ok "resetd-check tries the settings as the service will have them"

systemctl enable --now resetd.service 2>/dev/null
./outside until 200 http://127.0.0.1:9090/readyz
same "the service once it is enabled" "enabled active" "$(state)"
acknowledged=$(./outside ask POST "$api" '{"email":"known@example.com"}')
same "the status" 200 "${acknowledged%%$'\n'*}"
has "the mails" "1 delivered" "$(./outside ask GET http://127.0.0.1:7000/mails/1)"
metrics=$(./outside ask GET http://127.0.0.1:9090/metrics)
has metrics 'resetd_limits_in{store="redis"} 1' "$metrics"
has metrics process_start_time_seconds "$metrics"
has "the check while the service runs" "status 0" "$(check)"
ok "configured by its own lines: names by DNS, TLS by the system's roots, keys by systemd, Redis by a socket, a mail"

pid=$(service MainPID)
same "the command" "/usr/bin/resetd serve " "$(tr '\0' ' ' <"/proc/$pid/cmdline")"
user=$(awk '/^Uid:/ { print $2 }' "/proc/$pid/status")
[ "$user" -ge 61184 ] && [ "$user" -le 65519 ] || failed "the process's user is $user"
for capabilities in CapEff CapPrm CapBnd CapInh CapAmb; do
	same "$capabilities" 0000000000000000 "$(awk -v name="$capabilities:" '$1 == name { print $2 }' "/proc/$pid/status")"
done
same "no new privileges" 1 "$(awk '/^NoNewPrivs:/ { print $2 }' "/proc/$pid/status")"
same "seccomp" 2 "$(awk '/^Seccomp:/ { print $2 }' "/proc/$pid/status")"
if tr '\0' '\n' <"/proc/$pid/environ" | grep -q container-; then
	failed "a key is in the environment"
fi
# Root on the outside, which nothing else stops, cannot write or run anything there either.
for folder in / /etc /usr /var /etc/resetd /run/credentials/resetd.service; do
	error=$(touch "/proc/$pid/root$folder/written" 2>&1) && failed "$folder can be written"
	has "writing to $folder" "Read-only file system" "$error"
done
error=$(nsenter --mount --target "$pid" sh -c true 2>&1) && failed "a shell runs there"
has "running a shell" "Permission denied" "$error"
same "the owner and mode of a key" "$user 400" "$(stat --format '%u %a' "/proc/$pid/root/run/credentials/resetd.service/secrets_MAILGUN_API_KEY")"
ok "a user that exists while it runs ($user), no capability, nothing to write to or to run, no key in the environment"

systemctl kill --signal=KILL resetd.service
for _ in $(seq 300); do [ "$(service NRestarts)" = 1 ] && break || sleep 0.1; done
same "starts again after a kill" 1 "$(service NRestarts)"
./outside until 200 http://127.0.0.1:9090/readyz
ok "killed, and started again"

# --- The next version, with a file of settings that has changed in both.

pid=$(service MainPID)
said=$(dpkg --force-confold -i new.deb 2>&1) || failed "the upgrade: $said"
[[ $said != *"neither started"* ]] || failed "an upgrade says what a first installation does"
./outside until 200 http://127.0.0.1:9090/readyz
same "the service after the upgrade" "enabled active" "$(state)"
[ "$(service MainPID)" != "$pid" ] || failed "after the upgrade the old program still runs"
has "the settings after the upgrade" "SITE_URL=https://app.example.com" "$(cat /etc/resetd/resetd.env)"
same "what the settings of the new version are called" /etc/resetd/resetd.env.dpkg-dist "$(ls /etc/resetd/resetd.env.*)"
same "the status after the upgrade" "$acknowledged" "$(./outside ask POST "$api" '{"email":"known@example.com"}')"
ok "upgraded: the settings stay, the new ones lie beside them, the new program runs"

# --- The end.

said=$(dpkg -r resetd 2>&1) || failed "the removal: $said"
has "the log" '"msg":"stopped"' "$(journalctl --no-pager --unit=resetd.service --output=cat)"
same "the service after the removal" " inactive" "$(state)"
has "the mails, the last of which was accepted just before" "2 delivered" "$(./outside ask GET http://127.0.0.1:7000/mails)"
has "the settings after the removal" "SITE_URL=https://app.example.com" "$(cat /etc/resetd/resetd.env)"
if ls /etc/systemd/system/*.wants/resetd.service 2>/dev/null || [ -e /usr/bin/resetd ]; then
	failed "something runs, or would"
fi
ok "removed: stopped in order, the settings stay"

said=$(dpkg --purge resetd 2>&1) || failed "the purge: $said"
files >after
same "what a purge leaves" "" "$(diff before after)"
same "the package after the purge" "" "$(dpkg-query --list 'resetd*' 2>/dev/null | grep '^[a-z][a-zA-Z] ' || true)"
ok "purged: nothing is left"

# --- The other package.

same "what the .rpm has" "/etc/resetd drwxr-xr-x
/etc/resetd/resetd.env -rw-r-----
/etc/resetd/secrets drwx------
/usr/bin/resetd -rwxr-xr-x
/usr/lib/systemd/system/resetd-check.service -rw-r--r--
/usr/lib/systemd/system/resetd.service -rw-r--r--
/usr/share/doc/resetd/CHANGELOG.md -rw-r--r--
/usr/share/doc/resetd/README.md -rw-r--r--
/usr/share/doc/resetd/THIRD_PARTY_LICENSES -rw-r--r--
/usr/share/licenses/resetd/LICENSE -rw-r--r--" "$(rpm -qp --queryformat '[%{FILENAMES} %{FILEMODES:perms}\n]' new.rpm | sort)"
same "who owns it" "root root" "$(rpm -qp --queryformat '[%{FILEUSERNAME} %{FILEGROUPNAME}\n]' new.rpm | sort -u)"
same "its licence" Apache-2.0 "$(rpm -qp --queryformat '%{LICENSE}' new.rpm)"
same "its settings" /etc/resetd/resetd.env "$(rpm -qp --configfiles new.rpm)"
# dpkg does not know what rpm installs, hence --nodeps.
said=$(rpm --install --nodeps new.rpm 2>&1) || failed "the installation of the .rpm: $said"
has "the installation of the .rpm" "neither started nor enabled" "$said"
same "the service after the installation of the .rpm" "disabled inactive" "$(state)"
set_to SHUTDOWN_DELAY 0s
systemctl enable --now resetd.service 2>/dev/null
./outside until 200 http://127.0.0.1:8080/healthz
pid=$(service MainPID)
sh -c "$(rpm -qp --queryformat '%{POSTIN}' new.rpm)" postinstall 2 # as an upgrade runs it
./outside until 200 http://127.0.0.1:8080/healthz
[ "$(service MainPID)" != "$pid" ] || failed "after an upgrade of the .rpm the old program still runs"
# This is what docs/install.md says of a port below 1024.
set_to LISTEN_ADDR :443
mkdir /etc/systemd/system/resetd.service.d
printf '[Service]\nAmbientCapabilities=CAP_NET_BIND_SERVICE\nCapabilityBoundingSet=CAP_NET_BIND_SERVICE\nPrivateUsers=no\n' >/etc/systemd/system/resetd.service.d/override.conf
systemctl daemon-reload
systemctl restart resetd.service
./outside until 200 http://127.0.0.1:443/healthz
said=$(rpm --erase --nodeps resetd 2>&1) || failed "the removal of the .rpm: $said"
same "the service after the removal of the .rpm" " inactive" "$(state)"
same "what is left of the .rpm" /etc/resetd/resetd.env.rpmsave "$(find /etc/resetd /usr/bin/resetd -type f 2>/dev/null)"
ok "the .rpm: the same files and the same life, a port below 1024, changed settings are saved"

echo "all of it holds"
