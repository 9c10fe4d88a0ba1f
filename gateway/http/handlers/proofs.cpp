#include "actors/ledger/utc_date.hpp"
#include "gateway/http/errors.hpp"
#include "gateway/http/handlers/handlers.hpp"
#include "gateway/http/handlers/read_book.hpp"
#include "gateway/http/query.hpp"

#include <optional>
#include <string_view>
#include <utility>

namespace neuroshard::http {

namespace {

std::optional<proof_type> parse_proof_type(std::string_view word) noexcept {
  for (const auto type : {proof_type::forward, proof_type::training, proof_type::uptime, proof_type::data,
                          proof_type::validation})
    if (word == to_string(type))
      return type;
  return std::nullopt;
}

/// A page and the sums, each of one state of the book.
using proofs_report = std::pair<proof_page, proof_stats>;

} // namespace

task<response> get_proofs(gateway& g, exchange& x) {
  query_reader query(x.in.query);
  const auto limit = static_cast<uint32_t>(query.integer("limit", 10, 1, 100));
  const auto offset = static_cast<uint64_t>(query.integer("offset", 0, 0, INT64_MAX));
  std::optional<proof_type> wanted;
  if (const auto type = query.text("type")) {
    wanted = parse_proof_type(*type);
    if (!wanted)
      query.complain("type", "unknown_value", "type must be forward, training, uptime, data or validation.");
  }
  if (query.failed())
    co_return error_response(query.complaint(), x.request_id);
  const auto found = co_await read_book<proofs_report>(
      g, x, [limit, offset, wanted](const ledger_reader& book) -> caf::expected<proofs_report> {
        auto page = book.proofs(limit, offset, wanted);
        if (!page)
          return page.error();
        auto stats = book.proof_stats();
        if (!stats)
          return stats.error();
        return proofs_report(std::move(*page), std::move(*stats));
      });
  if (!found)
    co_return error_response(found.error(), x.request_id);
  const auto& [page, stats] = *found;
  json_writer out;
  out.begin().key("proofs").begin_list();
  for (const auto& proof : page.items) {
    out.begin().put("id", proof.id).put("type", to_string(proof.type)).key("layer");
    if (proof.first_layer)
      out.value(*proof.first_layer);
    else
      out.null();
    out.put("timestamp", timestamp_text(proof.timestamp_us)).put("verified", proof.verified);
    out.put("reward", proof.reward).end();
  }
  out.end_list().key("stats").begin().put("total_submitted", stats.total_submitted);
  out.put("total_verified", stats.total_verified).put("total_reward", stats.total_reward).end();
  out.put("limit", limit).put("offset", offset).put("total", page.total).end();
  co_return json_response(out);
}

} // namespace neuroshard::http
