#pragma once

#include "actors/ledger/ledger_types.hpp"
#include "gateway/http/exchange.hpp"

#include <caf/expected.hpp>

namespace neuroshard::http {

/// The name under which a POST is recognized when it comes again (http-api.md sections 5.2 and 5.3). Refuses
/// a malformed Idempotency-Key. The request has a known token.
caf::expected<request_mark> mark_of(const exchange& x);

} // namespace neuroshard::http
