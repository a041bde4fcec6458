#!/bin/bash
# Measures orlop beside crun, runc, youki and podman, in one interleaved run on this machine.
#
#   hack/bench.sh [-n RUNS] [-p PODS] [oci] [pod] [memory] [mounts] [many]
#
#   oci     `orlop-oci run` of /bin/true against crun, runc and youki, in a small mount table
#           and in one of 5,000 lines
#   pod     apply until both containers run, and delete, of specs/producer-consumer.yaml
#           against `podman kube play` and `podman kube down` of the same file
#   memory  PSS of a pod's shim and launcher, alone and as one of 20, against that of podman's conmons
#   mounts  lines that the host's mount table gains by 1 and by 20 pods
#   many    start of the 200th pod against that of the 1st (only when asked for)
#
#   -n RUNS  timed runs of each runtime (default 40); -p PODS  timed pods (default 7)
#
# Peers come from the directory PEER_BIN (crun, runc, youki, podman), else from PATH; one
# that can't run here is named with its reason. Figures are medians of wall time; the shell's
# own share, the same for all, is the row "no container". Needs root; everything
# lies under a temporary directory in BENCH_DIR (default /var/tmp) and goes at the end.
set -euo pipefail
export LC_ALL=C
# It makes orlop's binaries collect what only their developers read.
unset RUST_BACKTRACE

# Mounts made here are nobody else's and gone with this run, and so are processes. This
# shell takes orphans' exits at once, as a good init does: podman waits for that.
if [ -z "${ORLOP_BENCH_INSIDE:-}" ]; then
	cd "$(dirname "$(readlink -f "$0")")/.."
	case $* in -h | --help) sed -n '2,/^set/s/^# \{0,1\}//p' "$0"; exit ;; esac
	[ "$(id -u)" = 0 ] || { echo "bench.sh: must be run as root: try sudo" >&2; exit 1; }
	bin=${ORLOP_BIN:-${CARGO_TARGET_DIR:-target}/release}
	[ -n "${ORLOP_BIN:-}" ] || cargo build --release --locked
	ORLOP_BENCH_INSIDE=$(readlink -f "$bin") unshare --mount --propagation private \
		--pid --fork --mount-proc --kill-child=SIGTERM bash hack/bench.sh "$@" &
	inside=$!
	# unshare takes no signal but this one, upon which the shell inside gets SIGTERM.
	trap 'kill -KILL $inside; exit 130' INT
	trap 'kill -KILL $inside; exit 143' TERM HUP
	status=0
	wait $inside || status=$?
	exit $status
fi
bin=$ORLOP_BENCH_INSIDE
unset ORLOP_BENCH_INSIDE

runs=40 pods=7
while getopts n:p: option; do
	case $option in n) runs=$OPTARG ;; p) pods=$OPTARG ;; *) exit 2 ;; esac
done
shift $((OPTIND - 1))
wanted=" ${*:-oci pod memory mounts} "
for word in $wanted; do
	case $word in oci | pod | memory | mounts | many) ;; *) echo "bench.sh: no part is called $word" >&2; exit 2 ;; esac
done
wants() { [[ $wanted == *" $1 "* ]]; }
[ -z "${PEER_BIN:-}" ] || PATH=$(readlink -f "$PEER_BIN"):$PATH
busybox=$(command -v busybox) || { echo "bench.sh: busybox is missing: apt-get install busybox-static" >&2; exit 1; }

work=$(mktemp -d "${BENCH_DIR:-/var/tmp}/orlop-bench.XXXXXX")
export ORLOP_ROOT=$work/data ORLOP_RUN=$work/run ORLOP_LOG_ROOT=$work/logs
orlop=$bin/orlop
podman=()
# Podman never removes its parent cgroup; here it goes if it came with this run.
podman_parent=$([ -n "$(find /sys/fs/cgroup -maxdepth 2 -name libpod_parent)" ] || echo ours)

remove_cgroups() {
	find /sys/fs/cgroup -depth -type d \( -path '*/orlop-bench*' ${podman_parent:+-o -path '*/libpod_parent*'} \) \
		-exec rmdir {} \; 2>/dev/null || true
}

