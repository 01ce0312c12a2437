// Busy functions that no thread's stack shows, and pointers that outlive a call: what a commit looks for
// beyond threads.
#include "suspended_contexts.h"

#include "engine_error.h"
#include "resident_pages.h"

#include <algorithm>
#include <cstring>
#include <sstream>

namespace kcare {

namespace {

std::string hexadecimal(remote_ptr<> address) {
  std::ostringstream text;
  text << "0x" << std::hex << address.as_int();
  return text.str();
}

} // namespace

SuspendedContexts::SuspendedContexts(pid_t pid, const TargetMemory& memory, StackScanner& scanner,
                                     const SearchRequest& request)
    : pid_(pid), memory_(memory), scanner_(scanner), request_(request) {}

std::optional<Obstacle> SuspendedContexts::find() {
  if (!request_.contexts && request_.unreferenced.empty())
    return std::nullopt;
  const AddressMap& map = scanner_.map();
  // Where the threads' stacks are dead is not known yet.
  return search(resident_pages(pid_, map), map, [&map](remote_ptr<> address) {
    const Mapping* mapping = map.find(address);
    return mapping == nullptr || mapping->may_be_stack;
  });
}

std::optional<Obstacle> SuspendedContexts::search(const std::vector<remote_range>& pages,
                                                  const AddressMap& map, const IsDead& is_dead) {
  const std::uint64_t size = total_size(pages);
  if (!request_.unreferenced.empty() && size > request_.largest_search) {
    Obstacle obstacle;
    obstacle.reason = "process " + std::to_string(pid_) + " has " + std::to_string(size >> 20) +
                      " MiB of memory, too much to be searched for pointers to the patch in one stop";
    obstacle.referenced = true;
    return obstacle;
  }
  SurveyRequest request;
  request.contexts = request_.contexts;
  request.pointer_guard = request_.pointer_guard;
  request.pointers_into = request_.unreferenced;
  request.own = request_.own;
  Survey survey = survey_memory(pid_, memory_, map, pages, request, is_dead);
  contexts_ = std::move(survey.contexts);
  if (survey.pointers.empty())
    return std::nullopt;
  return points("the memory at " + hexadecimal(survey.pointers.front().address),
                survey.pointers.front().value);
}

Obstacle SuspendedContexts::points(const std::string& from, remote_ptr<> value) const {
  Obstacle obstacle;
  obstacle.reason = "process " + std::to_string(pid_) + " may still use the patch: " + from + " points to " +
                    hexadecimal(value);
  obstacle.referenced = true;
  return obstacle;
}

std::optional<Obstacle> SuspendedContexts::prepare(ThreadSet& threads) {
  if (!request_.contexts && request_.unreferenced.empty())
    return std::nullopt;
  std::optional<Obstacle> obstacle;
  threads.for_each_stopped([&](TracedThread& thread) {
    if (!seen_.insert(thread.tid()).second)
      return;
    standing_.push_back(scanner_.standing(thread.tid(), thread.original_registers()));
    if (!obstacle && !request_.unreferenced.empty())
      obstacle = find_in_registers(thread);
  });
  std::sort(standing_.begin(), standing_.end(), [](const StandingThread& left, const StandingThread& right) {
    return left.native_stack.end < right.native_stack.end;
  });
  return obstacle;
}

std::optional<Obstacle> SuspendedContexts::judge(ThreadSet& threads, const Examine& examine) {
  if (!request_.contexts && request_.unreferenced.empty())
    return std::nullopt;
  std::optional<Obstacle> obstacle = prepare(threads);
  if (obstacle)
    return obstacle;
  if (!request_.unreferenced.empty()) {
    const AddressMap map = AddressMap::of_process(pid_);
    obstacle = search(resident_pages(pid_, map), map, [this](remote_ptr<> address) {
      return std::any_of(standing_.begin(), standing_.end(),
                         [address](const StandingThread& thread) { return thread.is_dead(address); });
    });
    if (obstacle)
      return obstacle;
  }
  const std::vector<FoundState> saved = read_saved_states(pid_, memory_, contexts_, request_.pointer_guard);
  made_stacks_.clear();
  for (const FoundState& found : saved)
    if (found.state.stack.size() > 0)
      made_stacks_.push_back(found.state.stack);
  // A coroutine can have its stack in that of a thread.
  for (StandingThread& thread : standing_) {
    const bool made =
        std::any_of(made_stacks_.begin(), made_stacks_.end(),
                    [&thread](const remote_range& stack) { return stack.contains(thread.stack_pointer); });
    if (!made || !thread.on_native_stack)
      continue;
    thread.on_native_stack = false;
    if (!request_.unreferenced.empty())
      throw TargetBusy("thread " + std::to_string(thread.tid) + " has the stack of a coroutine in its own");
  }
  for (const auto& [context, state] : saved)
    if (auto found = judge_context(context, state, examine))
      return found;
  return std::nullopt;
}

std::optional<Obstacle> SuspendedContexts::find_in_registers(TracedThread& thread) const {
  std::vector<std::uint8_t> bytes;
  if (ptrace_requests::get_extended_state(thread.tid(), bytes) != 0)
    throw TargetBusy("the registers of thread " + std::to_string(thread.tid()) + " cannot be read");
  const Registers& registers = thread.original_registers();
  const auto* general = reinterpret_cast<const std::uint8_t*>(&registers); // NOLINT(*-reinterpret-cast)
  bytes.insert(bytes.end(), general, general + sizeof registers);
  for (std::size_t offset = 0; offset + sizeof(std::uint64_t) <= bytes.size();
       offset += sizeof(std::uint64_t)) {
    std::uint64_t word = 0;
    std::memcpy(&word, bytes.data() + offset, sizeof word);
    for (const remote_range& range : request_.unreferenced)
      if (range.contains(remote_ptr<>(word)))
        return points("a register of thread " + std::to_string(thread.tid()), remote_ptr<>(word));
  }
  return std::nullopt;
}

std::optional<Obstacle> SuspendedContexts::judge_context(const SavedContext& context, const SavedState& state,
                                                         const Examine& examine) const {
  remote_ptr<> end;
  if (is_continued(state, end))
    return std::nullopt;
  const remote_range live{remote_ptr<>(state.registers.rsp), end};
  const Inspection inspection = scanner_.inspect_saved(context.address, state.registers, live);
  if (inspection.suspect.hits.empty() || examine(inspection.suspect))
    return std::nullopt;
  Obstacle obstacle;
  obstacle.reason = "the suspended context at " + hexadecimal(context.address) +
                    " may return to code that is to be replaced";
  obstacle.hit = inspection.suspect.hits.front();
  obstacle.context = context.address;
  return obstacle;
}

/// Whether a thread stands on the stack of the context: then the context was continued since it was saved,
/// and what goes on there is judged by that thread. Otherwise `end` is where the stack ends.
bool SuspendedContexts::is_continued(const SavedState& state, remote_ptr<>& end) const {
  const remote_ptr<> stack_pointer(state.registers.rsp);
  if (state.stack.size() > 0) {
    end = state.stack.end;
    return stands_in(state.stack);
  }
  bool is_made = false;
  bool continued = true;
  // Memory of an old stack can have become part of new ones: what holds for all of them is true.
  for (const remote_range& stack : made_stacks_) {
    if (stack_pointer < stack.start || stack.end < stack_pointer)
      continue;
    is_made = true;
    continued = continued && stands_in(stack);
    end = std::max(end, stack.end);
  }
  if (is_made)
    return continued;
  const StandingThread* owner = owner_of(stack_pointer);
  end = owner == nullptr ? scanner_.end_of_unknown_stack(stack_pointer) : owner->native_stack.end;
  return owner != nullptr && owner->on_native_stack;
}

bool SuspendedContexts::stands_in(const remote_range& stack) const {
  return std::any_of(standing_.begin(), standing_.end(),
                     [&stack](const StandingThread& thread) { return stack.contains(thread.stack_pointer); });
}

/// Stacks of threads can lie in one mapping: the one that ends first behind the address is the one.
const StandingThread* SuspendedContexts::owner_of(remote_ptr<> address) const {
  const auto behind = std::upper_bound(
      standing_.begin(), standing_.end(), address,
      [](remote_ptr<> value, const StandingThread& thread) { return value < thread.native_stack.end; });
  const auto owner = std::find_if(behind, standing_.end(), [address](const StandingThread& thread) {
    return thread.native_stack.contains(address);
  });
  return owner == standing_.end() ? nullptr : &*owner;
}

} // namespace kcare
