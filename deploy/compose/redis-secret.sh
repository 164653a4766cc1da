#!/usr/bin/env bash
# Makes a password for Redis and writes two files into a folder: redis_conf, which Redis starts
# with, and redis_url, which resetd connects with. It overwrites neither file.
#
#	compose/redis-secret.sh FOLDER [HOST]
set -euo pipefail
folder=${1:?usage: redis-secret.sh FOLDER [HOST]}
host=${2:-redis}
umask 022
mkdir -p "$folder"
chmod 0700 "$folder"
for file in redis_conf redis_url; do
	if [ -e "$folder/$file" ]; then
		echo "$folder/$file is there already: remove both files to make up another password" >&2
		exit 1
	fi
done
password=$(od -An -tx1 -N32 /dev/urandom | tr -d ' \n')
hash=$(printf %s "$password" | sha256sum | cut -d' ' -f1)
# Without a password a client may only ping Redis. Redis itself needs only the password's hash.
cat >"$folder/redis_conf" <<-CONF
	user default on nopass resetkeys resetchannels -@all +ping
	user resetd on #$hash ~resetd:* resetchannels -@all +@connection +@read +@write +@scripting -@dangerous
CONF
printf 'redis://resetd:%s@%s:6379/0\n' "$password" "$host" >"$folder/redis_url"
