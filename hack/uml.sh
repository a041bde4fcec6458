#!/bin/bash
# Runs a command in a virtual machine that sees this machine's own file tree.
#
# The virtual machine is user-mode Linux: a Linux kernel running as an ordinary
# process, from Debian's package user-mode-linux. It needs no KVM and boots in two
# seconds. An overlay over the host's tree takes every write into guest
# memory, so nothing the command does reaches the host, except under -b DIR.
set -euo pipefail

usage() {
	cat <<-'EOT'
	usage: hack/uml.sh [-1|-2] [-m MEM] [-t SECONDS] [-b DIR]... CMD [ARG]...
	Runs CMD in user-mode Linux, in the current directory, on this machine's files.
	  -2          /sys/fs/cgroup is pure cgroup v2 with every controller on (default)
	  -1          /sys/fs/cgroup has one cgroup v1 hierarchy per controller
	  -m MEM      guest memory, with a suffix M or G (default 3G; taken as it is used)
	  -t SECONDS  kill the guest after this time (default 1500)
	  -b DIR      writes below DIR reach the host; repeatable

	Output and exit status are CMD's; its stdin is /dev/null. Exit status 124: the time
	was up; 125: the guest broke down; 2, 3: CMD was not tried, and stderr says why.
	/tmp, /run and /var/lib/orlop are empty tmpfs in the guest, because overlay
	directories can't lie on the guest's root, which is an overlay itself. (The current
	directory and -b DIRs are there even when they lie below /tmp.)

	environment:
	  UML_ENV      names of variables to pass in, besides PATH, HOME and cargo's
	  UML_MODULES  kernel modules to load, as in "nfsv4 nfsv3 nfsd"
	  UML_BOOT     parameters for the kernel, as in "apparmor=1 security=apparmor"
	  UML_MEM_DIR  directory for the guest's memory (default /dev/shm, else TMPDIR)
	EOT
}

say() { printf 'uml.sh: %s\n' "$*" >&2; }

cgroup=2 mem=3G limit=1500 binds=()
while getopts 12m:t:b:h option; do
	case $option in
	1 | 2) cgroup=$option ;;
	m) mem=$OPTARG ;;
	t) limit=$OPTARG ;;
	b)
		[ -d "$OPTARG" ] || { say "-b $OPTARG: no such directory"; exit 2; }
		binds+=("$(readlink -f "$OPTARG")")
		# A comma would end the directory's name in the mount options.
		case ${binds[-1]} in *,*) say "-b $OPTARG: the name has a comma"; exit 2 ;; esac
		;;
	h) usage; exit 0 ;;
	*) usage >&2; exit 2 ;;
	esac
done
shift $((OPTIND - 1))
[ $# -gt 0 ] || { usage >&2; exit 2; }
case $mem in
*[0-9]G) mem_kib=$((${mem%G} * 1024 * 1024)) ;;
*[0-9]M) mem_kib=$((${mem%M} * 1024)) ;;
*) say "-m $mem: want a number with the suffix M or G"; exit 2 ;;
esac
for need in linux.uml:user-mode-linux busybox:busybox-static; do
	command -v "${need%:*}" >/dev/null ||
		{ say "${need%:*} is missing: apt-get install ${need#*:}"; exit 3; }
done

# The guest's memory is a sparse, unlinked file that the kernel maps executable:
# it needs room, and a mount without noexec (which containers put on /dev/shm).
memory_dir() {
	local dir free
	for dir in ${UML_MEM_DIR:+"$UML_MEM_DIR"} /dev/shm "${TMPDIR:-/tmp}"; do
		[ -w "$dir" ] || continue
		case ,$(findmnt -no OPTIONS -T "$dir"), in *,noexec,*) continue ;; esac
		free=$(df --output=avail -k "$dir" | tail -n 1)
		[ "$free" -gt "$mem_kib" ] || continue
		echo "$dir"
		return
	done
	say "no directory has $mem to spare for the guest's memory: give less with -m, or a directory with UML_MEM_DIR"
	return 1
}
mem_dir=$(memory_dir) || exit 3

