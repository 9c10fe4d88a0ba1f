#pragma once

#include "gateway/http/middlewares/auth.hpp"
#include "gateway/http/middlewares/rate_limit.hpp"
#include "gateway/http/task.hpp"

#include <optional>
#include <string>
#include <string_view>

namespace neuroshard::http {

class gateway;

/// A handler that needs no other part of the node answers at once; one that does is a task.
using plain_handler = response (*)(gateway&, exchange&);
using waiting_handler = task<response> (*)(gateway&, exchange&);

/// One row of the endpoint table (http-api.md section 6).
struct route {
  verb method;
  const char* path;
  auth_mode auth;
  scope needed; ///< with auth_mode::required
  limit_class of;
  bool work; ///< refused while draining
  plain_handler plain = nullptr;
  waiting_handler waiting = nullptr;
};

struct route_match {
  const route* to = nullptr;
  std::string allow; ///< methods of a known path, for Allow and CORS; empty for an unknown path
};

/// Finds the row of a request; HEAD counts as GET.
route_match find_route(verb method, std::string_view path);

} // namespace neuroshard::http
