// What makecontext(3), swapcontext(3) and setjmp(3) of glibc for x86-64 leave in memory.
#include "saved_registers.h"

#include <array>

namespace kcare {

namespace {

constexpr std::uint64_t user_address_end = 1ULL << 47;

std::optional<SavedState> read_ucontext(const TargetMemory& memory, remote_ptr<> address) {
  ucontext_t context{};
  if (!memory.try_read(address, &context, ucontext_layout::state_pointer + sizeof(std::uint64_t)))
    return std::nullopt;
  const auto state =
      reinterpret_cast<std::uint64_t>(context.uc_mcontext.fpregs); // NOLINT(*-reinterpret-cast)
  if (state != address.as_int() + ucontext_layout::state_pointer + ucontext_layout::state_behind_pointer)
    return std::nullopt;
  const auto saved = [&context](int index) {
    return static_cast<std::uint64_t>(context.uc_mcontext.gregs[index]);
  };
  SavedState result;
  result.registers.rbx = saved(REG_RBX);
  result.registers.rbp = saved(REG_RBP);
  result.registers.r12 = saved(REG_R12);
  result.registers.r13 = saved(REG_R13);
  result.registers.r14 = saved(REG_R14);
  result.registers.r15 = saved(REG_R15);
  result.registers.rsp = saved(REG_RSP);
  result.registers.rip = saved(REG_RIP);
  const auto start = reinterpret_cast<std::uint64_t>(context.uc_stack.ss_sp); // NOLINT(*-reinterpret-cast)
  // swapcontext leaves the stack of a context that makecontext did not make as it found it.
  if (start < result.registers.rsp && context.uc_stack.ss_size < user_address_end - start &&
      result.registers.rsp <= start + context.uc_stack.ss_size)
    result.stack = {remote_ptr<>(start), remote_ptr<>(start + context.uc_stack.ss_size)};
  return result;
}

std::optional<SavedState> read_jump_buffer(const TargetMemory& memory, remote_ptr<> address,
                                           std::uint64_t guard) {
  std::array<std::uint64_t, jump_buffer_layout::size / sizeof(std::uint64_t)> words{};
  if (!memory.try_read(address, words.data(), jump_buffer_layout::size))
    return std::nullopt;
  SavedState result;
  result.registers.rbx = words[0];
  result.registers.rbp = demangled(words[1], guard);
  result.registers.r12 = words[2];
  result.registers.r13 = words[3];
  result.registers.r14 = words[4];
  result.registers.r15 = words[5];
  result.registers.rsp = demangled(words[jump_buffer_layout::stack_pointer / sizeof(std::uint64_t)], guard);
  result.registers.rip = demangled(words[jump_buffer_layout::instruction / sizeof(std::uint64_t)], guard);
  if (result.registers.rsp >= user_address_end || result.registers.rip >= user_address_end)
    return std::nullopt;
  return result;
}

} // namespace

std::optional<SavedState> read_saved_state(const TargetMemory& memory, const SavedContext& context,
                                           std::uint64_t pointer_guard) {
  return context.kind == SavedContext::Kind::ucontext
             ? read_ucontext(memory, context.address)
             : read_jump_buffer(memory, context.address, pointer_guard);
}

} // namespace kcare
