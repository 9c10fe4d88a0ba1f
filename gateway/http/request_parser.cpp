#include <utility> // before Boost 1.74's awaitable.hpp, which lacks it

#include "gateway/http/request_parser.hpp"

#include <boost/asio/buffer.hpp>
#include <boost/beast/http/basic_parser.hpp>

#include <fmt/format.h>

#include <optional>

namespace neuroshard::http {

namespace {

namespace beast = boost::beast;

std::string_view view(beast::string_view text) noexcept {
  return {text.data(), text.size()};
}

verb verb_of(beast::http::verb v) noexcept {
  switch (v) {
  case beast::http::verb::get:
    return verb::get;
  case beast::http::verb::head:
    return verb::head;
  case beast::http::verb::post:
    return verb::post;
  case beast::http::verb::patch:
    return verb::patch;
  case beast::http::verb::options:
    return verb::options;
  default:
    return verb::other;
  }
}

/// Splits a target into path and query. The absolute form of proxies loses scheme and host.
void split_target(std::string_view target, request& into) {
  if (const size_t scheme = target.find("://"); scheme != std::string_view::npos && target[0] != '/') {
    const size_t slash = target.find_first_of("/?", scheme + 3);
    target = slash == std::string_view::npos ? std::string_view("/") : target.substr(slash);
  }
  const size_t mark = target.find('?');
  into.path = target.substr(0, mark);
  if (mark != std::string_view::npos)
    into.query = target.substr(mark + 1);
}

/// Copies what Beast finds into a request.
class collector final : public beast::http::basic_parser<true> {
public:
  explicit collector(request& into) : into_(into) {}

private:
  using error_code = beast::error_code;
  void on_request_impl(beast::http::verb method, beast::string_view, beast::string_view target, int version,
                       error_code&) override {
    into_.method = verb_of(method);
    into_.http_1_1 = version >= 11;
    into_.target = view(target);
    split_target(into_.target, into_);
  }
  void on_response_impl(int, beast::string_view, int, error_code&) override {}
  void on_field_impl(beast::http::field, beast::string_view name, beast::string_view value,
                     error_code&) override {
    // Fields after a chunked body are read and ignored: nothing may be decided by them.
    if (!is_header_done())
      into_.add_header(view(name), view(value));
  }
  void on_header_impl(error_code&) override {}
  void on_body_init_impl(boost::optional<uint64_t> const& length, error_code&) override {
    if (length && *length < 64 * 1024)
      into_.body.reserve(static_cast<size_t>(*length));
  }
  size_t on_body_impl(beast::string_view part, error_code&) override {
    into_.body.append(part.data(), part.size());
    return part.size();
  }
  void on_chunk_header_impl(uint64_t, beast::string_view, error_code&) override {}
  size_t on_chunk_body_impl(uint64_t, beast::string_view part, error_code&) override {
    into_.body.append(part.data(), part.size());
    return part.size();
  }
  void on_finish_impl(error_code&) override {}

  request& into_;
};

/// What RFC 9112, 3.2 does not allow of Host, or null. Its value is used for nothing here; proxies on the way
/// may have used it.
const char* host_problem(const request& r) noexcept {
  const size_t count = r.header_count("Host");
  if (count > 1)
    return "Host is sent more than once.";
  if (count == 0)
    return r.http_1_1 ? "Host is missing." : nullptr;
  for (const char c : r.header("Host"))
    if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
          std::string_view(".-_~%!$&'()*+;=:[]").find(c) != std::string_view::npos))
      return "Host is not a host with or without a port.";
  return nullptr;
}

} // namespace

struct request_parser::impl {
  impl(const server_limits& l, request& r) : limits(l), into(r) { renew(); }
  void renew() {
    parser.emplace(into);
    parser->header_limit(static_cast<uint32_t>(limits.header_bytes));
    parser->body_limit(limits.body_bytes);
    header_bytes = 0;
    continue_asked = false;
    body_refused = false;
  }
  state fail(const boost::system::error_code& why) {
    using beast::http::error;
    const bool large_header = why == error::header_limit || header_bytes > limits.header_bytes;
    const bool large_body = why == error::body_limit;
    failure = {};
    if (large_header) {
      failure.message = fmt::format("The header is larger than {} bytes.", limits.header_bytes);
      failure.reason = "header_too_large";
      failure.details = {{"limit", static_cast<int64_t>(limits.header_bytes)}};
    } else if (large_body) {
      body_refused = true;
      failure.message = fmt::format("The body is larger than {} bytes.", limits.body_bytes);
      failure.reason = "body_too_large";
      failure.details = {{"limit", static_cast<int64_t>(limits.body_bytes)}};
    } else {
      failure.message = "This is not a valid HTTP/1.1 request: " + why.message() + ".";
      failure.reason = "malformed_http";
    }
    return state::failed;
  }

  state refuse_host(const char* why) {
    failure = {};
    failure.message = why;
    failure.field = "Host";
    failure.reason = "malformed_http";
    return state::failed;
  }

  const server_limits& limits;
  request& into;
  std::optional<collector> parser;
  size_t header_bytes = 0;
  bool continue_asked = false;
  bool body_refused = false; ///< Beast does that before it calls the header done
  problem failure;
};

request_parser::request_parser(const server_limits& limits, request& into)
    : impl_(std::make_unique<impl>(limits, into)) {}
request_parser::~request_parser() = default;

void request_parser::next() {
  impl_->into.clear();
  impl_->renew();
}

bool request_parser::started() const noexcept {
  return impl_->parser->got_some();
}
bool request_parser::in_body() const noexcept {
  return impl_->parser->is_header_done();
}
bool request_parser::header_whole() const noexcept {
  return in_body() || impl_->body_refused;
}
const problem& request_parser::failure() const noexcept {
  return impl_->failure;
}

bool request_parser::wants_continue() noexcept {
  if (impl_->continue_asked || !in_body() || !impl_->into.http_1_1 ||
      !equal_ignoring_case(trimmed(impl_->into.header("Expect")), "100-continue"))
    return false;
  impl_->continue_asked = true;
  return true;
}

request_parser::state request_parser::feed(const char* data, size_t size, size_t& used) {
  auto& p = *impl_->parser;
  used = 0;
  boost::system::error_code why;
  if (!p.is_header_done()) {
    // The header by itself, so that its size is known.
    p.eager(false);
    used = p.put(boost::asio::buffer(data, size), why);
    impl_->header_bytes += used;
    if (impl_->header_bytes > impl_->limits.header_bytes)
      return impl_->fail(beast::http::make_error_code(beast::http::error::header_limit));
    if (why == beast::http::error::need_more) {
      if (size - used + impl_->header_bytes >= impl_->limits.header_bytes)
        return impl_->fail(beast::http::make_error_code(beast::http::error::header_limit));
      return state::need_more;
    }
    if (why)
      return impl_->fail(why);
    if (!p.is_header_done())
      return state::need_more;
    impl_->into.keep_alive = p.keep_alive();
    // Beast takes a coding it does not know for no body at all; what follows would then pass for another
    // request.
    if (!p.chunked() && impl_->into.header_count("Transfer-Encoding") > 0)
      return impl_->fail(beast::http::make_error_code(beast::http::error::bad_transfer_encoding));
    if (const char* wrong = host_problem(impl_->into))
      return impl_->refuse_host(wrong);
  }
  p.eager(true);
  if (!p.is_done() && used < size) {
    used += p.put(boost::asio::buffer(data + used, size - used), why);
    if (why && why != beast::http::error::need_more)
      return impl_->fail(why);
  }
  return p.is_done() ? state::complete : state::need_more;
}

} // namespace neuroshard::http
