// The signal frame by which a thread restores itself when we die (R1).
//
//   lower addresses
//   +------------------------------+ <- frame address, 8 below a multiple of 16, as after a call instruction
//   | 0    return address          |    the trampoline: mov $15,%rax; syscall
//   +------------------------------+ <- rsp when rt_sigreturn is called
//   | 8    ucontext: flags, link   |
//   | 24   ucontext: stack_t       |    invalid flags: the kernel leaves the alternate stack alone
//   | 48   sigcontext: registers   |    r8 ... rsp, rip, eflags, selectors, pointer to the XSAVE area
//   | 304  ucontext: signal mask   |
//   +------------------------------+
//   | 312  siginfo (unused)        |
//   +------------------------------+ 440, then padding to a multiple of 64
//   | XSAVE area                   |    standard format
//   |   464  software bytes        |    magic1, sizes, features: without them only the SSE part is restored,
//   |   512  header                |    and without the area the kernel clears all vector registers
//   |   ...  AVX, AVX-512, PKRU    |
//   | end    magic2                |
//   +------------------------------+
//   | red zone, 128 bytes          |    may hold live data of the interrupted function
//   +------------------------------+ <- rsp of the stopped thread
//   higher addresses
//
// Sources: arch/x86/include/uapi/asm/sigcontext.h, arch/x86/kernel/signal_64.c and fpu/signal.c of Linux.
#include "signal_frame.h"

#include "engine_error.h"

#include <cpuid.h>

#include <algorithm>
#include <cstddef>
#include <cstring>