# shellcheck disable=SC2317 # called by the trap below
clean_up() {
	# The next thing is to be done even when one is not there to be undone.
	set +e
	trap '' INT TERM
	[ ! -e "$work/data" ] || "$orlop" delete pods --all --grace-period=0 --force >/dev/null 2>&1
	[ ${#podman[@]} = 0 ] || "${podman[@]}" pod rm --all --force --time 0 >/dev/null 2>&1
	# Only so that the directory can be removed; one lazy call takes a whole tree.
	umount -l "$work/many" 2>/dev/null
	while read -r _ _ _ _ point _; do printf '%b\n' "$point"; done </proc/self/mountinfo |
		grep -F "$work/" | sort -r | while read -r point; do umount -l "$point"; done
	remove_cgroups
	rm -rf --one-file-system "$work"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# The processes whose arguments name something under $1, but none of this script's.
ours() {
	local directory
	for directory in /proc/[0-9]*; do
		[ "${directory#/proc/}" != "$$" ] || continue
		{ tr '\0' ' ' <"$directory/cmdline" | grep -qF "$1/" && echo "${directory#/proc/}"; } 2>/dev/null || true
	done
}

# stopwatch COMMAND...: its wall time in microseconds, in $elapsed.
stopwatch() {
	local start=$EPOCHREALTIME
	"$@" </dev/null >"$work/out" 2>"$work/err" || { echo "bench.sh: failed: $*" >&2; cat "$work/err" >&2; return 1; }
	local end=$EPOCHREALTIME
	elapsed=$((${end/./} - ${start/./}))
}

# median FILE: of the numbers in it.
median() { sort -n "$1" | awk '{ v[NR] = $1 } END { print NR % 2 ? v[(NR + 1) / 2] : int((v[NR / 2] + v[NR / 2 + 1]) / 2) }'; }
milliseconds() { awk -v us="$1" 'BEGIN { printf "%.2f", us / 1000 }'; }
ratio() { awk -v a="$1" -v b="$2" 'BEGIN { printf "%.2f", a / b }'; }
# verdict FIGURE BUDGET
verdict() { awk -v a="$1" -v b="$2" 'BEGIN { print a < b ? "met" : "MISSED" }'; }
lines() { wc -l </proc/self/mountinfo; }
section() { printf '\n== %s\n' "$*"; }

# --- one container -----------------------------------------------------------------

make_bundle() {
	mkdir -p "$work/bundle/rootfs/bin"
	cp "$busybox" "$work/bundle/rootfs/bin/true"
	cat >"$work/bundle/config.json" <<-'EOT'
	{
	 "ociVersion": "1.0.2",
	 "process": {
	  "terminal": false, "user": {"uid": 0, "gid": 0}, "args": ["/bin/true"], "cwd": "/",
	  "env": ["PATH=/bin"], "noNewPrivileges": true,
	  "capabilities": {
	   "bounding": ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"],
	   "effective": ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"],
	   "permitted": ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]
	  }
	 },
	 "root": {"path": "rootfs", "readonly": false},
	 "hostname": "bench",
	 "mounts": [
	  {"destination": "/proc", "type": "proc", "source": "proc"},
	  {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]},
	  {"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]},
	  {"destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]},
	  {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": ["nosuid", "noexec", "nodev"]},
	  {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"]},
	  {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["nosuid", "noexec", "nodev", "relatime", "ro"]}
	 ],
	 "linux": {
	  "cgroupsPath": "/orlop-bench/one",
	  "namespaces": [{"type": "pid"}, {"type": "network"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}, {"type": "cgroup"}],
	  "maskedPaths": ["/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list",
	   "/proc/timer_stats", "/proc/sched_debug", "/sys/firmware", "/proc/scsi"],
	  "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]
	 }
	}
	EOT
}

number=0
run_once() {
	number=$((number + 1))
	case $1 in
	floor) stopwatch "$work/bundle/rootfs/bin/true" ;;
	# Its foreground run is known to hang now and then.
	youki) stopwatch timeout 10 youki --root "$work/state-youki" run --bundle "$work/bundle" "bench-$number" ;;
	*) stopwatch "$1" --root "$work/state-${1##*/}" run --bundle "$work/bundle" "bench-$number" ;;
	esac
}

# The runtimes that can run the bundle in this mount namespace; says why the others can't.
usable() {
	local runtime
	for runtime in "$bin/orlop-oci" crun runc youki; do
		command -v "$runtime" >/dev/null || { [ "$runtime" = youki ] || echo "  ${runtime##*/}: not installed" >&2; continue; }
		if run_once "$runtime" 2>/dev/null; then
			echo "$runtime"
		else
			echo "  ${runtime##*/}: can't run here: $(tail -n 1 "$work/err" | cut -c 1-150)" >&2
		fi
		rm -rf "$work/state-${runtime##*/}"
	done
}

# oci_table TITLE BUDGET: times all runtimes in turn.
oci_table() {
	local title=$1 budget=$2 runtime round turn us base base_name
	section "run of /bin/true, $title: $(lines) mounts, $runs runs each"
	local -a runtimes
	mapfile -t runtimes < <(usable)
	rm -f "$work"/times-*
	runtimes=(floor ${runtimes[@]+"${runtimes[@]}"})
	for ((round = 0; round < runs; round++)); do
		# Whoever runs after a large program finds the processor's caches full of it:
		# each round begins with another one.
		for ((turn = round; turn < round + ${#runtimes[@]}; turn++)); do
			runtime=${runtimes[turn % ${#runtimes[@]}]}
			run_once "$runtime"
			echo "$elapsed" >>"$work/times-${runtime##*/}"
		done
	done
	base_name='' base=0
	for runtime in crun runc youki; do
		if [ -e "$work/times-$runtime" ]; then base_name=$runtime base=$(median "$work/times-$runtime"); break; fi
	done
	printf '  %-14s %9s %9s   %s\n' runtime "median ms" "min ms" "${base_name:+ratio to $base_name}"
	for runtime in "${runtimes[@]}"; do
		runtime=${runtime##*/}
		us=$(median "$work/times-$runtime")
		printf '  %-14s %9s %9s   %s\n' "${runtime/#floor/no container}" "$(milliseconds "$us")" \
			"$(milliseconds "$(sort -n "$work/times-$runtime" | head -n 1)")" "${base_name:+$(ratio "$us" "$base")}"
	done
	if [ "$base_name" = crun ] && [ -e "$work/times-orlop-oci" ]; then
		us=$(ratio "$(median "$work/times-orlop-oci")" "$base")
		echo "  budget: orlop-oci < $budget x crun: $us, $(verdict "$us" "$budget")"
	fi
}

# Makes the mount table of this namespace longer by about 5,000 lines.
five_thousand_mounts() {
	local i
	mkdir -p "$work/many/seed"
	mount -t tmpfs many "$work/many"
	mkdir -p "$work/many/seed"
	mount -t tmpfs seed "$work/many/seed"
	for i in {1..49}; do
		mkdir "$work/many/seed/$i"
		mount -t tmpfs seed "$work/many/seed/$i"
	done
	for i in {1..99}; do
		mkdir "$work/many/$i"
		mount --rbind "$work/many/seed" "$work/many/$i"
	done
}

bench_oci() {
	make_bundle
	# A subshell's namespace can't be another's, so views are made and unmade in order.
	if [ "$(stat -fc %T /sys/fs/cgroup)" != cgroup2fs ]; then
		oci_table "this machine's cgroup v1" 0.7
		# crun runs only where cgroup v2 is all there is.
		remove_cgroups
		umount -R /sys/fs/cgroup
		mount -t cgroup2 cgroup2 /sys/fs/cgroup
	fi
	oci_table "cgroup v2" 0.7
	five_thousand_mounts
	oci_table "cgroup v2, many mounts" 0.6
}

# --- pods --------------------------------------------------------------------------

# The manifest as it stands, except: no registry is asked for an image that is here, and
# no grace period is waited for (a shell as first process ignores SIGTERM).
make_manifest() {
	sed -e 's/^  - image: busybox$/&\n    imagePullPolicy: IfNotPresent/' \
		-e 's/^spec:$/&\n  terminationGracePeriodSeconds: 0/' specs/producer-consumer.yaml >"$work/pod.yaml"
}

prepare_orlop() {
	bash hack/busybox-image.sh "$work/busybox.tar"
	"$orlop" image import "$work/busybox.tar" busybox:latest --cmd sh >/dev/null
}

# Podman with all its files under $work. Its pods get no network but loopback, as orlop's.
prepare_podman() {
	podman=()
	command -v podman >/dev/null || { echo "  podman: not installed"; return; }
	# It leaves lock files in these, whatever directories it is given.
	mount -t tmpfs shm /dev/shm
	[ ! -d /etc/cni/net.d ] || mount -t tmpfs cni /etc/cni/net.d
	local runtime reason
	# The first that runs here; podman's default is crun, too.
	for runtime in crun runc; do
		command -v "$runtime" >/dev/null || continue
		cat >"$work/$runtime" <<-EOT
		#!/bin/sh
		# Podman raises limits, which without CAP_SYS_RESOURCE is refused: none, then.
		last=
		for word; do
			[ "\$last" != --bundle ] || sed -i 's/"rlimits":\[[^]]*\]/"rlimits":[]/' "\$word/config.json"
			last=\$word
		done
		exec $(command -v "$runtime") "\$@"
		EOT
		chmod +x "$work/$runtime"
		has_sys_resource && ln -sf "$(command -v "$runtime")" "$work/$runtime"
		podman=(podman --root "$work/podman/root" --runroot "$work/podman/run" --tmpdir "$work/podman/tmp"
			--network-config-dir "$work/podman/networks" --cgroup-manager cgroupfs --events-backend none
			--runtime "$work/$runtime")
		"${podman[@]}" import --change 'CMD ["sh"]' "$work/busybox.tar" docker.io/library/busybox:latest >/dev/null 2>&1 || true
		if "${podman[@]}" kube play --network none "$work/pod.yaml" >"$work/out" 2>"$work/err"; then
			"${podman[@]}" kube down "$work/pod.yaml" >/dev/null
			echo "  podman $(podman version --format '{{.Client.Version}}') with $runtime$(has_sys_resource || echo ' behind a script that drops rlimits')"
			return
		fi
		reason=$(tail -n 2 "$work/err" | tr '\n' ' ' | cut -c 1-200)
		"${podman[@]}" pod rm --all --force --time 0 >/dev/null 2>&1 || true
		echo "  podman with $runtime: can't run here: $reason"
		rm -rf "$work/podman"
	done
	podman=()
}

# Bit 24 of the effective capabilities.
has_sys_resource() { (($((0x$(awk '/^CapEff/ { print $2 }' /proc/self/status))) >> 24 & 1)); }

# Sum of the proportional set sizes, in KiB, of the processes named.
pss() {
	local pid sum=0
	for pid in "$@"; do
		sum=$((sum + $(awk '/^Pss:/ { print $2 }' "/proc/$pid/smaps_rollup" 2>/dev/null || echo 0)))
	done
	echo $sum
}

# pss_of NAME: of the processes of this run whose program is NAME.
pss_of() {
	local pid pids=()
	for pid in $(ours "$work"); do
		[ "$(basename "$(readlink "/proc/$pid/exe")")" = "$1" ] && pids+=("$pid")
	done
	echo "$(pss ${pids[@]+"${pids[@]}"}) KiB in ${#pids[@]} processes"
}

orlop_up() { "$orlop" apply --wait -f "$work/pod.yaml"; }
orlop_down() { "$orlop" delete -f "$work/pod.yaml"; }
podman_up() { "${podman[@]}" kube play --network none "$work/pod.yaml"; }
podman_down() { "${podman[@]}" kube down "$work/pod.yaml"; }
# Podman before 4.4 gives ten seconds whatever the manifest says, and `kube down` has no option
# for it: so its fastest way to the same end is timed, too.
podman_now_up() { podman_up; }
podman_now_down() { "${podman[@]}" pod rm --force --time 0 producer-consumer; }

bench_pods() {
	local name phase round us gained
	local -a engines=(orlop)
	section "a pod of two containers that share an emptyDir"
	make_manifest
	prepare_orlop
	prepare_podman
	[ ${#podman[@]} = 0 ] || engines+=(podman podman_now)
	rm -f "$work"/times-*
	wants pod || pods=1
	for ((round = 0; round < pods; round++)); do
		for name in "${engines[@]}"; do
			gained=$(lines)
			stopwatch "${name}_up"
			echo "$elapsed" >>"$work/times-up-$name"
			echo $(($(lines) - gained)) >"$work/gained-$name"
			# What starts leave behind is given back once it is quiet.
			sleep 1
			case $name in
			orlop) pss_of containerd-shim-orlop-v2 >"$work/pss-$name" ;;
			podman*) pss_of conmon >"$work/pss-$name" ;;
			esac
			stopwatch "${name}_down"
			echo "$elapsed" >>"$work/times-down-$name"
		done
	done
	if wants pod; then
		printf '  %-30s %12s %12s   (medians of %d pods, ms)\n' "" "until it runs" "deletion" "$pods"
		for name in "${engines[@]}"; do
			case $name in
			orlop) phase="orlop apply --wait, delete" ;;
			podman) phase="podman kube play, kube down" ;;
			*) phase="podman kube play, pod rm -ft0" ;;
			esac
			printf '  %-30s %12s %12s\n' "$phase" "$(milliseconds "$(median "$work/times-up-$name")")" \
				"$(milliseconds "$(median "$work/times-down-$name")")"
		done
		if [ ${#podman[@]} -gt 0 ]; then
			us=$(median "$work/times-down-orlop")
			echo "  deletion: orlop / podman = $(ratio "$us" "$(median "$work/times-down-podman")"), $(ratio "$us" "$(median "$work/times-down-podman_now")")"
			us=$(ratio "$(median "$work/times-up-orlop")" "$(median "$work/times-up-podman")")
			echo "  budget: orlop apply until both run < 0.1 x podman kube play: $us, $(verdict "$us" 0.1)"
		fi
	fi
	if wants memory; then
		section "memory that a running pod's keepers take (PSS; orlop: shim and launcher, podman: conmons)"
		for name in "${engines[@]%%_*}"; do echo "$name $(cat "$work/pss-$name")"; done | sort -u | sed 's/^/  /'
		if [ ${#podman[@]} -gt 0 ]; then
			echo "  orlop / podman = $(ratio "$(cut -d' ' -f1 "$work/pss-orlop")" "$(cut -d' ' -f1 "$work/pss-podman")")"
		fi
	fi
	if wants mounts; then
		section "lines gained by the host's mount table"
		for name in "${engines[@]%%_*}"; do echo "$name $(cat "$work/gained-$name") with 1 pod"; done | sort -u | sed 's/^/  /'
	fi
	if wants mounts || wants memory; then
		gained=$(lines)
		many_pods 20
		gained=$(($(lines) - gained))
		if wants mounts; then
			echo "  orlop $gained with 20 pods"
			echo "  budget: 0: $(verdict "$gained" 1)"
		fi
		if wants memory; then
			sleep 1
			us=$(($(pss_of containerd-shim-orlop-v2 | cut -d' ' -f1) / 20))
			section "memory of shim and launcher, as one of 20 pods: $us KiB PSS a pod"
			# 0.25 x the 5.9 MB that containerd-shim-runc-v2 takes in the same case.
			echo "  budget: < 1475 KiB: $(verdict "$us" 1475)"
		fi
		"$orlop" delete pods --all >/dev/null
	fi
}

# many_pods COUNT: starts that many pods; their times are in $work/times-many.
many_pods() {
	local i
	rm -f "$work/times-many"
	for ((i = 1; i <= $1; i++)); do
		sed "s/^  name: producer-consumer$/&-$i/" "$work/pod.yaml" >"$work/pod-$i.yaml"
		stopwatch "$orlop" apply --wait -f "$work/pod-$i.yaml"
		echo "$elapsed" >>"$work/times-many"
	done
}

bench_many() {
	section "start of the 200th pod against the 1st"
	[ -e "$work/pod.yaml" ] || { make_manifest; prepare_orlop; }
	many_pods 200
	"$orlop" delete pods --all >/dev/null
	local first last
	# Of three each: one start alone says little.
	head -n 3 "$work/times-many" >"$work/times-first"
	tail -n 3 "$work/times-many" >"$work/times-last"
	first=$(median "$work/times-first") last=$(median "$work/times-last")
	echo "  pods 1 to 3: $(milliseconds "$first") ms; pods 198 to 200: $(milliseconds "$last") ms; ratio $(ratio "$last" "$first")"
	echo "  budget: < 1.1: $(verdict "$(ratio "$last" "$first")" 1.1)"
}

echo "$(date -u +%FT%TZ), kernel $(uname -r), $(nproc) processors, load $(cut -d' ' -f1-3 /proc/loadavg)"
for peer in crun runc youki podman; do
	! command -v $peer >/dev/null || echo "$peer: $($peer --version 2>/dev/null | head -n 1), $(command -v $peer)"
done
# Pods first: `oci` changes what this namespace's /sys/fs/cgroup shows.
if wants pod || wants memory || wants mounts; then bench_pods; fi
if wants many; then bench_many; fi
if wants oci; then bench_oci; fi
