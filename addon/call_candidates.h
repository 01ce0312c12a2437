// Which threads of a process can make a remote call.
#pragma once

#include "target_memory.h"
#include "traced_thread.h"

#include <sys/types.h>

#include <vector>

namespace kcare {

struct Candidate {
  pid_t tid;
  bool running;
  /// Under seccomp, which has to be suspended.
  bool filtered;
};

/// Threads that may be stopped soon, best first: without a seccomp filter, sleeping, main thread.
/// Throws TargetGone, EngineError TARGET_TRACED or TARGET_UNSUPPORTED.
std::vector<Candidate> find_candidates(pid_t pid);

/// In a restartable sequence (rseq) the kernel would no longer see that the stopped thread left it in the
/// middle.
bool in_restartable_sequence(const TargetMemory& memory, TracedThread& thread);

/// Throws EngineError TARGET_UNSUPPORTED for what only a stopped thread shows.
void refuse_unsupported(pid_t pid, TracedThread& thread);

} // namespace kcare
