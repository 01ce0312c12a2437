// Processes that use the address space of a target without being its threads.
#pragma once

#include "memory_census.h"

#include <sys/types.h>

#include <optional>
#include <string>
#include <vector>

namespace kcare {

/// clone(2) with CLONE_VM and without CLONE_THREAD makes a process that runs the target's code in the
/// target's memory; so does vfork(2) while the parent waits. A commit stops threads of one process only, so
/// there must be no such process.
class MemorySharers {
public:
  explicit MemorySharers(pid_t pid) : pid_(pid) {}

  /// Looks at all processes: for the first target of a run directly, for the others by a census. For a young
  /// program, and once more for the same process, only at what was created since, because memory is shared
  /// from birth or not at all.
  /// Throws TargetGone; EngineError when the kernel does not tell.
  std::optional<pid_t> find();
  /// As `find`, but looks only at what was created since the look before: for the time when threads stand.
  std::optional<pid_t> find_new();

  static std::string reason(pid_t pid, pid_t sharer);

private:
  bool is_first_of_its_memory() const;
  std::optional<pid_t> look_at_younger();
  std::optional<pid_t> look_at_all();
  std::optional<pid_t> look_by_census(std::optional<MemoryCensus>& census);
  std::optional<pid_t> find_among(const std::vector<pid_t>& candidates) const;
  bool is_thread_of_target(pid_t tid) const;

  pid_t pid_;
  /// The process id that was given last before the latest look; nothing when the kernel does not tell.
  std::optional<pid_t> last_given_;
};

} // namespace kcare
