// Busy functions that no thread's stack shows, and pointers that outlive a call: what a commit looks for
// beyond threads.
#pragma once

#include "address_map.h"
#include "memory_survey.h"
#include "saved_registers.h"
#include "stack_scanner.h"
#include "target_memory.h"
#include "thread_set.h"

#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <unordered_set>
#include <vector>

namespace kcare {

/// Called while the thread is stopped; true when the words on its stack are stale.
using Examine = std::function<bool(const SuspectThread&)>;

struct SearchRequest {
  /// Look for contexts that are saved in memory.
  bool contexts = false;
  std::uint64_t pointer_guard = 0;
  /// Nothing may point into these.
  std::vector<remote_range> unreferenced;
  /// Where what points into them does not count.
  std::vector<remote_range> own;
  /// All that the process wrote is read in the stop when something must be unreferenced, but not more bytes
  /// than this.
  std::uint64_t largest_search = 0;
};

/// Why a commit must wait.
struct Obstacle {
  std::string reason;
  /// The suspended context that is inside of a guarded range.
  std::optional<StackHit> hit;
  remote_ptr<> context;
  /// Something points into what must be unreferenced, or that cannot be found out.
  bool referenced = false;
};

class SuspendedContexts {
public:
  SuspendedContexts(pid_t pid, const TargetMemory& memory, StackScanner& scanner,
                    const SearchRequest& request);

  /// Looks without a stop for what there is to judge, and for obstacles that need none.
  std::optional<Obstacle> find();
  /// Some threads are stopped: what is found out about them now need not be while running ones stand still,
  /// too.
  std::optional<Obstacle> prepare(ThreadSet& threads);
  /// All threads are stopped.
  std::optional<Obstacle> judge(ThreadSet& threads, const Examine& examine);

private:
  std::optional<Obstacle> search(const std::vector<remote_range>& pages, const AddressMap& map,
                                 const IsDead& is_dead);
  std::optional<Obstacle> find_in_registers(TracedThread& thread) const;
  std::optional<Obstacle> judge_context(const SavedContext& context, const SavedState& state,
                                        const Examine& examine) const;
  bool stands_in(const remote_range& stack) const;
  bool is_continued(const SavedState& state, remote_ptr<>& end) const;
  const StandingThread* owner_of(remote_ptr<> address) const;
  Obstacle points(const std::string& from, remote_ptr<> value) const;

  pid_t pid_;
  const TargetMemory& memory_;
  StackScanner& scanner_;
  const SearchRequest& request_;
  std::vector<SavedContext> contexts_;
  /// Of the threads in `seen_`, by where their native stacks end.
  std::vector<StandingThread> standing_;
  std::unordered_set<pid_t> seen_;
  /// What makecontext was given.
  std::vector<remote_range> made_stacks_;
};

} // namespace kcare
