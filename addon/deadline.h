// Monotonic time, and how long to wait for a stop: spin shortly, then sleep for microseconds.
#pragma once

#include <algorithm>
#include <cstdint>
#include <ctime>

namespace kcare {

/// Nanoseconds of CLOCK_MONOTONIC.
inline std::int64_t now_ns() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<std::int64_t>(now.tv_sec) * 1'000'000'000 + now.tv_nsec;
}

class Deadline {
public:
  static Deadline in_milliseconds(std::int64_t milliseconds) {
    return Deadline(now_ns() + milliseconds * 1'000'000);
  }
  /// The earlier of this deadline and `milliseconds` from now.
  Deadline at_most(std::int64_t milliseconds) const {
    return Deadline(std::min(at_ns_, in_milliseconds(milliseconds).at_ns_));
  }
  bool passed() const { return now_ns() >= at_ns_; }

private:
  explicit Deadline(std::int64_t at_ns) : at_ns_(at_ns) {}
  std::int64_t at_ns_;
};

/// How long to wait for a thread of a target. While it waits for a processor, that says nothing about the
/// thread, only that the machine is loaded.
struct Patience {
  static Patience in_milliseconds(std::int64_t milliseconds, std::int64_t runnable_milliseconds) {
    return {Deadline::in_milliseconds(milliseconds), Deadline::in_milliseconds(runnable_milliseconds)};
  }
  Patience at_most(std::int64_t milliseconds) const { return {usual.at_most(milliseconds), runnable}; }

  Deadline usual;
  Deadline runnable;
};

/// One wait. A stop arrives within microseconds when another processor runs the thread, so looking again
/// comes first. When the thread needs this processor, only sleeping helps.
class Backoff {
public:
  void pause() {
    if (now_ns() - started_ns_ < spin_ns)
      return;
    const timespec nap{0, nap_ns};
    clock_nanosleep(CLOCK_MONOTONIC, 0, &nap, nullptr);
  }

private:
  static constexpr std::int64_t spin_ns = 30'000;
  static constexpr long nap_ns = 10'000;
  std::int64_t started_ns_ = now_ns();
};

} // namespace kcare
