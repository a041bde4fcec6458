#!/bin/bash
# From a fresh Debian machine with a Rust toolchain to a pod whose two containers
# share a directory, and back to nothing. Every command is shown as one would type it.
#
# Installs what is missing, builds orlop, and needs root (or sudo) to run pods.
# ORLOP_ROOT, ORLOP_RUN and ORLOP_LOG_ROOT put orlop's files elsewhere than usual.
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")/.."
source hack/debian.sh

pod=producer-consumer
manifest=specs/producer-consumer.yaml
target=${CARGO_TARGET_DIR:-target}
orlop=$target/release/orlop
data_root=${ORLOP_ROOT:-/var/lib/orlop}
sudo=()
[ "$(id -u)" = 0 ] || sudo=(sudo)

# Colours are for terminals.
bold='' cyan='' plain=''
if [ -t 1 ]; then bold=$'\e[1m' cyan=$'\e[36m' plain=$'\e[m'; fi

number=0 step="" applied=false
step() {
	number=$((number + 1)) step=$1
	printf '\n%s%d. %s%s\n' "$bold" "$number" "$step" "$plain"
}

# Shows a command and runs it.
run() {
	show "$@"
	"$@"
}

# The same as root.
root_run() {
	show ${sudo[@]+"${sudo[@]}"} "$@"
	as_root "$@"
}

# Prints a command as a person would type it.
show() {
	local word line=
	for word in "$@"; do
		# Quotes for the words that a shell would not take as they are.
		[[ $word =~ ^[A-Za-z0-9_./:=,@%+~-]+$ ]] || word="'${word//\'/\'\\\'\'}'"
		line+=" $word"
	done
	printf '%s$%s%s\n' "$cyan" "$line" "$plain"
}

fail() {
	printf 'quickstart: %s\n' "$*" >&2
	exit 1
}

# shellcheck disable=SC2317 # called by the trap below
finish() {
	local status=$?
	trap - EXIT
	if $applied; then
		as_root "$orlop" delete pod "$pod" --grace-period=0 --force >/dev/null 2>&1 ||
			printf 'quickstart: the pod may be left: %s delete pod %s --grace-period=0 --force\n' "$orlop" "$pod" >&2
	fi
	[ "$status" = 0 ] || printf '\nquickstart: stopped in step %d (%s): the last command ended with status %d\n' "$number" "$step" "$status" >&2
	exit "$status"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

step "Install what is missing from Debian"
need_build
need_busybox
if [ ${#needed[@]} = 0 ]; then echo "nothing is missing"; fi
install_needed

step "Build orlop"
run cargo build --release --locked
root_run "$orlop" version

step "Make the image busybox:latest from Debian's busybox-static"
has_image() { as_root "$orlop" image ls | awk '$1 == "busybox" && $2 == "latest" { found = 1 } END { exit !found }'; }
if has_image; then
	echo "it is there already"
else
	run bash hack/busybox-image.sh "$target/busybox.tar"
	root_run "$orlop" image import "$target/busybox.tar" busybox:latest --cmd sh
fi
root_run "$orlop" image ls

step "Start the pod and wait until both containers run"
if as_root "$orlop" get pod "$pod" >/dev/null 2>&1; then
	fail "there is a pod $pod already; remove it with: ${sudo[*]+sudo }$orlop delete pod $pod"
fi
applied=true
root_run "$orlop" apply --wait -f "$manifest"
root_run "$orlop" get pods -o wide

step "The producer's file, through the producer's path and the consumer's"
root_run "$orlop" exec "$pod" -c producer -- cat /producer_dir/hello
root_run "$orlop" exec "$pod" -c consumer -- cat /consumer_dir/hello

step "What the consumer printed when it started"
root_run "$orlop" logs "$pod" consumer

step "The same directory on this machine"
uid=$(as_root "$orlop" get pod "$pod" -o yaml | awk '$1 == "uid:" { gsub(/["'\'']/, "", $2); print $2; exit }')
[ -n "$uid" ] || fail "the pod shows no metadata.uid"
directory=$data_root/pods/$uid/volumes/kubernetes.io~empty-dir/shared-volume
root_run ls -l "$directory"
root_run cat "$directory/hello"

step "All about the pod"
root_run "$orlop" describe pod "$pod"

step "Delete the pod: its directory goes with it"
# A shell that is a container's first process takes no SIGTERM, so without
# --grace-period the pod's 30 seconds would have to pass.
root_run "$orlop" delete -f "$manifest" --grace-period=1
applied=false
show ${sudo[@]+"${sudo[@]}"} ls "$directory"
if as_root ls "$directory"; then fail "the directory is still there"; fi
if as_root test -e "$data_root/pods/$uid"; then fail "$data_root/pods/$uid is still there"; fi

cat <<EOT

Done. What to try next:
  ${sudo[*]+sudo }install -m 755 $target/release/{orlop,orlop-oci,containerd-shim-orlop-v2} /usr/local/bin
  ${sudo[*]+sudo }$orlop apply -f specs/kube-apiserver-volumes.yaml, and any manifest of yours: see specs/
  ${sudo[*]+sudo }$orlop doctor tells what this machine has and lacks, --help what else there is
EOT