work=$(mktemp -d "${TMPDIR:-/tmp}/uml.XXXXXX")
work=$(readlink -f "$work")
guest=''
# The guest is a session of its own (see below) and leads its process group, in which
# everything belonging to it is: the kernel, its helpers, a host process per guest process.
# The wait takes the shell's notice of the death away.
kill_guest() {
	[ -n "$guest" ] || return 0
	kill -KILL -- "-$guest" 2>/dev/null || true
	wait "$guest" 2>/dev/null || true
}
# shellcheck disable=SC2317 # called by the trap below
clean_up() {
	kill_guest
	rm -rf "$work"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# On processors with more register state than Debian's kernel knows, it needs help.
# See the head of uml-xstate.c.
preload=()
if grep -qwm1 amx_tile /proc/cpuinfo; then
	cc -O2 -shared -fPIC -o "$work/xstate.so" "$(dirname "$(readlink -f "$0")")/uml-xstate.c" ||
		{ say "this processor has AMX, which takes a C compiler to work around: apt-get install gcc"; exit 3; }
	preload=(env "LD_PRELOAD=$work/xstate.so")
fi

# What the guest's init must know.
{
	printf 'cgroup=%q work=%q dir=%q\n' "$cgroup" "$work" "$PWD"
	printf 'modules=%q\n' "${UML_MODULES:-}"
	printf 'binds=('
	printf ' %q' ${binds[@]+"${binds[@]}"} "$work"
	printf ' )\n'
} >"$work/settings"

# What the guest runs once it is up.
{
	echo '#!/bin/bash'
	echo 'export USER=root LC_ALL=C.UTF-8'
	printf 'export PATH=%q HOME=%q\n' "$PATH" "${HOME:-/root}"
	for name in CARGO_HOME RUSTUP_HOME RUSTUP_TOOLCHAIN CARGO_TARGET_DIR ${UML_ENV:-}; do
		if [ -v "$name" ]; then printf 'export %s=%q\n' "$name" "${!name}"; fi
	done
	printf 'cd %q || exit 125\n' "$PWD"
	printf 'exec'
	printf ' %q' "$@"
	echo
} >"$work/command"

cat >"$work/modprobe" <<'EOT'
#!/bin/sh
exec busybox modprobe "$@"
EOT

# The guest's init. It starts on the host's tree, read-only.
cat >"$work/init" <<'EOT'
#!/bin/bash
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
source "${0%/*}/settings"
# An init that ends brings the kernel down, which is what a failed step deserves;
# the reason is on the console, which the host keeps.
set -e
exec </dev/null >/dev/console 2>&1

mount -t proc proc /proc
version=$(uname -r)
busybox insmod "/usr/lib/uml/modules/$version/kernel/fs/overlayfs/overlay.ko"
mount -t tmpfs -o size=90% scratch /mnt
mkdir /mnt/upper /mnt/work /mnt/root /mnt/tmp
root=/mnt/root
mount -t overlay -o lowerdir=/,upperdir=/mnt/upper,workdir=/mnt/work overlay $root

mount -t proc proc $root/proc
mount -t sysfs sysfs $root/sys
mount -t securityfs securityfs $root/sys/kernel/security
mount -t tmpfs -o mode=755 run $root/run
mkdir $root/run/lock
mount -t devtmpfs dev $root/dev
# As kmod makes it on every machine: opening it loads the module.
mknod -m 600 $root/dev/loop-control c 10 237
mkdir -p $root/dev/pts $root/dev/shm $root/dev/mqueue
mount -t devpts -o ptmxmode=666,mode=620,gid=5 devpts $root/dev/pts
mount -t tmpfs -o mode=1777 shm $root/dev/shm
mount -t mqueue mqueue $root/dev/mqueue
ln -sfn pts/ptmx $root/dev/ptmx
ln -sfn /proc/self/fd $root/dev/fd
for i in 0:stdin 1:stdout 2:stderr; do ln -sfn /proc/self/fd/${i%:*} $root/dev/${i#*:}; done

# Places for overlay directories. The current directory stays in sight.
mount --bind $root/tmp /mnt/tmp
mkdir -p $root/var/lib/orlop
mount -t tmpfs -o mode=1777,size=80% tmp $root/tmp
mount -t tmpfs -o mode=755,size=80% orlop $root/var/lib/orlop
case $dir/ in
/tmp/?*)
	mkdir -p "$root$dir"
	mount --bind "/mnt/tmp${dir#/tmp}" "$root$dir"
	;;
esac
for bind in "${binds[@]}"; do
	mkdir -p "$root$bind"
	mount -t hostfs -o "$bind" none "$root$bind"
done

case $cgroup in
2)
	mount -t cgroup2 cgroup2 $root/sys/fs/cgroup
	for controller in $(<$root/sys/fs/cgroup/cgroup.controllers); do
		echo "+$controller" >$root/sys/fs/cgroup/cgroup.subtree_control
	done
	;;
