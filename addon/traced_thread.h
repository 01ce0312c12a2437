// TracedThread: owns stop, change, restore and resume of one thread.
#pragma once

#include "ptrace_requests.h"

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace kcare {

struct SeizeOptions {
  /// Attach to threads that this one creates.
  bool trace_clones = false;
  bool suspend_seccomp = false;
};

/// Why a thread is in a ptrace-stop; see ptrace(2).
struct Stop {
  int signal = 0;
  int event = 0;
  bool system_call = false;

  static Stop from_wait_status(int status);
  bool is_signal_delivery() const { return !system_call && event == 0; }
  bool is_event_stop() const;
  /// The whole process is stopped by SIGSTOP, SIGTSTP, SIGTTIN or SIGTTOU.
  bool is_group_stop() const;
};

/// A seized thread. The destructor puts back what was changed and lets a stopped thread go. A thread that was
/// never stopped cannot be detached; the kernel does that when the tracer thread ends (see tracer_thread.h).
class TracedThread {
public:
  /// Null when the thread is gone. Throws EngineError TARGET_TRACED, NOT_PERMITTED or TARGET_UNSUPPORTED.
  static std::unique_ptr<TracedThread> seize(pid_t pid, pid_t tid, SeizeOptions options);
  /// A thread that the kernel attached to us at its birth; its first stop comes unasked.
  static std::unique_ptr<TracedThread> adopt(pid_t pid, pid_t tid);
  ~TracedThread();
  TracedThread(const TracedThread&) = delete;
  TracedThread& operator=(const TracedThread&) = delete;

  pid_t tid() const { return tid_; }
  bool is_main() const { return tid_ == pid_; }
  bool is_stopped() const { return phase_ == Phase::stopped; }
  bool is_gone() const { return phase_ == Phase::gone; }
  /// It has a processor or waits for one.
  bool is_runnable() const;
  /// What it does now, for people.
  std::string describe() const;
  const Stop& stop() const { return stop_; }

  /// Asks for a stop; never a signal, so that neither the process nor its parent can notice.
  void interrupt();
  /// Looks once, without waiting; true when the thread is stopped or gone.
  bool poll();

  /// Resume a stopped thread; a signal that was about to be delivered is delivered now, exactly once.
  void resume();
  void resume_to_system_call();

  /// Whether system calls that a filter would judge can be made now; the filter is back when the thread is
  /// let go.
  bool suspend_seccomp();

  /// Registers as they were at the first stop. Throws TargetGone.
  const Registers& original_registers();
  /// The mask that `block_signals` or `restore` puts back.
  std::uint64_t original_signal_mask();
  Registers current_registers();

  void set_registers(const Registers& registers);
  void block_signals();
  /// As `ptrace_requests::get_extended_state` gave it.
  void set_extended_state(const std::vector<std::uint8_t>& state);
  /// Mask first, then registers; remote_call.cc tells why.
  void restore();

  /// Starts to let a stopped thread go; false while `poll_release` must be called to finish.
  bool begin_release() noexcept;
  bool poll_release() noexcept;

  /// Leaves it as it is, to be detached by the kernel when this tracer thread ends.
  void forget() noexcept;

  /// The thread announced by a PTRACE_EVENT_CLONE stop, else 0.
  pid_t new_thread();

  /// Nanoseconds from the stop request to the release, 0 before the release.
  std::int64_t pause_ns() const { return pause_ns_; }

private:
  enum class Phase { running, stopped, restarting, released, gone };

  TracedThread(pid_t pid, pid_t tid);
  void check(int error, const char* what);
  bool look();
  int deliverable_signal() const { return stop_.is_signal_delivery() ? stop_.signal : 0; }
  bool must_restart_by_hand();
  bool catches(int signal) const;
  void detach(int signal) noexcept;

  pid_t pid_;
  pid_t tid_;
  Phase phase_ = Phase::running;
  Stop stop_;
  Registers original_{};
  bool original_known_ = false;
  bool registers_changed_ = false;
  std::uint64_t original_mask_ = 0;
  bool mask_changed_ = false;
  bool interrupted_ = false;
  std::int64_t interrupted_at_ns_ = 0;
  std::int64_t pause_ns_ = 0;
};

} // namespace kcare
