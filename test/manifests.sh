#!/usr/bin/env bash
# Checks deploy/compose.yaml and deploy/kubernetes, without a cluster or a container runtime.
set -euo pipefail
cd "$(dirname "$0")/../tools/manifests"
go vet ./...
go mod tidy -diff
go test -count=1 ./... # its cache knows nothing of files outside of the module
