// Loads and unloads kernel modules: Node has no way to make these system calls.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace kcare {

/// Gives exactly these bytes to the kernel; returns 0 or the errno.
int load_kernel_module(const std::vector<std::uint8_t>& bytes);

/// Never forces, never waits; returns 0 or the errno.
int unload_kernel_module(const std::string& name);

} // namespace kcare
