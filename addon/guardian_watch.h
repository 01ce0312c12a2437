// What a patcher and its guardian share: one page of memory.
#pragma once

#include <sys/types.h>

#include <atomic>
#include <cstdint>

namespace kcare {

struct GuardianWatch {
  /// Odd while a request of the patcher may hold threads of a target. Also what the guardian sleeps on.
  std::atomic<std::uint32_t> request{0};
  /// Not 0: the patcher was stopped during the request, and the guardian has made it go on.
  std::atomic<std::uint32_t> continued{0};
  pid_t patcher = 0;
};
static_assert(std::atomic<std::uint32_t>::is_always_lock_free);

/// Of the memory, in the guardian.
constexpr int guardian_watch_descriptor = 3;

} // namespace kcare
