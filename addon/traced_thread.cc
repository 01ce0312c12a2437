// TracedThread: owns stop, change, restore and resume of one thread.
#include "traced_thread.h"

#include "deadline.h"
#include "engine_error.h"
#include "interrupted_calls.h"
#include "task_list.h"

#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstring>
#include <string>

namespace kcare {

namespace {

constexpr std::int64_t release_patience_ms = 200;

std::uint64_t signal_bit(int signal) {
  return 1ULL << (signal - 1);
}

[[noreturn]] void throw_seize_error(pid_t pid, pid_t tid, int error, const TaskStatus& status,
                                    bool suspend_seccomp) {
  const std::string thread = "thread " + std::to_string(tid) + " of process " + std::to_string(pid);
  if (status.tracer != 0)
    throw EngineError("TARGET_TRACED", error, pid, thread + " is traced by " + std::to_string(status.tracer));
  if (suspend_seccomp)
    throw EngineError("TARGET_UNSUPPORTED", error, pid,
                      thread +
                          " runs under a seccomp filter that cannot be suspended: this takes CAP_SYS_ADMIN "
                          "and a kernel with CONFIG_CHECKPOINT_RESTORE");
  throw EngineError("NOT_PERMITTED", error, pid, "cannot trace " + thread + ": " + strerror(error));
}

} // namespace

Stop Stop::from_wait_status(int status) {
  Stop stop;
  stop.system_call = status == (SIGTRAP | 0x80);
  stop.signal = status & 0x7f;
  stop.event = status >> 8;
  return stop;
}

bool Stop::is_event_stop() const {
  return event == PTRACE_EVENT_STOP;
}

bool Stop::is_group_stop() const {
  return is_event_stop() && signal != SIGTRAP;
}

TracedThread::TracedThread(pid_t pid, pid_t tid) : pid_(pid), tid_(tid), interrupted_at_ns_(now_ns()) {}

std::unique_ptr<TracedThread> TracedThread::seize(pid_t pid, pid_t tid, SeizeOptions options) {
  std::unique_ptr<TracedThread> thread(new TracedThread(pid, tid));
  int error = ptrace_requests::seize(tid, options.trace_clones, options.suspend_seccomp);
  TaskStatus status;
  // A tracer that has left since is no reason to give up.
  if (error == EPERM && read_task_status(pid, tid, status) && status.tracer == 0)
    error = ptrace_requests::seize(tid, options.trace_clones, options.suspend_seccomp);
  if (error == 0)
    return thread;
  thread->phase_ = Phase::gone;
  const char state = task_state(pid, tid);
  if (error == ESRCH || !read_task_status(pid, tid, status) || Task{tid, state}.is_dead())
    return nullptr;
  if (status.tracer == gettid())
    return adopt(pid, tid);
  throw_seize_error(pid, tid, error, status, options.suspend_seccomp);
}

std::unique_ptr<TracedThread> TracedThread::adopt(pid_t pid, pid_t tid) {
  return std::unique_ptr<TracedThread>(new TracedThread(pid, tid));
}

TracedThread::~TracedThread() {
  if (begin_release())
    return;
  const Deadline deadline = Deadline::in_milliseconds(release_patience_ms);
  Backoff backoff;
  while (!poll_release() && !deadline.passed())
    backoff.pause();
}

void TracedThread::check(int error, const char* what) {
  if (error == 0)
    return;
  if (error == ESRCH) { // Only SIGKILL ends a ptrace-stop behind our back.
    phase_ = Phase::gone;
    throw TargetGone();
  }
  throw EngineError("INTERNAL", error, pid_,
                    std::string("ptrace: cannot ") + what + " of thread " + std::to_string(tid_) + ": " +
                        strerror(error));
}

void TracedThread::interrupt() {
  if (!interrupted_)
    interrupted_at_ns_ = now_ns();
  interrupted_ = true;
  if (ptrace_requests::interrupt(tid_) == ESRCH)
    look(); // Gone, or stopped on its own meanwhile: the caller polls.
}

// WNOWAIT leaves the signal of a signal-delivery-stop in the thread: should we die now, the kernel delivers
// it. Without it, waiting takes the signal out, and it would be lost with us (kernel/exit.c,
// wait_task_stopped). WEXITED is asked only for threads: the exit of a process belongs to its parent, which
// may be this very process.
bool TracedThread::look() {
  siginfo_t information{};
  const int result =
      waitid(P_PID, static_cast<id_t>(tid_), &information, WSTOPPED | WNOHANG | WNOWAIT | __WALL);
  if (result == 0 && information.si_pid == tid_) {
    stop_ = Stop::from_wait_status(information.si_status);
    return true;
  }
  if (result == -1 && errno == ECHILD) {
    if (tid_ != pid_)
      waitid(P_PID, static_cast<id_t>(tid_), &information, WEXITED | WNOHANG | __WALL);
    phase_ = Phase::gone;
    return true;
  }
  return false;
}

bool TracedThread::poll() {
  if (phase_ != Phase::running)
    return true;
  if (!look())
    return false;
  if (phase_ == Phase::running)
    phase_ = Phase::stopped;
  return true;
}

void TracedThread::resume() {
  check(ptrace_requests::resume(tid_, deliverable_signal()), "resume");
  phase_ = Phase::running;
}

void TracedThread::resume_to_system_call() {
  check(ptrace_requests::resume_to_system_call(tid_, deliverable_signal()), "resume");
  phase_ = Phase::running;
}

bool TracedThread::is_runnable() const {
  return Task{tid_, task_state(pid_, tid_)}.is_running();
}

std::string TracedThread::describe() const {
  return describe_state(pid_, tid_);
}

bool TracedThread::suspend_seccomp() {
  TaskStatus status;
  return read_task_status(pid_, tid_, status) &&
         (status.seccomp_mode == 0 || ptrace_requests::suspend_seccomp(tid_) == 0);
}

const Registers& TracedThread::original_registers() {
  if (!original_known_) {
    check(ptrace_requests::get_registers(tid_, original_), "read the registers");
    original_known_ = true;
  }
  return original_;
}

std::uint64_t TracedThread::original_signal_mask() {
  if (!mask_changed_)
    check(ptrace_requests::get_signal_mask(tid_, original_mask_), "read the signal mask");
  return original_mask_;
}

Registers TracedThread::current_registers() {
  Registers registers{};
  check(ptrace_requests::get_registers(tid_, registers), "read the registers");
  return registers;
}

void TracedThread::set_registers(const Registers& registers) {
  original_registers();
  registers_changed_ = true;
  check(ptrace_requests::set_registers(tid_, registers), "set the registers");
}

void TracedThread::block_signals() {
  original_signal_mask();
  mask_changed_ = true;
  check(ptrace_requests::set_signal_mask(tid_, ~0ULL), "set the signal mask");
}

void TracedThread::set_extended_state(const std::vector<std::uint8_t>& state) {
  check(ptrace_requests::set_extended_state(tid_, state), "set the extended state");
}

void TracedThread::restore() {
  if (mask_changed_)
    check(ptrace_requests::set_signal_mask(tid_, original_mask_), "restore the signal mask");
  mask_changed_ = false;
  if (registers_changed_)
    check(ptrace_requests::set_registers(tid_, original_), "restore the registers");
  registers_changed_ = false;
}

void TracedThread::forget() noexcept {
  pause_ns_ = now_ns() - interrupted_at_ns_;
  phase_ = Phase::released;
}

pid_t TracedThread::new_thread() {
  pid_t tid = 0;
  if (phase_ == Phase::stopped && stop_.event == PTRACE_EVENT_CLONE)
    check(ptrace_requests::get_new_thread(tid_, tid), "read the event");
  return tid;
}

bool TracedThread::catches(int signal) const {
  TaskStatus status;
  return read_task_status(pid_, tid_, status) && (status.caught & signal_bit(signal)) != 0;
}

bool TracedThread::must_restart_by_hand() {
  // A stopped process sees EINTR from these calls after SIGCONT without us, too.
  if (!returns_eintr_at_stop(original_registers()) || stop_.is_group_stop())
    return false;
  if (stop_.is_signal_delivery())
    return !catches(stop_.signal);
  TaskStatus status;
  if (!read_task_status(pid_, tid_, status))
    return false;
  return ((status.pending | status.shared_pending) & ~status.blocked & status.caught) == 0;
}

void TracedThread::detach(int signal) noexcept {
  const int error = ptrace_requests::detach(tid_, signal);
  pause_ns_ = now_ns() - interrupted_at_ns_;
  phase_ = error == 0 ? Phase::released : Phase::gone;
}

bool TracedThread::begin_release() noexcept {
  if (phase_ == Phase::restarting)
    return false;
  if (phase_ != Phase::stopped)
    return true;
  try {
    restore();
    if (must_restart_by_hand()) {
      check(ptrace_requests::set_registers(tid_, restarted_by_hand(original_)), "set the registers");
      check(ptrace_requests::resume_to_system_call(tid_, deliverable_signal()), "resume");
      phase_ = Phase::restarting;
      return false;
    }
  } catch (const std::exception&) {
    if (phase_ == Phase::gone)
      return true;
  }
  detach(deliverable_signal());
  return true;
}

// A program may rely on EINTR when a signal comes. So a call that is restarted by hand is watched until it
// has been entered again: a signal that comes before that is delivered as if it had interrupted the call,
// which then returns the EINTR that it had; one that comes later interrupts the call anew. PTRACE_DETACH in
// the stop at the entry would wake the thread as a signal does (__ptrace_unlink), and the call would return
// EINTR again: the thread is resumed and stays attached until this tracer thread ends, which detaches it
// without waking it.
bool TracedThread::poll_release() noexcept {
  if (phase_ != Phase::restarting)
    return true;
  if (!look())
    return false;
  if (phase_ == Phase::gone)
    return true;
  if (stop_.system_call) {
    const int error = ptrace_requests::resume(tid_, 0);
    pause_ns_ = now_ns() - interrupted_at_ns_;
    phase_ = error == 0 ? Phase::released : Phase::gone;
    return true;
  }
  if (stop_.is_group_stop()) {
    detach(0);
    return true;
  }
  const int signal = deliverable_signal();
  if (signal != 0 && catches(signal)) {
    ptrace_requests::set_registers(tid_, original_);
    detach(signal);
    return true;
  }
  if (ptrace_requests::resume_to_system_call(tid_, signal) == 0)
    return false;
  phase_ = Phase::gone;
  return true;
}

} // namespace kcare
