// The only door to ptrace(2): typed requests that return 0 or an errno value.
#pragma once

#include <sys/types.h>
#include <sys/user.h>

#include <cstddef>
#include <cstdint>
#include <vector>

namespace kcare {

using Registers = user_regs_struct;

namespace ptrace_requests {

/// How many requests this process has made so far.
std::uint64_t made();

int seize(pid_t tid, bool trace_clones, bool suspend_seccomp);
/// For a stopped thread that was seized with `trace_clones`.
int suspend_seccomp(pid_t tid);
int interrupt(pid_t tid);
/// `signal` is the one of a signal-delivery-stop, else 0.
int detach(pid_t tid, int signal);
int resume(pid_t tid, int signal);
/// Resumes until the next entry into or exit from a system call.
int resume_to_system_call(pid_t tid, int signal);

int get_registers(pid_t tid, Registers& registers);
int set_registers(pid_t tid, const Registers& registers);
int get_signal_mask(pid_t tid, std::uint64_t& mask);
int set_signal_mask(pid_t tid, std::uint64_t mask);
/// The XSAVE area in its standard (not compacted) format.
int get_extended_state(pid_t tid, std::vector<std::uint8_t>& state);
int set_extended_state(pid_t tid, const std::vector<std::uint8_t>& state);
/// The thread that a PTRACE_EVENT_CLONE stop announces.
int get_new_thread(pid_t tid, pid_t& new_tid);

/// Address of the thread's struct rseq, 0 if it registered none or the kernel cannot tell.
std::uint64_t get_rseq_area(pid_t tid);
/// Whether PR_SET_SYSCALL_USER_DISPATCH diverts the thread's system calls.
bool has_system_call_dispatch(pid_t tid);

} // namespace ptrace_requests

/// For tests of R1: counts the steps of the engine and kills this process at step KCARE_ENGINE_DIE_AT, if
/// set.
void count_step();

} // namespace kcare
