// The boundary to JavaScript: turns values into requests and results into values, nothing else.
#include "commit.h"
#include "engine_error.h"
#include "function_call.h"
#include "host_binding.h"
#include "kernel_module.h"
#include "memory_sharers.h"
#include "memory_survey.h"
#include "ptrace_requests.h"
#include "remote_call.h"
#include "tracer_thread.h"

#include <napi.h>
#include <unistd.h>

#include <cstring>
#include <exception>
#include <optional>
#include <string>
#include <vector>

namespace {

using kcare::remote_ptr;

std::uint64_t to_word(const Napi::Value& value) {
  bool lossless = false;
  return value.As<Napi::BigInt>().Uint64Value(&lossless);
}

remote_ptr<> to_address(const Napi::Value& value) {
  return remote_ptr<>(to_word(value));
}

std::vector<std::uint8_t> to_bytes(const Napi::Value& value) {
  const auto array = value.As<Napi::Uint8Array>();
  return {array.Data(), array.Data() + array.ByteLength()};
}

Napi::BigInt from_address(Napi::Env env, remote_ptr<> address) {
  return Napi::BigInt::New(env, address.as_int());
}

Napi::Uint8Array from_bytes(Napi::Env env, const std::vector<std::uint8_t>& bytes) {
  auto array = Napi::Uint8Array::New(env, bytes.size());
  if (!bytes.empty())
    std::memcpy(array.Data(), bytes.data(), bytes.size());
  return array;
}

/// Ranges are checked here as well as in TypeScript: no address of the kernel's half, no empty or endless
/// range.
constexpr std::uint64_t user_address_end = 1ULL << 47;

void require(bool condition, const char* message) {
  if (!condition)
    throw kcare::EngineError("INTERNAL", 0, 0, std::string("invalid argument: ") + message);
}

void require_range(remote_ptr<> start, std::uint64_t size) {
  require(size > 0 && size < user_address_end && start.as_int() <= user_address_end - size, "address range");
}

pid_t to_pid(const Napi::Value& value) {
  const pid_t pid = value.As<Napi::Number>().Int32Value();
  require(pid > 0 && pid != getpid(), "process id");
  return pid;
}

Napi::Error javascript_error(Napi::Env env, const kcare::EngineError& error) {
  Napi::Error result = Napi::Error::New(env, error.what());
  result.Set("engineCode", Napi::String::New(env, error.code()));
  result.Set("errno", Napi::Number::New(env, error.error_number()));
  result.Set("pid", Napi::Number::New(env, error.pid()));
  return result;
}

/// Runs the body of an exported function; C++ exceptions become JavaScript errors with code, errno and pid.
template <typename Body> Napi::Value guarded(Napi::Env env, const Body& body) {
  try {
    return body();
  } catch (const Napi::Error&) {
    throw;
  } catch (const kcare::EngineError& error) {
    throw javascript_error(env, error);
  } catch (const kcare::TargetGone& gone) {
    throw javascript_error(env, kcare::EngineError("TARGET_GONE", ESRCH, 0, gone.what()));
  } catch (const std::exception& error) {
    throw javascript_error(env, kcare::EngineError("INTERNAL", 0, 0, error.what()));
  }
}

std::vector<kcare::RemoteCall> to_calls(const Napi::Array& values) {
  std::vector<kcare::RemoteCall> calls;
  for (std::uint32_t index = 0; index < values.Length(); index++) {
    const auto value = values.Get(index).As<Napi::Object>();
    const auto parameters = value.Get("arguments").As<Napi::Array>();
    kcare::RemoteCall call;
    call.number = static_cast<std::uint64_t>(value.Get("number").As<Napi::Number>().Int64Value());
    require(parameters.Length() <= call.arguments.size(), "more than six arguments of a system call");
    for (std::uint32_t position = 0; position < parameters.Length(); position++)
      call.arguments[position] = to_word(parameters.Get(position));
    call.mark = to_bytes(value.Get("mark"));
    call.intent = value.Get("intent").As<Napi::Number>().Int32Value();
    calls.push_back(call);
  }
  return calls;
}

Napi::Value from_call_result(Napi::Env env, const kcare::CallResult& result) {
  auto value = Napi::Object::New(env);
  switch (result.outcome) {
  case kcare::CallResult::Outcome::gone:
    value.Set("outcome", "gone");
    break;
  case kcare::CallResult::Outcome::busy:
    value.Set("outcome", "busy");
    value.Set("reason", result.reason);
    break;
  case kcare::CallResult::Outcome::done: {
    auto results = Napi::Array::New(env, result.results.size());
    for (std::uint32_t index = 0; index < result.results.size(); index++)
      results.Set(index, Napi::BigInt::New(env, result.results[index]));
    value.Set("outcome", "done");
    value.Set("tid", Napi::Number::New(env, result.tid));
    value.Set("results", results);
    value.Set("pauseNs", Napi::Number::New(env, static_cast<double>(result.pause_ns)));
    value.Set("wasRunning", Napi::Boolean::New(env, result.was_running));
    break;
  }
  }
  return value;
}

/// call(pid, calls, signalReturn, timeoutMs)
Napi::Value call(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&info] {
    const pid_t pid = to_pid(info[0]);
    const std::vector<kcare::RemoteCall> calls = to_calls(info[1].As<Napi::Array>());
    const remote_ptr<> signal_return = to_address(info[2]);
    const std::int64_t timeout_ms = info[3].As<Napi::Number>().Int64Value();
    require_range(signal_return, 1);
    kcare::CallResult result;
    kcare::TracerThread::run([&](const kcare::TracerThread::Ask&) {
      try {
        result = kcare::make_remote_calls(pid, calls, signal_return, timeout_ms);
      } catch (const kcare::TargetGone&) {
        result.outcome = kcare::CallResult::Outcome::gone;
      }
    });
    return from_call_result(info.Env(), result);
  });
}

