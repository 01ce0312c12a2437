// Whether a stopped thread is, or may return, inside code that is about to be replaced.
#include "stack_scanner.h"

#include "engine_error.h"

#include <algorithm>
#include <cstring>
#include <string>

namespace kcare {

namespace {

constexpr std::uint64_t red_zone_size = 128;
constexpr std::uint64_t word_size = 8;
/// Beyond this a "stack" is a heap; what lies on another stack is judged by unwinding, not by its words.
constexpr std::uint64_t largest_other_stack = 1 << 20;
constexpr std::uint64_t largest_stack = 512ULL << 20;
constexpr std::size_t largest_number_of_hits = 100'000;

std::uint64_t word_at(const std::vector<std::uint8_t>& bytes, std::size_t offset) {
  std::uint64_t word = 0;
  std::memcpy(&word, bytes.data() + offset, sizeof word);
  return word;
}

} // namespace

StackScanner::StackScanner(pid_t pid, const TargetMemory& memory, std::vector<remote_range> guarded)
    : pid_(pid), memory_(memory), guarded_(std::move(guarded)), map_(AddressMap::of_process(pid)) {
  if (guarded_.empty())
    return;
  hull_ = guarded_.front();
  for (const remote_range& range : guarded_) {
    hull_.start = std::min(hull_.start, range.start);
    hull_.end = std::max(hull_.end, range.end);
  }
}

// A return address lies behind a call instruction: never at the start of a function, possibly at its very
// end, when the call is the last instruction (of a function that does not return).
std::optional<std::size_t> StackScanner::range_returned_into(remote_ptr<> value) const {
  if (value <= hull_.start || hull_.end < value)
    return std::nullopt;
  for (std::size_t index = 0; index < guarded_.size(); index++)
    if (guarded_[index].start < value && value <= guarded_[index].end)
      return index;
  return std::nullopt;
}

Inspection StackScanner::inspect(pid_t tid, const Registers& registers) {
  Inspection inspection;
  const remote_ptr<> instruction(registers.rip);
  for (std::size_t index = 0; index < guarded_.size(); index++) {
    // At the very first instruction nothing of the old code has run: the jump will be the next instruction.
    if (guarded_[index].start < instruction && instruction < guarded_[index].end)
      inspection.range_of_instruction = index;
  }
  SuspectThread& suspect = inspection.suspect;
  suspect.tid = tid;
  suspect.registers = registers;
  const Extent extent = live_extent(tid, registers);
  suspect.on_other_stack = !extent.native;
  suspect.stack_start = extent.live.start;
  suspect.stack = read_stack(tid, extent.live);
  scan(suspect.stack, suspect.stack_start, suspect.hits);
  if (suspect.on_other_stack)
    scan_native_stack(registers, suspect);
  if (suspect.hits.size() > largest_number_of_hits)
    throw TargetBusy("the stack of thread " + std::to_string(tid) +
                     " holds too many addresses of replaced code");
  return inspection;
}

bool StandingThread::is_dead(remote_ptr<> address) const {
  return on_native_stack && native_stack.contains(address) &&
         address < stack_pointer.minus_bytes(red_zone_size + word_size);
}

StandingThread StackScanner::standing(pid_t tid, const Registers& registers) {
  const Extent extent = live_extent(tid, registers);
  const remote_ptr<> control_block(registers.fs_base);
  const bool is_main = tid == pid_;
  const Mapping* mapping = is_main ? map_.main_stack() : map_.find(control_block);
  remote_range native;
  if (mapping != nullptr)
    native = {mapping->range.start, is_main ? mapping->range.end : control_block};
  return {tid, remote_ptr<>(registers.rsp), native, extent.native};
}

Inspection StackScanner::inspect_saved(remote_ptr<> context, const Registers& registers,
                                       const remote_range& live) const {
  Inspection inspection;
  SuspectThread& suspect = inspection.suspect;
  suspect.registers = registers;
  suspect.context = context;
  suspect.stack_start = live.start;
  suspect.stack.resize(std::min(live.size(), largest_other_stack));
  if (!memory_.try_read(live.start, suspect.stack.data(), suspect.stack.size()))
    suspect.stack.clear();
  if (const auto range = range_returned_into(remote_ptr<>(registers.rip)))
    suspect.hits.push_back({context, remote_ptr<>(registers.rip), *range});
  scan(suspect.stack, suspect.stack_start, suspect.hits);
  return inspection;
}

remote_ptr<> StackScanner::end_of_unknown_stack(remote_ptr<> address) const {
  const Mapping* mapping = map_.find(address);
  return mapping == nullptr ? address : std::min(mapping->range.end, address.plus_bytes(largest_other_stack));
}

// A thread library puts the thread control block, at which fs_base points, on top of the stack; the main
// thread's lies elsewhere, and its stack ends with its mapping.
StackScanner::Extent StackScanner::live_extent(pid_t tid, const Registers& registers) {
  const remote_ptr<> stack_pointer(registers.rsp);
  const remote_ptr<> control_block(registers.fs_base);
  const Mapping* mapping = map_.find(stack_pointer);
  if (mapping == nullptr) {
    map_ = AddressMap::of_process(pid_); // The thread is younger than the map.
    mapping = map_.find(stack_pointer);
  }
  if (mapping == nullptr)
    return {{stack_pointer, stack_pointer}, false};
  const bool below_control_block = mapping->range.contains(control_block) && stack_pointer < control_block;
  const bool native = tid == pid_ ? mapping->main_stack : below_control_block;
  const remote_ptr<> start = std::max(stack_pointer.minus_bytes(red_zone_size), mapping->range.start);
  remote_range live{start, below_control_block ? control_block : mapping->range.end};
  if (!native)
    live.end = std::min(live.end, start.plus_bytes(largest_other_stack));
  return {live, native};
}

std::vector<std::uint8_t> StackScanner::read_stack(pid_t tid, const remote_range& live) const {
  std::vector<std::uint8_t> stack;
  if (live.size() <= largest_stack) {
    stack.resize(live.size());
    if (memory_.try_read(live.start, stack.data(), stack.size()))
      return stack;
  }
  throw TargetBusy("the stack of thread " + std::to_string(tid) + " cannot be read");
}

void StackScanner::scan(const std::vector<std::uint8_t>& stack, remote_ptr<> start,
                        std::vector<StackHit>& hits) const {
  const auto scan_from = [&](std::size_t first) {
    for (std::size_t offset = first; offset + word_size <= stack.size(); offset += word_size) {
      const remote_ptr<> value(word_at(stack, offset));
      if (const auto range = range_returned_into(value))
        hits.push_back({start.plus_bytes(offset), value, *range});
    }
  };
  const std::size_t misalignment = start.as_int() % word_size;
  scan_from((word_size - misalignment) % word_size);
  if (misalignment != 0)
    scan_from(0);
}

// The native stack pointer is somewhere on the other stack: in the signal frame, or where a coroutine saved
// it. The lowest word that points into the native stack is therefore a safe lower bound of what is alive
// there. Without any, the whole stack is taken for alive.
void StackScanner::scan_native_stack(const Registers& registers, SuspectThread& suspect) {
  const bool is_main = suspect.tid == pid_;
  const Mapping* mapping = is_main ? map_.main_stack() : map_.find(remote_ptr<>(registers.fs_base));
  if (mapping == nullptr)
    return;
  remote_range native{mapping->range.start, is_main ? mapping->range.end : remote_ptr<>(registers.fs_base)};
  remote_ptr<> lowest = native.end;
  const std::size_t first = (word_size - suspect.stack_start.as_int() % word_size) % word_size;
  for (std::size_t offset = first; offset + word_size <= suspect.stack.size(); offset += word_size) {
    const remote_ptr<> value(word_at(suspect.stack, offset));
    if (native.contains(value) && value < lowest)
      lowest = value;
  }
  if (lowest != native.end)
    native.start = std::max(native.start, lowest.minus_bytes(red_zone_size)).aligned_down(word_size);
  scan(read_stack(suspect.tid, native), native.start, suspect.hits);
}

} // namespace kcare
