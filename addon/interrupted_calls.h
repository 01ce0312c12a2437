// System calls that a stop interrupts: which ones the kernel restarts, and which ones we have to restart by
// hand (R5).
#pragma once

#include "ptrace_requests.h"

namespace kcare {

/// Whether the thread stands in a system call that the kernel's signal code will restart when it is resumed
/// with these registers (and that has to be restarted by hand when it is not resumed there).
bool restarts_by_kernel(const Registers& registers);

/// Whether the thread is about to return -EINTR from a system call that says so at any stop, signal or not.
bool returns_eintr_at_stop(const Registers& registers);

/// The registers with which the interrupted system call is made once more, from its start.
Registers restarted_by_hand(const Registers& registers);

} // namespace kcare
