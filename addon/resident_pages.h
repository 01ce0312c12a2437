// The pages of a process that hold what it wrote, and reading them in large pieces.
#pragma once

#include "address_map.h"
#include "remote_ptr.h"
#include "target_memory.h"

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

namespace kcare {

/// Pages of private memory that differ from their file or have none, whatever their protection, and the
/// resident pages of shared writable memory; as runs, lowest first. A program can have stored a word nowhere
/// else. Throws TargetGone, EngineError.
std::vector<remote_range> resident_pages(pid_t pid, const AddressMap& map);

std::uint64_t total_size(const std::vector<remote_range>& ranges);

/// What lies at `start`: `count` words, aligned, at `words`.
using WordVisitor = std::function<void(remote_ptr<> start, const std::uint64_t* words, std::size_t count)>;

/// Gives the contents of `pages` to `visit` piece by piece, a piece per run or less; pages that cannot be
/// read (they are gone meanwhile, or belong to a device) are left out.
void visit_words(pid_t pid, const TargetMemory& memory, const std::vector<remote_range>& pages,
                 const WordVisitor& visit);

} // namespace kcare
