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
//   6. Our call has returned, rip = trampoline            rt_sigreturn. Here a new mapping gets its mark;
//                                                         if we die before that, the intent that was noted
//                                                         before 5 tells the next run what it is. Next
//                                                         call: go to 5.
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
#include "call_session.h"
#include "deadline.h"
#include "engine_error.h"
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

/// A thread that has begun a call may take longer than the wait for a stop.
constexpr std::int64_t call_patience_ms = 2000;
constexpr std::int64_t runnable_patience_ms = 5000;
constexpr std::int64_t largest_errno = 4095;

// Calls that never return one of the kernel's restart codes. After such a code the kernel would move rip back
// by two bytes, which is right behind a syscall instruction but not at the trampoline.
constexpr std::uint64_t permitted_calls[] = {SYS_mmap,   SYS_mprotect, SYS_munmap, SYS_mremap,    SYS_madvise,
                                             SYS_getpid, SYS_gettid,   SYS_prctl,  SYS_membarrier};

/// The first page last: SIGKILL does not cut the write of a page, but it can cut that of several, and until
/// the first page is there nobody takes the memory for an image.
void write_mark(TargetMemory& memory, remote_ptr<> address, const std::vector<std::uint8_t>& mark) {
  if (mark.size() > page_size)
    memory.write(address.plus_bytes(page_size), mark.data() + page_size, mark.size() - page_size);
  if (!mark.empty())
    memory.write(address, mark.data(), std::min(mark.size(), page_size));
}

/// Nothing when this thread cannot serve and another one should be tried.
std::optional<CallResult> call_in_thread(pid_t pid, const Candidate& candidate, TargetMemory& memory,
                                         const AddressMap& map, const std::vector<RemoteCall>& calls,
                                         remote_ptr<> signal_return, const Patience& patience) {
  const std::unique_ptr<TracedThread> thread = stop_candidate(pid, candidate, memory, patience);
  if (!thread)
    return std::nullopt;
  CallSession session(memory, *thread, signal_return);
  if (!session.prepare(map))
    return std::nullopt;

  CallResult result;
  result.tid = candidate.tid;
  result.was_running = candidate.running;
  const Patience call_patience = Patience::in_milliseconds(call_patience_ms, runnable_patience_ms);
  const auto state = calls.empty() ? std::nullopt : session.run_to_trampoline(call_patience);
  if (state) {
    thread->begin_release();
    result.reason = "thread " + std::to_string(candidate.tid) + " of process " + std::to_string(pid) +
                    " could be stopped but does not run; " + *state;
    return result;
  }
  for (const RemoteCall& call : calls) {
    const std::optional<std::int64_t> value = session.call(call, call_patience);
    if (!value) {
      // Ending this tracer thread lets the target finish the call and restore itself by the frame.
      result.reason = "a system call in thread " + std::to_string(candidate.tid) + " did not return in time";
      return result;
    }
    result.results.push_back(*value);
    if (*value < 0 && *value >= -largest_errno)
      break;
    write_mark(memory, remote_ptr<>(static_cast<std::uint64_t>(*value)), call.mark);
  }
  session.finish(call_patience);
  release(*thread, call_patience);
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
  require_signal_return(pid, memory, signal_return);
}

} // namespace

CallResult make_remote_calls(pid_t pid, const std::vector<RemoteCall>& calls, remote_ptr<> signal_return,
                             std::int64_t timeout_ms) {
  const Patience patience = Patience::in_milliseconds(timeout_ms, timeout_ms);
  TargetMemory memory(pid);
  validate(pid, memory, calls, signal_return);
  Backoff backoff;
  do {
    // Read before any stop, since that takes as long as a stop; a younger thread is served in the next round.
    const AddressMap map = AddressMap::of_process(pid);
    for (const Candidate& candidate : find_candidates(pid)) {
      if (auto result = call_in_thread(pid, candidate, memory, map, calls, signal_return, patience))
        return *result;
      if (patience.usual.passed())
        break;
    }
    backoff.pause();
  } while (!patience.usual.passed());
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
