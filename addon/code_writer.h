// The writes of a commit: checked, written and read back, or undone as a whole.
#pragma once

#include "remote_ptr.h"
#include "target_memory.h"

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

namespace kcare {

struct CodeWrite {
  remote_ptr<> address;
  std::vector<std::uint8_t> expected;
  std::vector<std::uint8_t> replacement;
};

struct StateWord {
  remote_ptr<> address;
  std::uint32_t during = 0;
  std::uint32_t after = 0;
};

struct Mismatch {
  std::size_t index = 0;
  std::vector<std::uint8_t> found;
};

class CodeWriter {
public:
  CodeWriter(TargetMemory& memory, const std::vector<CodeWrite>& writes,
             const std::vector<StateWord>& states);

  /// R3: the first write whose place does not hold the expected bytes.
  std::optional<Mismatch> find_mismatch() const;
  /// Makes the pages private to the target (copy on write) while nobody is stopped. Only after
  /// `find_mismatch`.
  void prefault();
  /// R2: state words, code, state words; undone when any of it fails. Throws as TargetMemory does.
  void write_all();

private:
  void write_states(bool after);
  void undo() noexcept;

  TargetMemory& memory_;
  const std::vector<CodeWrite>& writes_;
  const std::vector<StateWord>& states_;
  std::vector<std::uint32_t> states_before_;
};

} // namespace kcare
