#include "tests/gateway/http/node_fixture.hpp"

#include "actors/identity/token.hpp"
#include "actors/rate_limiter/rate_limiter.hpp"
#include "gateway/config/schema.hpp"
#include "gateway/http/bridge.hpp"

#include <caf/all.hpp>

#include <algorithm>
#include <chrono>

namespace neuroshard::test {

const std::string wallet_token(64, 'a');
const std::string read_token(64, 'b');
const std::string inference_token(64, 'c');

std::string bearer(const std::string& token) {
  return "Authorization: Bearer " + token + "\r\n";
}

namespace {

inference_scheduler_actor::behavior_type scripted_scheduler(inference_scheduler_actor::pointer,
                                                            std::shared_ptr<scheduler_script> script) {
  return {
      [script](generation_request& r) -> caf::result<generation_admitted> {
        auto answer = script->on_request(r);
        if (!answer)
          return answer.error();
        return *answer;
      },
      [script](const cancel_generation& c) { script->on_cancel(c); },
      [](tick_atom) {},
      [](pump_atom) {},
      [](drain_atom) {},
      [](status_atom) { return actor_status{}; },
  };
}

/// Keeps the list and answers with fixed numbers.
template <class Operation, class Result>
caf::result<Result> note(const std::shared_ptr<ledger_script>& script,
                         std::vector<Operation> ledger_script::*list, const Operation& what, Result made) {
  const std::lock_guard hold(script->guard);
  ((*script).*list).push_back(what);
  if (script->refuse_with)
    return *script->refuse_with;
  made.origin.row = static_cast<int64_t>(((*script).*list).size());
  return made;
}

ledger_actor::behavior_type scripted_ledger(ledger_actor::pointer, std::shared_ptr<ledger_script> script) {
  const stake_state lock{neuro_amount{1500 * atto_per_neuro}, 20'000, 20'030, 1'132'193};
  const auto refused = [](const char* what) { return refuse(errc::internal, what); };
  return {
      [script](const send_neuro& w) {
        const neuro_amount fee = mul_ratio_up(w.amount, 1, 1000).value_or(neuro_amount{});
        return note(script, &ledger_script::sends, w,
                    send_result{{},
                                std::string(64, '1'),
                                "0x" + std::string(40, 'a'),
                                w.to,
                                w.amount,
                                fee,
                                w.memo,
                                1'800'000'000'000'000});
      },
      [script, lock](const stake_neuro& w) {
        return note(script, &ledger_script::stakes, w,
                    stake_result{{}, std::string(64, '2'), lock, neuro_amount{atto_per_neuro / 2}});
      },
      [script, lock](const add_stake& w) {
        return note(script, &ledger_script::additions, w,
                    stake_result{{}, std::string(64, '3'), lock, neuro_amount{}});
      },
      [script, lock](const extend_stake& w) {
        return note(script, &ledger_script::extensions, w,
                    stake_result{{}, std::string(64, '4'), lock, neuro_amount{}});
      },
      [script](const unstake_neuro& w) {
        return note(script, &ledger_script::unstakes, w,
                    unstake_result{{},
                                   std::string(64, '5'),
                                   w.amount.value_or(neuro_amount{1500 * atto_per_neuro}),
                                   20'007,
                                   7,
                                   neuro_amount{}});
      },
      [refused](const reserve_inference&) -> caf::result<reserve_result> { return refused("unused"); },
      [refused](const settle_inference&) -> caf::result<settle_result> { return refused("unused"); },
      [refused](const refund_inference&) -> caf::result<refund_result> { return refused("unused"); },
      [refused](const note_checkpoint&) -> caf::result<checkpoint_noted> { return refused("unused"); },
      [refused](const keep_commitment&) -> caf::result<commitment_kept> { return refused("unused"); },
      [refused](const record_proof&) -> caf::result<proof_result> { return refused("unused"); },
      [refused](const record_receipt&) -> caf::result<receipt_recorded> { return refused("unused"); },
      [refused](const record_offence&) -> caf::result<offence_result> { return refused("unused"); },
      [script](const find_response& f) -> caf::result<found_response> {
        const std::lock_guard hold(script->guard);
        for (const keep_response& k : script->kept)
          if (k.mark.key == f.mark.key && k.mark.path == f.mark.path && k.mark.token == f.mark.token) {
            if (k.mark.body != f.mark.body)
              return refuse(errc::invalid_request,
                            problem{"other body", "Idempotency-Key", "key_reused", {}});
            return found_response{true, 1, k.response};
          }
        return found_response{};
      },
      [script](const keep_response& k) -> caf::result<found_response> {
        const std::lock_guard hold(script->guard);
        script->kept.push_back(k);
        return found_response{true, 1, k.response};
      },
      [script](const mark_delivered& m) {
        const std::lock_guard hold(script->guard);
        script->delivered.push_back(m.row);
        script->changed.notify_all();
      },
      [](const get_ledger_status&) { return ledger_status{}; },
      [](status_atom) { return actor_status{}; },
      [](drain_atom) {},
      [](tick_atom) {},
      [](const commit_group&) {},
      [](const group_written&) {},
  };
}

node_snapshot first_snapshot() {
  node_snapshot s;
  s.unix_us = 1'800'000'000'000'000;
  s.uptime_s = 42;
  s.state = node_state::training;
  s.identity = {std::string(32, '0'),
                "0x" + std::string(40, 'a'),
                "0.1.0",
                std::string(16, '1'),
                "pico",
                6,
                256,
                308'800'000,
                2048};
  s.roles = {node_role::driver, node_role::validator, node_role::worker};
  s.layers = {{0, "embedding", 16, "active"},
              {0, "transformer", 3, "active"},
              {1, "transformer", 3, "active"},
              {6, "lm_head", 16, "active"}};
  s.serving_hash = std::string(64, 'e');
  auto t = std::make_shared<training_progress>();
  t->enabled = true;
  t->running = true;
  t->inner_step = 120;
  t->outer_step = 2;
  t->steps_in_round = 20;
  t->diloco_steps = 50;
  t->tokens_trained = 122'880;
  t->loss_ema = 5.25;
  t->loss_min = 5.0;
  t->loss_history = {8, 7, 6, 5.5, 5.25, 5.2};
  t->loss_first = {8, 7, 6};
  t->shards_covered = {0, 3};
  t->outer_model_hash = std::string(64, 'd');
  s.training = t;
  s.peers = std::make_shared<peer_list>();
  s.cpu_percent = 12.5;
  s.ram_used = 4ULL << 30;
  s.ram_total = 16ULL << 30;
  s.memory_offered_mb = 2048;
  s.memory_used_mb = 512;
  s.rewards.earned_total = neuro_amount{atto_per_neuro / 8};
  return s;
}

} // namespace

generation_result finished(const std::string& id, std::string text) {
  generation_result r;
  r.id = id;
  r.text = std::move(text);
  r.finish_reason = "stop";
  r.prompt_tokens = 12;
  r.completion_tokens = 156;
  r.cost = *mul_ratio(neuro_amount{atto_per_neuro}, 168, 10'000);
  r.queue_ms = 1.5;
  r.inference_ms = 100.25;
  r.model_hash = std::string(64, 'e');
  r.seed = 18'446'744'073'709'551'615ULL;
  return r;
}

// -- scheduler_script

caf::expected<generation_admitted> scheduler_script::on_request(const generation_request& r) {
  std::string id;
  {
    const std::lock_guard hold(guard_);
    id = id_of(requests_.size());
    requests_.push_back(r);
    changed_.notify_all();
  }
  auto answer = admit ? admit(r, id) : caf::expected<generation_admitted>(generation_admitted{id, 5});
  if (answer && run)
    run(r, id);
  return answer;
}

void scheduler_script::on_cancel(const cancel_generation& c) {
  const std::lock_guard hold(guard_);
  cancelled_.push_back(c.id);
  if (c.unheard)
    unheard_.push_back(c.id);
  changed_.notify_all();
}

std::string scheduler_script::id_of(size_t index) const {
  std::string digits = std::to_string(index);
  return "inf_" + std::string(24 - digits.size(), '0') + digits;
}

generation_request scheduler_script::wait_for(size_t index) {
  std::unique_lock hold(guard_);
  REQUIRE(changed_.wait_for(hold, std::chrono::seconds(5), [&] { return requests_.size() > index; }));
  return requests_[index];
}

size_t scheduler_script::count() {
  const std::lock_guard hold(guard_);
  return requests_.size();
}
size_t scheduler_script::cancelled_count() {
  const std::lock_guard hold(guard_);
  return cancelled_.size();
}

bool scheduler_script::was_unheard(const std::string& id) {
  const std::lock_guard hold(guard_);
  return std::find(unheard_.begin(), unheard_.end(), id) != unheard_.end();
}

bool scheduler_script::wait_cancelled(const std::string& id, int patience_ms) {
  std::unique_lock hold(guard_);
  return changed_.wait_for(hold, std::chrono::milliseconds(patience_ms), [&] {
    return std::find(cancelled_.begin(), cancelled_.end(), id) != cancelled_.end();
  });
}

bool ledger_script::wait_delivered(int64_t row, int patience_ms) {
  std::unique_lock hold(guard);
  return changed.wait_for(hold, std::chrono::milliseconds(patience_ms), [&] {
    return std::find(delivered.begin(), delivered.end(), row) != delivered.end();
  });
}

// -- node_fixture

node_fixture::node_fixture() {
  caf_config.add_message_types<caf::id_block::neuroshard_common>();
  caf_config.add_message_types<caf::id_block::neuroshard_status>();
  caf_config.add_message_types<caf::id_block::neuroshard_ledger>();
  caf_config.add_message_types<caf::id_block::neuroshard_inference_scheduler>();
  caf_config.add_message_types<caf::id_block::neuroshard_rate_limiter>();
  caf_config.add_message_types<caf::id_block::neuroshard_http>();
  caf_config.set("scheduler.max-threads", 2);
  system = std::make_unique<caf::actor_system>(caf_config);
  settings.port = 0;
  settings.threads = 2;
  settings.rates = {0, 0, 0, 0, 0};
  settings.access_log = false;
  *config = default_config();
  services.system = system.get();
  services.board = std::make_shared<snapshot_board>(first_snapshot());
  services.counters = std::make_shared<node_counters>();
  services.scheduler.set(system->spawn(scripted_scheduler, scheduler));
  services.ledger.set(system->spawn(scripted_ledger, ledger));
  const auto add = [&](const std::string& text, uint8_t scopes) {
    services.tokens.push_back({token_digest(*parse_token(text)), scopes});
  };
  add(wallet_token, http::all_scopes);
  add(read_token, static_cast<uint8_t>(http::scope::read));
  add(inference_token, static_cast<uint8_t>(http::scope::inference));
  services.config = [held = config] { return std::shared_ptr<const node_config>(held); };
  services.patch_config = [held = config](patch_body body, http::patch_reply answer) {
    const auto plan = plan_patch(body, *held, machine_facts{8, 16384, 100000}, false);
    if (!plan) {
      answer(plan.error());
      return;
    }
    plan->apply(*held);
    answer(http::patch_outcome{plan->updated, plan->restart_required});
  };
}

node_fixture::~node_fixture() {
  server.reset();
  caf::anon_send_exit(services.scheduler.get(), caf::exit_reason::kill);
  caf::anon_send_exit(services.ledger.get(), caf::exit_reason::kill);
  if (auto limiter = services.rate_limiter.get())
    caf::anon_send_exit(limiter, caf::exit_reason::kill);
  services = {};
  system.reset();
}

void node_fixture::start() {
  limiter_clock = std::make_shared<manual_clock>();
  services.rate_limiter.set(system->spawn(rate_limiter, settings.rates, time_source_ptr{limiter_clock}));
  server = std::make_unique<http::server>(settings, services);
  REQUIRE_FALSE(server->start());
}

void node_fixture::publish(const std::function<void(node_snapshot&)>& change) {
  node_snapshot next = *services.board->read();
  change(next);
  services.board->publish(std::make_shared<const node_snapshot>(std::move(next)));
}

reply node_fixture::get(std::string_view target, const std::string& headers) {
  client c = connect();
  return c.request("GET", target, headers);
}

reply node_fixture::post(std::string_view target, std::string_view body, const std::string& headers) {
  client c = connect();
  return c.request("POST", target, headers, body);
}

} // namespace neuroshard::test
