// Which processes of the host share an address space: one look that serves all targets of a run.
#include "memory_census.h"

#include "task_list.h"

#include <fcntl.h>
#include <linux/kcmp.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>

namespace kcare {

namespace {

/// Beyond this the count of process ids may have begun anew.
constexpr std::int64_t lifetime_ms = 1000;

constexpr std::size_t groups_looked_back = 2;

constexpr long is_equal = 0;
constexpr long is_less = 1;

} // namespace

long compare_memory(pid_t one, pid_t other) {
  return syscall(SYS_kcmp, one, other, KCMP_VM, 0, 0);
}

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

MemoryCensus::MemoryCensus()
    : last_given_(last_given_id()), expires_(Deadline::in_milliseconds(lifetime_ms)) {
  std::vector<pid_t> ids = list_ids("/proc");
  sort(ids);
  for (const pid_t id : ids)
    place(id);
}

// By merging, which stays within bounds whatever the answers are: they change when processes do.
void MemoryCensus::sort(std::vector<pid_t>& ids) {
  const auto less = [](pid_t one, pid_t other) { return compare_memory(one, other) == is_less; };
  std::vector<pid_t> merged(ids.size());
  for (std::size_t width = 1; width < ids.size(); width *= 2) {
    for (std::size_t start = 0; start < ids.size(); start += 2 * width) {
      const auto at = [&](std::size_t index) {
        return ids.begin() + static_cast<std::ptrdiff_t>(std::min(index, ids.size()));
      };
      std::merge(at(start), at(start + width), at(start + width), at(start + 2 * width),
                 merged.begin() + static_cast<std::ptrdiff_t>(start), less);
    }
    ids.swap(merged);
  }
}

bool MemoryCensus::join_group(pid_t id) {
  for (std::size_t back = 1; back <= groups_looked_back && back <= groups_.size(); back++) {
    std::vector<pid_t>& group = groups_[groups_.size() - back];
    if (std::none_of(group.begin(), group.end(),
                     [id](pid_t member) { return compare_memory(member, id) == is_equal; }))
      continue;
    group.push_back(id);
    group_of_[id] = groups_.size() - back;
    return true;
  }
  return false;
}

// A process that executes another program changes its place, and may then stand between two that are equal.
// So not only the one before is compared, and what does not stand in order counts as unsorted.
void MemoryCensus::place(pid_t id) {
  if (compare_memory(id, id) != is_equal || join_group(id))
    return;
  if (!groups_.empty() && compare_memory(groups_.back().back(), id) != is_less) {
    unsorted_.push_back(id);
    unsorted_.push_back(groups_.back().back());
  }
  groups_.push_back({id});
  group_of_[id] = groups_.size() - 1;
}

std::optional<std::vector<pid_t>> MemoryCensus::companions(pid_t pid) const {
  const auto group = group_of_.find(pid);
  if (group == group_of_.end())
    return std::nullopt;
  std::vector<pid_t> found = groups_[group->second];
  found.insert(found.end(), unsorted_.begin(), unsorted_.end());
  return found;
}

} // namespace kcare
