// A function of the target, called in one of its threads while all the others stand, and stay where they are
// even if we die.
//
// R1 and R2, what happens if we die, at each instant:
//
//   1. Each thread gets a signal frame below its red zone,   the word is 0: the code in the image returns at
//      all signals blocked, and rip = the wait in the image   once, and the thread is itself again.
//   2. One thread, the worker, enters rt_sigreturn from the   it makes rt_sigreturn, or finds the word 0.
//      trampoline, and its rip = the work in the image
//   3. The commit writes its bytes and state words            the same: an interrupted commit (R2).
//   4. The word becomes 1                                     the worker works and makes it 3 at the end; all
//   5. The worker runs                                        others wait for that in the image. Then each is
//   6. It has come to the entry of rt_sigreturn               itself again, and the commit is whole.
//   7. Each thread gets back mask, registers, bytes           as in remote_call.cc.
#include "held_call.h"

#include "call_candidates.h"
#include "engine_error.h"

#include <string>

namespace kcare {

namespace {

constexpr std::int64_t work_patience_ms = 1000;
constexpr std::int64_t runnable_patience_ms = 3000;
constexpr std::uint32_t asked = 1;

} // namespace

HeldCall::HeldCall(pid_t pid, TargetMemory& memory, const HeldFunction& function)
    : pid_(pid), memory_(memory), function_(function), map_(AddressMap::of_process(pid)),
      patience_(Patience::in_milliseconds(work_patience_ms, runnable_patience_ms)) {
  require_signal_return(pid, memory, function.signal_return);
}

HeldCall::~HeldCall() {
  try {
    if (worker_)
      worker_->finish(Patience::in_milliseconds(work_patience_ms, runnable_patience_ms));
    for (const auto& session : sessions_)
      session->put_back();
  } catch (const std::exception&) {
    // A thread that is gone needs nothing; of any other the kernel lets go, and its frame does the rest.
  }
}

void HeldCall::arm(ThreadSet& threads) {
  patience_ = Patience::in_milliseconds(work_patience_ms, runnable_patience_ms);
  threads.for_each_stopped([this](TracedThread& thread) {
    // In any other stop the kernel still has something to do that the new registers would not survive.
    if (!thread.stop().is_event_stop() || in_restartable_sequence(memory_, thread))
      throw TargetBusy("thread " + std::to_string(thread.tid()) + " is where it cannot be held");
    refuse_unsupported(pid_, thread);
    if (worker_ || !take_worker(thread))
      hold(thread);
  });
  if (!worker_)
    throw TargetBusy("no thread of process " + std::to_string(pid_) + " has the stack to run a function on");
  if (const std::optional<std::string> problem = worker_->run_to_trampoline(patience_)) {
    worker_.reset();
    throw TargetBusy(*problem);
  }
  worker_->aim({function_.work, {function_.record.as_int()}, function_.stack_depth});
}

bool HeldCall::take_worker(TracedThread& thread) {
  auto session = std::make_unique<CallSession>(memory_, thread, function_.signal_return);
  if (!thread.suspend_seccomp() || !session->prepare(map_, function_.stack_depth))
    return false;
  worker_ = std::move(session);
  return true;
}

void HeldCall::hold(TracedThread& thread) {
  auto session = std::make_unique<CallSession>(memory_, thread, function_.signal_return);
  if (!session->prepare(map_))
    throw TargetBusy("thread " + std::to_string(thread.tid()) + " has no room on its stack to be held");
  session->aim({function_.wait, {function_.record.as_int()}, 0});
  sessions_.push_back(std::move(session));
}

bool HeldCall::run(ThreadSet& threads) {
  memory_.write(function_.record, &asked, sizeof asked);
  if (worker_->complete(patience_))
    return true;
  worker_.reset();
  sessions_.clear();
  threads.forget();
  return false;
}

} // namespace kcare
