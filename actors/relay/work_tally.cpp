#include "actors/relay/work_tally.hpp"

#include "actors/common/log.hpp"

#include <algorithm>

namespace neuroshard {

std::optional<signed_blob> seal_receipt(receipt& what, const std::string& driver, const node_identity& by,
                                        random_source& random, int64_t now_unix_ms) {
  what.worker_node_id = by.node_id();
  what.driver_node_id = driver;
  what.ended_unix_ms = std::max(now_unix_ms, what.started_unix_ms);
  random.fill(what.nonce.data(), what.nonce.size());
  const auto made = make_receipt(by, what);
  auto blob = made ? decode_signed_blob(*made) : caf::expected<signed_blob>(made.error());
  if (blob)
    return std::move(*blob);
  log::warn("relay", "receipt-not-made why=\"{}\"", problem_of(blob.error()).message);
  return std::nullopt;
}

work_tally::session& work_tally::session_of(const forward_request& call, const session_row& row,
                                            int64_t now_us, int64_t now_unix_ms) {
  const key id{row.session_id, call.layer_begin, call.layer_end};
  if (sessions_.size() >= sessions_max && !sessions_.contains(id))
    sessions_.erase(std::min_element(sessions_.begin(), sessions_.end(), [](const auto& a, const auto& b) {
      return a.second.used_us < b.second.used_us;
    }));
  auto& one = sessions_[id];
  if (one.ended || one.what.work_id != row.request_id) { // it begins, or anew under the old id
    one = {};
    one.what.kind = receipt_kind::inference;
    one.what.work_id = row.request_id;
    one.what.layer_begin = call.layer_begin;
    one.what.layer_end = call.layer_end;
    one.what.model_version = call.header.model_version;
    one.what.started_unix_ms = now_unix_ms;
  }
  one.used_us = now_us;
  return one;
}

void work_tally::count(const forward_request& call, const std::vector<row_reply>& rows, bool last,
                       int64_t now_us, int64_t now_unix_ms) {
  const auto& input = call.token_ids ? call.token_ids : call.hidden;
  if (!input || (call.mode != forward_mode::prefill && call.mode != forward_mode::decode))
    return;
  const auto longest = static_cast<uint64_t>(input.view.rank > 1 ? input.view.shape[1] : 1);
  for (size_t i = 0; i < std::min(rows.size(), call.rows.size()); ++i) {
    if (rows[i].status != row_status::ok || call.rows[i].request_id.empty())
      continue;
    auto& what = session_of(call, call.rows[i], now_us, now_unix_ms).what;
    what.tokens += i < call.sequence_lengths.size() ? call.sequence_lengths[i] : longest;
    what.embedding = what.embedding || call.token_ids;
    what.head = what.head || (last && call.apply_head);
  }
}

std::vector<signed_blob> work_tally::end(const forward_request& call, const std::string& driver,
                                         const node_identity& by, random_source& random,
                                         int64_t now_unix_ms) {
  std::vector<signed_blob> receipts;
  for (const auto& row : call.rows) {
    if (!row.close)
      continue;
    const auto at = sessions_.find({row.session_id, call.layer_begin, call.layer_end});
    if (at == sessions_.end())
      continue;
    auto& [what, used_us, ended] = at->second;
    if (!ended)
      ended = seal_receipt(what, driver, by, random, now_unix_ms);
    if (!ended) {
      sessions_.erase(at);
      continue;
    }
    if (what.driver_node_id == driver)
      receipts.push_back(*ended);
  }
  return receipts;
}

void work_tally::forget_idle(int64_t now_us) {
  std::erase_if(sessions_, [&](const auto& one) { return now_us - one.second.used_us >= forgotten_us; });
}

} // namespace neuroshard
