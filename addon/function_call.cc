// A function of the target, called in one of its threads as the kernel would call a signal handler.
//
// The function may wait for a lock that another thread holds, so the other threads run meanwhile, and the
// time is bounded: when it is over, the thread is let alone, and finishes by itself (R1, see
// call_session.cc).
#include "function_call.h"

#include "deadline.h"
#include "engine_error.h"
#include "target_memory.h"

#include <algorithm>
#include <optional>

namespace kcare {

namespace {

constexpr std::int64_t function_patience_ms = 500;
constexpr std::int64_t runnable_patience_ms = 3000;
/// What is farther away from the stack pointer is read when it is asked for.
constexpr std::uint64_t shown_stack = 16384;
constexpr std::uint64_t red_zone_size = 128;

SuspectThread show(TracedThread& thread, const TargetMemory& memory, const AddressMap& map) {
  SuspectThread shown;
  shown.tid = thread.tid();
  shown.registers = thread.original_registers();
  const remote_ptr<> stack_pointer(shown.registers.rsp);
  const Mapping* stack = map.find(stack_pointer);
  if (stack == nullptr)
    return shown;
  shown.stack_start = std::max(stack_pointer.minus_bytes(red_zone_size), stack->range.start);
  shown.stack.resize(std::min(stack->range.end.as_int() - shown.stack_start.as_int(), shown_stack));
  if (!memory.try_read(shown.stack_start, shown.stack.data(), shown.stack.size()))
    shown.stack.clear();
  return shown;
}

/// Nothing when this thread cannot serve and another one should be tried.
std::optional<FunctionResult> call_in_thread(pid_t pid, const Candidate& candidate, TargetMemory& memory,
                                             const AddressMap& map, const FunctionCall& call,
                                             remote_ptr<> signal_return, const Patience& patience,
                                             const Choose& choose) {
  const std::unique_ptr<TracedThread> thread = stop_candidate(pid, candidate, memory, patience);
  if (!thread || !choose(show(*thread, memory, map)))
    return std::nullopt;
  CallSession session(memory, *thread, signal_return);
  if (!session.prepare(map, call.stack_depth))
    return std::nullopt;
  const Patience call_patience = Patience::in_milliseconds(function_patience_ms, runnable_patience_ms);
  if (session.run_to_trampoline(call_patience))
    return std::nullopt;
  FunctionResult result;
  result.tid = candidate.tid;
  result.was_running = candidate.running;
  session.aim(call);
  if (!session.complete(call_patience)) {
    result.outcome = FunctionResult::Outcome::unfinished;
    result.reason = "a function call in thread " + std::to_string(candidate.tid) + " did not return in time";
    return result;
  }
  session.finish(call_patience);
  release(*thread, call_patience);
  result.pause_ns = thread->pause_ns();
  result.outcome = FunctionResult::Outcome::returned;
  return result;
}

} // namespace

FunctionResult call_function(pid_t pid, const FunctionCall& call, remote_ptr<> signal_return,
                             std::int64_t timeout_ms, const Choose& choose) {
  const Patience patience = Patience::in_milliseconds(timeout_ms, timeout_ms);
  TargetMemory memory(pid);
  require_signal_return(pid, memory, signal_return);
  const AddressMap map = AddressMap::of_process(pid);
  for (const Candidate& candidate : find_candidates(pid)) {
    if (auto result = call_in_thread(pid, candidate, memory, map, call, signal_return, patience, choose))
      return *result;
    if (patience.usual.passed())
      break;
  }
  FunctionResult result;
  result.reason =
      "no thread of process " + std::to_string(pid) + " came to a place where it could be interrupted";
  return result;
}

} // namespace kcare
