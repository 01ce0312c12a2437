// What the engine throws: errors with a code of src/base/errors.ts, and the death of the target, which is
// none.
#pragma once

#include <sys/types.h>

#include <stdexcept>
#include <string>

namespace kcare {

/// An error that crosses the boundary to JavaScript with its code, errno (0 = none) and process.
class EngineError : public std::runtime_error {
public:
  EngineError(const char* code, int error_number, pid_t pid, const std::string& message)
      : std::runtime_error(message), code_(code), error_number_(error_number), pid_(pid) {}

  const char* code() const { return code_; }
  int error_number() const { return error_number_; }
  pid_t pid() const { return pid_; }

private:
  const char* code_;
  int error_number_;
  pid_t pid_;
};

/// R11: the target ended (or replaced itself by execve) while we worked on it.
class TargetGone : public std::exception {
public:
  const char* what() const noexcept override { return "the target process is gone"; }
};

/// Nothing was changed and another attempt may succeed.
class TargetBusy : public std::runtime_error {
public:
  using std::runtime_error::runtime_error;
};

} // namespace kcare
