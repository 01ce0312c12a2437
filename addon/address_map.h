// The mappings of a process, from /proc/PID/maps.
#pragma once

#include "remote_ptr.h"

#include <sys/types.h>

#include <string>
#include <vector>

namespace kcare {

struct Mapping {
  remote_range range;
  bool readable;
  bool writable;
  bool executable;
  /// MAP_SHARED.
  bool shared;
  /// The kernel's [stack]: grows downwards on demand.
  bool main_stack;
  /// Not of a file, and not the heap: where threads and coroutines have their stacks.
  bool may_be_stack;
};

class AddressMap {
public:
  /// Read through any living thread: a main thread that has ended shows no mappings. Throws TargetGone.
  static AddressMap of_process(pid_t pid);
  /// Lines that are not understood are left out.
  static AddressMap parse(const std::string& text);
  /// Null when nothing is mapped at `address`.
  const Mapping* find(remote_ptr<> address) const;
  const Mapping* main_stack() const;
  const std::vector<Mapping>& mappings() const { return mappings_; }

private:
  void add(const char* line, const char* line_end);

  std::vector<Mapping> mappings_;
};

} // namespace kcare
