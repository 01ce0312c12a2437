// Programs that begin and files that are opened, anywhere on the host: the kernel's process connector and
// fanotify.
//
// See Documentation/driver-api/connector.rst of the kernel, linux/cn_proc.h and fanotify(7).
#include "host_events.h"

#include "deadline.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/cn_proc.h>
#include <linux/connector.h>
#include <linux/filter.h>
#include <linux/magic.h>
#include <linux/netlink.h>
#include <linux/openat2.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/fanotify.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <system_error>

namespace kcare {

namespace {

constexpr std::uint32_t acknowledgement = 0x00000000;
constexpr std::uint32_t fork_event = 0x00000001;
constexpr std::uint32_t exec_event = 0x00000002;
constexpr int receive_buffer = 4 << 20;
/// Beginnings are looked at later anyway: they are told together.
constexpr int gathering_ms = 10;

/*
 *  nlmsghdr (16) | cn_msg (20) | proc_event: what (4) cpu (4) timestamp (8) | exec: pid (4) tgid (4)
 *                                                         | fork: parent pid, tgid, child pid, tgid (4 each)
 */
constexpr std::size_t what_offset = sizeof(nlmsghdr) + sizeof(cn_msg);
constexpr std::size_t data_offset = what_offset + 16;
constexpr std::size_t executed_offset = data_offset + 4;
constexpr std::size_t child_thread_offset = data_offset + 8;
constexpr std::size_t child_offset = data_offset + 12;
static_assert(what_offset == 36);

/// The kernel hands over answers, executed programs, and forks of processes, but not of threads.
bool only_beginnings(int socket) {
  std::array<sock_filter, 10> code{{
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, what_offset),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, htonl(exec_event), 6, 0),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, htonl(acknowledgement), 5, 0),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, htonl(fork_event), 0, 5),
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, child_thread_offset),
      BPF_STMT(BPF_MISC | BPF_TAX, 0),
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, child_offset),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_X, 0, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, 0xffffffff),
      BPF_STMT(BPF_RET | BPF_K, 0),
  }};
  const sock_fprog program{static_cast<unsigned short>(code.size()), code.data()};
  return setsockopt(socket, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program) == 0;
}

bool subscribe(int socket) {
  struct {
    alignas(
        NLMSG_ALIGNTO) std::array<std::uint8_t, NLMSG_SPACE(sizeof(cn_msg) + sizeof(std::uint32_t))> bytes{};
  } request;
  nlmsghdr header{};
  header.nlmsg_len = NLMSG_LENGTH(sizeof(cn_msg) + sizeof(std::uint32_t));
  header.nlmsg_type = NLMSG_DONE;
  header.nlmsg_pid = 0;
  cn_msg message{};
  message.id.idx = CN_IDX_PROC;
  message.id.val = CN_VAL_PROC;
  message.len = sizeof(std::uint32_t);
  const std::uint32_t listen = PROC_CN_MCAST_LISTEN;
  std::memcpy(request.bytes.data(), &header, sizeof header);
  std::memcpy(request.bytes.data() + NLMSG_HDRLEN, &message, sizeof message);
  std::memcpy(request.bytes.data() + NLMSG_HDRLEN + sizeof message, &listen, sizeof listen);
  return send(socket, request.bytes.data(), header.nlmsg_len, 0) == static_cast<ssize_t>(header.nlmsg_len);
}

/// The answer is there when the request was sent, or never: outside of the first pid and user namespaces the
/// kernel takes a subscription and says nothing (cn_proc_mcast_ctl() of drivers/connector/cn_proc.c).
bool is_answered(int socket) {
  pollfd source{socket, POLLIN, 0};
  if (poll(&source, 1, 0) == 1)
    return true;
  errno = EPERM;
  return false;
}

/// The file at `path` as its own process sees it, and nothing outside of `root`: the kernel names mapped
/// files by paths without symbolic links. -1 when there is none.
int open_below(const std::string& root, const std::string& path) {
  const int directory = open(root.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC);
  if (directory < 0)
    return -1;
  open_how how{};
  how.flags = O_PATH | O_CLOEXEC;
  how.resolve = RESOLVE_IN_ROOT | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS;
  const long opened = syscall(SYS_openat2, directory, path.c_str(), &how, sizeof how);
  close(directory);
  return static_cast<int>(opened);
}

