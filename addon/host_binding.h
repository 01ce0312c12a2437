// What the addon gives to the layers that look after a whole host: events, peer credentials, datagrams, locks
// by process.
#pragma once

#include <napi.h>

namespace kcare {

void export_host_functions(Napi::Env env, Napi::Object exports);

} // namespace kcare
