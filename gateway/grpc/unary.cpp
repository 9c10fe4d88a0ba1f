#include "gateway/grpc/unary.hpp"

#include "gateway/grpc/work_codec.hpp"

#include <algorithm>
#include <charconv>
#include <chrono>
#include <string_view>
#include <vector>

namespace neuroshard::rpc {

namespace {

constexpr std::string_view own_protocol = "1";
constexpr int64_t longest_call_ms = 600'000;

std::string_view metadata(const grpc::CallbackServerContext& context, const char* key) {
  const auto& all = context.client_metadata();
  const auto at = all.find(key);
  return at == all.end() ? std::string_view{} : std::string_view{at->second.data(), at->second.size()};
}

caf::error refused_call(errc code, const char* reason, const char* message) {
  problem what;
  what.message = message;
  what.reason = reason;
  return refuse(code, std::move(what));
}

/// The address without port of "ipv4:127.0.0.1:5000" or "ipv6:%5B::1%5D:5000".
std::string host_of_peer(std::string_view uri) {
  const auto scheme = uri.find(':');
  const auto port = uri.rfind(':');
  if (scheme == std::string_view::npos || port <= scheme || !uri.starts_with("ipv"))
    return {};
  std::string host{uri.substr(scheme + 1, port - scheme - 1)};
  for (const auto& [quoted, plain] : {std::pair{"%5B", ""}, {"%5D", ""}, {"%25", "%"}})
    for (auto at = host.find(quoted); at != std::string::npos; at = host.find(quoted, at + 1))
      host.replace(at, 3, plain);
  std::erase_if(host, [](char c) { return c == '[' || c == ']'; });
  if (const auto zone = host.find('%'); zone != std::string::npos)
    host.resize(zone);
  // An IPv4 client of a socket for both.
  constexpr std::string_view mapped = "::ffff:";
  if (host.starts_with(mapped) && host.find('.') != std::string::npos)
    host.erase(0, mapped.size());
  return host;
}

} // namespace

void service_parts::submit(http::bridge_call_ptr call) {
  const std::lock_guard hold{lock_};
  if (bridge_)
    bridge_->submit(std::move(call));
}

void service_parts::drop_waiting() {
  if (desk)
    desk->close();
  std::unique_ptr<http::bridge> gone;
  const std::lock_guard hold{lock_};
  gone = std::move(bridge_);
}

caf::expected<caller> caller_of(const grpc::CallbackServerContext& context, const service_parts& parts) {
  if (parts.stopping())
    return refuse(errc::draining, "The node is stopping.");
  if (metadata(context, "ns-protocol") != own_protocol)
    return refused_call(errc::failed_precondition, "protocol", "This node speaks protocol version 1.");
  const auto network = metadata(context, "ns-network");
  if ((network.empty() ? std::string_view{"main"} : network) != parts.network)
    return refused_call(errc::forbidden, "network", "This node belongs to another network.");
  caller found;
  found.end.host = host_of_peer(context.peer());
  if (parts.insecure) {
    const auto id = metadata(context, "ns-node-id");
    if (!id.empty() && !is_lower_hex(id, 32))
      return refused_call(errc::unauthorized, "node_id", "A node id is 32 hex digits.");
    found.end.node_id = id;
    found.counted_as = id.empty() ? found.end.host : std::string(id);
    return found;
  }
  const auto shown = context.auth_context()->FindPropertyValues("x509_pem_cert");
  const auto hash =
      shown.empty() ? std::nullopt : parts.certificates.hash_of({shown[0].data(), shown[0].size()});
  if (!hash)
    return refused_call(errc::unauthorized, "no_certificate", "A call needs a certificate.");
  found.end.tls_cert_sha256 = *hash;
  found.end.node_id = parts.callers->node_of(*hash);
  // One that makes a new certificate for every call is still one address.
  found.counted_as = found.end.node_id.empty() ? "host " + found.end.host : found.end.node_id;
  return found;
}

caf::error unimplemented() {
  return refused_call(errc::failed_precondition, "unimplemented", "This node has no such method.");
}

caf::error announce_first() {
  return refused_call(errc::unauthorized, "announce_first",
                      "Announce, or Ping with a record, comes first on a connection.");
}

bool is_first(const std::shared_ptr<unary_call>& call, service_parts& parts, const caller& from,
              const char* method_name, const std::string& request_id, const grpc::ByteBuffer& request) {
  auto first = parts.replies.begin(
      {from.counted_as, method_name, request_id}, request,
      [call](const caf::error& why, const grpc::ByteBuffer& reply) { call->finish(why, reply); });
  if (!first)
    return false;
  call->answers_for(std::move(first));
  return true;
}

caf::expected<std::chrono::milliseconds> time_left(const grpc::CallbackServerContext& context,
                                                   const Header* header) {
  using std::chrono::milliseconds;
  const auto until = context.deadline() - std::chrono::system_clock::now();
  int64_t left = std::min(longest_call_ms, std::chrono::duration_cast<milliseconds>(until).count());
  if (header) {
    if (!is_request_id(header->request_id())) {
      problem what;
      what.message = "A request id has 16 to 64 printable characters.";
      what.field = "header.request_id";
      what.reason = "request_id";
      return refuse(errc::invalid_request, std::move(what));
    }
    left = std::min<int64_t>(left, header->budget_ms());
  }
  if (left <= 0)
    return refused_call(errc::timeout, "budget", "The call has no time left.");
  return milliseconds(left);
}

caf::expected<void> unary_call::enter(const std::string& counted_as, call_class what) {
  if (parts_.counters)
    parts_.counters->rpc_calls.fetch_add(1, std::memory_order_relaxed);
  if (const auto wait_ms = parts_.limits.enter(counted_as, what)) {
    problem refused;
    refused.message = "Too many calls.";
    refused.reason = "rate";
    refused.details.emplace_back("retry_after_ms", static_cast<int64_t>(*wait_ms));
    return refuse(errc::rate_limited, std::move(refused));
  }
  counted_as_ = counted_as;
  entered_ = true;
  return {};
}

void unary_call::finish(const caf::error& why, const grpc::ByteBuffer& reply) {
  if (std::exchange(finished_, true))
    return;
  auto status = grpc::Status::OK;
  if (why) {
    status = answer_with(why, context_);
    // A version is refused as a method that is not there (spec/grpc-api.md section 6).
    if (const auto reason = problem_of(why).reason; reason == "protocol" || reason == "unimplemented")
      status = {grpc::StatusCode::UNIMPLEMENTED, status.error_message()};
  } else {
    out_ = reply;
  }
  if (entered_)
    parts_.limits.leave(counted_as_);
  // What was given to this call may go with it; a repeated call may wait for its reply, a hash take time.
  auto& replies = parts_.replies;
  const auto first = std::move(first_);
  reactor_->Finish(std::move(status));
  if (first)
    replies.done(first, why, reply);
}

} // namespace neuroshard::rpc
