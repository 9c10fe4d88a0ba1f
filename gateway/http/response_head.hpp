#pragma once

#include "gateway/http/exchange.hpp"

#include <string>
#include <string_view>

namespace neuroshard::http {

/// Appends status line and headers of a response, up to and with the empty line. `date_line` as io_lane makes
/// it; `keep` says whether the connection stays open. A body of `r.bytes()` is announced, whether or not it
/// follows (HEAD).
void append_head(std::string& to, const exchange& x, const response& r, const std::string& date_line,
                 bool keep);
/// Likewise for a stream: chunked, or until the end of the connection.
void append_stream_head(std::string& to, const exchange& x, const char* content_type,
                        std::string_view headers, const std::string& date_line, bool chunked);
/// Appends one chunk of a chunked body.
void append_chunk(std::string& to, std::string_view part);

} // namespace neuroshard::http
