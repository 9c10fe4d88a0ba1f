#include "gateway/http/middlewares/idempotency.hpp"

#include "actors/common/error.hpp"

#include <algorithm>

namespace neuroshard::http {

caf::expected<request_mark> mark_of(const exchange& x) {
  request_mark mark;
  mark.token = x.who.token->digest;
  mark.path = x.in.path;
  mark.body = kernels::sha256::of(std::string_view(x.in.body));
  const size_t count = x.in.header_count("Idempotency-Key");
  if (count == 0)
    return mark;
  mark.key = trimmed(x.in.header("Idempotency-Key"));
  const bool printable =
      std::all_of(mark.key.begin(), mark.key.end(), [](char c) { return c >= 0x20 && c < 0x7F; });
  if (count > 1 || mark.key.empty() || mark.key.size() > 128 || !printable) {
    problem what;
    what.message = "Idempotency-Key must be 1 to 128 printable ASCII characters, sent once.";
    what.field = "Idempotency-Key";
    what.reason = "malformed";
    return refuse(errc::invalid_request, std::move(what));
  }
  return mark;
}

} // namespace neuroshard::http
