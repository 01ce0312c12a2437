// One stopped thread that is about to work for us and can restore itself at any instant (R1).
#pragma once

#include "address_map.h"
#include "call_candidates.h"
#include "deadline.h"
#include "remote_call.h"
#include "remote_ptr.h"
#include "signal_frame.h"
#include "target_memory.h"
#include "traced_thread.h"

#include <sys/types.h>

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace kcare {

/// A function of the target and its arguments, at most six words.
struct FunctionCall {
  remote_ptr<> function;
  std::array<std::uint64_t, 6> arguments{};
  /// Bytes of stack that it may use; they have to be there already.
  std::uint64_t stack_depth = 0;
};

/// Null when this thread cannot serve and another one should be tried. Throws EngineError TARGET_UNSUPPORTED.
std::unique_ptr<TracedThread> stop_candidate(pid_t pid, const Candidate& candidate,
                                             const TargetMemory& memory, const Patience& patience);

/// Throws EngineError TARGET_UNSUPPORTED unless `mov $15,%rax; syscall` is there.
void require_signal_return(pid_t pid, const TargetMemory& memory, remote_ptr<> signal_return);

/// Lets the thread go, and waits until a call that was restarted by hand has been entered again.
void release(TracedThread& thread, const Patience& patience);

class CallSession {
public:
  CallSession(TargetMemory& memory, TracedThread& thread, remote_ptr<> signal_return)
      : memory_(memory), thread_(thread), signal_return_(signal_return) {}

  /// Writes the frame. False when the thread has no room for it and `stack_depth` bytes below; then nothing
  /// is changed.
  bool prepare(const AddressMap& map, std::uint64_t stack_depth = 0);
  /// Nothing when the thread stands there. Otherwise it does not run, but what this says, and is itself
  /// again.
  std::optional<std::string> run_to_trampoline(const Patience& patience);
  /// The kernel's return value; nothing when the call did not return in time.
  std::optional<std::int64_t> call(const RemoteCall& call, const Patience& patience);
  /// The function is what the thread does next.
  void aim(const FunctionCall& call);
  /// After `aim`. False when the function did not return in time: the thread is in it, and must be let alone.
  bool complete(const Patience& patience);
  /// Makes the thread itself again.
  void finish(const Patience& patience);
  /// The same for a thread that did not run since it was prepared.
  void put_back();

private:
  Registers at_trampoline(Registers registers) const;
  bool stands_before_signal_return();
  bool run_to_system_call(const Patience& patience);

  TargetMemory& memory_;
  TracedThread& thread_;
  remote_ptr<> signal_return_;
  /// The kernel restarts an interrupted call, and stops a stopped process again, only from its signal code.
  bool needs_signal_code_ = true;
  /// It stands at the entry of the rt_sigreturn that becomes the next call.
  bool waits_at_trampoline_ = false;
  SignalFrame frame_;
  std::vector<std::uint8_t> extended_state_;
  std::vector<std::uint8_t> overwritten_;
};

} // namespace kcare
