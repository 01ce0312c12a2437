// The signal frame by which a thread restores itself when we die (R1).
#pragma once

#include "ptrace_requests.h"
#include "remote_ptr.h"

#include <cstdint>
#include <vector>

namespace kcare {

/// What rt_sigreturn(2) reads, ready to be written into the target at `address`.
struct SignalFrame {
  remote_ptr<> address;
  std::vector<std::uint8_t> bytes;

  /// Stack pointer with which rt_sigreturn has to be called.
  remote_ptr<> stack_pointer() const { return address.plus_bytes(sizeof(std::uint64_t)); }
};

/// `registers`, `signal_mask`: what the thread gets back. `extended_state`: as PTRACE_GETREGSET gives it, may
/// be empty on failure, then EngineError TARGET_UNSUPPORTED. `signal_return`: address of the trampoline.
SignalFrame build_signal_frame(const Registers& registers, std::uint64_t signal_mask,
                               std::vector<std::uint8_t> extended_state, remote_ptr<> signal_return);

} // namespace kcare
