// System calls made by a thread of the target, within one stop.
//
// R1, what happens if we die, at each instant:
//
//   1. The thread is stopped, nothing is changed          it goes on as after any interruption.
//   2. The signal frame is written below the red zone     nobody reads it; it goes on.
//   3. Registers: rip = trampoline, rsp = frame           it makes rt_sigreturn and is itself again. A signal
//   that
//                                                         comes first is handled on the stack below the
//                                                         frame.
//   4. All signals are blocked                            the same; the mask comes back from the frame.
//      (The other order would leave a thread without registers to return by, and with all signals blocked.)
//   5. It enters rt_sigreturn, which we turn into our     before we change the registers: rt_sigreturn is
//   made.
//      call: orig_rax = number, rip = trampoline again    After: our call is made, then rt_sigreturn.
//   6. Our call has returned, rip = trampoline            rt_sigreturn. Here a new mapping gets its mark: if
//   we die
//                                                         before that one write, it stays behind, unused and
//                                                         unknown. Next call: go to 5.
//   7. Interrupted once more, it stands in the kernel's   rt_sigreturn.
//      signal code (left out for a thread that was in
//      no system call: there is none to restart)
//   8. The mask is restored                               rt_sigreturn; a signal may be handled before, as
//   in 3.
//   9. The registers are restored                         it goes on; the kernel's signal code restarts the
//                                                         interrupted call, as that code sees the old
//                                                         registers.
//  10. The bytes below the red zone are restored, detach  it goes on.
//
// Each step is one system call of ours, which SIGKILL cannot cut in two. That we return to the trampoline and
// not to the instruction behind our call makes "do nothing more" the default at every point.
#include "remote_call.h"

#include "address_map.h"
#include "call_candidates.h"
#include "deadline.h"
#include "engine_error.h"
#include "interrupted_calls.h"
#include "signal_frame.h"
#include "target_memory.h"
#include "task_list.h"
#include "traced_thread.h"

#include <sys/syscall.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <optional>

namespace kcare {

namespace {

constexpr unsigned long long trap_flag = 0x100;
/// orig_rax of a thread that was not stopped in a system call.
constexpr unsigned long long no_system_call = ~0ULL;
constexpr std::uint8_t signal_return_code[] = {0x48, 0xc7, 0xc0, 0x0f, 0x00, 0x00, 0x00, 0x0f, 0x05};
/// A thread that has begun a call may take longer than the wait for a stop.
constexpr std::int64_t call_patience_ms = 2000;
constexpr std::int64_t stop_patience_ms = 100;
/// A thread in a frozen cgroup (version 2) stops for us, but does not run.
constexpr std::int64_t run_patience_ms = 500;
constexpr std::int64_t largest_errno = 4095;

// Calls that never return one of the kernel's restart codes. After such a code the kernel would move rip back
// by two bytes, which is right behind a syscall instruction but not at the trampoline.
constexpr std::uint64_t permitted_calls[] = {SYS_mmap,   SYS_mprotect, SYS_munmap, SYS_mremap,    SYS_madvise,
                                             SYS_getpid, SYS_gettid,   SYS_prctl,  SYS_membarrier};

/// Waits until the thread stops or ends; false when the deadline passes first.
bool wait_for_stop(TracedThread& thread, const Deadline& deadline) {
  Backoff backoff;
  while (!thread.poll()) {
    if (deadline.passed())
      return false;
    backoff.pause();
  }
  return true;
}

/// Interrupts the thread until it stands in the kernel's signal code; signals that come first are delivered.
bool stop_in_signal_code(TracedThread& thread, const Deadline& deadline) {
  thread.interrupt();
  while (wait_for_stop(thread, deadline)) {
    if (thread.is_gone())
      return false;
    if (thread.stop().is_event_stop())
      return true;
    thread.resume();
  }
  return false;
}

/// Whether the frame fits on the stack of the thread, and overwrites no other mapping.
bool has_room(const AddressMap& map, remote_ptr<> frame, remote_ptr<> stack_pointer) {
  const Mapping* stack = map.find(stack_pointer);
  if (stack == nullptr || !stack->writable || stack_pointer < frame)
    return false;
  return stack->range.contains(frame) || (stack->main_stack && map.find(frame) == nullptr);
}

class CallSession {
public:
  CallSession(TargetMemory& memory, TracedThread& thread, remote_ptr<> signal_return)
      : memory_(memory), thread_(thread), signal_return_(signal_return) {}

