#!/usr/bin/env bash
# Takes pictures of the mail in every language with Chromium, and one of all of them. With a revision it says
# what has changed since then: test/mails.sh FOLDER [REVISION]
set -euo pipefail
cd "$(dirname "$0")/.."
source test/node.sh
./test/chromium.sh
# Without these fonts, Chinese, Japanese, Korean and Arabic are boxes.
for language in ja ar; do
	if command -v fc-list >/dev/null && fc-list ":lang=$language" family | grep -qv DejaVu; then
		continue
	fi
	./test/install.sh :fonts-noto-core :fonts-noto-cjk || echo "There may be no font for $language." >&2
done
npm --prefix test/web run --silent build
(cd test/web && npx --no-install tsc -p client/test)
node test/web/browser/pictures.mjs "$@"
