// Programs that begin and files that are opened, anywhere on the host: the kernel's process connector and
// fanotify.
#pragma once

#include <sys/types.h>

#include <functional>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

namespace kcare {

/// Watches from construction to destruction, in a thread of its own that sleeps while nothing happens.
class HostEvents {
public:
  struct Batch {
    /// Processes that were forked or executed a program.
    std::vector<pid_t> begun;
    /// Processes that opened a marked file, as the loader does just before it maps it. The kernel tells of no
    /// mapping, and of the close only when the last mapping is gone.
    std::vector<pid_t> touched;
    /// The kernel had more events than it keeps.
    bool lost = false;
    /// A source broke; nothing more will come.
    bool ended = false;
  };

  /// `notify` is called from the thread when there is something to take() and was not before.
  explicit HostEvents(std::function<void()> notify);
  ~HostEvents();
  HostEvents(const HostEvents&) = delete;
  HostEvents& operator=(const HostEvents&) = delete;

  /// All since the last call.
  Batch take();
  /// Watches a mapped file: `mapped` is its entry in map_files of its process. On an overlay the file that is
  /// opened can be another one: the one at `path` below the directory `root` is watched then as well; ""
  /// leaves that out. Returns an errno value, 0 on success.
  int mark(const std::string& mapped, const std::string& root, const std::string& path);

  /// Errno values of the sources that cannot be used, 0 for those that can.
  int processes_error() const { return processes_error_; }
  int files_error() const { return files_error_; }

private:
  void open_processes();
  void open_files();
  int mark_opened(int descriptor);
  void watch();
  bool read_processes(Batch& batch);
  bool read_files(Batch& batch);
  /// Notifies unless it can wait; true when something waits.
  bool publish(const Batch& batch, bool urgent);

  std::function<void()> notify_;
  int processes_ = -1;
  int files_ = -1;
  int end_ = -1;
  int processes_error_ = 0;
  int files_error_ = 0;
  std::mutex mutex_;
  Batch waiting_;
  bool notified_ = false;
  std::thread thread_;
};

} // namespace kcare
