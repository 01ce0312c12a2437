// The pages of a process that hold what it wrote, and reading them in large pieces.
#include "resident_pages.h"

#include "engine_error.h"
#include "task_list.h"

#include <fcntl.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cstring>
#include <iterator>
#include <memory>
#include <string>

namespace kcare {

namespace {

// Bits of an entry of /proc/PID/pagemap (Documentation/admin-guide/mm/pagemap.rst).
constexpr std::uint64_t is_present = 1ULL << 63;
constexpr std::uint64_t is_swapped = 1ULL << 62;
constexpr std::uint64_t is_of_file = 1ULL << 61;

constexpr std::uint64_t user_address_end = 1ULL << 47;
constexpr std::size_t entries_per_read = 32768;
/// Small enough to stay in a processor's cache between being read and being looked at.
constexpr std::size_t buffer_size = 1 << 17;

class PageMap {
public:
  explicit PageMap(pid_t pid) : file_(open(living_task_path(pid, "pagemap").c_str(), O_RDONLY | O_CLOEXEC)) {
    if (file_ >= 0)
      return;
    const int error = errno;
    if (error == ENOENT || error == ESRCH)
      throw TargetGone();
    throw EngineError(error == EACCES || error == EPERM ? "NOT_PERMITTED" : "TARGET_MEMORY", error, pid,
                      "cannot open the page map of process " + std::to_string(pid) + ": " + strerror(error));
  }
  ~PageMap() { close(file_); }
  PageMap(const PageMap&) = delete;
  PageMap& operator=(const PageMap&) = delete;

  /// Fewer entries than asked for, or none, where the address space ends meanwhile.
  std::size_t read(remote_ptr<> address, std::vector<std::uint64_t>& entries) const {
    const ssize_t count = pread(file_, entries.data(), entries.size() * sizeof entries[0],
                                static_cast<off_t>(address.as_int() / page_size * sizeof entries[0]));
    return count <= 0 ? 0 : static_cast<std::size_t>(count) / sizeof entries[0];
  }

private:
  int file_;
};

bool holds_words(const Mapping& mapping, std::uint64_t entry) {
  if ((entry & (is_present | is_swapped)) == 0)
    return false;
  return mapping.shared ? mapping.writable : (entry & is_of_file) == 0;
}

void add_page(std::vector<remote_range>& runs, remote_ptr<> page) {
  const remote_ptr<> end = page.plus_bytes(page_size);
  if (!runs.empty() && runs.back().end == page)
    runs.back().end = end;
  else
    runs.push_back({page, end});
}

/// Up to a buffer full of pages, read by as few system calls as possible.
class Batch {
public:
  Batch(pid_t pid, const TargetMemory& memory, const WordVisitor& visit)
      : task_(task_with_memory(pid)), memory_(memory), visit_(visit),
        buffer_(new std::uint64_t[buffer_size / sizeof(std::uint64_t)]) {}

  void add(remote_range run) {
    while (run.size() > 0) {
      if (filled_ == buffer_size || pieces_.size() == IOV_MAX)
        flush();
      const std::uint64_t size = std::min<std::uint64_t>(run.size(), buffer_size - filled_);
      pieces_.push_back({run.start, run.start.plus_bytes(size)});
      filled_ += size;
      run.start = run.start.plus_bytes(size);
    }
  }

  void flush() {
    std::size_t next = 0;
    while (next < pieces_.size())
      next = read_from(next);
    pieces_.clear();
    filled_ = 0;
  }

private:
  /// Reads the pieces from `first` on; returns the index of the first that is still to be read.
  std::size_t read_from(std::size_t first) {
    std::vector<iovec> remote;
    std::size_t total = 0;
    for (std::size_t index = first; index < pieces_.size(); index++) {
      remote.push_back(
          {reinterpret_cast<void*>(pieces_[index].start.as_int()), pieces_[index].size()}); // NOLINT
      total += pieces_[index].size();
    }
    const iovec local{buffer_.get(), total};
    const ssize_t count = process_vm_readv(task_, &local, 1, remote.data(), remote.size(), 0);
    const std::uint64_t* words = buffer_.get();
    std::size_t left = count < 0 ? 0 : static_cast<std::size_t>(count);
    std::size_t index = first;
    for (; index < pieces_.size() && pieces_[index].size() <= left; index++) {
      give(pieces_[index].start, words, pieces_[index].size());
      words += pieces_[index].size() / sizeof *words;
      left -= pieces_[index].size();
    }
    if (index == pieces_.size())
      return index;
    read_page_by_page(pieces_[index]);
    return index + 1;
  }

