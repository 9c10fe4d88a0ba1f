#include "actors/common/error.hpp"

#include <caf/sec.hpp>

namespace neuroshard {

const char* to_string(errc e) noexcept {
  switch (e) {
  case errc::ok:
    return "ok";
  case errc::invalid_request:
    return "invalid_request";
  case errc::unauthorized:
    return "unauthorized";
  case errc::forbidden:
    return "forbidden";
  case errc::not_found:
    return "not_found";
  case errc::rate_limited:
    return "rate_limited";
  case errc::insufficient_balance:
    return "insufficient_balance";
  case errc::overloaded:
    return "overloaded";
  case errc::not_ready:
    return "not_ready";
  case errc::draining:
    return "draining";
  case errc::no_route:
    return "no_route";
  case errc::timeout:
    return "timeout";
  case errc::cancelled:
    return "cancelled";
  case errc::already_exists:
    return "already_exists";
  case errc::failed_precondition:
    return "failed_precondition";
  case errc::aborted:
    return "aborted";
  case errc::unavailable:
    return "unavailable";
  case errc::data_loss:
    return "data_loss";
  case errc::storage:
    return "storage";
  case errc::internal:
    return "internal";
  }
  return "internal";
}

caf::error refuse(errc code, problem what) {
  return caf::make_error(code, std::move(what));
}

caf::error refuse(errc code, std::string message) {
  problem what;
  what.message = std::move(message);
  return caf::make_error(code, std::move(what));
}

errc code_of(const caf::error& e) {
  if (!e)
    return errc::ok;
  if (e.category() == caf::atom("neuroshard"))
    return static_cast<errc>(e.code());
  if (e == caf::sec::request_timeout)
    return errc::timeout;
  if (e == caf::sec::request_receiver_down)
    return errc::unavailable;
  return errc::internal;
}

problem problem_of(const caf::error& e) {
  if (e.category() == caf::atom("neuroshard") && e.context().match_elements<problem>())
    return e.context().get_as<problem>(0);
  problem what;
  what.message = to_string(code_of(e));
  return what;
}

} // namespace neuroshard
