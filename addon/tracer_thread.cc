// The thread that does all ptrace work of one request, and the questions it asks the thread that waits for
// it.
#include "tracer_thread.h"

#include "deadline.h"
#include "guardian.h"

#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <condition_variable>
#include <csignal>
#include <exception>
#include <mutex>
#include <thread>

namespace kcare {

namespace {

struct Rendezvous {
  std::mutex mutex;
  std::condition_variable changed;
  const TracerThread::Question* question = nullptr;
  bool answer = false;
  bool finished = false;
  std::exception_ptr failure;
  pid_t tracer = 0;
};

bool ask(Rendezvous& meeting, const TracerThread::Question& question) {
  std::unique_lock<std::mutex> lock(meeting.mutex);
  meeting.question = &question;
  meeting.changed.notify_all();
  meeting.changed.wait(lock, [&] { return meeting.question == nullptr; });
  return meeting.answer;
}

void answer_until_finished(Rendezvous& meeting) {
  std::unique_lock<std::mutex> lock(meeting.mutex);
  for (;;) {
    meeting.changed.wait(lock, [&] { return meeting.question != nullptr || meeting.finished; });
    if (meeting.question == nullptr)
      return;
    const TracerThread::Question& question = *meeting.question;
    lock.unlock();
    const bool answer = question();
    lock.lock();
    meeting.answer = answer;
    meeting.question = nullptr;
    meeting.changed.notify_all();
  }
}

// pthread_join returns when the memory of the thread is released, and the kernel detaches tracees shortly
// after that.
void wait_until_tracees_are_detached(pid_t tracer) {
  const Deadline deadline = Deadline::in_milliseconds(1000);
  while (syscall(SYS_tgkill, getpid(), tracer, 0) == 0 && !deadline.passed())
    std::this_thread::yield();
}

/// Each stop of a thread that we trace sends SIGCHLD to this process. Who waits here for children of its own
/// (libuv does, while there are some) wants to know when they end; to wake it for every stop takes longer
/// than the stop. Set anew for each request, because it may have been replaced.
void want_no_signals_of_stops() {
  struct sigaction action {};
  if (sigaction(SIGCHLD, nullptr, &action) != 0 || (action.sa_flags & SA_NOCLDSTOP) != 0)
    return;
  action.sa_flags |= SA_NOCLDSTOP;
  sigaction(SIGCHLD, &action, nullptr);
}

/// Blocks all signals, so that a new thread inherits that: handlers of this process run elsewhere.
class SignalsBlocked {
public:
  SignalsBlocked() {
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before_);
  }
  ~SignalsBlocked() { pthread_sigmask(SIG_SETMASK, &before_, nullptr); }
  SignalsBlocked(const SignalsBlocked&) = delete;
  SignalsBlocked& operator=(const SignalsBlocked&) = delete;

private:
  sigset_t before_{};
};

} // namespace

void TracerThread::run(const std::function<void(const Ask&)>& work) {
  const Guarded guarded;
  want_no_signals_of_stops();
  Rendezvous meeting;
  const auto body = [&meeting, &work] {
    prctl(PR_SET_TIMERSLACK, 1);
    std::exception_ptr failure;
    try {
      work([&meeting](const Question& question) { return ask(meeting, question); });
    } catch (...) {
      failure = std::current_exception();
    }
    const std::lock_guard<std::mutex> lock(meeting.mutex);
    meeting.tracer = gettid();
    meeting.failure = failure;
    meeting.finished = true;
    meeting.changed.notify_all();
  };
  std::thread thread;
  {
    const SignalsBlocked blocked;
    thread = std::thread(body);
  }
  answer_until_finished(meeting);
  thread.join();
  wait_until_tracees_are_detached(meeting.tracer);
  if (meeting.failure)
    std::rethrow_exception(meeting.failure);
}

} // namespace kcare
