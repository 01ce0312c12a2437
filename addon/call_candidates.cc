// Which threads of a process can make a remote call.
#include "call_candidates.h"

#include "engine_error.h"
#include "task_list.h"

#include <unistd.h>

#include <algorithm>
#include <string>

namespace kcare {

namespace {

constexpr std::uint64_t long_mode_code_segment = 0x33;

/// struct rseq_cs of <linux/rseq.h>.
struct RestartableSequence {
  std::uint32_t version;
  std::uint32_t flags;
  std::uint64_t start;
  std::uint64_t length;
  std::uint64_t abort;
};

} // namespace

std::vector<Candidate> find_candidates(pid_t pid) {
  std::vector<Candidate> candidates;
  bool any_alive = false;
  for (const Task& task : list_tasks(pid)) {
    TaskStatus status;
    if (task.is_dead() || !read_task_status(pid, task.tid, status))
      continue;
    any_alive = true;
    if (status.tracer != 0 && status.tracer != gettid())
      throw EngineError("TARGET_TRACED", 0, pid,
                        "thread " + std::to_string(task.tid) + " of process " + std::to_string(pid) +
                            " is traced by " + std::to_string(status.tracer));
    if (status.shadow_stack)
      throw EngineError("TARGET_UNSUPPORTED", 0, pid,
                        "process " + std::to_string(pid) +
                            " uses a shadow stack, which a remote call would break");
    if (task.state != 'D')
      candidates.push_back({task.tid, task.is_running(), status.seccomp_mode != 0});
  }
  if (!any_alive)
    throw TargetGone();
  std::stable_sort(candidates.begin(), candidates.end(), [](const Candidate& a, const Candidate& b) {
    return a.filtered != b.filtered ? b.filtered : !a.running && b.running;
  });
  return candidates;
}

bool in_restartable_sequence(const TargetMemory& memory, TracedThread& thread) {
  constexpr std::uint64_t sequence_pointer_offset = 8;
  const std::uint64_t area = ptrace_requests::get_rseq_area(thread.tid());
  std::uint64_t pointer = 0;
  if (area == 0 || !memory.try_read(remote_ptr<>(area + sequence_pointer_offset), &pointer, sizeof pointer) ||
      pointer == 0)
    return false;
  RestartableSequence sequence{};
  if (!memory.try_read(remote_ptr<>(pointer), &sequence, sizeof sequence))
    return false;
  return thread.original_registers().rip - sequence.start < sequence.length;
}

void refuse_unsupported(pid_t pid, TracedThread& thread) {
  if (thread.original_registers().cs != long_mode_code_segment)
    throw EngineError("TARGET_UNSUPPORTED", 0, pid, "process " + std::to_string(pid) + " runs 32-bit code");
  if (ptrace_requests::has_system_call_dispatch(thread.tid()))
    throw EngineError("TARGET_UNSUPPORTED", 0, pid,
                      "process " + std::to_string(pid) + " diverts its system calls (syscall user dispatch)");
}

} // namespace kcare
