#!/bin/bash
# Everything that must hold before a change is good: format, lints, documentation, and
# the tests on this kernel and once more on a second one (user-mode Linux, cgroup v2).
#
#   hack/test.sh [fmt] [clippy] [doc] [host] [uml]      without arguments: all of it
#
# Installs from Debian what is missing for that. Takes cargo-nextest when it is there, cargo
# test when not. A test that can't run on a kernel says `skipped: REASON` on stderr;
# the reasons are listed at the end. In user-mode Linux nothing may be skipped.
# shellcheck disable=SC2317 # the parts are called by name
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")/.."
source hack/debian.sh

case $* in -h | --help) sed -n '2,/^set/s/^# \{0,1\}//p' "$0"; exit ;; esac
wanted=" ${*:-fmt clippy doc host uml} "
for word in $wanted; do
	case $word in fmt | clippy | doc | host | uml) ;; *) echo "test.sh: no part is called $word" >&2; exit 2 ;; esac
done

prepare() {
	need_build
	need_busybox
	need user-mode-linux "a second kernel to test on" command -v linux.uml
	need openssl "a certificate for that registry" command -v openssl
	need docker-registry "a registry to pull from" command -v docker-registry
	need nfs-kernel-server "a server for NFS volumes, in the second kernel" command -v rpc.nfsd
	need systemd "its cgroup driver is tested with it" test -x /lib/systemd/systemd
	need iproute2 "shows the network of a pod" command -v ip
	install_needed
	# rustup's minimal profile leaves these two out.
	if command -v rustup >/dev/null; then
		cargo fmt --version >/dev/null 2>&1 || rustup component add rustfmt
		cargo clippy --version >/dev/null 2>&1 || rustup component add clippy
	fi
}

printf '=== What this needs\n'
prepare

export CARGO_TERM_COLOR=${CARGO_TERM_COLOR:-never}
target=$(readlink -m "${CARGO_TARGET_DIR:-target}")
export CARGO_TARGET_DIR=$target
# Nextest keeps its reports below the repository whatever cargo's target directory is.
reports=$PWD/target/nextest
results=$target/orlop-test
rm -rf "$results" "$reports/default/junit.xml"
mkdir -p "$results"

host=$(rustc -vV | sed -n 's/^host: //p')
# Tests mount, make namespaces and cgroups: they run as root, the compiler as whoever calls.
runner=()
if [ "$(id -u)" != 0 ]; then
	runner=(sudo --preserve-env)
	triple=${host^^}
	export "CARGO_TARGET_${triple//-/_}_RUNNER=${runner[*]}"
fi

failed=0
summary=()

# part NAME TITLE COMMAND...: runs one part if it is wanted, notes how it went, and goes
# on: whoever waits for all this wants to hear of everything that is wrong, not of the
# first. (So `set -e` doesn't hold within COMMAND: a function must return its failures.)
part() {
	local name=$1 title=$2 started=$SECONDS verdict=passed
	shift 2
	[[ $wanted == *" $name "* ]] || return 0
	printf '\n=== %s\n' "$title"
	"$@" 2>&1 | tee "$results/$name.log" || verdict=FAILED
	[ "$verdict" = passed ] || failed=1
	summary+=("$(printf '%-8s %4ds  %s' "$verdict" $((SECONDS - started)) "$title")")
}

has_nextest() { cargo nextest --version >/dev/null 2>&1; }

build_tests() {
	if has_nextest; then
		cargo nextest run --locked --no-run || return
		# What a later nextest needs to run these builds without asking cargo again.
		cargo nextest list --locked --list-type binaries-only --message-format json \
			>"$results/binaries.json" 2>"$results/list.err" || { cat "$results/list.err"; return 1; }
		cargo metadata --locked --filter-platform "$host" --format-version 1 >"$results/cargo.json" || return
	else
		cargo test --locked --no-run || return
		cargo test --locked --no-run --test '*' --message-format json 2>/dev/null |
			sed -n '/"kind":\["test"\]/s/.*"executable":"\([^"]*\)".*/\1/p' >"$results/executables" || return
	fi
	touch "$results/built"
}

test_host() {
	if has_nextest; then
		cargo nextest run --locked --no-fail-fast
	else
		cargo test --locked --no-fail-fast -- --show-output
	fi
}

