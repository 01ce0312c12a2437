// Looks through all that a process wrote: for saved contexts, and for pointers into images.
#pragma once

#include "address_map.h"
#include "remote_ptr.h"
#include "target_memory.h"

#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

namespace kcare {

/// Registers that a function of the C library saved in memory, to go on there later.
struct SavedContext {
  enum class Kind { ucontext, jump_buffer } kind;
  remote_ptr<> address;
};

struct SurveyRequest {
  bool contexts = false;
  /// What the C library mangles saved addresses with (%fs:0x30).
  std::uint64_t pointer_guard = 0;
  /// Words that point into these are looked for, except in `own`.
  std::vector<remote_range> pointers_into;
  std::vector<remote_range> own;
};

struct PointerFound {
  remote_ptr<> address;
  remote_ptr<> value;
};

struct Survey {
  std::vector<SavedContext> contexts;
  std::vector<PointerFound> pointers;
};

/// Whether a word at this address cannot be used any more.
using IsDead = std::function<bool(remote_ptr<>)>;

/// Looks through `pages`. At most one pointer is reported: the first that is not dead.
Survey survey_memory(pid_t pid, const TargetMemory& memory, const AddressMap& map,
                     const std::vector<remote_range>& pages, const SurveyRequest& request,
                     const IsDead& is_dead);

/// What the first word points to that leads into `request.pointers_into`, looked for without a stop; stacks
/// count as a whole. Nothing when the process has written more than `largest` bytes, or is gone.
std::optional<remote_ptr<>> find_pointer(pid_t pid, const SurveyRequest& request, std::uint64_t largest);

/// A pointer as the C library of x86-64 mangles it (glibc, sysdeps/unix/sysv/linux/x86_64/pointer_guard.h).
constexpr std::uint64_t demangled(std::uint64_t word, std::uint64_t guard) {
  return ((word >> 17) | (word << 47)) ^ guard;
}

} // namespace kcare
