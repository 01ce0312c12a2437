// Whether a stopped thread is, or may return, inside code that is about to be replaced.
#pragma once

#include "address_map.h"
#include "ptrace_requests.h"
#include "remote_ptr.h"
#include "target_memory.h"

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

namespace kcare {

/// A word of a live stack that could be a return address into a guarded range.
struct StackHit {
  remote_ptr<> address;
  remote_ptr<> value;
  std::size_t range;
};

struct SuspectThread {
  pid_t tid = 0;
  Registers registers{};
  remote_ptr<> stack_start;
  std::vector<std::uint8_t> stack;
  std::vector<StackHit> hits;
  /// Not on its native stack: a signal handler on an alternate stack, or a coroutine.
  bool on_other_stack = false;
  /// Where the registers were saved, when this is a suspended context and no thread; else null.
  remote_ptr<> context;
};

/// The stack that a stopped thread has from its thread library, and where it stands now.
struct StandingThread {
  pid_t tid;
  remote_ptr<> stack_pointer;
  /// Empty where it is not known.
  remote_range native_stack;
  bool on_native_stack;

  bool is_dead(remote_ptr<> address) const;
};

struct Inspection {
  /// The guarded range that the instruction pointer is inside of.
  std::optional<std::size_t> range_of_instruction;
  SuspectThread suspect;

  bool needs_examination() const { return !suspect.hits.empty() || suspect.on_other_stack; }
};

class StackScanner {
public:
  StackScanner(pid_t pid, const TargetMemory& memory, std::vector<remote_range> guarded);

  /// Throws TargetBusy when the stack cannot be read, TargetGone.
  Inspection inspect(pid_t tid, const Registers& registers);

  StandingThread standing(pid_t tid, const Registers& registers);
  /// Of a context saved at `context` whose stack ends where `live` ends; needs examination when it has hits.
  Inspection inspect_saved(remote_ptr<> context, const Registers& registers, const remote_range& live) const;
  /// Of when this scanner was made, or newer.
  const AddressMap& map() const { return map_; }
  /// Up to where a stack goes of which only this address is known.
  remote_ptr<> end_of_unknown_stack(remote_ptr<> address) const;

private:
  struct Extent {
    remote_range live;
    bool native;
  };
  Extent live_extent(pid_t tid, const Registers& registers);
  void scan_native_stack(const Registers& registers, SuspectThread& suspect);
  std::vector<std::uint8_t> read_stack(pid_t tid, const remote_range& live) const;
  void scan(const std::vector<std::uint8_t>& stack, remote_ptr<> start, std::vector<StackHit>& hits) const;
  std::optional<std::size_t> range_returned_into(remote_ptr<> value) const;

  pid_t pid_;
  const TargetMemory& memory_;
  std::vector<remote_range> guarded_;
  remote_range hull_;
  AddressMap map_;
};

} // namespace kcare
