// Memory of a target through /proc/PID/mem.
#include "target_memory.h"

#include "engine_error.h"
#include "ptrace_requests.h"
#include "task_list.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <sstream>
#include <string>

namespace kcare {

TargetMemory::TargetMemory(pid_t pid) : pid_(pid), file_(-1) {
  file_ = open(living_task_path(pid, "mem").c_str(), O_RDWR | O_CLOEXEC);
  if (file_ >= 0)
    return;
  const int error = errno;
  if (error == ENOENT || error == ESRCH)
    throw TargetGone();
  const std::string message =
      "cannot open the memory of process " + std::to_string(pid) + ": " + strerror(error);
  throw EngineError(error == EACCES || error == EPERM ? "NOT_PERMITTED" : "TARGET_MEMORY", error, pid,
                    message);
}

TargetMemory::~TargetMemory() {
  close(file_);
}

TargetMemory::Transfer TargetMemory::transfer_in(remote_ptr<> address, void* into, std::size_t size,
                                                 int& error) const {
  auto* bytes = static_cast<std::uint8_t*>(into);
  std::size_t done = 0;
  while (done < size) {
    const ssize_t count =
        pread(file_, bytes + done, size - done, static_cast<off_t>(address.as_int() + done));
    if (count > 0) {
      done += static_cast<std::size_t>(count);
    } else if (count == 0) {
      return Transfer::gone; // The kernel says "end of file" when nobody uses the address space any more.
    } else if (errno != EINTR) {
      error = errno;
      return error == ESRCH ? Transfer::gone : Transfer::failed;
    }
  }
  return Transfer::complete;
}

void TargetMemory::fail(const char* what, remote_ptr<> address, int error) const {
  std::ostringstream message;
  message << "cannot " << what << " memory of process " << pid_ << " at 0x" << std::hex << address.as_int()
          << ": " << strerror(error);
  throw EngineError(error == EACCES || error == EPERM ? "NOT_PERMITTED" : "TARGET_MEMORY", error, pid_,
                    message.str());
}

void TargetMemory::read(remote_ptr<> address, void* into, std::size_t size) const {
  int error = 0;
  switch (transfer_in(address, into, size, error)) {
  case Transfer::complete:
    return;
  case Transfer::gone:
    throw TargetGone();
  case Transfer::failed:
    fail("read", address, error);
  }
}

bool TargetMemory::try_read(remote_ptr<> address, void* into, std::size_t size) const {
  int error = 0;
  switch (transfer_in(address, into, size, error)) {
  case Transfer::complete:
    return true;
  case Transfer::gone:
    throw TargetGone();
  case Transfer::failed:
    break;
  }
  return false;
}

void TargetMemory::write(remote_ptr<> address, const void* from, std::size_t size) {
  const auto* bytes = static_cast<const std::uint8_t*>(from);
  std::size_t done = 0;
  while (done < size) {
    count_step();
    const ssize_t count =
        pwrite(file_, bytes + done, size - done, static_cast<off_t>(address.as_int() + done));
    if (count > 0)
      done += static_cast<std::size_t>(count);
    else if (count == 0 || errno == ESRCH)
      throw TargetGone();
    else if (errno != EINTR)
      fail("write", address.plus_bytes(done), errno);
  }
}

std::vector<std::uint8_t> TargetMemory::read(remote_ptr<> address, std::size_t size) const {
  std::vector<std::uint8_t> bytes(size);
  read(address, bytes.data(), size);
  return bytes;
}

void TargetMemory::write(remote_ptr<> address, const std::vector<std::uint8_t>& bytes) {
  write(address, bytes.data(), bytes.size());
}

} // namespace kcare
