#!/usr/bin/env bash
# Checks the workflows of GitHub: actionlint; actions pinned by commit and images by digest; the Go
# of the Dockerfile; no right to write but those listed here, and times bounded for each job; and
# nothing of an event pasted into a script. First the check itself is tested, with mutated copies.
#
#	test/workflows.sh
set -euo pipefail
cd "$(dirname "$0")/.."
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
go build -modfile=tools/actionlint/go.mod -o "$dir/actionlint" github.com/rhysd/actionlint/cmd/actionlint

# What may be written, by workflow and job: all else may read at most. These jobs run no code of
# this repository, nor of the modules.
writes='
	release.yaml image packages
	release.yaml image id-token
	release.yaml image attestations
	release.yaml publish contents
	release.yaml publish id-token
	release.yaml publish attestations
'
# The program is checked and released by the very Go that builds the image.
go_of() { # Dockerfile
	sed -nE 's/^FROM .*\/golang:([0-9]+\.[0-9]+\.[0-9]+)-[^ ]+ AS build$/\1/p' "$1"
}

check() { # Go's version, workflow files
	local status=0 version=$1
	shift
	# Without shellcheck: it is not everywhere, and would judge otherwise where it is.
	"$dir/actionlint" -shellcheck= -pyflakes= -no-color "$@" || status=1
	awk -v go="$version" -v writes="$writes" '
		BEGIN { gsub(/[ \t\n]+/, " ", writes) }
		function wrong(what) { printf "%s:%d: %s\n", FILENAME, FNR, what; bad = 1 }
		function job_ends() {
			if (job == "") return
			if (!permissions) wrong("the job " job " says no permissions")
			if (!reused && !timeout) wrong("the job " job " has no timeout-minutes")
		}
		function step_ends() {
			if (checkout && !kept) wrong("a checkout above keeps its credentials: persist-credentials: false")
			if (setup && !told) wrong("a setup-go above has no go-version: " go)
			checkout = setup = 0
		}
		# An image is named by its registry, or by a folder or a key and a tag; a command that starts
		# one is followed by it on the same line. Variables are judged where they are set.
		function images(text, command,   words, count, i) {
			if (text ~ /@sha256:[0-9a-f]+/) return
			if (command && text ~ /(docker|podman|nerdctl) +(container +|image +)?(run|create|pull)( |$)|buildah +(from|pull)( |$)/) wrong("an image without a digest on this line: " text)
			count = split(text, words, /[ \t"'"'"'=,]+/)
			for (i = 1; i <= count; i++) {
				if (words[i] ~ /^(docker:\/\/|(docker|ghcr|quay|gcr|lscr)\.io\/[a-z]|(mcr\.microsoft\.com|public\.ecr\.aws|registry\.k8s\.io)\/[a-z])/ ||
					words[i] ~ /^[a-z0-9][a-z0-9.-]*(:[0-9]+)?(\/[a-z0-9._-]+)+:[A-Za-z0-9_][A-Za-z0-9._-]*$/ ||
					!command && i > 1 && words[i] ~ /^[a-z0-9][a-z0-9._-]*:[A-Za-z0-9_][A-Za-z0-9._-]*$/)
					wrong("an image without a digest: " words[i])
			}
		}
		function file_ends() {
			if (name == "") return
			step_ends(); job_ends()
			if (!bounded) wrong("no `permissions: {}` for the whole file: rights are given to jobs")
			if (!concurrent) wrong("no concurrency")
		}
		FNR == 1 { file_ends(); name = FILENAME; sub(/.*\//, "", name); job = ""; jobs = bounded = concurrent = checkout = setup = script = rights = 0 }
		{ match($0, /^ */); depth = RLENGTH; line = $0; sub(/^ */, "", line) }
		line == "" || line ~ /^#/ { next }

		# Scripts: an expression there is text that becomes part of the program.
		script && depth > at { if (line ~ /\$\{\{/) wrong("an expression in a script: hand it over in env"); images(line, 1); next }
		{ script = 0 }
		line !~ /^(- )?uses:/ { images(line, line ~ /^(- )?run:/) }
		line ~ /^(- )?run:/ {
			if (line ~ /\$\{\{/) wrong("an expression in a script: hand it over in env")
			script = 1; at = depth + (line ~ /^- / ? 2 : 0)
		}

		depth == 0 { jobs = (line ~ /^jobs:/); if (line == "permissions: {}") bounded = 1; if (line ~ /^concurrency:/) concurrent = 1 }
		jobs && depth == 2 { step_ends(); job_ends(); job = line; sub(/:.*/, "", job); permissions = timeout = reused = 0 }
		depth <= 4 { rights = 0 }
		rights {
			right = line; sub(/:.*/, "", right)
			value = line; sub(/^[^:]*: */, "", value); sub(/ *#.*/, "", value)
			if (value != "read" && value != "none" && !(value == "write" && index(writes, " " name " " job " " right " ")))
				wrong("the job " job " may " value " " right ", which is not in the list of test/workflows.sh")
		}
		jobs && depth == 4 && line ~ /^permissions:/ {
			permissions = 1; rights = (line ~ /^permissions: *(#.*)?$/)
			if (!rights && line !~ /^permissions: *\{\}/) wrong("permissions are named one by one, one a line")
		}
		depth == 0 && line ~ /^permissions:/ && line != "permissions: {}" { wrong("rights are given to jobs, not to the whole file") }
		jobs && depth == 4 && line ~ /^timeout-minutes:/ { timeout = 1 }
		jobs && depth == 4 && line ~ /^uses:/ { reused = 1 }
		line ~ /^pull_request_target|^workflow_run/ { wrong("anybody could start this with the rights of the repository") }

		depth == 6 && line ~ /^- / { step_ends() }
		line ~ /persist-credentials: false/ { kept = 1 }
		line ~ /^go-version: / {
			told = 1
			if (line != "go-version: " go) wrong("the Dockerfile builds with Go " go ", and this is " line)
		}
		line ~ /^(check-latest|go-version-file):/ { wrong("Go is of one version, the one of the Dockerfile: " line) }
		line ~ /^(- )?uses:/ {
			value = line; sub(/^(- )?uses: */, "", value)
			if (value !~ /^\.\// && value !~ /^[A-Za-z0-9_.\/-]+@[0-9a-f]+ # v[0-9]+(\.[0-9]+)*$/) wrong("not pinned by commit with its version behind: " value)
			commit = value; sub(/^[^@]*@/, "", commit); sub(/ .*/, "", commit)
			if (value !~ /^\.\// && length(commit) != 40) wrong("a commit has 40 digits: " value)
			if (value ~ /^actions\/checkout@/) { checkout = 1; kept = 0 }
			if (value ~ /^actions\/setup-go@/) { setup = 1; told = 0 }
		}
		# Of an image without a tag only the key tells.
		line ~ /^(- )?(image|container|[A-Z0-9_]*IMAGE[A-Z0-9_]*): *[a-z"'"'"']/ && line !~ /@sha256:[0-9a-f]+/ { wrong("an image without a digest: " line) }
		END { file_ends(); exit bad }
	' "$@" || status=1
	return $status
}

go=$(go_of Dockerfile)
if [ -z "$go" ]; then
	echo "Dockerfile: the stage \"build\" is of no whole version of Go" >&2
	exit 1
fi

# The test of the check.
fails() { # what it is, what must be said, workflow, sed expression
	mkdir -p "$dir/mutated"
	sed -E "$4" ".github/workflows/$3" >"$dir/mutated/$3"
	if cmp -s ".github/workflows/$3" "$dir/mutated/$3"; then
		echo "test of the check: the mutation '$1' does not fit $3 any more" >&2
		exit 1
	fi
	if check "$go" "$dir/mutated/$3" >"$dir/outcome" 2>&1; then
		echo "test of the check: $1 was not found" >&2
		exit 1
	fi
	if ! grep -q -- "$2" "$dir/outcome"; then
		echo "test of the check: $1 was found for another reason:" >&2
		cat "$dir/outcome" >&2
		exit 1
	fi
}
fails "an action pinned by a tag" "not pinned" ci.yaml 's/(actions\/checkout)@[0-9a-f]{40} # v[0-9.]+/\1@v7/'
fails "an action pinned without its version" "not pinned" ci.yaml 's/(actions\/setup-go@[0-9a-f]{40}) # v[0-9.]+/\1/'
fails "a shortened commit" "40 digits" release.yaml 's/(actions\/attest@[0-9a-f]{12})[0-9a-f]{28}/\1/'
fails "an image without a digest" "without a digest" release.yaml 's/@sha256:[0-9a-f]{64}//'
fails "a checkout that keeps its credentials" "keeps its credentials" nightly.yaml 's/persist-credentials: false/fetch-depth: 1/'
fails "a job without a bound of time" "no timeout-minutes" nightly.yaml '/timeout-minutes: 20/d'
fails "a job without permissions" "says no permissions" ci.yaml '/^    permissions:/,/contents: read/d'
fails "a file without permissions" "for the whole file" ci.yaml '/^permissions:/d'
fails "a right to write" "the job checks may write contents" ci.yaml '0,/contents: read/s//contents: write/'
fails "a right to write that another job has" "the job publish may write packages" release.yaml 's/^      contents: write.*/&\n      packages: write/'
fails "a right to write where all is built" "the job build may write id-token" release.yaml '/^  build:/,/contents: read/s/contents: read/id-token: write/'
fails "a right to write for a workflow that is called" "the job checks may write actions" release.yaml '0,/contents: read/s//actions: write/'
fails "a quoted right to write" "the job fuzz may" nightly.yaml '/^  fuzz:/,/contents: read/s/contents: read/contents: "write"/'
fails "rights on one line" "one by one" nightly.yaml '/^      contents: read/d; s/^    permissions:/    permissions: {contents: write}/'
fails "rights for the whole file" "not to the whole file" release.yaml 's/^permissions: \{\}/permissions:\n  contents: write/'
fails "a Go that moves" "the Dockerfile builds with Go" ci.yaml '0,/go-version: .*/s//go-version: 1.26.x/'
fails "another Go" "the Dockerfile builds with Go" nightly.yaml '0,/go-version: .*/s//go-version: 1.25.0/'
fails "the latest Go" "of one version" release.yaml 's/^( *)go-version: .*/&\n\1check-latest: true/'
fails "a Go of go.mod" "of one version" ci.yaml '0,/go-version: .*/s//go-version-file: go.mod/'
fails "a Go that is not named" "has no go-version" ci.yaml '0,/^ *go-version: .*/s///'
fails "an image in a variable without a digest" "without a digest: moby" release.yaml 's/(BUILDKIT: ).*/\1moby\/buildkit:v0.31.2/'
fails "an image of one word in a variable" "without a digest: alpine" release.yaml 's/(BUILDKIT: ).*/\1alpine:3.24/'
fails "an image without a tag in a variable" "without a digest" release.yaml 's/BUILDKIT: .*/IMAGE: moby\/buildkit/'
fails "an image in a script" "without a digest: moby" release.yaml 's/image=\$BUILDKIT/image=moby\/buildkit:v0.31.2/'
fails "an image of a registry in a script" "without a digest: quay.io" release.yaml 's/image=\$BUILDKIT/image=quay.io\/moby\/buildkit/'
fails "an image that a script runs" "without a digest on this line" release.yaml 's/^( *)docker logout.*/\1docker run --rm alpine/'
fails "an image that a script of one line runs" "without a digest on this line" nightly.yaml 's/run: make fuzz.*/run: podman run alpine/'
fails "an image that a job runs in" "without a digest" nightly.yaml 's/^( *)timeout-minutes: 20/&\n\1container: alpine/'
fails "all rights" "one by one" ci.yaml 's/^    permissions:/    permissions: write-all #/; /^      contents: read/d'
fails "an event in a script" "an expression in a script" release.yaml 's/^( *\.\/test\/release\.sh).*/\1 ${{ github.ref_name }}/'
fails "an event in a script of one line" "an expression in a script" nightly.yaml 's/"FUZZTIME=\$FUZZTIME"/${{ github.event.schedule }}/'
fails "a strange trigger" "rights of the repository" ci.yaml 's/^  pull_request:/  pull_request_target:/'
fails "an unknown key" "unexpected key" ci.yaml 's/timeout-minutes: 60/timeout: 60/'
fails "an output that no step has" "not defined" release.yaml 's/steps\.build\.outputs\.version/steps.made.outputs.version/'
# Dependabot moves the Dockerfile alone: the check has to name each line that is to follow.
sed -E "s/golang:$go-/golang:1.99.9-/" Dockerfile >"$dir/Dockerfile"
check "$(go_of "$dir/Dockerfile")" .github/workflows/*.yaml >"$dir/outcome" 2>&1 || true
if [ "$(grep -c "builds with Go 1.99.9, and this is go-version: $go" "$dir/outcome")" != "$(cat .github/workflows/*.yaml | grep -c 'uses: actions/setup-go@')" ]; then
	echo "test of the check: another Go in the Dockerfile was not found everywhere:" >&2
	cat "$dir/outcome" >&2
	exit 1
fi

check "$go" .github/workflows/*.yaml
# A job that runs in an image, and every stage of the Dockerfile, is named by digest too.
if grep -nE '^FROM ' Dockerfile | grep -vE 'FROM (scratch|.*@sha256:[0-9a-f]{64})( |$)'; then
	echo "Dockerfile: a base without a digest" >&2
	exit 1
fi
echo "the workflows are as they should be"
