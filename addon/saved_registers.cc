// What makecontext(3), swapcontext(3) and setjmp(3) of glibc for x86-64 leave in memory.
#include "saved_registers.h"

#include "task_list.h"

#include <sys/uio.h>

#include <algorithm>
#include <array>
#include <climits>
#include <cstring>

namespace kcare {

namespace {

constexpr std::uint64_t user_address_end = 1ULL << 47;

constexpr std::size_t ucontext_size = ucontext_layout::state_pointer + sizeof(std::uint64_t);

std::size_t size_of(const SavedContext& context) {
  return context.kind == SavedContext::Kind::ucontext ? ucontext_size : jump_buffer_layout::size;
}

std::optional<SavedState> parse_ucontext(const std::uint8_t* bytes, remote_ptr<> address) {
  ucontext_t context{};
  std::memcpy(&context, bytes, ucontext_size);
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

std::optional<SavedState> parse_jump_buffer(const std::uint8_t* bytes, std::uint64_t guard) {
  std::array<std::uint64_t, jump_buffer_layout::size / sizeof(std::uint64_t)> words{};
  std::memcpy(words.data(), bytes, jump_buffer_layout::size);
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

std::optional<SavedState> parse(const SavedContext& context, const std::uint8_t* bytes, std::uint64_t guard) {
  return context.kind == SavedContext::Kind::ucontext ? parse_ucontext(bytes, context.address)
                                                      : parse_jump_buffer(bytes, guard);
}

/// Reads from `first` on as many contexts as one system call takes; returns how many it read wholly.
std::size_t read_some(pid_t task, const std::vector<SavedContext>& contexts, std::size_t first,
                      std::vector<std::uint8_t>& bytes) {
  std::vector<iovec> remote;
  std::size_t total = 0;
  for (std::size_t index = first; index < contexts.size() && remote.size() < IOV_MAX; index++) {
    const std::size_t size = size_of(contexts[index]);
    // NOLINTNEXTLINE(*-reinterpret-cast, performance-no-int-to-ptr)
    remote.push_back({reinterpret_cast<void*>(contexts[index].address.as_int()), size});
    total += size;
  }
  bytes.resize(total);
  const iovec local{bytes.data(), total};
  const ssize_t count = process_vm_readv(task, &local, 1, remote.data(), remote.size(), 0);
  std::size_t left = count < 0 ? 0 : static_cast<std::size_t>(count);
  std::size_t whole = 0;
  for (; whole < remote.size() && remote[whole].iov_len <= left; whole++)
    left -= remote[whole].iov_len;
  return whole;
}

} // namespace

std::vector<FoundState> read_saved_states(pid_t pid, const TargetMemory& memory,
                                          const std::vector<SavedContext>& contexts,
                                          std::uint64_t pointer_guard) {
  std::vector<FoundState> found;
  if (contexts.empty())
    return found;
  const pid_t task = task_with_memory(pid);
  std::vector<std::uint8_t> bytes;
  for (std::size_t next = 0; next < contexts.size();) {
    std::size_t count = read_some(task, contexts, next, bytes);
    // What this call does not read, /proc/PID/mem may: memory that the process itself may not read at the
    // moment.
    const bool is_skipped =
        count == 0 && !memory.try_read(contexts[next].address, bytes.data(), size_of(contexts[next]));
    const std::size_t end = next + std::max<std::size_t>(count, 1);
    const std::uint8_t* cursor = bytes.data();
    for (; next < end; next++) {
      const auto state = is_skipped ? std::nullopt : parse(contexts[next], cursor, pointer_guard);
      if (state)
        found.push_back({contexts[next], *state});
      cursor += size_of(contexts[next]);
    }
  }
  return found;
}

} // namespace kcare
