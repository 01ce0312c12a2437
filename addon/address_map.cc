// The mappings of a process, from /proc/PID/maps.
#include "address_map.h"

#include "engine_error.h"
#include "task_list.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <string>

namespace kcare {

AddressMap AddressMap::of_process(pid_t pid) {
  const std::string path = living_task_path(pid, "maps");
  const int file = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (file < 0)
    throw TargetGone();
  std::string text;
  char buffer[16384];
  while (const ssize_t count = read(file, buffer, sizeof buffer)) {
    if (count < 0 && errno == EINTR)
      continue;
    if (count < 0)
      break;
    text.append(buffer, static_cast<std::size_t>(count));
  }
  close(file);
  return parse(text);
}

AddressMap AddressMap::parse(const std::string& text) {
  AddressMap map;
  // A process chooses the names of its files: a line can be longer than any buffer, and end in what it likes.
  for (std::size_t start = 0; start < text.size();) {
    const std::size_t end = std::min(text.find('\n', start), text.size());
    map.add(text.c_str() + start, text.c_str() + end);
    start = end + 1;
  }
  return map;
}

/// START-END PERMISSIONS OFFSET DEVICE INODE NAME, each separated by one blank, but for those before the
/// name.
void AddressMap::add(const char* line, const char* line_end) {
  constexpr std::ptrdiff_t permission_letters = 4;
  constexpr int fields_before_name = 5;
  char* cursor = nullptr;
  const std::uint64_t start = std::strtoull(line, &cursor, 16);
  if (cursor >= line_end || *cursor != '-')
    return;
  const std::uint64_t end = std::strtoull(cursor + 1, &cursor, 16);
  if (start >= end || line_end - cursor <= permission_letters || *cursor != ' ')
    return;
  const char* permissions = cursor + 1;
  const char* name = permissions;
  for (int field = 1; field < fields_before_name && name < line_end; field++)
    name = std::find(name, line_end, ' ') + 1;
  while (name < line_end && *name == ' ')
    name++;
  const std::string path(std::min(name, line_end), line_end);
  const bool main_stack = path == "[stack]";
  mappings_.push_back({{remote_ptr<>(start), remote_ptr<>(end)},
                       permissions[0] == 'r',
                       permissions[1] == 'w',
                       permissions[2] == 'x',
                       permissions[3] == 's',
                       main_stack,
                       main_stack || path.empty()});
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
