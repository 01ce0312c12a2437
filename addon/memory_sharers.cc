// Processes that use the address space of a target without being its threads.
#include "memory_sharers.h"

#include "engine_error.h"
#include "memory_census.h"
#include "task_list.h"

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <mutex>
#include <string>

namespace kcare {

namespace {

/// A process id is given some instructions before the process can be found by it.
constexpr pid_t ids_being_given = 16;
/// Beyond this it is cheaper to list the processes.
constexpr pid_t most_new_ids = 2000;

/// Beyond this the count of process ids may have begun anew.
constexpr std::int64_t look_lifetime_ms = 1000;

/// A process that is younger was made within the present count of process ids.
constexpr std::int64_t youth_ms = 1000;

/// Requests come one after the other, but each from a thread of its own.
struct EarlierLooks {
  std::mutex mutex;
  /// The process of the latest look that found no sharer, and the process id given last before that look.
  pid_t pid = 0;
  pid_t last_given = 0;
  Deadline expires = Deadline::in_milliseconds(0);
  /// Made for the second target in a row, and for those that follow.
  std::optional<MemoryCensus> census;
};

std::int64_t since_boot_ms() {
  timespec now{};
  clock_gettime(CLOCK_BOOTTIME, &now);
  return static_cast<std::int64_t>(now.tv_sec) * 1000 + now.tv_nsec / 1'000'000;
}

EarlierLooks& earlier_looks() {
  static EarlierLooks looks;
  return looks;
}

} // namespace

std::string MemorySharers::reason(pid_t pid, pid_t sharer) {
  return "process " + std::to_string(sharer) + " shares the memory of process " + std::to_string(pid) +
         " (vfork, or clone with CLONE_VM) and might run the code that is to be replaced";
}

std::optional<pid_t> MemorySharers::find() {
  EarlierLooks& earlier = earlier_looks();
  const std::lock_guard<std::mutex> lock(earlier.mutex);
  if (earlier.pid == pid_ && !earlier.expires.passed()) {
    last_given_ = earlier.last_given;
    return find_new();
  }
  const std::optional<pid_t> sharer = is_first_of_its_memory()   ? look_at_younger()
                                      : earlier.expires.passed() ? look_at_all()
                                                                 : look_by_census(earlier.census);
  if (!sharer && last_given_) {
    earlier.pid = pid_;
    earlier.last_given = *last_given_;
    earlier.expires = Deadline::in_milliseconds(look_lifetime_ms);
  }
  return sharer;
}

std::optional<pid_t> MemorySharers::look_by_census(std::optional<MemoryCensus>& census) {
  if (!census || !census->is_recent())
    census.emplace();
  // A process that is younger than the census may have the id of one that is in it.
  const std::optional<pid_t> before = census->last_given();
  const std::optional<pid_t> now = last_given_id();
  const bool is_younger =
      !before || !now || *now < *before || (pid_ > *before - ids_being_given && pid_ <= *now);
  // A main thread that has ended has no memory to be compared.
  const auto companions = is_younger || !has_memory(pid_, pid_) ? std::nullopt : census->companions(pid_);
  if (!companions)
    return look_at_all();
  if (const std::optional<pid_t> sharer = find_among(*companions))
    return sharer;
  last_given_ = census->last_given();
  return find_new();
}

/// Whether whoever shares the memory was made after the target, and has a higher process id.
bool MemorySharers::is_first_of_its_memory() const {
  const std::optional<TaskOrigin> origin = read_task_origin(pid_, pid_);
  return origin && origin->has_executed && since_boot_ms() - origin->started_ms < youth_ms;
}

std::optional<pid_t> MemorySharers::look_at_younger() {
  last_given_ = pid_;
  return find_new();
}

std::optional<pid_t> MemorySharers::look_at_all() {
  last_given_ = last_given_id();
  return find_among(list_ids("/proc"));
}

std::optional<pid_t> MemorySharers::find_new() {
  const std::optional<pid_t> before = last_given_;
  const std::optional<pid_t> now = last_given_id();
  if (!before || !now || *now < *before || *now - *before > most_new_ids)
    return look_at_all();
  last_given_ = now;
  std::vector<pid_t> ids;
  for (pid_t id = std::max(1, *before - ids_being_given); id <= *now; id++)
    ids.push_back(id);
  return find_among(ids);
}

bool MemorySharers::is_thread_of_target(pid_t tid) const {
  return tid == pid_ || task_state(pid_, tid) != 'X';
}

// A thread that ends gives up its address space before it disappears, and would then equal a kernel thread
// and differ from a real sharer: what was compared counts only if the thread still has its memory afterwards.
std::optional<pid_t> MemorySharers::find_among(const std::vector<pid_t>& candidates) const {
  for (;;) {
    const pid_t thread = task_with_memory(pid_);
    if (compare_memory(thread, thread) != 0 && errno != ESRCH)
      throw EngineError(errno == EPERM ? "NOT_PERMITTED" : "TARGET_UNSUPPORTED", errno, pid_,
                        "cannot tell whether other processes share the memory of process " +
                            std::to_string(pid_) + ": kcmp: " + strerror(errno));
    const auto found = std::find_if(candidates.begin(), candidates.end(), [&](pid_t id) {
      // A thread of the target that ended between the two questions is no longer there for the third.
      return compare_memory(thread, id) == 0 && !is_thread_of_target(id) && compare_memory(thread, id) == 0;
    });
    if (has_memory(pid_, thread))
      return found == candidates.end() ? std::nullopt : std::optional<pid_t>(*found);
  }
}

} // namespace kcare
