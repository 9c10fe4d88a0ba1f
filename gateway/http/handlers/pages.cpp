#include "gateway/http/errors.hpp"
#include "gateway/http/gateway.hpp"
#include "gateway/http/handlers/handlers.hpp"
#include "kernels/core/sha256.hpp"

#include <openssl/evp.h>

namespace neuroshard::http {

extern const char status_page[]; // pages/status.html

namespace {

/// 'sha256-...' of what stands between two tags, as a Content-Security-Policy names what may be in a page.
std::string source_hash(std::string_view page, std::string_view open, std::string_view close) {
  const size_t begin = page.find(open) + open.size();
  const kernels::digest hash = kernels::sha256::of(page.substr(begin, page.find(close, begin) - begin));
  char text[4 * ((sizeof hash + 2) / 3) + 1];
  EVP_EncodeBlock(reinterpret_cast<unsigned char*>(text), hash.data(), static_cast<int>(hash.size()));
  return "'sha256-" + std::string(text) + "'";
}

struct whole_page {
  shared_text body = std::make_shared<const std::string>(status_page);
  std::string headers;
  whole_page() {
    add_header_line(headers, "Content-Security-Policy",
                    "default-src 'none'; script-src " + source_hash(*body, "<script>", "</script>") +
                        "; style-src " + source_hash(*body, "<style>", "</style>") +
                        "; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'");
    add_header_line(headers, "X-Content-Type-Options", "nosniff");
    add_header_line(headers, "Referrer-Policy", "no-referrer");
    add_header_line(headers, "Cache-Control", "no-cache");
  }
};

} // namespace

response get_dashboard(gateway&, exchange&) {
  static const whole_page page;
  response r;
  r.content_type = "text/html; charset=utf-8";
  r.shared_body = page.body;
  r.headers = page.headers;
  return r;
}

/// The page brings everything with it.
response get_asset(gateway&, exchange& x) {
  return not_found("path", x.in.path.substr(0, 256), x.request_id);
}

} // namespace neuroshard::http
