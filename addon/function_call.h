// A function of the target, called in one of its threads as the kernel would call a signal handler.
//
// It must not sleep by nanosleep(2): that takes away what the kernel remembers to restart an interrupted
// sleep.
#pragma once

#include "call_session.h"
#include "remote_ptr.h"
#include "stack_scanner.h"

#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <string>

namespace kcare {

struct FunctionResult {
  /// `unfinished`: a thread of the target is in the function, and will be itself again when it has returned.
  enum class Outcome { returned, unfinished, busy, gone } outcome = Outcome::busy;
  std::string reason;
  pid_t tid = 0;
  /// How long the thread was kept from its own work, and whether it was running before.
  std::int64_t pause_ns = 0;
  bool was_running = false;
};

/// Asked while the thread is stopped: whether it may be interrupted by this function at this place.
using Choose = std::function<bool(const SuspectThread&)>;

/// Calls the function in the first thread that `choose` accepts; each thread is looked at once. Must run in a
/// tracer thread. Throws EngineError.
FunctionResult call_function(pid_t pid, const FunctionCall& call, remote_ptr<> signal_return,
                             std::int64_t timeout_ms, const Choose& choose);

} // namespace kcare
