// The mappings of a process, from /proc/PID/maps.
#pragma once

#include "remote_ptr.h"

#include <sys/types.h>

#include <vector>

namespace kcare {

struct Mapping {
  remote_range range;
  bool readable;
  bool writable;
  /// The kernel's [stack]: grows downwards on demand.
  bool main_stack;
};

class AddressMap {
public:
  /// Read through any living thread: a main thread that has ended shows no mappings. Throws TargetGone.
  static AddressMap of_process(pid_t pid);
  /// Null when nothing is mapped at `address`.
  const Mapping* find(remote_ptr<> address) const;
  const Mapping* main_stack() const;

private:
  std::vector<Mapping> mappings_;
};

} // namespace kcare
