#include "gateway/http/errors.hpp"

#include <algorithm>

namespace neuroshard::http {

error_shape shape_of(errc code) noexcept {
  switch (code) {
  case errc::invalid_request:
  case errc::already_exists:
  case errc::failed_precondition:
    return {400, "INVALID_REQUEST", nullptr, 0};
  case errc::unauthorized:
    return {401, "UNAUTHORIZED", nullptr, 0};
  case errc::forbidden:
    return {403, "FORBIDDEN", nullptr, 0};
  case errc::not_found:
    return {404, "NOT_FOUND", nullptr, 0};
  case errc::rate_limited:
    return {429, "RATE_LIMITED", nullptr, 0};
  case errc::insufficient_balance:
    return {402, "INSUFFICIENT_BALANCE", nullptr, 0};
  case errc::overloaded:
    return {500, "INTERNAL_ERROR", "overloaded", 1};
  case errc::not_ready:
  case errc::unavailable:
    return {500, "INTERNAL_ERROR", "not_ready", 2};
  case errc::draining:
    return {500, "INTERNAL_ERROR", "draining", 5};
  case errc::no_route:
    return {500, "INTERNAL_ERROR", "no_route", 0};
  case errc::timeout:
    return {500, "INTERNAL_ERROR", "timeout", 0};
  case errc::ok:
  case errc::cancelled:
  case errc::aborted:
  case errc::data_loss:
  case errc::storage:
  case errc::internal:
    break;
  }
  return {500, "INTERNAL_ERROR", "internal", 0};
}

void write_error(json_writer& out, errc code, const problem& what, std::string_view request_id) {
  const error_shape shape = shape_of(code);
  const auto has = [&](std::string_view name) {
    return std::any_of(what.details.begin(), what.details.end(),
                       [&](const auto& d) { return d.first == name; });
  };
  out.begin().put("code", shape.code).put("message", what.message).key("details").begin();
  if (!what.field.empty())
    out.put("field", what.field);
  // A 500 has one of the published reasons, unless the caller set one on purpose ("unhealthy").
  if (shape.reason && !(code == errc::internal && what.reason == "unhealthy"))
    out.put("reason", shape.reason);
  else if (!what.reason.empty())
    out.put("reason", what.reason);
  if (shape.status == 500)
    out.put("request_id", request_id);
  for (const auto& [name, value] : what.details)
    if (name != "reason" && name != "request_id" && name != "field")
      out.put(name, value);
  if (code == errc::insufficient_balance && has("available") && !has("balance"))
    for (const auto& [name, value] : what.details)
      if (name == "available")
        out.put("balance", value);
  out.end().end();
}

response error_response(errc code, const problem& what, std::string_view request_id) {
  const error_shape shape = shape_of(code);
  json_writer out;
  out.begin().key("error");
  write_error(out, code, what, request_id);
  out.end();
  response r;
  r.status = shape.status;
  r.body = out.take();
  if (shape.retry_after_s > 0)
    add_header_line(r.headers, "Retry-After", uint64_t{shape.retry_after_s});
  if (code == errc::unauthorized)
    add_header_line(r.headers, "WWW-Authenticate", "Bearer");
  if (code == errc::rate_limited)
    for (const auto& [name, value] : what.details)
      if (const auto* seconds = std::get_if<int64_t>(&value); seconds && name == "retry_after")
        add_header_line(r.headers, "Retry-After", static_cast<uint64_t>(*seconds));
  return r;
}

response error_response(const caf::error& why, std::string_view request_id) {
  return error_response(code_of(why), problem_of(why), request_id);
}

response not_found(std::string resource, std::string identifier, std::string_view request_id) {
  problem what;
  what.message = "There is no such " + resource + ".";
  what.details = {{"resource", std::move(resource)}, {"identifier", std::move(identifier)}};
  return error_response(errc::not_found, what, request_id);
}

response json_response(json_writer& out) {
  response r;
  r.body = out.take();
  return r;
}

} // namespace neuroshard::http