# One virtual machine for each processor (four at most), each with its share of the tests.
test_uml() {
	# What is repeated a hundred times on this kernel is repeated less on a slow one.
	export ORLOP_TEST_NO_SKIP=1 ORLOP_TEST_RUNS=${ORLOP_TEST_RUNS:-25} ORLOP_TEST_KILLS=${ORLOP_TEST_KILLS:-50}
	export UML_ENV="ORLOP_TEST_NO_SKIP ORLOP_TEST_RUNS ORLOP_TEST_KILLS RUST_BACKTRACE CARGO_TERM_COLOR"
	local count guest guests=() status=0
	count=$(nproc)
	[ "$count" -le 4 ] || count=4
	has_nextest || count=1
	for ((guest = 1; guest <= count; guest++)); do
		mkdir -p "$results/uml-$guest"
		test_in_guest "$guest" "$count" > >(sed -u "s/^/[$guest] /") 2>&1 &
		guests+=($!)
	done
	for guest in "${guests[@]}"; do wait "$guest" || status=$?; done
	return "$status"
}

# test_in_guest NUMBER COUNT: its report is in $results/uml-NUMBER/.
test_in_guest() {
	local report=$results/uml-$1
	local guest=(${runner[@]+"${runner[@]}"} hack/uml.sh -t 2400 -b "$report")
	if has_nextest; then
		# shellcheck disable=SC2016 # expanded in the guest
		"${guest[@]}" bash -c 'report=$1 && shift && "$@"; status=$?
			cp target/nextest/uml/junit.xml "$report/" || exit
			exit $status' run-tests "$report" \
			cargo-nextest nextest run --no-fail-fast --profile uml -E 'kind(test)' --partition "slice:$1/$2" \
			--binaries-metadata "$results/binaries.json" --cargo-metadata "$results/cargo.json"
	else
		# shellcheck disable=SC2016 # expanded in the guest
		"${guest[@]}" bash -c 'status=0
			while read -r executable; do
				echo "     Running $executable"
				"$executable" --test-threads=1 --show-output || status=$?
			done <"$1"
			exit $status' run-tests "$results/executables"
	fi
}

# The skips of a part as `TEST: REASON`.
skips() {
	local reported=()
	if has_nextest; then
		case $1 in
		uml) reported=("$results"/uml-*/junit.xml) ;;
		*) reported=("$reports/$1/junit.xml") ;;
		esac
		[ ! -e "${reported[0]}" ] || awk '
			match($0, /<testcase name="[^"]*"/) { test = substr($0, RSTART + 16, RLENGTH - 17) }
			match($0, /skipped: [^<]*/) { print test ": " substr($0, RSTART + 9, RLENGTH - 9) }
		' "${reported[@]}" | sed "s/&quot;/\"/g; s/&apos;/'/g; s/&lt;/</g; s/&gt;/>/g; s/&amp;/\&/g"
	else
		awk '/^---- .* stdout ----$/ { test = $2 } match($0, /skipped: .*/) { print test ": " substr($0, RSTART + 9) }' "$results/$2.log"
	fi | sort -u
}

# What a test run says last.
closing() { grep -hE '^(\[[0-9]\])? *Summary \[|^(\[[0-9]\] )?test result: ' "$results/$1.log" | sed 's/^ *//' || true; }

if cargo fmt --version >/dev/null 2>&1; then
	part fmt "cargo fmt --check" cargo fmt --check
else
	summary+=("skipped        cargo fmt --check: rustfmt is not installed")
fi
if cargo clippy --version >/dev/null 2>&1; then
	part clippy "cargo clippy" cargo clippy --locked --all-targets -- -D warnings
else
	summary+=("skipped        cargo clippy: it is not installed")
fi
RUSTDOCFLAGS="-D warnings" part doc "cargo doc" cargo doc --locked --no-deps

if [[ $wanted == *" host "* || $wanted == *" uml "* ]]; then
	wanted+="build "
	part build "Build the tests" build_tests
	if [ -e "$results/built" ]; then
		part host "Unit and integration tests on this kernel, $(uname -r)" test_host
		part uml "Integration tests in user-mode Linux" test_uml
	fi
fi

printf '\n=== Summary\n'
printf '%s\n' "${summary[@]}"
for run in host:default uml:uml; do
	name=${run%:*}
	[ -e "$results/$name.log" ] || continue
	skipped=$(skips "${run#*:}" "$name")
	[ -z "$skipped" ] || printf 'skipped on %s: %s\n' "$name" "${skipped//$'\n'/$'\n'skipped on $name: }"
	printf '%s: %s\n' "$name" "$(closing "$name" | paste -sd ';')"
done
exit $failed
