// What the addon gives to the layers that look after a whole host: events, peer credentials, datagrams, locks
// by process.
#include "host_binding.h"

#include "host_events.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace kcare {

namespace {

Napi::Error system_error(Napi::Env env, int number) {
  return Napi::Error::New(env, std::strerror(number));
}

/// peerUser(descriptor): user id of the process at the other end of a socket, as it was when that was
/// connected.
Napi::Value peer_user(const Napi::CallbackInfo& info) {
  ucred peer{};
  socklen_t size = sizeof peer;
  if (getsockopt(info[0].As<Napi::Number>().Int32Value(), SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0)
    throw system_error(info.Env(), errno);
  return Napi::Number::New(info.Env(), peer.uid);
}

/// sendDatagram(path, text): one datagram to a socket in the file system, or in the abstract namespace when
/// `path` begins with '@'.
Napi::Value send_datagram(const Napi::CallbackInfo& info) {
  const std::string path = info[0].ToString();
  const std::string text = info[1].ToString();
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof address.sun_path)
    throw system_error(info.Env(), ENAMETOOLONG);
  path.copy(address.sun_path, path.size());
  if (path.front() == '@')
    address.sun_path[0] = '\0';
  const int descriptor = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (descriptor < 0)
    throw system_error(info.Env(), errno);
  const auto length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + path.size());
  const ssize_t sent = sendto(descriptor, text.data(), text.size(), MSG_NOSIGNAL,
                              reinterpret_cast<const sockaddr*>(&address), length);
  const int number = errno;
  close(descriptor);
  if (sent < 0)
    throw system_error(info.Env(), number);
  return info.Env().Undefined();
}

/// lockByte(descriptor, offset, isHeld): an open file description lock, which the kernel gives back when we
/// die.
Napi::Value lock_byte(const Napi::CallbackInfo& info) {
  struct flock range {};
  range.l_type = info[2].ToBoolean().Value() ? F_WRLCK : F_UNLCK;
  range.l_whence = SEEK_SET;
  range.l_start = info[1].As<Napi::Number>().Int64Value();
  range.l_len = 1;
  if (fcntl(info[0].As<Napi::Number>().Int32Value(), F_OFD_SETLK, &range) == 0)
    return Napi::Boolean::New(info.Env(), true);
  if (errno == EAGAIN || errno == EACCES)
    return Napi::Boolean::New(info.Env(), false);
  throw system_error(info.Env(), errno);
}

Napi::Array from_pids(Napi::Env env, const std::vector<pid_t>& pids) {
  auto array = Napi::Array::New(env, pids.size());
  for (std::uint32_t index = 0; index < pids.size(); index++)
    array.Set(index, Napi::Number::New(env, pids[index]));
  return array;
}

/// What is watched, and the way from its thread to JavaScript.
struct Watch {
  explicit Watch(const Napi::Function& listener)
      : function(Napi::ThreadSafeFunction::New(listener.Env(), listener, "host events", 0, 1)) {}

  Napi::ThreadSafeFunction function;
  std::unique_ptr<HostEvents> events;
};

void stop(Watch& watch) {
  if (!watch.events)
    return;
  watch.events.reset();
  watch.function.Release();
}

/// watchHost(listener): calls listener(begun, touched, lost, ended); returns { mark, stop, processesError,
/// filesError }.
Napi::Value watch_host(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  auto watch = std::make_shared<Watch>(info[0].As<Napi::Function>());
  const std::weak_ptr<Watch> weak = watch;
  watch->events = std::make_unique<HostEvents>([weak, function = watch->function] {
    function.NonBlockingCall([weak](Napi::Env callback_env, Napi::Function listener) {
      const auto living = weak.lock();
      if (!living || !living->events)
        return;
      const HostEvents::Batch batch = living->events->take();
      listener.Call({from_pids(callback_env, batch.begun), from_pids(callback_env, batch.touched),
                     Napi::Boolean::New(callback_env, batch.lost),
                     Napi::Boolean::New(callback_env, batch.ended)});
    });
  });
  auto result = Napi::Object::New(env);
  result.Set("processesError", watch->events->processes_error());
  result.Set("filesError", watch->events->files_error());
  result.Set("mark", Napi::Function::New(env, [watch](const Napi::CallbackInfo& call) {
               if (!watch->events)
                 return Napi::Number::New(call.Env(), EBADF);
               const auto text = [&call](std::size_t index) {
                 return call[index].As<Napi::String>().Utf8Value();
               };
               return Napi::Number::New(call.Env(), watch->events->mark(text(0), text(1), text(2)));
             }));
  result.Set("stop", Napi::Function::New(env, [watch](const Napi::CallbackInfo&) { stop(*watch); }));
  return result;
}

} // namespace

void export_host_functions(Napi::Env env, Napi::Object exports) {
  exports.Set("peerUser", Napi::Function::New(env, peer_user, "peerUser"));
  exports.Set("sendDatagram", Napi::Function::New(env, send_datagram, "sendDatagram"));
  exports.Set("lockByte", Napi::Function::New(env, lock_byte, "lockByte"));
  exports.Set("watchHost", Napi::Function::New(env, watch_host, "watchHost"));
}

} // namespace kcare
