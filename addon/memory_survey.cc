// Looks through all that a process wrote: for saved contexts, and for pointers into images.
#include "memory_survey.h"

#include "engine_error.h"
#include "resident_pages.h"
#include "saved_registers.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <emmintrin.h>

namespace kcare {

namespace {

constexpr std::uint64_t user_address_end = 1ULL << 47;

/// Tells pieces of 16 bytes that may hold something wanted from those that cannot, in some cycles each; what
/// it lets through is looked at word by word. All data of a process goes through here while it may stand
/// still.
class Sieve {
public:
  static constexpr std::size_t width = 16;
  /// Bytes behind a piece that are read together with it.
  static constexpr std::size_t overhang = 8;

  Sieve(const SurveyRequest& request, std::uint64_t low, std::uint64_t high)
      : contexts_(request.contexts),
        canonical_(_mm_set1_epi32(static_cast<int>(request.pointer_guard >> unused_address_bits_at))) {
    if (low >= high)
      return;
    // All pointers into a block have their bytes in common from the size of the block on.
    const unsigned block_bits = high - low <= small_blocks << 16 ? 16 : 24;
    first_common_byte_ = block_bits / 8;
    // And mangled ones have their upper bits in common, as the guard changes and the rotation moves them.
    const unsigned unknown_bits = block_bits + 17 - 32;
    const int known = static_cast<int>(~0U << unknown_bits);
    mangled_mask_ = _mm_set_epi32(known, 0, known, 0);
    for (std::uint64_t block = low >> block_bits; block <= (high - 1) >> block_bits; block++) {
      const auto mangled =
          static_cast<int>(((block << block_bits) ^ request.pointer_guard) >> block_bits << unknown_bits);
      // Masked lower halves are 0 and never -1.
      blocks_.push_back(
          {byte_of(block, 0), byte_of(block, 1), byte_of(block, 2), _mm_set_epi32(mangled, -1, mangled, -1)});
    }
  }

  /// The offset of the first piece from `offset` on that may hold something, or that of the first one that is
  /// not whole with its overhang. `start`: the address of `bytes` in the process.
  std::size_t next(const std::uint8_t* bytes, std::size_t offset, std::size_t size,
                   std::uint64_t start) const {
    if (contexts_)
      return blocks_.empty()       ? scan<true, 0>(bytes, offset, size, start)
             : blocks_.size() == 1 ? scan<true, 1>(bytes, offset, size, start)
                                   : scan<true, 2>(bytes, offset, size, start);
    return blocks_.size() == 1 ? scan<false, 1>(bytes, offset, size, start)
                               : scan<false, 2>(bytes, offset, size, start);
  }

private:
  struct Block {
    __m128i first;
    __m128i second;
    __m128i third;
    __m128i mangled;
  };
  static constexpr std::uint64_t small_blocks = 4;
  static constexpr unsigned unused_address_bits_at = 47;
  static constexpr int canonical_bits = 0x1ffff;

  /// Blocks: 0, 1, or 2 for more, which take a loop.
  template <bool contexts, int blocks>
  std::size_t scan(const std::uint8_t* bytes, std::size_t offset, std::size_t size,
                   std::uint64_t start) const {
    // In registers: for all that the compiler knows, the bytes could be this object.
    const Block only = blocks == 1 ? blocks_.front() : Block{};
    const __m128i mangled_mask = mangled_mask_;
    const __m128i canonical = canonical_;
    const __m128i canonical_mask = _mm_set_epi32(0, canonical_bits, 0, canonical_bits);
    const __m128i low_halves = _mm_set_epi32(0, -1, 0, -1);
    const std::size_t first = first_common_byte_;
    for (; offset + width + overhang <= size; offset += width) {
      const __m128i piece = load(bytes + offset);
      __m128i hit = _mm_setzero_si128();
      if (contexts) {
        const auto wanted = static_cast<int>(start + offset + ucontext_layout::state_behind_pointer);
        const __m128i self = _mm_set_epi32(0, wanted + 8, 0, wanted);
        // The stack pointer of a jump buffer: bits 47 to 63 of an address are 0.
        const __m128i unused = _mm_cmpeq_epi32(_mm_and_si128(piece, canonical_mask), canonical);
        hit = _mm_and_si128(_mm_or_si128(_mm_cmpeq_epi32(piece, self), unused), low_halves);
      }
      if (blocks == 1)
        hit = _mm_or_si128(hit, points_into(only, bytes + offset + first, piece, mangled_mask));
      if (blocks == 2)
        for (const Block& block : blocks_)
          hit = _mm_or_si128(hit, points_into(block, bytes + offset + first, piece, mangled_mask));
      if (_mm_movemask_epi8(hit) != 0)
        return offset;
    }
    return offset;
  }

