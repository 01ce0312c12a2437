// Memory of a target through /proc/PID/mem.
#pragma once

#include "remote_ptr.h"

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <vector>

namespace kcare {

/// Holds /proc/PID/mem open. The file stays bound to the address space that it was opened on: after an execve
/// of the target, reads and writes reach nothing, never the new program.
class TargetMemory {
public:
  /// Throws TargetGone, or EngineError NOT_PERMITTED / TARGET_MEMORY.
  explicit TargetMemory(pid_t pid);
  ~TargetMemory();
  TargetMemory(const TargetMemory&) = delete;
  TargetMemory& operator=(const TargetMemory&) = delete;

  /// Both throw TargetGone when the address space is gone, EngineError TARGET_MEMORY when part of it is not
  /// mapped.
  void read(remote_ptr<> address, void* into, std::size_t size) const;
  void write(remote_ptr<> address, const void* from, std::size_t size);

  std::vector<std::uint8_t> read(remote_ptr<> address, std::size_t size) const;
  void write(remote_ptr<> address, const std::vector<std::uint8_t>& bytes);

  /// False instead of an error where the memory is not mapped.
  bool try_read(remote_ptr<> address, void* into, std::size_t size) const;

private:
  enum class Transfer { complete, gone, failed };
  Transfer transfer_in(remote_ptr<> address, void* into, std::size_t size, int& error) const;
  [[noreturn]] void fail(const char* what, remote_ptr<> address, int error) const;

  pid_t pid_;
  int file_;
};

} // namespace kcare
