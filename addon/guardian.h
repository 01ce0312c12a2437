// The patcher's side of its guardian, which keeps a stop of the patcher from becoming one of a target (R5).
#pragma once

namespace kcare {

/// While one exists, a stop of this process (SIGSTOP, Ctrl-Z) is put off until its end.
class Guarded {
public:
  Guarded() noexcept;
  ~Guarded();
  Guarded(const Guarded&) = delete;
  Guarded& operator=(const Guarded&) = delete;
};

} // namespace kcare