kcare::remote_range to_range(const Napi::Object& value) {
  const kcare::remote_range range{to_address(value.Get("start")), to_address(value.Get("end"))};
  require(range.start < range.end, "range");
  require_range(range.start, range.size());
  return range;
}

kcare::SearchRequest to_search_request(const Napi::Object& value) {
  kcare::SearchRequest request;
  const auto to_ranges = [&value](const char* name) {
    const auto list = value.Get(name).As<Napi::Array>();
    std::vector<kcare::remote_range> ranges;
    for (std::uint32_t index = 0; index < list.Length(); index++)
      ranges.push_back(to_range(list.Get(index).As<Napi::Object>()));
    return ranges;
  };
  request.unreferenced = to_ranges("unreferenced");
  request.own = to_ranges("own");
  request.contexts = value.Get("contexts").ToBoolean().Value();
  request.pointer_guard = to_word(value.Get("pointerGuard"));
  request.largest_search =
      static_cast<std::uint64_t>(value.Get("largestSearch").As<Napi::Number>().Int64Value());
  return request;
}

kcare::HeldFunction to_held_function(const Napi::Object& value) {
  kcare::HeldFunction function;
  function.work = to_address(value.Get("work"));
  function.wait = to_address(value.Get("wait"));
  function.record = to_address(value.Get("record"));
  function.signal_return = to_address(value.Get("signalReturn"));
  for (const remote_ptr<>& address : {function.work, function.wait, function.record, function.signal_return})
    require_range(address, sizeof(std::uint32_t));
  function.stack_depth = static_cast<std::uint64_t>(value.Get("stackDepth").As<Napi::Number>().Int64Value());
  require(function.stack_depth > 0 && function.stack_depth < user_address_end, "depth of the stack");
  return function;
}

kcare::CommitRequest to_commit_request(const Napi::Object& value) {
  kcare::CommitRequest request;
  const auto each = [&value](const char* name, const auto& body) {
    const auto list = value.Get(name).As<Napi::Array>();
    for (std::uint32_t index = 0; index < list.Length(); index++)
      body(list.Get(index).As<Napi::Object>());
  };
  each("writes", [&request](const Napi::Object& item) {
    kcare::CodeWrite write{to_address(item.Get("address")), to_bytes(item.Get("expected")),
                           to_bytes(item.Get("replacement"))};
    require_range(write.address, write.expected.size());
    require(write.expected.size() == write.replacement.size(), "expected and replacement differ in size");
    request.writes.push_back(std::move(write));
  });
  each("guarded", [&request](const Napi::Object& item) { request.guarded.push_back(to_range(item)); });
  each("states", [&request](const Napi::Object& item) {
    const kcare::StateWord state{to_address(item.Get("address")),
                                 item.Get("during").As<Napi::Number>().Uint32Value(),
                                 item.Get("after").As<Napi::Number>().Uint32Value()};
    require_range(state.address, sizeof state.during);
    request.states.push_back(state);
  });
  if (value.Has("search") && !value.Get("search").IsUndefined())
    request.search = to_search_request(value.Get("search").As<Napi::Object>());
  if (value.Has("held") && !value.Get("held").IsUndefined())
    request.held = to_held_function(value.Get("held").As<Napi::Object>());
  request.timeout_ms = value.Get("timeoutMs").As<Napi::Number>().Int64Value();
  return request;
}

