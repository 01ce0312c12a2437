// The patcher's side of its guardian, which keeps a stop of the patcher from becoming one of a target (R5).
//
// A thread of the patcher would be stopped with it, and a fork of a large process is slow: so the guardian is
// a small static program, spawned with the first request of a thread that makes requests. It has a session of
// its own, for a stop of a whole group, and all signals blocked.
#include "guardian.h"

#include "guardian_watch.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <climits>
#include <csignal>
#include <string>

namespace kcare {

namespace {

/// Beside the file that has this code.
std::string program_path() {
  Dl_info information{};
  if (dladdr(reinterpret_cast<void*>(&program_path), &information) == 0) // NOLINT(*-reinterpret-cast)
    return {};
  const std::string file = information.dli_fname;
  return file.substr(0, file.rfind('/') + 1) + "kcare_guardian";
}

pid_t spawn_with(int watch) {
  posix_spawnattr_t attributes;
  posix_spawn_file_actions_t actions;
  sigset_t all;
  sigfillset(&all);
  posix_spawnattr_init(&attributes);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSID | POSIX_SPAWN_SETSIGMASK);
  posix_spawnattr_setsigmask(&attributes, &all);
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, watch, guardian_watch_descriptor);
  for (int standard = 0; standard < guardian_watch_descriptor; standard++)
    posix_spawn_file_actions_addclose(&actions, standard);
  posix_spawn_file_actions_addclosefrom_np(&actions, guardian_watch_descriptor + 1);
  std::string path = program_path();
  char* const arguments[] = {path.data(), nullptr};
  char* const environment[] = {nullptr};
  pid_t pid = 0;
  const int error = posix_spawn(&pid, path.c_str(), &actions, &attributes, arguments, environment);
  posix_spawn_file_actions_destroy(&actions);
  posix_spawnattr_destroy(&attributes);
  return error == 0 ? pid : 0;
}

/// One for each thread that makes requests: the guardian ends with the thread that spawned it.
class Guardian {
public:
  static Guardian& of_this_thread() {
    thread_local Guardian guardian;
    return guardian;
  }

  Guardian() {
    const int file = memfd_create("kcare-guardian", MFD_CLOEXEC);
    void* memory = MAP_FAILED;
    if (file >= 0 && ftruncate(file, sizeof(GuardianWatch)) == 0)
      memory = mmap(nullptr, sizeof(GuardianWatch), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (memory != MAP_FAILED) {
      watch_ = new (memory) GuardianWatch;
      watch_->patcher = getpid();
      pid_ = spawn_with(file);
    }
    close(file);
  }

  ~Guardian() {
    if (pid_ > 0) {
      kill(pid_, SIGKILL);
      waitpid(pid_, nullptr, 0);
    }
    if (watch_ != nullptr)
      munmap(watch_, sizeof *watch_);
  }

  Guardian(const Guardian&) = delete;
  Guardian& operator=(const Guardian&) = delete;

  void begin() noexcept {
    if (watch_ == nullptr)
      return;
    watch_->continued.store(0);
    watch_->request.fetch_add(1);
    syscall(SYS_futex, &watch_->request, FUTEX_WAKE, 1, nullptr, nullptr, 0);
  }

  void end() noexcept {
    if (watch_ == nullptr)
      return;
    watch_->request.fetch_add(1);
    if (watch_->continued.exchange(0) != 0)
      kill(getpid(), SIGSTOP);
  }

private:
  GuardianWatch* watch_ = nullptr;
  pid_t pid_ = 0;
};

} // namespace

Guarded::Guarded() noexcept {
  Guardian::of_this_thread().begin();
}

Guarded::~Guarded() {
  Guardian::of_this_thread().end();
}

} // namespace kcare
