#pragma once

#include "actors/common/error.hpp"
#include "gateway/http/exchange.hpp"
#include "gateway/http/json.hpp"

#include <string_view>

namespace neuroshard::http {

/// How an errc looks over HTTP (http-api.md section 4).
struct error_shape {
  unsigned status;
  const char* code;
  const char* reason;     ///< fixed reason of a 500; null for the others, whose problem says it
  unsigned retry_after_s; ///< 0: no header
};
error_shape shape_of(errc code) noexcept;

/// The envelope with its status and headers. `request_id` goes into the details of a 500.
response error_response(errc code, const problem& what, std::string_view request_id);
response error_response(const caf::error& why, std::string_view request_id);
/// The error object alone, as the last frame of a broken stream carries it.
void write_error(json_writer& out, errc code, const problem& what, std::string_view request_id);

/// 404 for a path or a thing that is not there.
response not_found(std::string resource, std::string identifier, std::string_view request_id);
/// 200 with a JSON body.
response json_response(json_writer& out);

} // namespace neuroshard::http
