// Which processes of the host share an address space: one look that serves all targets of a run.
#pragma once

#include "deadline.h"

#include <sys/types.h>

#include <optional>
#include <unordered_map>
#include <vector>

namespace kcare {

/// The result of kcmp(KCMP_VM): 0 when both have the same address space, or both have none; else 1 or 2 tells
/// their order, which is the same all the time; -1 and errno when one of them is gone or may not be looked
/// at.
long compare_memory(pid_t one, pid_t other);
/// The process id that was given last; nothing when the kernel does not tell.
std::optional<pid_t> last_given_id();

/// All processes, sorted by their address space: n log n questions instead of n for each of n targets. Memory
/// is shared from birth or not at all, so what the census says stays true of the processes in it.
class MemoryCensus {
public:
  MemoryCensus();

  /// Processes that may have the memory of `pid`, which must have some: all that do are among them, except
  /// those made since. Nothing when the census does not cover `pid`.
  std::optional<std::vector<pid_t>> companions(pid_t pid) const;
  /// Before the census began; nothing when the kernel does not tell, and then it is of no use.
  std::optional<pid_t> last_given() const { return last_given_; }
  /// Recent enough that no process id was given twice since.
  bool is_recent() const { return last_given_ && !expires_.passed(); }

private:
  static void sort(std::vector<pid_t>& ids);
  void place(pid_t id);
  bool join_group(pid_t id);

  std::optional<pid_t> last_given_;
  Deadline expires_;
  /// Changed while the others were looked at, and are therefore possible companions of everyone.
  std::vector<pid_t> unsorted_;
  /// Of equal address spaces, in order.
  std::vector<std::vector<pid_t>> groups_;
  std::unordered_map<pid_t, std::size_t> group_of_;
};

} // namespace kcare
