#!/usr/bin/env bash
# Lints the workflows of GitHub. What is this project's own rule about them is in test/repo.
set -euo pipefail
cd "$(dirname "$0")/.."
# Without shellcheck: it is not everywhere, and would judge otherwise where it is.
go tool -modfile=tools/actionlint/go.mod actionlint -shellcheck= -pyflakes= -no-color .github/workflows/*.yaml