namespace kcare {

namespace {

constexpr std::uint64_t red_zone_size = 128;

struct SignalContext {
  std::uint64_t r8, r9, r10, r11, r12, r13, r14, r15;
  std::uint64_t rdi, rsi, rbp, rbx, rdx, rax, rcx, rsp, rip, eflags;
  std::uint16_t cs, gs, fs, ss;
  std::uint64_t error, trap, old_mask, cr2;
  std::uint64_t extended_state;
  std::uint64_t reserved[8];
};
static_assert(sizeof(SignalContext) == 256);
static_assert(offsetof(SignalContext, rip) == 128);
static_assert(offsetof(SignalContext, cs) == 144);
static_assert(offsetof(SignalContext, extended_state) == 184);

struct Frame {
  std::uint64_t return_address;
  std::uint64_t flags;
  std::uint64_t link;
  std::uint64_t stack_address;
  std::uint32_t stack_flags;
  std::uint32_t stack_padding;
  std::uint64_t stack_size;
  SignalContext context;
  std::uint64_t signal_mask;
  std::uint8_t signal_information[128];
};
static_assert(offsetof(Frame, flags) == 8);
static_assert(offsetof(Frame, stack_address) == 24);
static_assert(offsetof(Frame, context) == 48);
static_assert(offsetof(Frame, signal_mask) == 304);
static_assert(sizeof(Frame) == 440);

struct SoftwareBytes {
  std::uint32_t magic1;
  std::uint32_t extended_size;
  std::uint64_t features;
  std::uint32_t area_size;
  std::uint32_t padding[7];
};
static_assert(sizeof(SoftwareBytes) == 48);

constexpr std::size_t software_bytes_offset = 464;
constexpr std::size_t header_offset = 512;
constexpr std::size_t smallest_xsave_area = 576;
static_assert(software_bytes_offset + sizeof(SoftwareBytes) == header_offset);

constexpr std::uint32_t magic1 = 0x46505853;
constexpr std::uint32_t magic2 = 0x46505845;
constexpr std::uint64_t flags_extended_state = 1;      // UC_FP_XSTATE
constexpr std::uint64_t flags_stack_segment = 2 | 4;   // UC_SIGCONTEXT_SS | UC_STRICT_RESTORE_SS
constexpr std::uint32_t invalid_stack_flags = 0x7ffff; // neither SS_ONSTACK nor SS_DISABLE: EINVAL, ignored
constexpr std::uint64_t feature_tile_data = 1ULL << 18;
constexpr unsigned xsave_leaf = 0xd;

std::uint64_t word_at(const std::vector<std::uint8_t>& bytes, std::size_t offset) {
  std::uint64_t word = 0;
  std::memcpy(&word, bytes.data() + offset, sizeof word);
  return word;
}

/// Size of a standard-format XSAVE area for `features`.
std::size_t xsave_area_size(std::uint64_t features) {
  std::size_t size = smallest_xsave_area;
  for (unsigned bit = 2; bit < 63; bit++) {
    unsigned length = 0;
    unsigned offset = 0;
    unsigned ecx = 0;
    unsigned edx = 0;
    if ((features >> bit & 1) != 0 && __get_cpuid_count(xsave_leaf, bit, &length, &offset, &ecx, &edx) != 0)
      size = std::max<std::size_t>(size, std::size_t{length} + offset);
  }
  return size;
}

/// Turns what ptrace gives into what rt_sigreturn takes: software bytes in place, end magic behind.
void complete_extended_state(std::vector<std::uint8_t>& state) {
  std::uint64_t features = word_at(state, software_bytes_offset); // ptrace puts XCR0 here
  const std::uint64_t in_use = word_at(state, header_offset);
  // ptrace always shows room for AMX tiles; a signal frame of a thread that never asked for tiles must not
  // have it (arch_prctl(2), ARCH_REQ_XCOMP_PERM): the kernel would restore the SSE part only.
  if ((features & feature_tile_data) != 0 && (in_use & feature_tile_data) == 0) {
    features &= ~feature_tile_data;
    state.resize(std::min(state.size(), xsave_area_size(features)));
  }
  SoftwareBytes software{};
  software.magic1 = magic1;
  software.area_size = static_cast<std::uint32_t>(state.size());
  software.extended_size = static_cast<std::uint32_t>(state.size() + sizeof magic2);
  software.features = features;
  std::memcpy(state.data() + software_bytes_offset, &software, sizeof software);
  const auto* end_magic = reinterpret_cast<const std::uint8_t*>(&magic2);
  state.insert(state.end(), end_magic, end_magic + sizeof magic2);
}

SignalContext signal_context(const Registers& r, remote_ptr<> extended_state) {
  SignalContext context{};
  context.r8 = r.r8, context.r9 = r.r9, context.r10 = r.r10, context.r11 = r.r11;
  context.r12 = r.r12, context.r13 = r.r13, context.r14 = r.r14, context.r15 = r.r15;
  context.rdi = r.rdi, context.rsi = r.rsi, context.rbp = r.rbp, context.rbx = r.rbx;
  context.rdx = r.rdx, context.rax = r.rax, context.rcx = r.rcx, context.rsp = r.rsp;
  context.rip = r.rip, context.eflags = r.eflags;
  context.cs = static_cast<std::uint16_t>(r.cs);
  context.ss = static_cast<std::uint16_t>(r.ss);
  context.extended_state = extended_state.as_int();
  return context;
}

} // namespace

SignalFrame build_signal_frame(const Registers& registers, std::uint64_t signal_mask,
                               std::vector<std::uint8_t> extended_state, remote_ptr<> signal_return) {
  if (extended_state.size() < smallest_xsave_area)
    throw EngineError("TARGET_UNSUPPORTED", 0, 0, "this processor or kernel does not offer the XSAVE state");
  complete_extended_state(extended_state);

  const remote_ptr<> below_red_zone = remote_ptr<>(registers.rsp).minus_bytes(red_zone_size);
  const remote_ptr<> state_address = below_red_zone.minus_bytes(extended_state.size()).aligned_down(64);
  const remote_ptr<> address = state_address.minus_bytes(sizeof(Frame)).aligned_down(16).minus_bytes(8);

  Frame frame{};
  frame.return_address = signal_return.as_int();
  frame.flags = flags_extended_state | flags_stack_segment;
  frame.stack_flags = invalid_stack_flags;
  frame.context = signal_context(registers, state_address);
  frame.signal_mask = signal_mask;

  SignalFrame result;
  result.address = address;
  result.bytes.resize(state_address.as_int() - address.as_int() + extended_state.size());
  std::memcpy(result.bytes.data(), &frame, sizeof frame);
  std::copy(extended_state.begin(), extended_state.end(),
            result.bytes.end() - static_cast<long>(extended_state.size()));
  return result;
}

} // namespace kcare
