#!/usr/bin/env bash
# Checks deploy/compose.yaml and deploy/kubernetes, and the checks themselves: each of them must
# find the mistake that it is for. Neither a cluster nor a container runtime is needed.
set -euo pipefail
cd "$(dirname "$0")/.."
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
go build -o "$dir/resetd" ./cmd/resetd
cd tools/manifests
go vet ./...
go mod tidy -diff
go run . -resetd "$dir/resetd" -deploy ../../deploy
go test -count=1 ./... # its cache knows nothing of files outside of the module
