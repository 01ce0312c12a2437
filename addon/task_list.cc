// Threads of a process and what /proc/PID/task says about them.
#include "task_list.h"

#include "engine_error.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <sstream>
#include <string>
#include <thread>

namespace kcare {

namespace {

/// PF_FORKNOEXEC of the kernel's linux/sched.h, among the flags of proc(5).
constexpr std::uint64_t forked_without_exec = 0x40;
/// Fields of a stat file, counted from the state, which is the first one behind the name.
constexpr int flags_field = 6;
constexpr int start_field = 19;
constexpr std::uint64_t most_ticks = 1ULL << 50;

std::string task_path(pid_t pid, pid_t tid, const char* name) {
  return "/proc/" + std::to_string(pid) + "/task/" + std::to_string(tid) + "/" + name;
}

bool read_small_file(const std::string& path, std::string& content) {
  const int file = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (file < 0)
    return false;
  char buffer[8192];
  const ssize_t size = read(file, buffer, sizeof buffer);
  close(file);
  if (size <= 0)
    return false;
  content.assign(buffer, static_cast<std::size_t>(size));
  return true;
}

/// The text behind "NAME:" and white space, or null.
const char* status_field(const std::string& content, const char* name) {
  const std::size_t at = content.find(name);
  if (at == std::string::npos)
    return nullptr;
  return content.c_str() + at + std::strlen(name);
}

std::uint64_t status_number(const std::string& content, const char* name, int base) {
  const char* text = status_field(content, name);
  return text == nullptr ? 0 : std::strtoull(text, nullptr, base);
}

/// A thread executes nothing itself, so the flag of this one has to be set.
bool tells_of_executions() {
  static const bool tells = [] {
    std::string content;
    std::optional<TaskOrigin> own;
    std::thread([&] {
      if (read_small_file(task_path(getpid(), gettid(), "stat"), content))
        own = parse_task_origin(content);
    }).join();
    return own && !own->has_executed;
  }();
  return tells;
}

} // namespace

std::vector<pid_t> list_ids(const std::string& path) {
  std::vector<pid_t> ids;
  DIR* directory = opendir(path.c_str());
  if (directory == nullptr)
    return ids;
  while (const dirent* entry = readdir(directory)) {
    const long id = std::strtol(entry->d_name, nullptr, 10);
    if (id > 0)
      ids.push_back(static_cast<pid_t>(id));
  }
  closedir(directory);
  return ids;
}

std::vector<pid_t> list_thread_ids(pid_t pid) {
  std::vector<pid_t> ids = list_ids("/proc/" + std::to_string(pid) + "/task");
  // The main thread has the oldest and least crowded stack: it comes first.
  std::stable_partition(ids.begin(), ids.end(), [pid](pid_t id) { return id == pid; });
  return ids;
}

char task_state(pid_t pid, pid_t tid) {
  std::string content;
  return read_small_file(task_path(pid, tid, "stat"), content) ? parse_task_state(content) : 'X';
}

char parse_task_state(const std::string& content) {
  // The command name in parentheses may itself contain parentheses.
  const std::size_t name_end = content.rfind(')');
  return name_end == std::string::npos || name_end + 2 >= content.size() ? 'X' : content[name_end + 2];
}

std::string describe_state(pid_t pid, pid_t tid) {
  const char state = task_state(pid, tid);
  std::string text = "thread " + std::to_string(tid) + " is in state " + state;
  if (state == 'D')
    text += " (uninterruptible sleep, or its cgroup is frozen)";
  else if (state != 'R' && state != 'T')
    text += " (its cgroup may be frozen)";
  return text;
}

std::vector<Task> list_tasks(pid_t pid) {
  std::vector<Task> tasks;
  for (const pid_t tid : list_thread_ids(pid)) {
    const char state = task_state(pid, tid);
    if (state != 'X')
      tasks.push_back({tid, state});
  }
  return tasks;
}

std::string living_task_path(pid_t pid, const char* name) {
  // Nearly always the main thread lives, and there may be thousands of others to list.
  if (!Task{pid, task_state(pid, pid)}.is_dead())
    return task_path(pid, pid, name);
  for (const pid_t tid : list_thread_ids(pid))
    if (!Task{tid, task_state(pid, tid)}.is_dead())
      return task_path(pid, tid, name);
  throw TargetGone();
}

bool has_memory(pid_t pid, pid_t tid) {
  std::string content;
  return read_small_file(task_path(pid, tid, "statm"), content) && content[0] != '0';
}

pid_t task_with_memory(pid_t pid) {
  if (has_memory(pid, pid))
    return pid;
  for (const pid_t tid : list_thread_ids(pid))
    if (has_memory(pid, tid))
      return tid;
  throw TargetGone();
}

std::optional<TaskOrigin> parse_task_origin(const std::string& content) {
  const std::size_t name_end = content.rfind(')');
  if (name_end == std::string::npos)
    return std::nullopt;
  TaskOrigin origin;
  std::istringstream fields(content.substr(name_end + 1));
  std::string field;
  for (int index = 0; fields >> field; index++) {
    const std::uint64_t number = std::strtoull(field.c_str(), nullptr, 10);
    if (index == flags_field)
      origin.has_executed = (number & forked_without_exec) == 0;
    if (index != start_field)
      continue;
    // Not beyond the years that fit.
    const auto ticks = static_cast<std::int64_t>(std::min(number, most_ticks));
    origin.started_ms = ticks * 1000 / sysconf(_SC_CLK_TCK);
    return origin;
  }
  return std::nullopt;
}

std::optional<TaskOrigin> read_task_origin(pid_t pid, pid_t tid) {
  std::string content;
  if (!tells_of_executions() || !read_small_file(task_path(pid, tid, "stat"), content))
    return std::nullopt;
  return parse_task_origin(content);
}

bool read_task_status(pid_t pid, pid_t tid, TaskStatus& status) {
  std::string content;
  if (!read_small_file(task_path(pid, tid, "status"), content))
    return false;
  status = parse_task_status(content);
  return true;
}

TaskStatus parse_task_status(const std::string& content) {
  TaskStatus status;
  status.process = static_cast<pid_t>(status_number(content, "\nTgid:", 10));
  status.tracer = static_cast<pid_t>(status_number(content, "\nTracerPid:", 10));
  status.seccomp_mode = static_cast<int>(status_number(content, "\nSeccomp:", 10));
  status.pending = status_number(content, "\nSigPnd:", 16);
  status.shared_pending = status_number(content, "\nShdPnd:", 16);
  status.blocked = status_number(content, "\nSigBlk:", 16);
  status.caught = status_number(content, "\nSigCgt:", 16);
  if (const char* features = status_field(content, "\nx86_Thread_features:"))
    status.shadow_stack =
        std::string(features, std::strcspn(features, "\n")).find("shstk") != std::string::npos;
  return status;
}

long count_threads(pid_t pid) {
  struct stat information {};
  if (stat(("/proc/" + std::to_string(pid) + "/task").c_str(), &information) != 0)
    return -1;
  // proc_task_getattr() of the kernel adds the number of threads to the two links of any directory.
  return static_cast<long>(information.st_nlink) - 2;
}

} // namespace kcare
