// System calls made by a thread of the target, within one stop.
#pragma once

#include "remote_ptr.h"

#include <sys/types.h>

#include <array>
#include <cstdint>
#include <string>
#include <vector>

namespace kcare {

struct RemoteCall {
  std::uint64_t number = 0;
  std::array<std::uint64_t, 6> arguments{};
  /// Written to the address that the call returns, before the thread goes on.
  std::vector<std::uint8_t> mark;
  /// A file whose first byte becomes "1" before the call can be made; -1: none.
  int intent = -1;
};

struct CallResult {
  enum class Outcome { done, busy, gone } outcome = Outcome::busy;
  std::string reason;
  pid_t tid = 0;
  /// Kernel return values, negative errno on failure; shorter than the calls when one failed.
  std::vector<std::int64_t> results;
  /// How long the thread stood still, and whether it was running before.
  std::int64_t pause_ns = 0;
  bool was_running = false;
};

/// Makes `calls` in order in one thread of `pid`. `signal_return` is the address of `mov $15,%rax; syscall`
/// there. Must run in a tracer thread. Throws EngineError.
CallResult make_remote_calls(pid_t pid, const std::vector<RemoteCall>& calls, remote_ptr<> signal_return,
                             std::int64_t timeout_ms);

} // namespace kcare
