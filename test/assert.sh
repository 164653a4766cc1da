# What the tests of the image and of the packages say. To be sourced.
ok() { echo "ok: $*"; }
failed() {
	echo "FAILED: $*" >&2
	exit 1
}
same() { # NAME WANT GOT
	[ "$2" = "$3" ] || failed "$1 is '$3', want '$2'"
}
has() { # NAME TEXT IN
	[[ $3 == *"$2"* ]] || failed "$1 has no '$2': ${3:0:2000}"
}
