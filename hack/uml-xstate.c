/*
 * Lets a user-mode Linux kernel run on processors with large register sets.
 *
 * User-mode Linux up to 6.12 keeps a guest's floating point registers in a buffer
 * of a size fixed when it was compiled: 2,696 bytes, enough for AVX-512.
 * Processors with AMX have more state, and since the host kernel takes only
 * the whole of it, PTRACE_SETREGSET(NT_X86_XSTATE) fails with EFAULT and the guest
 * panics before its first instruction ("ptrace set fp regs failed, errno = 14").
 *
 * Preloaded into linux.uml, this wraps ptrace(2): when the host refuses the
 * short buffer, it reads the traced process's whole state, lays the short one
 * over its beginning, and writes the whole back. The rest is state that the
 * guest cannot have, because the guest kernel never grants it.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <elf.h>
#include <errno.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/types.h>
#include <sys/uio.h>

typedef long (*ptrace_fn)(enum __ptrace_request, pid_t, void *, void *);

/* Static, not on the stack: the guest kernel's stacks are small. The guest has
 * one processor and does not preempt itself, so nobody else uses it meanwhile. */
static unsigned char whole[64 * 1024];

long ptrace(enum __ptrace_request request, ...)
{
	static ptrace_fn next;
	__builtin_va_list ap;

	__builtin_va_start(ap, request);
	pid_t pid = __builtin_va_arg(ap, pid_t);
	void *addr = __builtin_va_arg(ap, void *);
	void *data = __builtin_va_arg(ap, void *);
	__builtin_va_end(ap);

	if (!next)
		next = (ptrace_fn)dlsym(RTLD_NEXT, "ptrace");
	long result = next(request, pid, addr, data);
	if (result != -1 || errno != EFAULT || request != PTRACE_SETREGSET ||
	    addr != (void *)NT_X86_XSTATE)
		return result;

	const struct iovec *given = data;
	struct iovec all = { whole, sizeof(whole) };
	if (next(PTRACE_GETREGSET, pid, addr, &all) == -1)
		return -1;
	if (all.iov_len < given->iov_len) {
		errno = EFAULT;
		return -1;
	}
	memcpy(whole, given->iov_base, given->iov_len);
	return next(PTRACE_SETREGSET, pid, addr, &all);
}
