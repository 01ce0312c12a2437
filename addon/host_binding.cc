// What the addon gives to the layers that look after a whole host: peer credentials, locks by process.
#include "host_binding.h"

#include <fcntl.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstring>

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

} // namespace

void export_host_functions(Napi::Env env, Napi::Object exports) {
  exports.Set("peerUser", Napi::Function::New(env, peer_user, "peerUser"));
  exports.Set("lockByte", Napi::Function::New(env, lock_byte, "lockByte"));
}

} // namespace kcare
