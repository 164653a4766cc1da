#!/usr/bin/env bash
# Checks the workflows of GitHub: actionlint; actions pinned by commit and images by digest; rights
# and times bounded for each job; and nothing of an event pasted into a script. First the check
# itself is tested, with mutated copies.
#
#	test/workflows.sh
set -euo pipefail
cd "$(dirname "$0")/.."
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
go build -modfile=tools/actionlint/go.mod -o "$dir/actionlint" github.com/rhysd/actionlint/cmd/actionlint

check() { # workflow files
	local status=0
	# shellcheck is not everywhere, and would judge otherwise where it is.
	"$dir/actionlint" -shellcheck= -pyflakes= -no-color "$@" || status=1
	awk '
		function wrong(what) { printf "%s:%d: %s\n", FILENAME, FNR, what; bad = 1 }
		function job_ends() {
			if (job == "") return
			if (!permissions) wrong("the job " job " says no permissions")
			if (!reused && !timeout) wrong("the job " job " has no timeout-minutes")
		}
		function checkout_ends() {
			if (checkout && !kept) wrong("a checkout above keeps its credentials: persist-credentials: false")
			checkout = 0
		}
		function file_ends() {
			if (name == "") return
			checkout_ends(); job_ends()
			if (!bounded) wrong("no `permissions: {}` for the whole file: rights are given to jobs")
			if (!concurrent) wrong("no concurrency")
		}
		FNR == 1 { file_ends(); name = FILENAME; job = ""; jobs = bounded = concurrent = checkout = script = 0 }
		{ match($0, /^ */); depth = RLENGTH; line = $0; sub(/^ */, "", line) }
		line == "" || line ~ /^#/ { next }

		# Scripts: an expression there is text that becomes part of the program.
		script && depth > at { if (line ~ /\$\{\{/) wrong("an expression in a script: hand it over in env"); next }
		{ script = 0 }
		line ~ /^(- )?run:/ {
			if (line ~ /\$\{\{/) wrong("an expression in a script: hand it over in env")
			script = 1; at = depth + (line ~ /^- / ? 2 : 0)
		}

		depth == 0 { jobs = (line ~ /^jobs:/); if (line == "permissions: {}") bounded = 1; if (line ~ /^concurrency:/) concurrent = 1 }
		jobs && depth == 2 { checkout_ends(); job_ends(); job = line; sub(/:.*/, "", job); permissions = timeout = reused = 0 }
		jobs && depth == 4 && line ~ /^permissions:/ { permissions = 1 }
		jobs && depth == 4 && line ~ /^timeout-minutes:/ { timeout = 1 }
		jobs && depth == 4 && line ~ /^uses:/ { reused = 1 }
		line ~ /permissions: *(write-all|read-all)/ { wrong("permissions are named one by one") }
		line ~ /^pull_request_target|^workflow_run/ { wrong("strangers could start this with the rights of the repository") }

		depth == 6 && line ~ /^- / { checkout_ends() }
		line ~ /persist-credentials: false/ { kept = 1 }
		line ~ /^(- )?uses:/ {
			value = line; sub(/^(- )?uses: */, "", value)
			if (value !~ /^\.\// && value !~ /^[A-Za-z0-9_.\/-]+@[0-9a-f]+ # v[0-9]+(\.[0-9]+)*$/) wrong("not pinned by commit with its version behind: " value)
			commit = value; sub(/^[^@]*@/, "", commit); sub(/ .*/, "", commit)
			if (value !~ /^\.\// && length(commit) != 40) wrong("a commit has 40 digits: " value)
			if (value ~ /^actions\/checkout@/) { checkout = 1; kept = 0 }
		}
		line ~ /(^|[ "=])(docker:\/\/|docker\.io\/|ghcr\.io\/[a-z]+\/|quay\.io\/|(- )?(image|container): *[a-z"'"'"'])/ && line !~ /@sha256:[0-9a-f]+/ && line !~ /^(- )?run:/ {
			wrong("an image without a digest: " line)
		}
		END { file_ends(); exit bad }
	' "$@" || status=1
	return $status
}

# The test of the check.
fails() { # what it is, what must be said, workflow, sed expression
	mkdir -p "$dir/mutated"
	sed -E "$4" ".github/workflows/$3" >"$dir/mutated/$3"
	if cmp -s ".github/workflows/$3" "$dir/mutated/$3"; then
		echo "test of the check: the mutation '$1' does not fit $3 any more" >&2
		exit 1
	fi
	if check "$dir/mutated/$3" >"$dir/outcome" 2>&1; then
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
fails "all rights" "one by one" ci.yaml 's/^    permissions:/    permissions: write-all #/; /^      contents: read/d'
fails "an event in a script" "an expression in a script" release.yaml 's/^( *\.\/test\/release\.sh).*/\1 ${{ github.ref_name }}/'
fails "an event in a script of one line" "an expression in a script" nightly.yaml 's/"FUZZTIME=\$FUZZTIME"/${{ github.event.schedule }}/'
fails "a strange trigger" "rights of the repository" ci.yaml 's/^  pull_request:/  pull_request_target:/'
fails "an unknown key" "unexpected key" ci.yaml 's/timeout-minutes: 60/timeout: 60/'
fails "an output that no step has" "not defined" release.yaml 's/steps\.build\.outputs\.version/steps.made.outputs.version/'

check .github/workflows/*.yaml
# A job that runs in an image, and every stage of the Dockerfile, is named by digest too.
if grep -nE '^FROM ' Dockerfile | grep -vE 'FROM (scratch|.*@sha256:[0-9a-f]{64})( |$)'; then
	echo "Dockerfile: a base without a digest" >&2
	exit 1
fi
echo "the workflows are as they should be"