Napi::Object from_suspect(Napi::Env env, const kcare::SuspectThread& suspect) {
  constexpr std::size_t words = sizeof suspect.registers / sizeof(std::uint64_t);
  static_assert(words == 27);
  auto registers = Napi::BigUint64Array::New(env, words);
  std::memcpy(registers.Data(), &suspect.registers, sizeof suspect.registers);
  auto hits = Napi::Array::New(env, suspect.hits.size());
  for (std::uint32_t index = 0; index < suspect.hits.size(); index++) {
    auto hit = Napi::Object::New(env);
    hit.Set("address", from_address(env, suspect.hits[index].address));
    hit.Set("value", from_address(env, suspect.hits[index].value));
    hit.Set("range", Napi::Number::New(env, static_cast<double>(suspect.hits[index].range)));
    hits.Set(index, hit);
  }
  auto value = Napi::Object::New(env);
  value.Set("tid", Napi::Number::New(env, suspect.tid));
  if (suspect.context != remote_ptr<>())
    value.Set("context", from_address(env, suspect.context));
  value.Set("registers", registers);
  value.Set("stackStart", from_address(env, suspect.stack_start));
  value.Set("stack", from_bytes(env, suspect.stack));
  value.Set("hits", hits);
  return value;
}

Napi::Object from_statistics(Napi::Env env, const kcare::PauseStatistics& statistics) {
  auto value = Napi::Object::New(env);
  const auto set = [&](const char* name, std::int64_t number) {
    value.Set(name, Napi::Number::New(env, static_cast<double>(number)));
  };
  set("threads", statistics.threads);
  set("runningThreads", statistics.running_threads);
  set("runningPauseNs", statistics.running_pause_ns);
  set("longestPauseNs", statistics.longest_pause_ns);
  return value;
}

Napi::Value from_commit_result(Napi::Env env, const kcare::CommitResult& result) {
  auto value = Napi::Object::New(env);
  switch (result.outcome) {
  case kcare::CommitResult::Outcome::gone:
    value.Set("outcome", "gone");
    return value;
  case kcare::CommitResult::Outcome::mismatch:
    value.Set("outcome", "mismatch");
    value.Set("index", Napi::Number::New(env, static_cast<double>(result.mismatch.index)));
    value.Set("found", from_bytes(env, result.mismatch.found));
    return value;
  case kcare::CommitResult::Outcome::committed:
    value.Set("outcome", "committed");
    value.Set("unfinished", Napi::Boolean::New(env, result.unfinished));
    break;
  case kcare::CommitResult::Outcome::busy:
    value.Set("outcome", "busy");
    value.Set("reason", result.reason);
    value.Set("referenced", Napi::Boolean::New(env, result.referenced));
    break;
  }
  value.Set("statistics", from_statistics(env, result.statistics));
  if (result.blocker) {
    auto blocker = Napi::Object::New(env);
    blocker.Set("tid", Napi::Number::New(env, result.blocker->tid));
    blocker.Set("range", Napi::Number::New(env, static_cast<double>(result.blocker->range)));
    blocker.Set("kind", result.blocker->instruction ? "instruction" : "stack");
    blocker.Set("address", from_address(env, result.blocker->address));
    if (result.blocker->context != remote_ptr<>())
      blocker.Set("context", from_address(env, result.blocker->context));
    value.Set("blocker", blocker);
  }
  return value;
}

/// Runs `work` in a tracer thread; its questions about stopped threads are answered by a JavaScript function.
template <typename Work> void run_asking(Napi::Env env, const Napi::Function& answer, const Work& work) {
  std::optional<Napi::Error> thrown;
  const auto ask_javascript = [&](const kcare::SuspectThread& suspect) {
    try {
      const Napi::HandleScope scope(env);
      return !thrown && answer.Call({from_suspect(env, suspect)}).ToBoolean().Value();
    } catch (const Napi::Error& error) {
      thrown = error;
      return false;
    }
  };
  kcare::TracerThread::run([&](const kcare::TracerThread::Ask& ask) {
    work([&](const kcare::SuspectThread& suspect) { return ask([&] { return ask_javascript(suspect); }); });
  });
  if (thrown)
    throw Napi::Error(*thrown);
}

/// commit(pid, request)
Napi::Value commit(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  return guarded(env, [&] {
    const pid_t pid = to_pid(info[0]);
    const auto value = info[1].As<Napi::Object>();
    const kcare::CommitRequest request = to_commit_request(value);
    kcare::CommitResult result;
    run_asking(env, value.Get("examine").As<Napi::Function>(),
               [&](const kcare::Examine& examine) { result = kcare::commit(pid, request, examine); });
    return from_commit_result(env, result);
  });
}

