#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace neuroshard::http {

enum class verb : uint8_t { get, head, post, patch, options, other };
const char* to_string(verb v) noexcept;

/// A request as parsed. Belongs to its connection, which reuses the memory for the next one.
struct request {
  verb method = verb::other;
  std::string target; ///< as sent
  std::string path;   ///< of the target, without query; an absolute form has lost scheme and host
  std::string query;  ///< without the question mark, still encoded
  bool http_1_1 = true;
  bool keep_alive = true;
  std::string body;

  /// Value of the first header of this name (any case), or empty. `count` says how many there are.
  std::string_view header(std::string_view name) const noexcept;
  size_t header_count(std::string_view name) const noexcept;
  /// All values of a header that may be repeated, joined by commas.
  std::string joined_header(std::string_view name) const;

  void clear() noexcept;
  void add_header(std::string_view name, std::string_view value);

private:
  struct span {
    uint32_t name_at, name_size, value_size; ///< the value follows the name in text_
  };
  std::string_view name_of(const span& s) const {
    return std::string_view(text_).substr(s.name_at, s.name_size);
  }
  std::string_view value_of(const span& s) const {
    return std::string_view(text_).substr(s.name_at + s.name_size, s.value_size);
  }
  std::string text_;
  std::vector<span> headers_;
};

using shared_text = std::shared_ptr<const std::string>;

/// What a handler answers. The connection adds length, date, X-Request-Id and what the middlewares left in
/// the exchange.
struct response {
  unsigned status = 200;
  const char* content_type = "application/json";
  std::string body;
  shared_text shared_body; ///< instead of `body`, where many requests get the same bytes
  std::string headers;     ///< further lines, each "Name: value\r\n"
  bool streamed = false;   ///< the handler has written everything itself through the connection
  bool close = false;      ///< the connection is not to be used again
  /// Called once on the lane: whether the response is known to have reached the client (http-api.md
  /// section 5.3).
  std::function<void(bool delivered)> on_delivery;

  std::string_view bytes() const noexcept { return shared_body ? std::string_view(*shared_body) : body; }
};

/// Appends "Name: value\r\n". The value is trusted to hold no control characters.
void add_header_line(std::string& to, std::string_view name, std::string_view value);
void add_header_line(std::string& to, std::string_view name, uint64_t value);
bool equal_ignoring_case(std::string_view a, std::string_view b) noexcept;
/// Removes blanks and tabs at both ends.
std::string_view trimmed(std::string_view text) noexcept;

} // namespace neuroshard::http
