// The mappings of a process, from /proc/PID/maps.
#include "address_map.h"

#include "engine_error.h"
#include "task_list.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>

namespace kcare {

AddressMap AddressMap::of_process(pid_t pid) {
  const std::string path = living_task_path(pid, "maps");
  const std::unique_ptr<FILE, int (*)(FILE*)> file(std::fopen(path.c_str(), "re"), std::fclose);
  if (!file)
    throw TargetGone();
  AddressMap map;
  char line[8192];
  while (std::fgets(line, sizeof line, file.get()) != nullptr) {
    // START-END PERMISSIONS OFFSET DEVICE INODE NAME
    char* cursor = nullptr;
    const std::uint64_t start = std::strtoull(line, &cursor, 16);
    if (*cursor != '-')
      continue;
    const std::uint64_t end = std::strtoull(cursor + 1, &cursor, 16);
    if (std::strlen(cursor) < 4)
      continue;
    const char* permissions = cursor + 1;
    const bool main_stack = std::strstr(line, " [stack]\n") != nullptr;
    map.mappings_.push_back(
        {{remote_ptr<>(start), remote_ptr<>(end)}, permissions[0] == 'r', permissions[1] == 'w', main_stack});
  }
  return map;
}

const Mapping* AddressMap::find(remote_ptr<> address) const {
  const auto after = std::upper_bound(
      mappings_.begin(), mappings_.end(), address,
      [](remote_ptr<> value, const Mapping& mapping) { return value < mapping.range.start; });
  if (after == mappings_.begin())
    return nullptr;
  const Mapping& mapping = *std::prev(after);
  return mapping.range.contains(address) ? &mapping : nullptr;
}

const Mapping* AddressMap::main_stack() const {
  const auto found = std::find_if(mappings_.begin(), mappings_.end(),
                                  [](const Mapping& mapping) { return mapping.main_stack; });
  return found == mappings_.end() ? nullptr : &*found;
}

} // namespace kcare
