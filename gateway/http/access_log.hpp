#pragma once

#include "gateway/http/message.hpp"

#include <cstdint>
#include <string>
#include <string_view>

namespace neuroshard::http {

/// One finished request, for the log. Never the query, a header or a body: they may hold secrets or prompts.
struct access_record {
  std::string_view id;
  std::string_view client; ///< address of the client, behind trusted proxies
  verb method = verb::other;
  std::string_view path;
  unsigned status = 0;
  uint64_t bytes = 0; ///< of the body that was sent
  int64_t us = 0;     ///< from the end of the request's reading to the end of its answering
  bool gone = false;  ///< the client was gone by then
};

/// The line of a record; what a client chose in it is escaped and bounded.
std::string access_line(const access_record& r);

/// Writes the records of one lane at level INFO. Under load it costs no more than `lines_per_s_max` lines a
/// second; how many it left out is said with the next one. Lane thread only.
class access_log {
public:
  static constexpr uint32_t lines_per_s_max = 1000;
  void note(const access_record& r, int64_t now_s);

private:
  int64_t second_ = 0;
  uint32_t written_ = 0;
  uint64_t left_out_ = 0;
};

} // namespace neuroshard::http
