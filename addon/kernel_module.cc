// Loads and unloads kernel modules: Node has no way to make these system calls.
#include "kernel_module.h"

#include <cerrno>
#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace kcare {

int load_kernel_module(const std::vector<std::uint8_t>& bytes) {
  return syscall(SYS_init_module, bytes.data(), bytes.size(), "") == 0 ? 0 : errno;
}

int unload_kernel_module(const std::string& name) {
  return syscall(SYS_delete_module, name.c_str(), O_NONBLOCK) == 0 ? 0 : errno;
}

} // namespace kcare
