// The commit: stop all threads in two waves, check, write, let go. All or nothing (R2).
#include "commit.h"

#include "deadline.h"
#include "engine_error.h"
#include "memory_sharers.h"
#include "target_memory.h"

namespace kcare {

namespace {

class CommitSession {
public:
  CommitSession(pid_t pid, const CommitRequest& request, const Examine& examine)
      : request_(request), examine_(examine), memory_(pid), writer_(memory_, request.writes, request.states),
        scanner_(pid, memory_, request.guarded), suspended_(pid, memory_, scanner_, request.search),
        sharers_(pid), pid_(pid), threads_(pid, Deadline::in_milliseconds(request.timeout_ms)) {}

  CommitResult run() {
    if (expected_bytes_differ())
      return result_;
    if (const std::optional<pid_t> sharer = sharers_.find()) {
      result_.reason = MemorySharers::reason(pid_, *sharer);
      return result_;
    }
    if (is_obstructed(suspended_.find()))
      return result_;
    writer_.prefault();
    // The map of the process is read before the stop.
    if (request_.held)
      held_.emplace(pid_, memory_, *request_.held);
    try {
      stop_check_write();
    } catch (const TargetBusy& busy) {
      result_.outcome = CommitResult::Outcome::busy;
      result_.reason = busy.what();
    }
    held_.reset();
    threads_.release();
    result_.statistics = threads_.statistics();
    if (threads_.all_gone())
      result_.outcome = CommitResult::Outcome::gone;
    return result_;
  }

private:
  void stop_check_write() {
    const auto inspect = [this](TracedThread& thread) { return is_clear(thread); };
    if (!threads_.stop_sleeping(inspect) || is_obstructed(suspended_.prepare(threads_)) ||
        !threads_.stop_running(inspect) || expected_bytes_differ())
      return;
    if (is_obstructed(suspended_.judge(threads_, examine_)))
      return;
    if (const std::optional<pid_t> sharer = sharers_.find_new())
      throw TargetBusy(MemorySharers::reason(pid_, *sharer));
    if (held_)
      held_->arm(threads_);
    writer_.write_all();
    result_.unfinished = held_ && !held_->run(threads_);
    result_.outcome = CommitResult::Outcome::committed;
  }

  bool expected_bytes_differ() {
    std::optional<Mismatch> mismatch = writer_.find_mismatch();
    if (!mismatch)
      return false;
    result_.outcome = CommitResult::Outcome::mismatch;
    result_.mismatch = std::move(*mismatch);
    return true;
  }

  bool is_clear(TracedThread& thread) {
    const Registers& registers = thread.original_registers();
    const Inspection inspection = scanner_.inspect(thread.tid(), registers);
    if (inspection.range_of_instruction)
      return block({thread.tid(), *inspection.range_of_instruction, true, remote_ptr<>(registers.rip), {}});
    if (!inspection.needs_examination() || examine_(inspection.suspect))
      return true;
    if (!inspection.suspect.hits.empty()) {
      const StackHit& hit = inspection.suspect.hits.front();
      return block({thread.tid(), hit.range, false, hit.value, {}});
    }
    result_.reason =
        "thread " + std::to_string(thread.tid()) + " runs on another stack that could not be examined";
    return false;
  }

  bool is_obstructed(const std::optional<Obstacle>& obstacle) {
    if (!obstacle)
      return false;
    result_.reason = obstacle->reason;
    result_.referenced = obstacle->referenced;
    if (const auto& hit = obstacle->hit)
      result_.blocker = Blocker{0, hit->range, false, hit->value, obstacle->context};
    return true;
  }

  bool block(const Blocker& blocker) {
    result_.blocker = blocker;
    result_.reason = "thread " + std::to_string(blocker.tid) +
                     (blocker.instruction ? " executes code" : " may return to code") +
                     " that is to be replaced";
    return false;
  }

  const CommitRequest& request_;
  const Examine& examine_;
  TargetMemory memory_;
  CodeWriter writer_;
  StackScanner scanner_;
  SuspendedContexts suspended_;
  MemorySharers sharers_;
  pid_t pid_;
  ThreadSet threads_;
  /// Behind the threads, which it must not outlive.
  std::optional<HeldCall> held_;
  CommitResult result_;
};

} // namespace

CommitResult commit(pid_t pid, const CommitRequest& request, const Examine& examine) {
  try {
    return CommitSession(pid, request, examine).run();
  } catch (const TargetGone&) {
    CommitResult result;
    result.outcome = CommitResult::Outcome::gone;
    return result;
  }
}

} // namespace kcare
