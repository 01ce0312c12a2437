// The commit: stop all threads in two waves, check, write, let go. All or nothing (R2).
#pragma once

#include "code_writer.h"
#include "held_call.h"
#include "remote_ptr.h"
#include "stack_scanner.h"
#include "suspended_contexts.h"
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
  SearchRequest search;
  /// Run behind the writes, while all threads stand.
  std::optional<HeldFunction> held;
  std::int64_t timeout_ms = 0;
};

struct Blocker {
  pid_t tid = 0;
  std::size_t range = 0;
  bool instruction = false;
  /// The address inside the guarded range: instruction pointer or return address.
  remote_ptr<> address;
  /// Where the registers of a suspended context were saved, when the blocker is one and no thread.
  remote_ptr<> context;
};

struct CommitResult {
  enum class Outcome { committed, busy, mismatch, gone } outcome = Outcome::busy;
  std::string reason;
  std::optional<Blocker> blocker;
  /// Committed, but the held function has not come to its end; the threads wait for it by themselves.
  bool unfinished = false;
  /// Something points, or may point, into what must be unreferenced: waiting does not help.
  bool referenced = false;
  Mismatch mismatch;
  PauseStatistics statistics;
};

/// Must run in a tracer thread. Throws EngineError.
CommitResult commit(pid_t pid, const CommitRequest& request, const Examine& examine);

} // namespace kcare
