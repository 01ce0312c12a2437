// System calls that a stop interrupts: which ones the kernel restarts, and which ones we have to restart by
// hand (R5).
#include "interrupted_calls.h"

#include <sys/syscall.h>

#include <algorithm>
#include <cerrno>
#include <iterator>

namespace kcare {

namespace {

// Private to the kernel (include/linux/errno.h), visible to tracers only.
enum KernelRestart : long long {
  restart_sys = -512,      // ERESTARTSYS
  restart_no_intr = -513,  // ERESTARTNOINTR
  restart_no_hand = -514,  // ERESTARTNOHAND
  restart_by_block = -516, // ERESTART_RESTARTBLOCK
};

// `syscall` is two bytes long, and so is `int $0x80`.
constexpr unsigned long long system_call_instruction_size = 2;

constexpr unsigned short long_mode_code_segment = 0x33;

// signal(7), "Interruption of system calls and library functions by stop signals", and the kernel's sources:
// these give a plain EINTR at any wake-up. The sockets do so only with SO_RCVTIMEO or SO_SNDTIMEO
// (sock_intr_errno), select and its kin only when the timeout cannot be written back (poll_select_finish).
constexpr long long plain_eintr[] = {
    SYS_epoll_wait,     SYS_epoll_pwait,
#ifdef SYS_epoll_pwait2
    SYS_epoll_pwait2,
#endif
    SYS_semop,          SYS_semtimedop,  SYS_rt_sigtimedwait, SYS_io_getevents,
#ifdef SYS_io_pgetevents
    SYS_io_pgetevents,
#endif
#ifdef SYS_io_uring_enter
    SYS_io_uring_enter,
#endif
    SYS_accept,         SYS_accept4,     SYS_connect,         SYS_recvfrom,     SYS_recvmsg,  SYS_recvmmsg,
    SYS_sendto,         SYS_sendmsg,     SYS_sendmmsg,        SYS_read,         SYS_readv,    SYS_write,
    SYS_writev,         SYS_splice,      SYS_sendfile,        SYS_select,       SYS_pselect6, SYS_ppoll,
};

bool in_system_call(const Registers& registers) {
  return static_cast<long long>(registers.orig_rax) >= 0 && registers.cs == long_mode_code_segment;
}

} // namespace

bool restarts_by_kernel(const Registers& registers) {
  if (!in_system_call(registers))
    return false;
  const auto result = static_cast<long long>(registers.rax);
  return result == restart_sys || result == restart_no_intr || result == restart_no_hand ||
         result == restart_by_block;
}

bool returns_eintr_at_stop(const Registers& registers) {
  if (!in_system_call(registers) || static_cast<long long>(registers.rax) != -EINTR)
    return false;
  const auto number = static_cast<long long>(registers.orig_rax);
  return std::find(std::begin(plain_eintr), std::end(plain_eintr), number) != std::end(plain_eintr);
}

Registers restarted_by_hand(const Registers& registers) {
  Registers restarted = registers;
  restarted.rax = registers.orig_rax;
  restarted.rip -= system_call_instruction_size;
  restarted.orig_rax = ~0ULL;
  return restarted;
}

} // namespace kcare