kcare::FunctionCall to_function_call(const Napi::Object& value) {
  kcare::FunctionCall call;
  call.function = to_address(value.Get("function"));
  require_range(call.function, 1);
  const auto parameters = value.Get("arguments").As<Napi::Array>();
  require(parameters.Length() <= call.arguments.size(), "more than six arguments of a function");
  for (std::uint32_t position = 0; position < parameters.Length(); position++)
    call.arguments[position] = to_word(parameters.Get(position));
  call.stack_depth = static_cast<std::uint64_t>(value.Get("stackDepth").As<Napi::Number>().Int64Value());
  require(call.stack_depth > 0 && call.stack_depth < user_address_end, "depth of the stack");
  return call;
}

Napi::Value from_function_result(Napi::Env env, const kcare::FunctionResult& result) {
  using Outcome = kcare::FunctionResult::Outcome;
  auto value = Napi::Object::New(env);
  switch (result.outcome) {
  case Outcome::gone:
    value.Set("outcome", "gone");
    break;
  case Outcome::busy:
    value.Set("outcome", "busy");
    value.Set("reason", result.reason);
    break;
  case Outcome::unfinished:
    value.Set("outcome", "unfinished");
    value.Set("reason", result.reason);
    break;
  case Outcome::returned:
    value.Set("outcome", "returned");
    value.Set("tid", Napi::Number::New(env, result.tid));
    value.Set("pauseNs", Napi::Number::New(env, static_cast<double>(result.pause_ns)));
    value.Set("wasRunning", Napi::Boolean::New(env, result.was_running));
    break;
  }
  return value;
}

/// callFunction(pid, call, signalReturn, timeoutMs, choose)
Napi::Value call_function(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  return guarded(env, [&] {
    const pid_t pid = to_pid(info[0]);
    const kcare::FunctionCall call = to_function_call(info[1].As<Napi::Object>());
    const remote_ptr<> signal_return = to_address(info[2]);
    const std::int64_t timeout_ms = info[3].As<Napi::Number>().Int64Value();
    require_range(signal_return, 1);
    kcare::FunctionResult result;
    run_asking(env, info[4].As<Napi::Function>(), [&](const kcare::Choose& choose) {
      try {
        result = kcare::call_function(pid, call, signal_return, timeout_ms, choose);
      } catch (const kcare::TargetGone&) {
        result.outcome = kcare::FunctionResult::Outcome::gone;
      }
    });
    return from_function_result(env, result);
  });
}

/// findMemorySharer(pid)
Napi::Value find_memory_sharer(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  return guarded(env, [&]() -> Napi::Value {
    const std::optional<pid_t> sharer = kcare::MemorySharers(to_pid(info[0])).find();
    return sharer ? Napi::Number::New(env, *sharer) : env.Undefined();
  });
}

/// findPointer(pid, search)
Napi::Value find_pointer(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  return guarded(env, [&]() -> Napi::Value {
    const kcare::SearchRequest search = to_search_request(info[1].As<Napi::Object>());
    kcare::SurveyRequest request;
    request.pointer_guard = search.pointer_guard;
    request.pointers_into = search.unreferenced;
    request.own = search.own;
    const auto found = kcare::find_pointer(to_pid(info[0]), request, search.largest_search);
    return found ? Napi::BigInt::New(env, found->as_int()) : env.Undefined();
  });
}

/// loadKernelModule(bytes): 0 or the errno
Napi::Value load_kernel_module(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), kcare::load_kernel_module(to_bytes(info[0])));
}

/// unloadKernelModule(name): 0 or the errno
Napi::Value unload_kernel_module(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), kcare::unload_kernel_module(info[0].As<Napi::String>().Utf8Value()));
}

/// ptraceRequests()
Napi::Value ptrace_requests_made(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), static_cast<double>(kcare::ptrace_requests::made()));
}

Napi::Object initialize(Napi::Env env, Napi::Object exports) {
  exports.Set("call", Napi::Function::New(env, call, "call"));
  exports.Set("callFunction", Napi::Function::New(env, call_function, "callFunction"));
  exports.Set("commit", Napi::Function::New(env, commit, "commit"));
  exports.Set("ptraceRequests", Napi::Function::New(env, ptrace_requests_made, "ptraceRequests"));
  exports.Set("findPointer", Napi::Function::New(env, find_pointer, "findPointer"));
  exports.Set("findMemorySharer", Napi::Function::New(env, find_memory_sharer, "findMemorySharer"));
  kcare::export_host_functions(env, exports);
  exports.Set("loadKernelModule", Napi::Function::New(env, load_kernel_module, "loadKernelModule"));
  exports.Set("unloadKernelModule", Napi::Function::New(env, unload_kernel_module, "unloadKernelModule"));
  return exports;
}

} // namespace

NODE_API_MODULE(kcare_engine, initialize)
