#pragma once

#include "actors/inference_scheduler/inference_scheduler.hpp"
#include "actors/relay/relay.hpp"
#include "tests/support/ask.hpp"
#include "tests/support/deterministic_fixture.hpp"
#include "tests/support/manual_clock.hpp"
#include "tests/support/scripted_worker.hpp"

#include <deque>
#include <functional>
#include <map>
#include <string>
#include <vector>

namespace neuroshard::test {

/// Keeps what a generation says.
class recording_sink final : public generation_sink {
public:
  struct piece {
    std::string text;
    uint32_t index;
    std::optional<double> logprob;
  };
  void token(std::string text, uint32_t index, std::optional<double> logprob) override {
    CHECK_FALSE(result);
    CHECK(index == pieces.size());
    pieces.push_back({std::move(text), index, logprob});
  }
  void done(generation_result r) override {
    CHECK_FALSE(result);
    result = std::move(r);
  }
  std::string text() const {
    std::string all;
    for (const auto& p : pieces)
      all += p.text;
    return all;
  }
  std::vector<piece> pieces;
  std::optional<generation_result> result;
};

/// A ledger that keeps count of reservations and ends the test when one is ended twice.
struct ledger_script {
  std::map<std::string, reserve_inference> open;
  std::vector<settle_inference> settled;
  std::vector<std::string> refunded;
  std::vector<record_receipt> receipts;
  bool poor = false;
  bool settle_fails = false;
};
using ledger_script_ptr = std::shared_ptr<ledger_script>;

inline ledger_actor::behavior_type scripted_ledger(ledger_actor::pointer, ledger_script_ptr s) {
  const auto unset = [] { return refuse(errc::unavailable, "not in this test"); };
  return {
      [=](const send_neuro&) -> caf::result<send_result> { return unset(); },
      [=](const stake_neuro&) -> caf::result<stake_result> { return unset(); },
      [=](const add_stake&) -> caf::result<stake_result> { return unset(); },
      [=](const extend_stake&) -> caf::result<stake_result> { return unset(); },
      [=](const unstake_neuro&) -> caf::result<unstake_result> { return unset(); },
      [=](const reserve_inference& r) -> caf::result<reserve_result> {
        if (s->poor)
          return refuse(errc::insufficient_balance, "too poor");
        CHECK(s->open.emplace(r.request_id, r).second);
        return reserve_result{};
      },
      [=](const settle_inference& r) -> caf::result<settle_result> {
        CHECK(s->open.erase(r.request_id) == 1);
        if (s->settle_fails)
          return refuse(errc::storage, "disk full");
        s->settled.push_back(r);
        settle_result result;
        result.cost = neuro_amount{100 * (r.prompt_tokens + r.completion_tokens)};
        return result;
      },
      [=](const refund_inference& r) -> caf::result<refund_result> {
        CHECK(s->open.erase(r.request_id) == 1);
        s->refunded.push_back(r.request_id);
        return refund_result{};
      },
      [=](const note_checkpoint&) -> caf::result<checkpoint_noted> { return unset(); },
      [=](const keep_commitment&) -> caf::result<commitment_kept> { return unset(); },
      [=](const record_proof&) -> caf::result<proof_result> { return unset(); },
      [=](const record_receipt& what) -> caf::result<receipt_recorded> {
        s->receipts.push_back(what);
        return receipt_recorded{};
      },
      [=](const record_offence&) -> caf::result<offence_result> { return unset(); },
      [=](const find_response&) -> caf::result<found_response> { return unset(); },
      [=](const keep_response&) -> caf::result<found_response> { return unset(); },
      [](const mark_delivered&) {},
      [=](const get_ledger_status&) -> caf::result<ledger_status> { return unset(); },
      [](status_atom) -> actor_status { return {}; },
      [](drain_atom) -> caf::result<void> { return caf::unit; },
      [](tick_atom) {},
      [](const commit_group&) {},
      [](const group_written&) {},
  };
}

/// A scheduler over a worker whose model is a rule: the next token of a session is `next(session's number,
/// position)`.
struct scheduler_fixture
    : deterministic<caf::id_block::neuroshard_common, caf::id_block::neuroshard_status,
                    caf::id_block::neuroshard_layer_worker, caf::id_block::neuroshard_ledger,
                    caf::id_block::neuroshard_peer_manager, caf::id_block::neuroshard_peer_link,
                    caf::id_block::neuroshard_relay, caf::id_block::neuroshard_work_link,
                    caf::id_block::neuroshard_inference_scheduler> {
  std::shared_ptr<manual_clock> clock = std::make_shared<manual_clock>();
  counters_ptr counters = std::make_shared<node_counters>();
  worker_script_ptr script = std::make_shared<worker_script>();
  ledger_script_ptr money = std::make_shared<ledger_script>();
  inference_options options;
  text::tokenizer tokens;

  std::map<std::string, uint32_t> sessions; ///< cache lengths
  std::vector<forward_request> calls;
  size_t rows_max = 0; ///< most sessions at once
  size_t decode_rows_max = 0;
  uint64_t copy_id = 7;
  uint64_t model_version = 0;
  uint64_t kv_blocks = 0; ///< of the pool, as the worker tells; 0: it does not
  /// Token sampled after `position` positions.
  std::function<int32_t(const std::string& session, uint32_t position)> next =
      [](const std::string&, uint32_t) { return 'x' + 10; };
  /// Fails a row, or the whole call.
  std::function<row_status(const forward_request&, size_t row)> row_outcome;
  std::function<caf::error(const forward_request&)> call_outcome;

  scheduler_fixture() {
    options.context = 256;
    options.layers = 2;
    options.address = "0x00000000000000000000000000000000000000aa";
    script->forward = [this](const forward_request& r) { return answer_call(r); };
    script->session = [this](const session_copy&) -> caf::result<serving_info> {
      if (copy_id == 0)
        return refuse(errc::not_ready, "no copy");
      return serving_info{copy_id, model_version, 0, kv_blocks};
    };
    script->hash = [](const serving_hash& h) -> caf::result<std::string> {
      return std::string(63, '0') + std::to_string(h.copy_id);
    };
  }

  caf::result<forward_reply> answer_call(const forward_request& r) {
    calls.push_back(r);
    if (call_outcome)
      if (auto refused = call_outcome(r))
        return refused;
    forward_reply reply;
    if (r.mode == forward_mode::decode && r.token_ids)
      decode_rows_max = std::max(decode_rows_max, r.rows.size());
    for (size_t i = 0; i < r.rows.size(); ++i) {
      const auto& row = r.rows[i];
      if (row.close) {
        sessions.erase(row.session_id);
        reply.rows.push_back({});
        continue;
      }
      auto outcome = row_outcome ? row_outcome(r, i) : row_status::ok;
      if (outcome == row_status::ok && row.cache_position > 0 &&
          sessions[row.session_id] != row.cache_position)
        outcome = row_status::cache_mismatch;
      const auto count = r.mode == forward_mode::decode ? 1U : r.sequence_lengths[i];
      if (outcome == row_status::ok)
        sessions[row.session_id] = row.cache_position + count;
      reply.rows.push_back({outcome, sessions[row.session_id], copy_id, {}});
      if (r.apply_head) {
        reply.sampled.push_back(outcome == row_status::ok ? next(row.session_id, sessions[row.session_id])
                                                          : -1);
        reply.logprobs.push_back(-0.5F);
      }
    }
    rows_max = std::max(rows_max, sessions.size());
    return reply;
  }

  relay_actor relay_to(const layer_worker_actor& worker) {
    return keep(sys.spawn(relay, relay_options{std::string(32, '1'), 256},
                          relay_parts{worker, {}, {}, time_source_ptr{clock}}));
  }
  inference_scheduler_actor make(bool with_ledger = true) {
    inference_parts parts;
    parts.worker = keep(sys.spawn(scripted_worker, script));
    parts.relay = relay_to(parts.worker);
    if (with_ledger)
      parts.ledger = keep(sys.spawn(scripted_ledger, money));
    parts.tokens = tokens;
    parts.time = clock;
    parts.random = std::make_shared<counting_random>();
    parts.counters = counters;
    return keep(sys.spawn(inference_scheduler, options, parts));
  }
  static generation_request request(std::shared_ptr<recording_sink> sink, std::string prompt = "hello",
                                    uint32_t max_tokens = 5) {
    generation_request r;
    r.prompt = std::move(prompt);
    r.max_tokens = max_tokens;
    r.seed = 1;
    r.sink = std::move(sink);
    return r;
  }
  void advance(int64_t us) {
    clock->advance_us(us);
    sched.advance_time(std::chrono::microseconds(us));
    sched.run();
  }
};

} // namespace neuroshard::test