  /// False when the thread has no room for the frame; then nothing is changed.
  bool prepare(const AddressMap& map) {
    const Registers& original = thread_.original_registers();
    std::vector<std::uint8_t> extended_state;
    ptrace_requests::get_extended_state(thread_.tid(), extended_state);
    needs_signal_code_ = original.orig_rax != no_system_call || thread_.stop().is_group_stop();
    const bool interrupted = restarts_by_kernel(original) || returns_eintr_at_stop(original);
    frame_ = build_signal_frame(interrupted ? restarted_by_hand(original) : original,
                                thread_.original_signal_mask(), std::move(extended_state), signal_return_);
    if (!has_room(map, frame_.address, remote_ptr<>(original.rsp)))
      return false;
    overwritten_.resize(frame_.bytes.size());
    // Below [stack] nothing is mapped yet: writing makes it grow, and zeros are what was there.
    if (!memory_.try_read(frame_.address, overwritten_.data(), overwritten_.size()))
      std::fill(overwritten_.begin(), overwritten_.end(), std::uint8_t{0});
    memory_.write(frame_.address, frame_.bytes);
    thread_.set_registers(at_trampoline(original));
    thread_.block_signals();
    return true;
  }

  /// False when the thread does not run, and is itself again.
  bool run_to_trampoline(const Deadline& deadline) {
    waits_at_trampoline_ = run_to_system_call(deadline.at_most(run_patience_ms));
    if (waits_at_trampoline_)
      return true;
    thread_.interrupt();
    if (!wait_for_stop(thread_, deadline))
      return false;
    if (thread_.is_gone())
      throw TargetGone();
    waits_at_trampoline_ = thread_.stop().system_call;
    if (!waits_at_trampoline_)
      put_back();
    return waits_at_trampoline_;
  }

  std::optional<std::int64_t> call(const RemoteCall& call, const Deadline& deadline) {
    if (!waits_at_trampoline_ && !run_to_system_call(deadline))
      return std::nullopt;
    waits_at_trampoline_ = false;
    Registers registers = at_trampoline(thread_.current_registers());
    registers.orig_rax = call.number;
    registers.rdi = call.arguments[0];
    registers.rsi = call.arguments[1];
    registers.rdx = call.arguments[2];
    registers.r10 = call.arguments[3];
    registers.r8 = call.arguments[4];
    registers.r9 = call.arguments[5];
    thread_.set_registers(registers);
    if (!run_to_system_call(deadline))
      return std::nullopt;
    return static_cast<std::int64_t>(thread_.current_registers().rax);
  }

  void finish(const Deadline& deadline) {
    if (needs_signal_code_ && !stop_in_signal_code(thread_, deadline))
      return;
    put_back();
  }

private:
  void put_back() {
    thread_.restore();
    memory_.write(frame_.address, overwritten_);
  }

  Registers at_trampoline(Registers registers) const {
    registers.rip = signal_return_.as_int();
    registers.rsp = frame_.stack_pointer().as_int();
    registers.orig_rax = no_system_call;
    registers.eflags &= ~trap_flag;
    return registers;
  }

  /// Only SIGSTOP and SIGKILL can come between: the thread has to run although its process stops.
  bool run_to_system_call(const Deadline& deadline) {
    do {
      thread_.resume_to_system_call();
      if (!wait_for_stop(thread_, deadline))
        return false;
      if (thread_.is_gone())
        throw TargetGone();
    } while (!thread_.stop().system_call);
    return true;
  }

