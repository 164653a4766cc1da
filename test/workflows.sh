#!/usr/bin/env bash
# Lints the workflows of GitHub. The project's own rules for them are in test/repo.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck is off: not every machine has it, so results would differ.
go tool -modfile=tools/actionlint/go.mod actionlint -shellcheck= -pyflakes= -no-color .github/workflows/*.yaml
