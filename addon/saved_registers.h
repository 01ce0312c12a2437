// What makecontext(3), swapcontext(3) and setjmp(3) of glibc for x86-64 leave in memory.
#pragma once

#include "memory_survey.h"
#include "ptrace_requests.h"
#include "remote_ptr.h"
#include "target_memory.h"

#include <csetjmp>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <ucontext.h>

namespace kcare {

/// A ucontext_t points to the floating point state in itself: one word that holds its own address plus a
/// constant. In a signal frame of the kernel that state lies elsewhere.
namespace ucontext_layout {
constexpr std::size_t state_pointer = offsetof(ucontext_t, uc_mcontext.fpregs);
constexpr std::size_t state_behind_pointer = offsetof(ucontext_t, __fpregs_mem) - state_pointer;
static_assert(state_pointer == 224 && state_behind_pointer == 200);
} // namespace ucontext_layout

/// Words of struct __jmp_buf_tag: rbx, rbp, r12 to r15, rsp, rip; rbp, rsp and rip are mangled.
namespace jump_buffer_layout {
constexpr std::size_t stack_pointer = 48;
constexpr std::size_t instruction = 56;
constexpr std::size_t size = 64;
static_assert(sizeof(std::jmp_buf) >= size);
} // namespace jump_buffer_layout

struct SavedState {
  /// Only what a function keeps for its caller, the stack pointer and the instruction pointer are known.
  Registers registers{};
  /// What makecontext was given; empty where that is unknown.
  remote_range stack;
};

struct FoundState {
  SavedContext context;
  SavedState state;
};

/// What is in memory now, without what is no saved context any more. By few system calls, because running
/// threads stand still meanwhile. Throws TargetGone.
std::vector<FoundState> read_saved_states(pid_t pid, const TargetMemory& memory,
                                          const std::vector<SavedContext>& contexts,
                                          std::uint64_t pointer_guard);

} // namespace kcare
