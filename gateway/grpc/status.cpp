#include "gateway/grpc/status.hpp"

#include "actors/identity/keys.hpp"

#include <algorithm>
#include <charconv>
#include <string>
#include <string_view>

namespace neuroshard::rpc {

namespace {

constexpr size_t foreign_text_max = 256;

/// Details of a problem that travel as trailing metadata.
struct told_number {
  const char* detail;
  const char* metadata;
};
constexpr told_number told_numbers[] = {{"retry_after_ms", "ns-retry-after-ms"},
                                        {"cache_length", "ns-cache-length"},
                                        {"model_version", "ns-model-version"}};
constexpr const char* failed_hop_detail = "failed_hop";
constexpr const char* failed_hop_metadata = "ns-failed-hop";

std::string printable(std::string_view text) {
  std::string out(text.substr(0, foreign_text_max));
  std::replace_if(
      out.begin(), out.end(), [](unsigned char c) { return c < 0x20 || c > 0x7e; }, '?');
  return out;
}

errc errc_of(grpc::StatusCode code) noexcept {
  switch (code) {
  case grpc::StatusCode::OK:
    return errc::ok;
  case grpc::StatusCode::INVALID_ARGUMENT:
  case grpc::StatusCode::OUT_OF_RANGE:
    return errc::invalid_request;
  case grpc::StatusCode::UNAUTHENTICATED:
    return errc::unauthorized;
  case grpc::StatusCode::PERMISSION_DENIED:
    return errc::forbidden;
  case grpc::StatusCode::NOT_FOUND:
    return errc::not_found;
  case grpc::StatusCode::ALREADY_EXISTS:
    return errc::already_exists;
  case grpc::StatusCode::FAILED_PRECONDITION:
  case grpc::StatusCode::UNIMPLEMENTED:
    return errc::failed_precondition;
  case grpc::StatusCode::RESOURCE_EXHAUSTED:
    return errc::overloaded;
  case grpc::StatusCode::ABORTED:
    return errc::aborted;
  case grpc::StatusCode::DEADLINE_EXCEEDED:
    return errc::timeout;
  case grpc::StatusCode::DATA_LOSS:
    return errc::data_loss;
  case grpc::StatusCode::CANCELLED:
    return errc::cancelled;
  case grpc::StatusCode::UNAVAILABLE:
    return errc::unavailable;
  default:
    return errc::internal;
  }
}

} // namespace

grpc::StatusCode code_for(errc code) noexcept {
  switch (code) {
  case errc::ok:
    return grpc::StatusCode::OK;
  case errc::invalid_request:
    return grpc::StatusCode::INVALID_ARGUMENT;
  case errc::unauthorized:
    return grpc::StatusCode::UNAUTHENTICATED;
  case errc::forbidden:
    return grpc::StatusCode::PERMISSION_DENIED;
  case errc::not_found:
    return grpc::StatusCode::NOT_FOUND;
  case errc::rate_limited:
  case errc::insufficient_balance:
  case errc::overloaded:
    return grpc::StatusCode::RESOURCE_EXHAUSTED;
  case errc::not_ready:
  case errc::draining:
  case errc::no_route:
  case errc::unavailable:
    return grpc::StatusCode::UNAVAILABLE;
  case errc::timeout:
    return grpc::StatusCode::DEADLINE_EXCEEDED;
  case errc::cancelled:
    return grpc::StatusCode::CANCELLED;
  case errc::already_exists:
    return grpc::StatusCode::ALREADY_EXISTS;
  case errc::failed_precondition:
    return grpc::StatusCode::FAILED_PRECONDITION;
  case errc::aborted:
    return grpc::StatusCode::ABORTED;
  case errc::data_loss:
    return grpc::StatusCode::DATA_LOSS;
  case errc::storage:
  case errc::internal:
    break;
  }
  return grpc::StatusCode::INTERNAL;
}

grpc::Status answer_with(const caf::error& why, grpc::ServerContextBase& context) {
  const errc code = code_of(why);
  const auto what = problem_of(why);
  if (!what.reason.empty())
    context.AddTrailingMetadata("ns-reason", what.reason);
  for (const auto& [key, value] : what.details) {
    for (const auto& told : told_numbers)
      if (const auto* number = std::get_if<int64_t>(&value); number && key == told.detail)
        context.AddTrailingMetadata(told.metadata, std::to_string(*number));
    if (const auto* text = std::get_if<std::string>(&value);
        text && key == failed_hop_detail && is_lower_hex(*text, 32))
      context.AddTrailingMetadata(failed_hop_metadata, *text);
  }
  // What is wrong inside is no stranger's business.
  const bool inside = code == errc::storage || code == errc::internal;
  return {code_for(code), inside ? "internal error" : what.message};
}

caf::error error_of(const grpc::Status& status, const grpc::ClientContext& context) {
  problem what;
  what.message = printable(status.error_message());
  if (what.message.empty())
    what.message = "The peer refused without a word.";
  const auto& trailing = context.GetServerTrailingMetadata();
  if (const auto reason = trailing.find("ns-reason"); reason != trailing.end())
    what.reason = printable({reason->second.data(), reason->second.size()});
  else if (status.error_code() == grpc::StatusCode::UNIMPLEMENTED)
    what.reason = "unimplemented";
  for (const auto& told : told_numbers)
    if (const auto at = trailing.find(told.metadata); at != trailing.end()) {
      int64_t number = 0;
      const auto* const end = at->second.data() + at->second.size();
      if (const auto read = std::from_chars(at->second.data(), end, number);
          read.ec == std::errc{} && read.ptr == end)
        what.details.emplace_back(told.detail, number);
    }
  if (const auto at = trailing.find(failed_hop_metadata); at != trailing.end())
    if (std::string id{at->second.data(), at->second.size()}; is_lower_hex(id, 32))
      what.details.emplace_back(failed_hop_detail, std::move(id));
  return refuse(errc_of(status.error_code()), std::move(what));
}

} // namespace neuroshard::rpc
