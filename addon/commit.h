// The commit: stop all threads in two waves, check, write, let go. All or nothing (R2).
#pragma once

#include "code_writer.h"
#include "remote_ptr.h"
#include "stack_scanner.h"
#include "thread_set.h"

#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

namespace kcare {

struct CommitRequest {
  std::vector<CodeWrite> writes;
  std::vector<remote_range> guarded;
  std::vector<StateWord> states;
  std::int64_t timeout_ms = 0;
};

struct Blocker {
  pid_t tid = 0;
  std::size_t range = 0;
  bool instruction = false;
  /// The address inside the guarded range: instruction pointer or return address.
  remote_ptr<> address;
};

struct CommitResult {
  enum class Outcome { committed, busy, mismatch, gone } outcome = Outcome::busy;
  std::string reason;
  std::optional<Blocker> blocker;
  Mismatch mismatch;
  PauseStatistics statistics;
};

/// Called while the thread is stopped; true when the words on its stack are stale.
using Examine = std::function<bool(const SuspectThread&)>;

/// Must run in a tracer thread. Throws EngineError.
CommitResult commit(pid_t pid, const CommitRequest& request, const Examine& examine);

} // namespace kcare
