// One stopped thread that is about to work for us and can restore itself at any instant (R1).
//
// What happens if we die is told instant by instant in remote_call.cc for a system call. A function call
// begins alike, at the entry of rt_sigreturn with all signals blocked, and goes on like this:
//
//   5. That rt_sigreturn is skipped (orig_rax = -1), and   before: rt_sigreturn. After: the thread runs the
//      rip = function, rsp = the frame, of which the first  function as if it were a signal handler, returns
//      word is the return address: the trampoline.          to the trampoline and is itself again.
//   6. The function runs, stopped at its system calls,      the same.
//      until the thread is at the entry of rt_sigreturn.
//      If it takes too long, we leave: that is dying.
//   7. The vector and x87 state is put back, which a       rt_sigreturn.
//      function changes and a system call does not.
//   8. This rt_sigreturn is skipped, too, rip = trampoline  rt_sigreturn, and on as after a system call.
#include "call_session.h"

#include "engine_error.h"
#include "interrupted_calls.h"

#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string>

namespace kcare {

namespace {

constexpr unsigned long long trap_flag = 0x100;
constexpr unsigned long long direction_flag = 0x400;
/// orig_rax of a thread that was not stopped in a system call.
constexpr unsigned long long no_system_call = ~0ULL;
constexpr std::uint8_t signal_return_code[] = {0x48, 0xc7, 0xc0, 0x0f, 0x00, 0x00, 0x00, 0x0f, 0x05};
constexpr std::int64_t stop_patience_ms = 100;
/// A thread in a frozen cgroup (version 2) stops for us, but does not run.
constexpr std::int64_t run_patience_ms = 500;

bool is_over(const Patience& patience, const TracedThread& thread) {
  return patience.usual.passed() && (patience.runnable.passed() || !thread.is_runnable());
}

/// Waits until the thread stops or ends; false when that takes too long.
bool wait_for_stop(TracedThread& thread, const Patience& patience) {
  Backoff backoff;
  while (!thread.poll()) {
    if (is_over(patience, thread))
      return false;
    backoff.pause();
  }
  return true;
}

/// Interrupts the thread until it stands in the kernel's signal code; signals that come first are delivered.
bool stop_in_signal_code(TracedThread& thread, const Patience& patience) {
  thread.interrupt();
  while (wait_for_stop(thread, patience)) {
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

/// From here on a later run has to reckon with the call, even if we die.
void announce(int intent) {
  count_step();
  if (pwrite(intent, "1", 1, 0) != 1)
    throw EngineError("INTERNAL", errno, 0, std::string("cannot write the intent: ") + strerror(errno));
}

/// A function needs stack that is there already, and the thread's own: below a coroutine's lies other data.
bool has_depth(const AddressMap& map, const TracedThread& thread, const Registers& registers,
               remote_ptr<> lowest) {
  const Mapping* stack = map.find(remote_ptr<>(registers.rsp));
  if (stack == nullptr || !stack->range.contains(lowest))
    return false;
  const bool below_control_block =
      stack->range.contains(remote_ptr<>(registers.fs_base)) && registers.rsp < registers.fs_base;
  return thread.is_main() ? stack->main_stack : below_control_block;
}

} // namespace

std::unique_ptr<TracedThread> stop_candidate(pid_t pid, const Candidate& candidate,
                                             const TargetMemory& memory, const Patience& patience) {
  SeizeOptions options;
  options.suspend_seccomp = candidate.filtered;
  std::unique_ptr<TracedThread> thread = TracedThread::seize(pid, candidate.tid, options);
  if (!thread || !stop_in_signal_code(*thread, patience.at_most(stop_patience_ms)))
    return nullptr;
  refuse_unsupported(pid, *thread);
  if (in_restartable_sequence(memory, *thread))
    return nullptr;
  return thread;
}

void require_signal_return(pid_t pid, const TargetMemory& memory, remote_ptr<> signal_return) {
  std::uint8_t code[sizeof signal_return_code] = {};
  if (!memory.try_read(signal_return, code, sizeof code) ||
      std::memcmp(code, signal_return_code, sizeof code) != 0)
    // The caller has just seen it: the process has executed another program, or unmapped its library.
    throw EngineError("TARGET_MEMORY", 0, pid,
                      "process " + std::to_string(pid) +
                          " has no signal return trampoline at the given address");
}

void release(TracedThread& thread, const Patience& patience) {
  if (thread.begin_release())
    return;
  Backoff backoff;
  while (!thread.poll_release() && !is_over(patience, thread))
    backoff.pause();
}

bool CallSession::prepare(const AddressMap& map, std::uint64_t stack_depth) {
  const Registers& original = thread_.original_registers();
  ptrace_requests::get_extended_state(thread_.tid(), extended_state_);
  needs_signal_code_ = original.orig_rax != no_system_call || thread_.stop().is_group_stop();
  const bool interrupted = restarts_by_kernel(original) || returns_eintr_at_stop(original);
  frame_ = build_signal_frame(interrupted ? restarted_by_hand(original) : original,
                              thread_.original_signal_mask(), extended_state_, signal_return_);
  if (!has_room(map, frame_.address, remote_ptr<>(original.rsp)))
    return false;
  if (stack_depth != 0 && !has_depth(map, thread_, original, frame_.address.minus_bytes(stack_depth)))
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

std::optional<std::string> CallSession::run_to_trampoline(const Patience& patience) {
  waits_at_trampoline_ = run_to_system_call(patience.at_most(run_patience_ms));
  if (waits_at_trampoline_)
    return std::nullopt;
  std::string state = thread_.describe();
  thread_.interrupt();
  if (!wait_for_stop(thread_, patience))
    return state;
  if (thread_.is_gone())
    throw TargetGone();
  waits_at_trampoline_ = thread_.stop().system_call;
  if (waits_at_trampoline_)
    return std::nullopt;
  put_back();
  return state;
}

std::optional<std::int64_t> CallSession::call(const RemoteCall& call, const Patience& patience) {
  if (!waits_at_trampoline_ && !run_to_system_call(patience))
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
  if (call.intent >= 0)
    announce(call.intent);
  thread_.set_registers(registers);
  if (!run_to_system_call(patience))
    return std::nullopt;
  return static_cast<std::int64_t>(thread_.current_registers().rax);
}

void CallSession::aim(const FunctionCall& call) {
  waits_at_trampoline_ = false;
  Registers registers = at_trampoline(thread_.current_registers());
  registers.rip = call.function.as_int();
  registers.rsp = frame_.address.as_int();
  registers.rdi = call.arguments[0];
  registers.rsi = call.arguments[1];
  registers.rdx = call.arguments[2];
  registers.rcx = call.arguments[3];
  registers.r8 = call.arguments[4];
  registers.r9 = call.arguments[5];
  registers.rax = 0;
  registers.rbp = 0;
  registers.eflags &= ~direction_flag;
  thread_.set_registers(registers);
}

bool CallSession::complete(const Patience& patience) {
  do {
    if (!run_to_system_call(patience))
      return false;
  } while (!stands_before_signal_return());
  thread_.set_extended_state(extended_state_);
  thread_.set_registers(at_trampoline(thread_.current_registers()));
  return run_to_system_call(patience);
}

/// At the entry of rt_sigreturn, made from the trampoline; it never gets to the exit, where rip is the same.
bool CallSession::stands_before_signal_return() {
  const Registers registers = thread_.current_registers();
  return registers.orig_rax == SYS_rt_sigreturn &&
         registers.rip == signal_return_.as_int() + sizeof signal_return_code;
}

void CallSession::finish(const Patience& patience) {
  if (needs_signal_code_ && !stop_in_signal_code(thread_, patience))
    return;
  put_back();
}

void CallSession::put_back() {
  thread_.restore();
  memory_.write(frame_.address, overwritten_);
}

Registers CallSession::at_trampoline(Registers registers) const {
  registers.rip = signal_return_.as_int();
  registers.rsp = frame_.stack_pointer().as_int();
  registers.orig_rax = no_system_call;
  registers.eflags &= ~trap_flag;
  return registers;
}

/// Only SIGSTOP and SIGKILL can come between: the thread has to run although its process stops.
bool CallSession::run_to_system_call(const Patience& patience) {
  do {
    thread_.resume_to_system_call();
    if (!wait_for_stop(thread_, patience))
      return false;
    if (thread_.is_gone())
      throw TargetGone();
  } while (!thread_.stop().system_call);
  return true;
}

} // namespace kcare
