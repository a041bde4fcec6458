# shellcheck shell=bash
# What hack/quickstart.sh, hack/test.sh and hack/bench.sh share: running as root and
# installing what is missing from Debian. To be sourced.

# Runs a command as root.
as_root() {
	if [ "$(id -u)" = 0 ]; then
		"$@"
	else
		command -v sudo >/dev/null || { echo "error: this needs root: run it as root, or install sudo" >&2; return 1; }
		sudo --preserve-env=PATH,ORLOP_ROOT,ORLOP_RUN,ORLOP_LOG_ROOT "$@"
	fi
}

needed=()

# need PACKAGE WHY TEST...: notes that PACKAGE must be installed unless TEST succeeds.
need() {
	local package=$1 why=$2
	shift 2
	"$@" >/dev/null 2>&1 && return
	echo "missing: $package ($why)"
	needed+=("$package")
}

# The packages that building takes.
need_build() {
	command -v cargo >/dev/null || {
		echo "error: cargo is not in PATH: install Rust 1.95 or newer, see https://rustup.rs" >&2
		return 1
	}
	need gcc "compiles SQLite, links the binaries" command -v cc
	need libc6-dev "the C library to link with" test -e /usr/include/stdio.h
}

# The shell in the example images must run without libraries.
need_busybox() {
	need busybox-static "the program in the busybox image" static_busybox
}

static_busybox() {
	local busybox
	busybox=$(command -v busybox) || return 1
	! ldd "$busybox" >/dev/null 2>&1
}

# Installs what `need` found missing.
install_needed() {
	[ ${#needed[@]} -gt 0 ] || return 0
	command -v apt-get >/dev/null || {
		echo "error: this is no Debian: install what Debian calls ${needed[*]}, and run this again" >&2
		return 1
	}
	local install=(env DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends "${needed[@]}")
	echo "\$ apt-get install --no-install-recommends ${needed[*]}"
	# The package lists of a fresh machine are empty, those of an old one stale.
	as_root "${install[@]}" >/dev/null 2>&1 || {
		as_root apt-get update -qq && as_root "${install[@]}" >/dev/null
	} || {
		echo "error: apt-get could not install ${needed[*]}" >&2
		return 1
	}
	needed=()
}
