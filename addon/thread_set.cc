// All threads of a target, stopped in two waves: sleeping ones first, running ones last and released first
// (R8).
#include "thread_set.h"

#include "engine_error.h"
#include "task_list.h"

#include <algorithm>
#include <string>

namespace kcare {

namespace {

// Sleeping threads stop within microseconds unless they are in uninterruptible sleep; the others wait for
// them.
constexpr std::int64_t sleeping_patience_ms = 250;
// A running thread may first have to get a processor.
constexpr std::int64_t running_patience_ms = 250;
constexpr std::int64_t release_patience_ms = 500;

} // namespace

ThreadSet::ThreadSet(pid_t pid, const Deadline& deadline) : pid_(pid), deadline_(deadline) {}

ThreadSet::~ThreadSet() {
  release();
}

bool ThreadSet::seize_into(Wave& wave, pid_t tid, bool trace_clones) {
  SeizeOptions options;
  options.trace_clones = trace_clones;
  known_.insert(tid);
  std::unique_ptr<TracedThread> thread = TracedThread::seize(pid_, tid, options);
  if (!thread)
    return false;
  wave.threads.push_back(std::move(thread));
  return true;
}

bool ThreadSet::stop_sleeping(const Inspect& inspect) {
  for (const Task& task : list_tasks(pid_)) {
    if (task.is_dead())
      known_.insert(task.tid);
    else if (!task.is_running())
      seize_into(sleeping_, task.tid, true);
  }
  for (const auto& thread : sleeping_.threads)
    thread->interrupt();
  return settle(sleeping_, inspect, deadline_.at_most(sleeping_patience_ms));
}

/// False when no thread was unknown.
bool ThreadSet::seize_unknown() {
  bool any = false;
  for (const pid_t tid : list_thread_ids(pid_)) {
    if (known_.count(tid) != 0)
      continue;
    any = true;
    seize_into(running_, tid, true);
  }
  return any;
}

// A thread that is created after its parent was seized is attached by the kernel. One that is created before
// that is in the next listing, except when its parent was just then on its way through clone(2): that is why
// the number of threads is compared once more when all known ones are stopped. Only then nobody can create
// another.
bool ThreadSet::stop_running(const Inspect& inspect) {
  while (seize_unknown() && !deadline_.passed()) {
  }
  const Deadline patience = deadline_.at_most(running_patience_ms);
  std::size_t first_new = 0;
  for (;;) {
    for (; first_new < running_.threads.size(); first_new++)
      running_.threads[first_new]->interrupt();
    if (!settle(running_, inspect, patience))
      return false;
    first_new = running_.threads.size();
    if (is_complete() || !seize_unknown())
      return true;
    if (patience.passed())
      throw TargetBusy("process " + std::to_string(pid_) +
                       " creates threads faster than they can be stopped");
  }
}

/// Whether the threads we hold are all there are; may be false although they are (threads that ended).
bool ThreadSet::is_complete() const {
  std::int64_t held = 0;
  for (const Wave* wave : {&sleeping_, &running_})
    for (const auto& thread : wave->threads)
      held += thread->is_stopped() ? 1 : 0;
  return count_threads(pid_) == held;
}

bool ThreadSet::settle(Wave& wave, const Inspect& inspect, const Deadline& deadline) {
  std::vector<TracedThread*> waiting;
  std::size_t seen = 0;
  Backoff backoff;
  for (;;) {
    // Before they are looked at: what an inspection took is not the fault of those that wait behind it.
    const bool last_look = deadline.passed();
    for (; seen < wave.threads.size(); seen++)
      if (!wave.threads[seen]->is_stopped() && !wave.threads[seen]->is_gone())
        waiting.push_back(wave.threads[seen].get());
    std::vector<TracedThread*> still_waiting;
    for (TracedThread* thread : waiting) {
      if (!thread->poll()) {
        still_waiting.push_back(thread);
        continue;
      }
      if (thread->is_gone())
        continue;
      take_in_new_thread(wave, *thread);
      if (!inspect(*thread))
        return false;
    }
    waiting = std::move(still_waiting);
    if (waiting.empty() && seen == wave.threads.size())
      return true;
    if (last_look && !waiting.empty()) {
      const pid_t tid = waiting.front()->tid();
      throw TargetBusy("thread " + std::to_string(tid) + " did not stop in time; " +
                       describe_state(pid_, tid));
    }
    backoff.pause();
  }
}

void ThreadSet::take_in_new_thread(Wave& wave, TracedThread& parent) {
  const pid_t tid = parent.new_thread();
  if (tid == 0 || known_.count(tid) != 0)
    return;
  // clone(2) may also have made a process of its own: that one is let go when this tracer thread ends.
  if (task_state(pid_, tid) == 'X')
    return;
  known_.insert(tid);
  wave.threads.push_back(TracedThread::adopt(pid_, tid));
}

void ThreadSet::release() noexcept {
  std::vector<TracedThread*> unfinished;
  for (Wave* wave : {&running_, &sleeping_})
    for (const auto& thread : wave->threads)
      if (!thread->begin_release())
        unfinished.push_back(thread.get());
  const Deadline deadline = Deadline::in_milliseconds(release_patience_ms);
  Backoff backoff;
  for (;;) {
    bool all = true;
    for (TracedThread* thread : unfinished)
      all = thread->poll_release() && all;
    if (all || deadline.passed())
      return;
    backoff.pause();
  }
}

void ThreadSet::forget() noexcept {
  for (Wave* wave : {&sleeping_, &running_})
    for (const auto& thread : wave->threads)
      if (!thread->is_gone())
        thread->forget();
}

void ThreadSet::for_each_stopped(const std::function<void(TracedThread&)>& visit) {
  for (Wave* wave : {&sleeping_, &running_})
    for (const auto& thread : wave->threads)
      if (thread->is_stopped())
        visit(*thread);
}

PauseStatistics ThreadSet::statistics() const {
  PauseStatistics statistics;
  for (const Wave* wave : {&sleeping_, &running_}) {
    for (const auto& thread : wave->threads) {
      statistics.threads++;
      statistics.longest_pause_ns = std::max(statistics.longest_pause_ns, thread->pause_ns());
      if (wave == &running_) {
        statistics.running_threads++;
        statistics.running_pause_ns = std::max(statistics.running_pause_ns, thread->pause_ns());
      }
    }
  }
  return statistics;
}

bool ThreadSet::all_gone() const {
  for (const Wave* wave : {&sleeping_, &running_})
    for (const auto& thread : wave->threads)
      if (!thread->is_gone())
        return false;
  return true;
}

} // namespace kcare