bool is_same_file(int left, int right) {
  struct stat one {};
  struct stat other {};
  return fstat(left, &one) == 0 && fstat(right, &other) == 0 && one.st_dev == other.st_dev &&
         one.st_ino == other.st_ino;
}

bool is_on_overlay(int descriptor) {
  struct statfs status {};
  return fstatfs(descriptor, &status) == 0 && status.f_type == OVERLAYFS_SUPER_MAGIC;
}

} // namespace

HostEvents::HostEvents(std::function<void()> notify) : notify_(std::move(notify)) {
  end_ = eventfd(0, EFD_CLOEXEC);
  if (end_ < 0)
    throw std::system_error(errno, std::generic_category(), "eventfd");
  open_processes();
  open_files();
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  thread_ = std::thread([this] { watch(); });
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

HostEvents::~HostEvents() {
  const std::uint64_t one = 1;
  if (write(end_, &one, sizeof one) == sizeof one)
    thread_.join();
  else
    thread_.detach();
  for (const int descriptor : {processes_, files_, end_})
    if (descriptor >= 0)
      close(descriptor);
}

void HostEvents::open_processes() {
  const int descriptor = socket(PF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_CONNECTOR);
  sockaddr_nl address{};
  address.nl_family = AF_NETLINK;
  address.nl_groups = CN_IDX_PROC;
  if (descriptor < 0 || !only_beginnings(descriptor) ||
      bind(descriptor, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0 ||
      !subscribe(descriptor) || !is_answered(descriptor)) {
    processes_error_ = errno;
    if (descriptor >= 0)
      close(descriptor);
    return;
  }
  setsockopt(descriptor, SOL_SOCKET, SO_RCVBUFFORCE, &receive_buffer, sizeof receive_buffer);
  processes_ = descriptor;
}

void HostEvents::open_files() {
  constexpr unsigned flags = FAN_CLASS_NOTIF | FAN_CLOEXEC | FAN_NONBLOCK | FAN_UNLIMITED_MARKS;
  files_ = fanotify_init(flags, O_RDONLY | O_CLOEXEC);
  if (files_ < 0)
    files_error_ = errno;
}

int HostEvents::mark(const std::string& mapped, const std::string& root, const std::string& path) {
  if (files_ < 0)
    return files_error_;
  const int descriptor = open(mapped.c_str(), O_PATH | O_CLOEXEC);
  if (descriptor < 0)
    return errno;
  int problem = mark_opened(descriptor);
  const int opened = path.empty() ? -1 : open_below(root, path);
  if (opened >= 0) {
    // What the process shows at this path is its own affair: only the overlay of what it has mapped can be
    // another file.
    if (!is_same_file(descriptor, opened) && is_on_overlay(opened)) {
      const int other = mark_opened(opened);
      problem = problem == 0 ? other : problem;
    }
    close(opened);
  }
  close(descriptor);
  return problem;
}

int HostEvents::mark_opened(int descriptor) {
  struct stat status {};
  // A FIFO or a device could hold up whoever opens it for an event.
  if (fstat(descriptor, &status) != 0)
    return errno;
  if (!S_ISREG(status.st_mode))
    return EINVAL;
  const std::string self = "/proc/self/fd/" + std::to_string(descriptor);
  return fanotify_mark(files_, FAN_MARK_ADD, FAN_OPEN, AT_FDCWD, self.c_str()) == 0 ? 0 : errno;
}

void HostEvents::watch() {
  std::optional<Deadline> due;
  for (;;) {
    std::array<pollfd, 3> sources{{{end_, POLLIN, 0}, {processes_, POLLIN, 0}, {files_, POLLIN, 0}}};
    const int ready = poll(sources.data(), sources.size(), due ? gathering_ms : -1);
    if (ready < 0 && errno == EINTR)
      continue;
    if (sources[0].revents != 0)
      return;
    Batch batch;
    bool usable = ready >= 0;
    if (ready > 0) {
      usable = sources[1].revents == 0 || read_processes(batch);
      usable = (sources[2].revents == 0 || read_files(batch)) && usable;
    }
    batch.ended = !usable;
    // In a storm of beginnings, poll never waits in vain.
    const bool urgent =
        ready <= 0 || !batch.touched.empty() || batch.lost || batch.ended || (due && due->passed());
    if (!publish(batch, urgent))
      due.reset();
    else if (!due)
      due = Deadline::in_milliseconds(gathering_ms);
    if (!usable)
      return;
  }
}

bool HostEvents::read_processes(Batch& batch) {
  alignas(NLMSG_ALIGNTO) std::array<std::uint8_t, 4096> buffer{};
  for (;;) {
    sockaddr_nl sender{};
    socklen_t size = sizeof sender;
    const ssize_t length =
        recvfrom(processes_, buffer.data(), buffer.size(), 0, reinterpret_cast<sockaddr*>(&sender), &size);
    if (length < 0) {
      if (errno == ENOBUFS)
        batch.lost = true;
      else if (errno != EINTR)
        return errno == EAGAIN;
      continue;
    }
    // Only the kernel's own word counts.
    if (sender.nl_pid != 0 || static_cast<std::size_t>(length) < child_offset + sizeof(pid_t))
      continue;
    std::uint32_t what = 0;
    std::memcpy(&what, buffer.data() + what_offset, sizeof what);
    if (what != exec_event && what != fork_event)
      continue;
    pid_t pid = 0;
    std::memcpy(&pid, buffer.data() + (what == exec_event ? executed_offset : child_offset), sizeof pid);
    if (pid > 0)
      batch.begun.push_back(pid);
  }
}

bool HostEvents::read_files(Batch& batch) {
  alignas(fanotify_event_metadata) std::array<std::uint8_t, 8192> buffer{};
  for (;;) {
    const ssize_t length = read(files_, buffer.data(), buffer.size());
    if (length <= 0) {
      if (length < 0 && errno == EINTR)
        continue;
      // A file that cannot be opened any more is reported as an error of the whole read.
      if (length < 0 && errno != EAGAIN)
        batch.lost = true;
      return length == 0 || errno == EAGAIN || errno == EMFILE || errno == ENFILE || errno == EPERM ||
             errno == ENOENT;
    }
    std::size_t position = 0;
    const auto end = static_cast<std::size_t>(length);
    while (position + sizeof(fanotify_event_metadata) <= end) {
      fanotify_event_metadata event{};
      std::memcpy(&event, buffer.data() + position, sizeof event);
      if (event.event_len < sizeof event || event.vers != FANOTIFY_METADATA_VERSION)
        return false;
      if ((event.mask & FAN_Q_OVERFLOW) != 0)
        batch.lost = true;
      if (event.fd >= 0)
        close(event.fd);
      if (event.pid > 0 && event.pid != getpid())
        batch.touched.push_back(event.pid);
      position += event.event_len;
    }
  }
}

bool HostEvents::publish(const Batch& batch, bool urgent) {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    waiting_.begun.insert(waiting_.begun.end(), batch.begun.begin(), batch.begun.end());
    waiting_.touched.insert(waiting_.touched.end(), batch.touched.begin(), batch.touched.end());
    waiting_.lost = waiting_.lost || batch.lost;
    waiting_.ended = waiting_.ended || batch.ended;
    const bool any = !waiting_.begun.empty() || !waiting_.touched.empty() || waiting_.lost || waiting_.ended;
    if (!any || notified_)
      return false;
    if (!urgent)
      return true;
    notified_ = true;
  }
  notify_();
  return false;
}

HostEvents::Batch HostEvents::take() {
  const std::lock_guard<std::mutex> lock(mutex_);
  Batch batch;
  std::swap(batch, waiting_);
  notified_ = false;
  return batch;
}

} // namespace kcare
