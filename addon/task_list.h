// Threads of a process and what /proc/PID/task says about them.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace kcare {

struct Task {
  pid_t tid;
  /// State letter of proc(5): R running, S sleeping, D uninterruptible, T stopped, t traced, Z and X dead, I
  /// idle.
  char state;

  bool is_dead() const { return state == 'Z' || state == 'X' || state == 'x'; }
  bool is_running() const { return state == 'R'; }
};

/// The lines of /proc/PID/task/TID/status that the engine needs; signal sets have bit (number - 1).
struct TaskStatus {
  pid_t process = 0;
  pid_t tracer = 0;
  int seccomp_mode = 0;
  bool shadow_stack = false;
  std::uint64_t pending = 0;
  std::uint64_t shared_pending = 0;
  std::uint64_t blocked = 0;
  std::uint64_t caught = 0;
};

/// How a task came to be.
struct TaskOrigin {
  /// It executed a program itself, so its memory is no older than it is.
  bool has_executed = false;
  /// Since boot.
  std::int64_t started_ms = 0;
};

/// The process or thread ids that a directory of /proc lists; empty when it is gone.
std::vector<pid_t> list_ids(const std::string& path);
/// Thread ids only, main thread first; empty when the process is gone.
std::vector<pid_t> list_thread_ids(pid_t pid);
/// Threads with their states; threads that vanish meanwhile are left out.
std::vector<Task> list_tasks(pid_t pid);
/// 'X' when the thread is gone.
char task_state(pid_t pid, pid_t tid);
/// "thread 7 is in state D (uninterruptible sleep, or its cgroup is frozen)"
std::string describe_state(pid_t pid, pid_t tid);
/// Path of a file in /proc of a thread that has not ended; a main thread may end before the others, and then
/// its own files show no memory. Throws TargetGone.
std::string living_task_path(pid_t pid, const char* name);
/// False for a thread that has given up its address space on its way to its end.
bool has_memory(pid_t pid, pid_t tid);
/// A thread that has the address space; the main thread if possible. Throws TargetGone.
pid_t task_with_memory(pid_t pid);
/// Of the text of a status file; what an older kernel lacks, or what is damaged, is 0.
TaskStatus parse_task_status(const std::string& content);
/// Of the text of a stat file; 'X' when it is damaged.
char parse_task_state(const std::string& content);
/// Of the text of a stat file; nothing when it is damaged.
std::optional<TaskOrigin> parse_task_origin(const std::string& content);
/// Nothing when the thread is gone, or this kernel does not tell.
std::optional<TaskOrigin> read_task_origin(pid_t pid, pid_t tid);
/// False when the thread is gone.
bool read_task_status(pid_t pid, pid_t tid, TaskStatus& status);
/// Number of threads, dead ones that nobody has waited for included; one system call; -1 when unknown.
long count_threads(pid_t pid);

} // namespace kcare
