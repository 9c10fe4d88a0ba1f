#include "actors/proof_keeper/proof_keeper.hpp"

#include "actors/common/log.hpp"
#include "actors/ledger/merkle.hpp"
#include "actors/ledger/money_rules.hpp"

#include <caf/actor_cast.hpp>
#include <caf/send.hpp>

#include <algorithm>
#include <chrono>
#include <utility>

namespace neuroshard {

namespace {

constexpr auto tick_period = std::chrono::seconds(1);
constexpr auto answer_timeout = std::chrono::seconds(30);
constexpr int64_t us_per_ms = 1'000;
constexpr int64_t recent_us = 3'600'000'000;
/// Training is told of from this uptime on (check 7): the first proof of a process is made then.
constexpr int64_t uptime_min_us = 10'500'000;
constexpr int64_t uptime_max_us = 120'000'000;
constexpr int64_t look_again_us = 3'000'000;
constexpr size_t receipts_max = 1'024;

/// The book and the draft, as the checks ask for them.
class own_records final : public proof_records {
public:
  own_records(const proof_keeper_state::draft& made, const proof_keeper_options& options)
      : made_(made), options_(options) {}

  bool knows_proof(const digest& id) override {
    return std::any_of(made_.recent.begin(), made_.recent.end(),
                       [&](const recent_proof& each) { return each.id == id; });
  }
  bool knows_nonce(const std::string&, const std::string& nonce) override {
    return std::any_of(made_.recent.begin(), made_.recent.end(),
                       [&](const recent_proof& each) { return each.nonce == nonce; });
  }
  uint64_t accepted_since(const std::string&, int64_t since_us) override {
    return static_cast<uint64_t>(
        std::count_if(made_.recent.begin(), made_.recent.end(), [&](const recent_proof& each) {
          return each.accepted && each.timestamp_us >= since_us;
        }));
  }
  uint64_t label_tokens_since(const std::string&, int64_t since_us) override {
    uint64_t sum = 0;
    for (const auto& each : made_.recent)
      sum += each.accepted && each.timestamp_us >= since_us ? each.label_tokens : 0;
    return sum;
  }
  std::optional<int64_t> last_timestamp_us(const std::string&) override {
    std::optional<int64_t> last;
    for (const auto& each : made_.recent)
      if (each.accepted)
        last = std::max(last.value_or(each.timestamp_us), each.timestamp_us);
    return last;
  }
  std::optional<held_layers> layers_of(const std::string&, uint64_t) override { return options_.held(); }
  std::optional<measured_speed> speed_of(const held_layers&) override {
    return made_.tokens_per_minute == 0
               ? std::nullopt
               : std::optional(measured_speed{made_.tokens_per_minute, made_.tokens_per_step});
  }
  bool has_receipts(const std::string&, const digest& root, uint64_t count) override {
    return made_.receipts.size() == count && merkle_root(made_.receipts) == root;
  }

private:
  const proof_keeper_state::draft& made_;
  const proof_keeper_options& options_;
};

/// What one proof may tell of: what the checks let pass.
take_work limits_of(const proof_keeper_state::draft& made, const economics_params& params,
                    uint64_t tokens_before) {
  using u128 = unsigned __int128;
  const auto uptime_ms = static_cast<uint64_t>(made.uptime_us / us_per_ms);
  take_work most;
  most.steps_max = params.steps_per_minute * uptime_ms / 60'000;
  most.tokens_max = params.tokens_per_minute - std::min(params.tokens_per_minute, tokens_before);
  if (made.tokens_per_minute > 0) {
    const u128 pace =
        u128{made.tokens_per_minute} * params.speed_slack_bp * uptime_ms / (60'000ull * 10'000) +
        made.tokens_per_step;
    most.tokens_max = static_cast<uint64_t>(std::min<u128>(most.tokens_max, pace));
  }
  return most;
}

} // namespace

bool proof_keeper_state::due(int64_t now_us, int64_t since_last_us) const {
  return !at_work && parts.time->steady_us() >= not_before_us && now_us > last_us &&
         now_us / epoch_us != last_us / epoch_us && now_us - std::max(started_us, last_us) >= since_last_us;
}

void proof_keeper_state::attempt(int64_t since_last_us) {
  const int64_t now_us = parts.time->unix_us();
  started_us = std::min(started_us, now_us); // the clock was set back: what was before it is no uptime
  if (!due(now_us, since_last_us))
    return;
  auto made = std::make_shared<draft>();
  const auto recent = parts.book->recent_proofs(now_us - recent_us);
  const auto balance = parts.book->balance();
  // Receipts of the minute before count too: one may have been confirmed while the last proof was made.
  const auto receipts = parts.book->unproven_receipts(now_us - 2 * epoch_us, now_us, receipts_max);
  if (!recent || !balance || !receipts)
    return failed(problem_of(!recent    ? recent.error()
                             : !balance ? balance.error()
                                        : receipts.error())
                      .message);
  for (const auto& each : *recent)
    last_us = std::max(last_us, each.timestamp_us);
  if (!due(now_us, since_last_us))
    return;
  at_work = true;
  made->recent = *recent;
  made->staked = balance->staked;
  made->receipts = *receipts;
  made->now_us = now_us;
  made->uptime_us = std::min(uptime_max_us, now_us - std::max(started_us, last_us));
  ask_progress(std::move(made));
}

void proof_keeper_state::ask_progress(std::shared_ptr<draft> made) {
  self->request(parts.trainer, answer_timeout, progress_atom_v)
      .then(
          [me = self, made](const training_progress_ptr& progress) {
            made->tokens_per_minute = static_cast<uint64_t>(progress->tokens_per_second_best * 60);
            made->tokens_per_step = progress->batch_size * progress->seq_len;
            me->state.ask_work(made);
          },
          // A node that does not train is up all the same.
          [me = self, made](const caf::error&) { me->state.finish(made); });
}

void proof_keeper_state::ask_work(std::shared_ptr<draft> made) {
  const auto before = own_records(*made, options).label_tokens_since({}, made->now_us - epoch_us);
  self->request(parts.trainer, answer_timeout, limits_of(*made, options.params, before))
      .then(
          [me = self, made](const offered_work& work) {
            made->work = work;
            me->state.finish(made);
          },
          [me = self, made](const caf::error&) { me->state.finish(made); });
}

void proof_keeper_state::finish(std::shared_ptr<draft> made) {
  const auto& work = made->work;
  const bool trained = work.step_begin < work.step_end;
  // Nothing to be paid for is nothing to tell of: an idle node would fill its book with empty minutes.
  if (!trained && made->staked.atto == 0 && made->receipts.empty()) {
    at_work = false;
    not_before_us = parts.time->steady_us() + look_again_us;
    return;
  }
  work_proof proof;
  proof.chain_id = options.chain_id;
  proof.node_id = parts.identity->node_id();
  proof.wallet = parts.identity->address();
  proof.timestamp_us = made->now_us;
  proof.nonce = random_hex(*parts.random, 16);
  proof.epoch_id = static_cast<uint64_t>(made->now_us / epoch_us);
  proof.uptime_ms = static_cast<uint64_t>(made->uptime_us / us_per_ms);
  proof.receipts_root = merkle_root(made->receipts);
  proof.receipt_count = made->receipts.size();
  const auto held = options.held();
  proof.layer_begin = held.begin;
  proof.layer_end = held.end;
  proof.has_embedding = held.embedding;
  proof.has_lm_head = held.head;
  proof.architecture_id = options.architecture_id;
  if (trained) {
    proof.label_tokens = work.label_tokens;
    proof.steps = work.step_end - work.step_begin;
    proof.step_begin = work.step_begin;
    proof.step_end = work.step_end;
    proof.model_hash_start = work.segments.front().model_hash;
    proof.model_hash_end = work.segments.back().model_hash;
    proof.gradient_commitment = work.commitment;
    proof.data_hash = work.data_hash;
    proof.gradient_norm_e6 = work.gradient_norm_e6;
    proof.loss_e6 = work.loss_e6;
    proof.batch_size = work.batch_size;
    proof.seq_len = work.seq_len;
  }
  auto blob = parts.identity->sign_as_node(proof_tag, canonical_payload(proof));
  own_records records(*made, options);
  const proof_rules rules{options.params, options.chain_id, options.architecture_id, options.num_layers,
                          parts.time->unix_us()};
  std::optional<work_proof> read;
  if (const auto verdict = check_proof(blob, rules, records, read); !verdict.accepted())
    return failed(std::string("its own check refuses it: ") + to_string(verdict.failed) + ", " +
                  verdict.reason);
  record(std::move(made), proof, std::move(blob));
}

void proof_keeper_state::record(std::shared_ptr<draft> made, const work_proof& proof, signed_blob blob) {
  record_proof what;
  what.proof = std::move(blob);
  what.segments = made->work.segments;
  what.scarcity_ppm = scarcity_ppm;
  what.receipts = made->receipts;
  self->request(parts.ledger, answer_timeout, std::move(what))
      .then(
          [me = self, made, type = type_of(proof)](const proof_result& result) {
            auto& keeper = me->state;
            keeper.at_work = false;
            keeper.last_us = std::max(keeper.last_us, made->now_us);
            keeper.error.clear();
            ++keeper.recorded;
            const auto& work = made->work;
            if (work.step_begin < work.step_end)
              me->send(keeper.parts.trainer, work_proven{work.step_begin, work.step_end});
            log::info(name, "proof id={} type={} steps={}-{} tokens={} uptime_s={} reward={}",
                      result.proof_id.substr(0, 16), to_string(type), work.step_begin, work.step_end,
                      work.label_tokens, made->uptime_us / 1'000'000, to_decimal(result.reward));
          },
          [me = self](const caf::error& e) { me->state.failed(problem_of(e).message); });
}

/// The work stays on offer, so the next attempt tells of it.
void proof_keeper_state::failed(std::string why) {
  at_work = false;
  if (why != error)
    log::warn(name, "no-proof why=\"{}\"", why);
  error = std::move(why);
}

/// Once an epoch; rewards take the count of the epoch before, which nobody can still change.
void proof_keeper_state::count_replicas() {
  const auto epoch = static_cast<uint64_t>(parts.time->unix_us() / epoch_us);
  if (epoch == counted_epoch)
    return;
  const bool first = counted_epoch == 0;
  counted_epoch = epoch;
  scarcity_ppm = scarcity_now_ppm;
  const auto counted = [this, first](const peer_list& peers) {
    const auto held = options.held();
    std::vector<uint64_t> replicas(held.end - held.begin, 1);
    uint64_t nodes = 1;
    for (const auto& peer : peers) {
      if (peer.state != peer_state::online || peer.node.node_id == parts.identity->node_id())
        continue;
      ++nodes;
      for (uint64_t layer = std::max<uint64_t>(held.begin, peer.node.layer_begin);
           layer < std::min<uint64_t>(held.end, peer.node.layer_end); ++layer)
        ++replicas[layer - held.begin];
    }
    scarcity_now_ppm = rules::scarcity_ppm(options.params, replicas, nodes);
    if (first)
      scarcity_ppm = scarcity_now_ppm;
  };
  if (!parts.peers)
    return counted({});
  self->request(parts.peers, answer_timeout, peers_atom_v)
      .then([counted](const peer_list_ptr& peers) { counted(*peers); }, [](const caf::error&) {});
}

actor_status proof_keeper_state::report() const {
  actor_status status;
  status.name = name;
  if (!error.empty()) {
    status.state = actor_status::health::degraded;
    status.message = "no proof of work could be made: " + error;
  }
  status.values = {{"proofs", std::to_string(recorded)}, {"scarcity_ppm", std::to_string(scarcity_ppm)}};
  return status;
}

proof_keeper_actor::behavior_type proof_keeper(proof_keeper_state::pointer self, proof_keeper_options options,
                                               proof_keeper_parts parts) {
  auto& state = self->state;
  state.self = self;
  state.options = std::move(options);
  state.parts = std::move(parts);
  state.started_us = state.parts.time->unix_us();
  self->delayed_send(self, tick_period, tick_atom_v);
  return {
      [self](round_ended_atom) {
        self->state.not_before_us = 0;
        self->state.attempt(uptime_min_us);
      },
      [self](tick_atom) {
        auto& keeper = self->state;
        self->delayed_send(self, tick_period, tick_atom_v);
        keeper.count_replicas();
        // A minute after the last one; the first as soon as it may tell of training.
        keeper.attempt(keeper.recorded == 0 ? uptime_min_us : epoch_us);
      },
      [self](status_atom) -> actor_status { return self->state.report(); },
  };
}

} // namespace neuroshard
