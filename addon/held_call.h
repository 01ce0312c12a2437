// A function of the target, called in one of its threads while all the others stand, and stay where they are
// even if we die.
#pragma once

#include "address_map.h"
#include "call_session.h"
#include "deadline.h"
#include "remote_ptr.h"
#include "target_memory.h"
#include "thread_set.h"

#include <sys/types.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

namespace kcare {

/// Code in the target that does some work as soon as the word at `record` is 1, makes it 2 meanwhile and 3 at
/// its end; `wait` returns when the word is neither 1 nor 2. Both are called with `record` as their argument.
struct HeldFunction {
  remote_ptr<> work;
  remote_ptr<> wait;
  remote_ptr<> record;
  std::uint64_t stack_depth = 0;
  remote_ptr<> signal_return;
};

/// Must not outlive the thread set. Its destructor makes the threads themselves again.
class HeldCall {
public:
  HeldCall(pid_t pid, TargetMemory& memory, const HeldFunction& function);
  ~HeldCall();
  HeldCall(const HeldCall&) = delete;
  HeldCall& operator=(const HeldCall&) = delete;

  /// All threads are stopped. Throws TargetBusy when one of them stands where it cannot be held, or none can
  /// do the work.
  void arm(ThreadSet& threads);
  /// After `arm`. False when the work is not done in time: then all threads are left to themselves, and those
  /// that do not work wait for the end of the work.
  bool run(ThreadSet& threads);

private:
  void hold(TracedThread& thread);
  bool take_worker(TracedThread& thread);

  pid_t pid_;
  TargetMemory& memory_;
  HeldFunction function_;
  AddressMap map_;
  Patience patience_;
  std::vector<std::unique_ptr<CallSession>> sessions_;
  std::unique_ptr<CallSession> worker_;
};

} // namespace kcare
