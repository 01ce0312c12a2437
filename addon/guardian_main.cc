// The guardian: a small program beside a patcher that makes it go on when it is stopped while it holds
// threads of a target (R5).
//
// It sends SIGCONT, nothing else: the patcher finishes its request, lets the threads go, and then stops
// itself, since that is what was asked of it. It ends with the thread of the patcher that started it.
#include "guardian_watch.h"

#include <fcntl.h>
#include <linux/futex.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <cstring>
#include <ctime>

using kcare::GuardianWatch;

namespace {

/// A request takes a millisecond. A stop that is seen twice was not just over when it was seen.
constexpr long look_interval_ns = 25'000'000;
constexpr int looks_needed = 2;

/// By the state letter of proc(5): T, but not t, which a debugger means.
bool is_stopped(const char* stat_path) {
  char text[256] = {};
  const int file = open(stat_path, O_RDONLY | O_CLOEXEC);
  const ssize_t size = read(file, text, sizeof text - 1);
  close(file);
  const char* name_end = size > 0 ? std::strrchr(text, ')') : nullptr;
  return name_end != nullptr && std::strncmp(name_end, ") T", 3) == 0;
}

void sleep_until_request(GuardianWatch& watch, std::uint32_t last) {
  syscall(SYS_futex, &watch.request, FUTEX_WAIT, last, nullptr, nullptr, 0);
}

void guard(GuardianWatch& watch, int patcher) {
  char stat_path[32];
  static_cast<void>(std::snprintf(stat_path, sizeof stat_path, "/proc/%d/stat", watch.patcher));
  std::uint32_t seen = 0;
  int looks = 0;
  for (;;) {
    const std::uint32_t request = watch.request.load();
    if (request % 2 == 0) {
      sleep_until_request(watch, request);
      continue;
    }
    const timespec interval{0, look_interval_ns};
    nanosleep(&interval, nullptr);
    if (request != seen)
      looks = 0;
    seen = request;
    looks = is_stopped(stat_path) && watch.request.load() == request ? looks + 1 : 0;
    if (looks < looks_needed)
      continue;
    looks = 0;
    watch.continued.store(1);
    syscall(SYS_pidfd_send_signal, patcher, SIGCONT, nullptr, 0);
  }
}

} // namespace

int main() {
  void* memory = mmap(nullptr, sizeof(GuardianWatch), PROT_READ | PROT_WRITE, MAP_SHARED,
                      kcare::guardian_watch_descriptor, 0);
  if (memory == MAP_FAILED)
    return 1;
  close(kcare::guardian_watch_descriptor);
  auto& watch = *static_cast<GuardianWatch*>(memory);
  const auto patcher = static_cast<int>(syscall(SYS_pidfd_open, watch.patcher, 0));
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  // It may have ended before this was set.
  if (patcher < 0 || getppid() != watch.patcher)
    return 1;
  guard(watch, patcher);
}
