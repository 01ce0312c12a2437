// The writes of a commit: checked, written and read back, or undone as a whole.
#include "code_writer.h"

#include "engine_error.h"

namespace kcare {

CodeWriter::CodeWriter(TargetMemory& memory, const std::vector<CodeWrite>& writes,
                       const std::vector<StateWord>& states)
    : memory_(memory), writes_(writes), states_(states) {
  for (const StateWord& state : states) {
    std::uint32_t word = 0;
    memory.read(state.address, &word, sizeof word);
    states_before_.push_back(word);
  }
}

std::optional<Mismatch> CodeWriter::find_mismatch() const {
  for (std::size_t index = 0; index < writes_.size(); index++) {
    std::vector<std::uint8_t> found = memory_.read(writes_[index].address, writes_[index].expected.size());
    if (found != writes_[index].expected)
      return Mismatch{index, std::move(found)};
  }
  return std::nullopt;
}

// Writing a byte over itself changes nothing that runs, and leaves the copying of the page out of the stop.
void CodeWriter::prefault() {
  for (const CodeWrite& write : writes_) {
    const std::size_t last = write.expected.size() - 1;
    memory_.write(write.address, write.expected.data(), 1);
    memory_.write(write.address.plus_bytes(last), write.expected.data() + last, 1);
  }
  for (std::size_t index = 0; index < states_.size(); index++)
    memory_.write(states_[index].address, &states_before_[index], sizeof states_before_[index]);
}

void CodeWriter::write_states(bool after) {
  for (const StateWord& state : states_) {
    const std::uint32_t& word = after ? state.after : state.during;
    memory_.write(state.address, &word, sizeof word);
  }
}

void CodeWriter::write_all() {
  try {
    write_states(false);
    for (const CodeWrite& write : writes_)
      memory_.write(write.address, write.replacement);
    for (const CodeWrite& write : writes_)
      if (memory_.read(write.address, write.replacement.size()) != write.replacement)
        throw EngineError("TARGET_MEMORY", 0, 0, "code bytes read back differently from what was written");
    write_states(true);
  } catch (const EngineError&) {
    undo();
    throw;
  }
}

void CodeWriter::undo() noexcept {
  const auto attempt = [this](remote_ptr<> address, const void* bytes, std::size_t size) {
    try {
      memory_.write(address, bytes, size);
    } catch (const std::exception&) {
      // The error that led here is the one to report; the other places still have to be undone.
    }
  };
  for (const CodeWrite& write : writes_)
    attempt(write.address, write.expected.data(), write.expected.size());
  for (std::size_t index = 0; index < states_.size(); index++)
    attempt(states_[index].address, &states_before_[index], sizeof states_before_[index]);
}

} // namespace kcare