  /// /proc/PID/mem also reads what the process itself may not read at the moment.
  void read_page_by_page(const remote_range& piece) {
    std::vector<std::uint64_t> page(page_size / sizeof(std::uint64_t));
    for (remote_ptr<> at = piece.start; at < piece.end; at = at.plus_bytes(page_size))
      if (memory_.try_read(at, page.data(), page_size))
        give(at, page.data(), page_size);
  }

  void give(remote_ptr<> start, const std::uint64_t* words, std::size_t size) {
    visit_(start, words, size / sizeof *words);
  }

  pid_t task_;
  const TargetMemory& memory_;
  const WordVisitor& visit_;
  /// Not initialized: pages that are not needed are never touched.
  std::unique_ptr<std::uint64_t[]> buffer_;
  std::vector<remote_range> pieces_;
  std::size_t filled_ = 0;
};

/// Adds those pages of `mapping` that hold words, of which `entries` begin with the one for `first`.
void add_pages(std::vector<remote_range>& runs, const Mapping& mapping, remote_ptr<> first,
               const std::vector<std::uint64_t>& entries, std::size_t count) {
  const remote_ptr<> end = std::min(mapping.range.end, first.plus_bytes(count * page_size));
  for (remote_ptr<> page = std::max(mapping.range.start, first); page < end;
       page = page.plus_bytes(page_size))
    if (holds_words(mapping, entries[(page.as_int() - first.as_int()) / page_size]))
      add_page(runs, page);
}

bool is_searched(const Mapping& mapping) {
  return mapping.range.end.as_int() <= user_address_end && (!mapping.shared || mapping.writable);
}

} // namespace

std::vector<remote_range> resident_pages(pid_t pid, const AddressMap& map) {
  const PageMap page_map(pid);
  std::vector<remote_range> runs;
  std::vector<std::uint64_t> entries;
  const std::vector<Mapping>& mappings = map.mappings();
  for (auto first = mappings.begin(); first != mappings.end();) {
    if (!is_searched(*first)) {
      ++first;
      continue;
    }
    // The mappings of an object lie side by side: the kernel is asked once for all of them.
    auto last = std::next(first);
    while (last != mappings.end() && is_searched(*last) && std::prev(last)->range.end == last->range.start)
      ++last;
    const remote_ptr<> end = std::prev(last)->range.end;
    for (remote_ptr<> page = first->range.start; page < end;) {
      const std::uint64_t left = (end.as_int() - page.as_int()) / page_size;
      entries.resize(std::min<std::uint64_t>(left, entries_per_read));
      const std::size_t count = page_map.read(page, entries);
      if (count == 0)
        break;
      for (auto mapping = first; mapping != last; ++mapping)
        add_pages(runs, *mapping, page, entries, count);
      page = page.plus_bytes(count * page_size);
    }
    first = last;
  }
  return runs;
}

std::uint64_t total_size(const std::vector<remote_range>& ranges) {
  std::uint64_t size = 0;
  for (const remote_range& range : ranges)
    size += range.size();
  return size;
}

void visit_words(pid_t pid, const TargetMemory& memory, const std::vector<remote_range>& pages,
                 const WordVisitor& visit) {
  Batch batch(pid, memory, visit);
  for (const remote_range& run : pages)
    batch.add(run);
  batch.flush();
}

} // namespace kcare
