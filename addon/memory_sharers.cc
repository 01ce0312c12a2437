// Processes that use the address space of a target without being its threads.
#include "memory_sharers.h"

#include "engine_error.h"
#include "task_list.h"

#include <fcntl.h>
#include <linux/kcmp.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <string>

namespace kcare {

namespace {

/// A process id is given some instructions before the process can be found by it.
constexpr pid_t ids_being_given = 16;
/// Beyond this it is cheaper to list the processes.
constexpr pid_t most_new_ids = 2000;

std::optional<pid_t> last_given_id() {
  const int file = open("/proc/sys/kernel/ns_last_pid", O_RDONLY | O_CLOEXEC);
  if (file < 0)
    return std::nullopt;
  char text[32] = {};
  const ssize_t size = read(file, text, sizeof text - 1);
  close(file);
  if (size <= 0)
    return std::nullopt;
  return static_cast<pid_t>(std::strtol(text, nullptr, 10));
}

/// The process of the latest look at all processes that found no sharer, and the process id given last before
/// it. Requests come one after the other, but each from a thread of its own.
struct LatestLook {
  std::mutex mutex;
  pid_t pid = 0;
  pid_t last_given = 0;
};

LatestLook& latest_look() {
  static LatestLook look;
  return look;
}

/// 0 when both have the same address space, or both have none.
long compare_memory(pid_t one, pid_t other) {
  return syscall(SYS_kcmp, one, other, KCMP_VM, 0, 0);
}

} // namespace

std::string MemorySharers::reason(pid_t pid, pid_t sharer) {
  return "process " + std::to_string(sharer) + " shares the memory of process " + std::to_string(pid) +
         " (vfork, or clone with CLONE_VM) and might run the code that is to be replaced";
}

std::optional<pid_t> MemorySharers::find() {
  LatestLook& latest = latest_look();
  const std::lock_guard<std::mutex> lock(latest.mutex);
  if (latest.pid == pid_) {
    last_given_ = latest.last_given;
    return find_new();
  }
  const std::optional<pid_t> sharer = look_at_all();
  if (!sharer && last_given_) {
    latest.pid = pid_;
    latest.last_given = *last_given_;
  }
  return sharer;
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
