// All threads of a target, stopped in two waves: sleeping ones first, running ones last and released first
// (R8).
#pragma once

#include "deadline.h"
#include "traced_thread.h"

#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <unordered_map>
#include <unordered_set>
#include <vector>

namespace kcare {

struct PauseStatistics {
  std::int64_t threads = 0;
  std::int64_t running_threads = 0;
  std::int64_t running_pause_ns = 0;
  std::int64_t longest_pause_ns = 0;
};

class ThreadSet {
public:
  /// Looks at a stopped thread; false ends the wave.
  using Inspect = std::function<bool(TracedThread&)>;

  ThreadSet(pid_t pid, const Deadline& deadline);
  ~ThreadSet();
  ThreadSet(const ThreadSet&) = delete;
  ThreadSet& operator=(const ThreadSet&) = delete;

  /// Each throws TargetBusy when a thread does not stop in time, TargetGone, EngineError.
  bool stop_sleeping(const Inspect& inspect);
  /// Afterwards every thread of the target is stopped, also those that were created meanwhile.
  bool stop_running(const Inspect& inspect);
  void for_each_stopped(const std::function<void(TracedThread&)>& visit);
  /// Lets all stopped threads go, those of the second wave first.
  void release() noexcept;

  /// Leaves all of them as they are: the kernel lets them go when this tracer thread ends.
  void forget() noexcept;

  PauseStatistics statistics() const;
  /// Whether every thread ended while it was traced.
  bool all_gone() const;

private:
  struct Wave {
    std::vector<std::unique_ptr<TracedThread>> threads;
  };
  bool seize_into(Wave& wave, pid_t tid, bool trace_clones);
  bool seize_unknown();
  bool settle(Wave& wave, const Inspect& inspect, const Deadline& deadline);
  void take_in_new_thread(Wave& wave, TracedThread& parent);
  bool is_complete() const;

  pid_t pid_;
  Deadline deadline_;
  Wave sleeping_;
  Wave running_;
  std::unordered_set<pid_t> known_;
};

} // namespace kcare
