// The thread that does all ptrace work of one request, and the questions it asks the thread that waits for
// it.
#pragma once

#include <functional>

namespace kcare {

/// A tracer is a thread, not a process: when it ends, the kernel detaches whatever it still traces, also
/// threads that could not be stopped. So every request gets a thread of its own.
class TracerThread {
public:
  using Question = std::function<bool()>;
  /// For use by the work: runs `question` on the thread that called `run`, and returns its answer.
  using Ask = std::function<bool(const Question&)>;

  /// Runs `work`, answers its questions, rethrows its exception. On return nothing is traced any more.
  static void run(const std::function<void(const Ask&)>& work);
};

} // namespace kcare