  static __m128i points_into(const Block& block, const std::uint8_t* common, __m128i piece, __m128i mask) {
    __m128i plain = _mm_cmpeq_epi8(load(common), block.first);
    plain = _mm_and_si128(plain, _mm_cmpeq_epi8(load(common + 1), block.second));
    plain = _mm_and_si128(plain, _mm_cmpeq_epi8(load(common + 2), block.third));
    return _mm_or_si128(plain, _mm_cmpeq_epi32(_mm_and_si128(piece, mask), block.mangled));
  }

  static __m128i byte_of(std::uint64_t block, unsigned index) {
    return _mm_set1_epi8(static_cast<char>(block >> (8 * index)));
  }

  static __m128i load(const std::uint8_t* bytes) {
    return _mm_loadu_si128(reinterpret_cast<const __m128i*>(bytes)); // NOLINT(*-reinterpret-cast)
  }

  bool contexts_;
  __m128i canonical_;
  __m128i mangled_mask_ = _mm_setzero_si128();
  std::size_t first_common_byte_ = 0;
  std::vector<Block> blocks_;
};

class Surveyor {
public:
  Surveyor(const AddressMap& map, const SurveyRequest& request, const IsDead& is_dead)
      : map_(map), request_(request), is_dead_(is_dead), low_(lowest(request)), high_(highest(request)),
        sieve_(request, low_, high_) {}

  void visit(remote_ptr<> start, const std::uint64_t* words, std::size_t count) {
    const auto* bytes = reinterpret_cast<const std::uint8_t*>(words); // NOLINT(*-reinterpret-cast)
    const std::size_t size = count * sizeof *words;
    std::size_t offset = 0;
    if (start == next_) {
      // What straddles the two pieces.
      std::array<std::uint8_t, 2 * sizeof *words> seam{};
      std::memcpy(seam.data(), &last_, sizeof last_);
      std::memcpy(seam.data() + sizeof last_, words, sizeof last_);
      look(start.minus_bytes(sizeof last_), seam.data(), sizeof last_, seam.size());
    }
    for (offset = sieve_.next(bytes, offset, size, start.as_int());
         offset + Sieve::width + Sieve::overhang <= size;
         offset = sieve_.next(bytes, offset + Sieve::width, size, start.as_int()))
      look(start.plus_bytes(offset), bytes + offset, Sieve::width, size - offset);
    look(start.plus_bytes(offset), bytes + offset, size - offset, size - offset);
    last_ = words[count - 1];
    next_ = start.plus_bytes(size);
  }

  Survey take() { return std::move(survey_); }

private:
  static std::uint64_t lowest(const SurveyRequest& request) {
    std::uint64_t low = user_address_end;
    for (const remote_range& range : request.pointers_into)
      low = std::min(low, range.start.as_int());
    return low;
  }
  static std::uint64_t highest(const SurveyRequest& request) {
    std::uint64_t high = 0;
    for (const remote_range& range : request.pointers_into)
      high = std::max(high, range.end.as_int());
    return high;
  }

