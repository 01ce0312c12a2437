// The only file that calls ptrace(2).
#include "ptrace_requests.h"

#include <elf.h>
#include <sys/ptrace.h>
#include <sys/uio.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdlib>

namespace kcare {

namespace {

// Absent from older <sys/ptrace.h>; values of <linux/ptrace.h>, part of the kernel's stable interface.
constexpr unsigned request_get_rseq_configuration = 0x420f;
constexpr unsigned request_get_system_call_dispatch = 0x4210;
constexpr unsigned regset_xstate = 0x202;
constexpr std::size_t largest_xstate = 16384;

struct RseqConfiguration {
  std::uint64_t area;
  std::uint32_t size;
  std::uint32_t signature;
  std::uint32_t flags;
  std::uint32_t padding;
};

struct SystemCallDispatch {
  std::uint64_t mode;
  std::uint64_t selector;
  std::uint64_t offset;
  std::uint64_t length;
};

std::atomic<std::uint64_t> requests_made{0};

int request(unsigned what, pid_t tid, std::uintptr_t address, std::uintptr_t data) {
  count_step();
  requests_made++;
  errno = 0;
  const long result = ptrace(static_cast<__ptrace_request>(what), tid, address, data);
  return result == -1 ? errno : 0;
}

std::uintptr_t pointer(const void* object) {
  return reinterpret_cast<std::uintptr_t>(object);
}

} // namespace

namespace ptrace_requests {

std::uint64_t made() {
  return requests_made;
}

int seize(pid_t tid, bool trace_clones, bool suspend_seccomp) {
  std::uintptr_t options = PTRACE_O_TRACESYSGOOD;
  if (trace_clones)
    options |= PTRACE_O_TRACECLONE;
  if (suspend_seccomp)
    options |= PTRACE_O_SUSPEND_SECCOMP;
  return request(PTRACE_SEIZE, tid, 0, options);
}

int suspend_seccomp(pid_t tid) {
  const std::uintptr_t options = PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACECLONE | PTRACE_O_SUSPEND_SECCOMP;
  return request(PTRACE_SETOPTIONS, tid, 0, options);
}

int interrupt(pid_t tid) {
  return request(PTRACE_INTERRUPT, tid, 0, 0);
}

int detach(pid_t tid, int signal) {
  return request(PTRACE_DETACH, tid, 0, static_cast<std::uintptr_t>(signal));
}

int resume(pid_t tid, int signal) {
  return request(PTRACE_CONT, tid, 0, static_cast<std::uintptr_t>(signal));
}

int resume_to_system_call(pid_t tid, int signal) {
  return request(PTRACE_SYSCALL, tid, 0, static_cast<std::uintptr_t>(signal));
}

int get_registers(pid_t tid, Registers& registers) {
  return request(PTRACE_GETREGS, tid, 0, pointer(&registers));
}

int set_registers(pid_t tid, const Registers& registers) {
  return request(PTRACE_SETREGS, tid, 0, pointer(&registers));
}

int get_signal_mask(pid_t tid, std::uint64_t& mask) {
  return request(PTRACE_GETSIGMASK, tid, sizeof mask, pointer(&mask));
}

int set_signal_mask(pid_t tid, std::uint64_t mask) {
  return request(PTRACE_SETSIGMASK, tid, sizeof mask, pointer(&mask));
}

int get_extended_state(pid_t tid, std::vector<std::uint8_t>& state) {
  state.assign(largest_xstate, 0);
  iovec vector{state.data(), state.size()};
  const int error = request(PTRACE_GETREGSET, tid, regset_xstate, pointer(&vector));
  state.resize(error == 0 ? vector.iov_len : 0);
  return error;
}

int set_extended_state(pid_t tid, const std::vector<std::uint8_t>& state) {
  std::vector<std::uint8_t> copy = state;
  iovec vector{copy.data(), copy.size()};
  return request(PTRACE_SETREGSET, tid, regset_xstate, pointer(&vector));
}

int get_new_thread(pid_t tid, pid_t& new_tid) {
  unsigned long message = 0;
  const int error = request(PTRACE_GETEVENTMSG, tid, 0, pointer(&message));
  new_tid = static_cast<pid_t>(message);
  return error;
}

std::uint64_t get_rseq_area(pid_t tid) {
  RseqConfiguration configuration{};
  const int error =
      request(request_get_rseq_configuration, tid, sizeof configuration, pointer(&configuration));
  return error == 0 ? configuration.area : 0;
}

bool has_system_call_dispatch(pid_t tid) {
  SystemCallDispatch dispatch{};
  const int error = request(request_get_system_call_dispatch, tid, sizeof dispatch, pointer(&dispatch));
  return error == 0 && dispatch.mode != 0;
}

} // namespace ptrace_requests

void count_step() {
  static const long last = [] {
    const char* text = std::getenv("KCARE_ENGINE_DIE_AT");
    return text == nullptr ? 0L : std::strtol(text, nullptr, 10);
  }();
  if (last <= 0)
    return;
  static std::atomic<long> steps{0};
  if (++steps == last) {
    kill(getpid(), SIGKILL);
    for (;;)
      pause();
  }
}

} // namespace kcare