  TargetMemory& memory_;
  TracedThread& thread_;
  remote_ptr<> signal_return_;
  /// The kernel restarts an interrupted call, and stops a stopped process again, only from its signal code.
  bool needs_signal_code_ = true;
  /// It stands at the entry of the rt_sigreturn that becomes the next call.
  bool waits_at_trampoline_ = false;
  SignalFrame frame_;
  std::vector<std::uint8_t> overwritten_;
};

/// Nothing when this thread cannot serve and another one should be tried.
std::optional<CallResult> call_in_thread(pid_t pid, const Candidate& candidate, TargetMemory& memory,
                                         const AddressMap& map, const std::vector<RemoteCall>& calls,
                                         remote_ptr<> signal_return, const Deadline& deadline) {
  SeizeOptions options;
  options.suspend_seccomp = candidate.filtered;
  const std::unique_ptr<TracedThread> thread = TracedThread::seize(pid, candidate.tid, options);
  if (!thread || !stop_in_signal_code(*thread, deadline.at_most(stop_patience_ms)))
    return std::nullopt;
  refuse_unsupported(pid, *thread);
  if (in_restartable_sequence(memory, *thread))
    return std::nullopt;

  CallSession session(memory, *thread, signal_return);
  if (!session.prepare(map))
    return std::nullopt;

  CallResult result;
  result.tid = candidate.tid;
  result.was_running = candidate.running;
  const Deadline call_deadline = Deadline::in_milliseconds(call_patience_ms);
  if (!calls.empty() && !session.run_to_trampoline(call_deadline)) {
    thread->begin_release();
    result.reason = "thread " + std::to_string(candidate.tid) + " of process " + std::to_string(pid) +
                    " could be stopped but does not run; " + describe_state(pid, candidate.tid);
    return result;
  }
  for (const RemoteCall& call : calls) {
    const std::optional<std::int64_t> value = session.call(call, call_deadline);
    if (!value) {
      // Ending this tracer thread lets the target finish the call and restore itself by the frame.
      result.reason = "a system call in thread " + std::to_string(candidate.tid) + " did not return in time";
      return result;
    }
    result.results.push_back(*value);
    if (*value < 0 && *value >= -largest_errno)
      break;
    if (!call.mark.empty())
      memory.write(remote_ptr<>(static_cast<std::uint64_t>(*value)), call.mark);
  }
  session.finish(call_deadline);
  if (!thread->begin_release()) {
    Backoff backoff;
    while (!thread->poll_release() && !call_deadline.passed())
      backoff.pause();
  }
  result.pause_ns = thread->pause_ns();
  result.outcome = CallResult::Outcome::done;
  return result;
}

void validate(pid_t pid, const TargetMemory& memory, const std::vector<RemoteCall>& calls,
              remote_ptr<> signal_return) {
  for (const RemoteCall& call : calls)
    if (std::find(std::begin(permitted_calls), std::end(permitted_calls), call.number) ==
        std::end(permitted_calls))
      throw EngineError("INTERNAL", 0, pid,
                        "system call " + std::to_string(call.number) +
                            " must not be made in another process");
  std::uint8_t code[sizeof signal_return_code] = {};
  if (!memory.try_read(signal_return, code, sizeof code) ||
      std::memcmp(code, signal_return_code, sizeof code) != 0)
    throw EngineError("TARGET_UNSUPPORTED", 0, pid,
                      "process " + std::to_string(pid) +
                          " has no signal return trampoline at the given address");
}

} // namespace

CallResult make_remote_calls(pid_t pid, const std::vector<RemoteCall>& calls, remote_ptr<> signal_return,
                             std::int64_t timeout_ms) {
  const Deadline deadline = Deadline::in_milliseconds(timeout_ms);
  TargetMemory memory(pid);
  validate(pid, memory, calls, signal_return);
  Backoff backoff;
  do {
    // Read before any stop, since that takes as long as a stop; a younger thread is served in the next round.
    const AddressMap map = AddressMap::of_process(pid);
    for (const Candidate& candidate : find_candidates(pid)) {
      if (auto result = call_in_thread(pid, candidate, memory, map, calls, signal_return, deadline))
        return *result;
      if (deadline.passed())
        break;
    }
    backoff.pause();
  } while (!deadline.passed());
  CallResult result;
  const std::vector<Task> tasks = list_tasks(pid);
  const auto task =
      std::find_if(tasks.begin(), tasks.end(), [](const Task& each) { return !each.is_dead(); });
  if (task == tasks.end())
    throw TargetGone();
  result.reason = "no thread of process " + std::to_string(pid) + " could be stopped in time; " +
                  describe_state(pid, task->tid);
  return result;
}

} // namespace kcare