  /// Everything that begins in the first `size` of `available` bytes.
  void look(remote_ptr<> start, const std::uint8_t* bytes, std::size_t size, std::size_t available) {
    for (std::size_t offset = 0; offset < size && offset + sizeof(std::uint64_t) <= available; offset++) {
      const std::uint64_t word = word_at(bytes + offset);
      const remote_ptr<> address = start.plus_bytes(offset);
      const bool is_aligned = address.as_int() % sizeof word == 0;
      if (is_aligned && request_.contexts)
        find_context(address, word,
                     offset + 2 * sizeof word <= available ? word_at(bytes + offset + sizeof word) : 0);
      // A program may keep a pointer where it is not aligned; the C library mangles only aligned ones.
      find_pointer(address, word);
      if (is_aligned)
        find_pointer(address, demangled(word, request_.pointer_guard));
    }
  }

  static std::uint64_t word_at(const std::uint8_t* bytes) {
    std::uint64_t word = 0;
    std::memcpy(&word, bytes, sizeof word);
    return word;
  }

  void find_context(remote_ptr<> address, std::uint64_t word, std::uint64_t next) {
    if (word == address.as_int() + ucontext_layout::state_behind_pointer)
      survey_.contexts.push_back(
          {SavedContext::Kind::ucontext, address.minus_bytes(ucontext_layout::state_pointer)});
    const remote_ptr<> stack_pointer(demangled(word, request_.pointer_guard));
    const remote_ptr<> instruction(demangled(next, request_.pointer_guard));
    if (((stack_pointer.as_int() | instruction.as_int()) >> 47) == 0 && is_jump(stack_pointer, instruction))
      survey_.contexts.push_back(
          {SavedContext::Kind::jump_buffer, address.minus_bytes(jump_buffer_layout::stack_pointer)});
  }

  bool is_jump(remote_ptr<> stack_pointer, remote_ptr<> instruction) const {
    if (stack_pointer.as_int() % sizeof(std::uint64_t) != 0)
      return false;
    const Mapping* code = map_.find(instruction);
    const Mapping* stack = map_.find(stack_pointer);
    return code != nullptr && code->executable && stack != nullptr && stack->writable;
  }

  void find_pointer(remote_ptr<> address, std::uint64_t word) {
    const remote_ptr<> value(word);
    if (word < low_ || high_ <= word || !survey_.pointers.empty())
      return;
    if (is_in(request_.pointers_into, value) && !is_in(request_.own, address) && !is_dead_(address))
      survey_.pointers.push_back({address, value});
  }

  static bool is_in(const std::vector<remote_range>& ranges, remote_ptr<> address) {
    return std::any_of(ranges.begin(), ranges.end(),
                       [address](const remote_range& range) { return range.contains(address); });
  }

  const AddressMap& map_;
  const SurveyRequest& request_;
  const IsDead& is_dead_;
  Survey survey_;
  std::uint64_t low_;
  std::uint64_t high_;
  Sieve sieve_;
  /// The last word of the piece before, and where that piece ended.
  std::uint64_t last_ = 0;
  remote_ptr<> next_;
};

} // namespace

Survey survey_memory(pid_t pid, const TargetMemory& memory, const AddressMap& map,
                     const std::vector<remote_range>& pages, const SurveyRequest& request,
                     const IsDead& is_dead) {
  Surveyor surveyor(map, request, is_dead);
  visit_words(pid, memory, pages,
              [&surveyor](remote_ptr<> start, const std::uint64_t* words, std::size_t count) {
                surveyor.visit(start, words, count);
              });
  return surveyor.take();
}

std::optional<remote_ptr<>> find_pointer(pid_t pid, const SurveyRequest& request, std::uint64_t largest) {
  try {
    const AddressMap map = AddressMap::of_process(pid);
    const TargetMemory memory(pid);
    const std::vector<remote_range> pages = resident_pages(pid, map);
    if (total_size(pages) > largest)
      return std::nullopt;
    const Survey survey = survey_memory(pid, memory, map, pages, request, [](remote_ptr<>) { return false; });
    if (survey.pointers.empty())
      return std::nullopt;
    return survey.pointers.front().value;
  } catch (const TargetGone&) {
    return std::nullopt;
  }
}

} // namespace kcare