1)
	mount -t tmpfs -o mode=755 cgroup $root/sys/fs/cgroup
	while read -r controller _ _ enabled; do
		case $controller:$enabled in \#*) continue ;; *:0) continue ;; esac
		mkdir "$root/sys/fs/cgroup/$controller"
		mount -t cgroup -o "$controller" cgroup "$root/sys/fs/cgroup/$controller"
	done </proc/cgroups
	mkdir $root/sys/fs/cgroup/systemd
	mount -t cgroup -o none,name=systemd cgroup $root/sys/fs/cgroup/systemd
	;;
esac

# The kernel loads further modules by itself when they are asked for by use.
mkdir -p $root/lib/modules
mount -t tmpfs modules $root/lib/modules
ln -s "/usr/lib/uml/modules/$version" "$root/lib/modules/$version"
echo "$work/modprobe" >/proc/sys/kernel/modprobe
echo orlop-test >/proc/sys/kernel/hostname

mount --make-rprivate /
cd $root
mkdir run/host
pivot_root . run/host
umount -l /run/host
rmdir /run/host
# As systemd has it, so that propagation is tested as it is met in the field.
mount --make-rshared /

busybox ip link set lo up
for module in $modules; do "$work/modprobe" "$module"; done
ulimit -Hn 524288

# Stdout and stderr leave through a terminal line each, but are pipes for the command,
# so that it writes what it would write to a file: no colours, no progress bars.
exec 5>/dev/tty1 6>/dev/tty2
stty -F /dev/tty1 raw
stty -F /dev/tty2 raw
mkfifo /run/stdout /run/stderr
cat </run/stdout >&5 &
out=$!
cat </run/stderr >&6 &
err=$!
status=0
env -i bash "$work/command" >/run/stdout 2>/run/stderr 5>&- 6>&- || status=$?
# A process left behind by the command may hold a pipe open for ever.
for _ in {1..10}; do
	[ -e /proc/$out ] || [ -e /proc/$err ] || break
	sleep 0.1
done
# Setting a terminal's modes waits until all its output has been taken.
stty -F /dev/tty1 sane
stty -F /dev/tty2 sane
echo "$status" >"$work/status"
sync
busybox poweroff -f
EOT
chmod +x "$work/init" "$work/command" "$work/modprobe"

read -r -a boot <<<"${UML_BOOT:-}"
# The lines pass through pipes of ours because user-mode Linux makes its descriptors
# non-blocking, which would follow the terminal or file home to the caller.
mkfifo "$work/stdout" "$work/stderr" "$work/alive"
cat <"$work/stdout" &
out=$!
cat <"$work/stderr" >&2 &
err=$!
ulimit -c 0
# linux.uml makes itself the leader of a new session unless it is one: started as
# one, its number is known here.
TMPDIR=$mem_dir setsid ${preload[@]+"${preload[@]}"} \
	linux.uml "mem=$mem" "${boot[@]}" rootfstype=hostfs rootflags=/ ro "init=$work/init" \
	"uml_dir=$work/" umid=guest con=null con0=null,fd:1 con1=null,fd:3 con2=null,fd:4 \
	</dev/null >"$work/console" 2>&1 3>"$work/stdout" 4>"$work/stderr" &
guest=$!
# A watchman of its own session kills the guest when its time is up, or when the pipe that
# this script holds open ends, because somebody killed the script.
# shellcheck disable=SC2016 # expanded by the watchman
setsid bash -c '
	told=0
	read -r -t "$1" <"$2/alive" || told=$?
	[ "$told" != 0 ] || exit 0
	kill -KILL -- "-$3"
	[ "$told" -gt 128 ] || rm -rf "$2"
	exit 1
' watchman "$limit" "$work" "$guest" </dev/null >/dev/null 2>&1 &
watchman=$!
exec 9>"$work/alive"
ended=0
wait "$guest" 2>/dev/null || ended=$?
trap '' PIPE
echo over 2>/dev/null >&9 || true
trap - PIPE
in_time=true
wait "$watchman" || in_time=false
kill_guest
wait "$out" "$err" || true

if [ -s "$work/status" ]; then
	read -r status <"$work/status"
	exit "$status"
fi
if ! $in_time; then
	say "killed the guest after $limit seconds"
	exit 124
fi
tail -n 40 "$work/console" >&2
say "the guest broke down (linux.uml ended with status $ended); the end of its console is above"
exit 125
