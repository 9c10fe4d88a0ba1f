#pragma once

#include "actors/common/clock.hpp"
#include "actors/common/counters.hpp"
#include "actors/gradient_exchanger/contribution_checks.hpp"
#include "actors/gradient_exchanger/exchange_link_actor.hpp"
#include "actors/gradient_exchanger/exchange_reputation.hpp"
#include "actors/gradient_exchanger/held_unit.hpp"
#include "actors/layer_worker/layer_worker_actor.hpp"

#include <caf/stateful_actor.hpp>
#include <caf/typed_event_based_actor.hpp>
#include <caf/typed_response_promise.hpp>

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

namespace neuroshard {

/// What the exchanger works with.
struct gradient_exchanger_parts {
  layer_worker_actor worker;
  exchange_peers_actor peers; ///< null: alone
  exchange_link_actor link;   ///< null: alone
  std::shared_ptr<const node_identity> identity;
  time_source_ptr time;
  random_source_ptr random;
  round_listener trainer; ///< may be null
  /// Told what this node holds at an outer step, for its record: when a round begins and when one has ended.
  /// The exchanger's thread, quick. Empty: nobody cares.
  std::function<void(std::vector<unit_state>, uint64_t version)> announced = {};
  counters_ptr counters = {};
  /// Told when an outer exchange begins and when it has ended, for the peer manager, which moves no ranges
  /// meanwhile. The exchanger's thread, quick. Empty: nobody cares.
  std::function<void(bool under_way)> exchanging = {};
};

struct gradient_exchanger_options {
  std::string architecture_id;
  uint32_t diloco_steps = 500; ///< H
  aggregation_rules aggregation;
  delta_encoding compression = delta_encoding::dense_i8; ///< f32: none, and no error feedback
  double top_k_ratio = 0.1;
  size_t part_bytes = size_t{4} << 20;
  outer_parameters outer;
  double min_cosine = 0;
  double peak_learning_rate = 1e-4;
  uint64_t batches_per_minute = 2'000; ///< more than that is not believed of a node
  size_t members_max = 255;            ///< others in a cohort; later ones are none
  size_t calls_max = 8;                ///< to other nodes at once; one to each
  double calls_per_second = 16;        ///< to one node, which takes 20
  int64_t cohort_ms = 30'000; ///< from the begin of a round: who is seen at its base by then is a member
};

struct gradient_exchanger_state {
  static inline const char* name = "gradient_exchanger";
  using pointer = gradient_exchanger_actor::stateful_pointer<gradient_exchanger_state>;
  enum class phase : uint8_t { idle, beginning, inner, exchange, writing };

  /// Tensors being read of the worker, one after the other.
  struct reading {
    std::set<std::string> units; ///< empty: all
    bool none = false;           ///< only Adam's t is wanted
    std::function<void(const std::string& unit, std::shared_ptr<const unit_layout>,
                       std::vector<tensor_handle>)>
        each;
    std::function<void(caf::expected<uint64_t> optimizer_step)> done;
    int64_t until_ms = 0;
    uint64_t snapshot_id = 0;
    uint64_t optimizer_step = 0;
    std::vector<std::pair<std::string, std::shared_ptr<const unit_layout>>> plan;
    size_t unit = 0;
    std::vector<tensor_handle> got;
  };
  using reading_ptr = std::shared_ptr<reading>;
  /// A line to one peer: one call at a time, paced.
  struct peer_line {
    bool busy = false;
    double allowance = 0;
    int64_t filled_ms = 0;
  };
  pointer self = nullptr;
  gradient_exchanger_parts parts;
  gradient_exchanger_options options;
  phase now_in = phase::idle;
  bool draining = false;
  uint64_t run = 0; ///< counts rounds, so that late answers of an older one are known
  uint64_t base = 0;
  uint64_t rounds = 0; ///< outer steps taken
  int64_t begun_ms = 0;
  std::optional<int64_t> ended_ms; ///< T0: a RoundEnd counts
  bool told_trainer = false;
  bool overdue = false;                  ///< this driver ends the round before H
  bool must_resync = false;              ///< hashes were compared, this node is in the minority
  std::optional<int64_t> ahead_since_ms; ///< most others announce the outer step that this node still forms
  std::optional<int64_t> apart_since_ms; ///< another hash stands among those at this node's outer step
  std::optional<round_end> early_end;    ///< of a round that has not begun here
  round_lengths lengths;
  finish_round finishing;
  caf::typed_response_promise<round_outcome> finished;
  uint64_t optimizer_step = 0;
  std::map<std::string, held_unit> units;
  std::map<std::string, std::pair<unit_layout, std::vector<tensor_handle>>> restored; ///< by prefix and unit
  peer_list_ptr known = std::make_shared<const peer_list>();
  int64_t next_peers_ms = 0;
  int64_t next_sink_ms = 0;
  std::map<std::string, peer_line> lines;
  size_t calls = 0;
  std::vector<std::pair<int64_t, std::function<void()>>> later; ///< due times
  std::vector<std::pair<std::string, tensor_handle>> to_write;
  size_t written = 0;
  int64_t write_until_ms = 0;
  std::map<std::string, contribution_store> previous; ///< of the round before, for those who fetch late
  int64_t previous_until_ms = 0;
  std::map<std::string, std::map<std::string, kernels::digest>> last_content; ///< unit, author; of that round
  exchange_reputation reputation;
  std::set<std::string> authors;           ///< heard in this round
  std::set<std::string> authors_failed;    ///< a deterministic check
  std::map<std::string, uint64_t> refused; ///< contributions, by node; bounded
  std::string last_refused;

  // gradient_exchanger.cpp: what the trainer and the checkpointer ask
  void start(gradient_exchanger_parts with, gradient_exchanger_options how);
  caf::result<void> begin(const begin_round& what);
  caf::result<round_outcome> finish(const finish_round& what);
  caf::result<outer_tensors> read_state() const;
  caf::result<void> restore(const restore_outer_state& what);
  caf::result<void> drain();
  void tick();
  actor_status report() const;

  // exchange_messages.cpp: what other members say
  caf::result<exchange_reply> exchange(exchange_request& call);
  void heard(const published& what);

private:
  int64_t now_ms() const { return parts.time->steady_us() / 1'000; }
  int64_t unix_ms() const { return parts.time->unix_us() / 1'000; }
  uint64_t round() const noexcept { return base + 1; }
  bool connected() const { return parts.peers && parts.link && parts.identity; }
  const std::string& own_id() const { return parts.identity->node_id(); }
  exchange_base base_of(const held_unit& unit) const;
  void after(int64_t ms, std::function<void()> what);
  void outcome(round_outcome how);
  void fail(caf::error why);
  void tell_trainer();
  void end_heard();
  void announce(uint64_t version);
  void take_restored(held_unit& unit);

  // weight_traffic.cpp
  void read_weights(reading_ptr what);
  void read_next(reading_ptr what);
  void write_weights();
  void write_next();
  void all_written();

  // exchange_messages.cpp
  void store_part(held_unit& unit, received_contribution& into, uint32_t part, delta_part bytes,
                  exchange_reply& reply);
  void take_reply(held_unit& unit, const std::string& from, exchange_reply& reply);
  void add_own(const held_unit& unit, uint32_t part, const std::string& to, exchange_reply& reply);
  void fetched(const exchange_request& call, exchange_reply& reply) const;
  void refuse_author(const std::string& author, const std::string& unit, std::string_view reason,
                     bool deterministic);

  // exchange_transfers.cpp
  void pump();
  bool may_call(const std::string& peer);
  void send_part(held_unit& unit, const peer_info& to, part_sending& sending);
  void sent(const std::string& unit, const std::string& to, caf::expected<exchange_reply> reply);
  void fetch_part(held_unit& unit, const peer_info& from, part_fetching& fetching);
  void fetch_answered(const std::string& unit, const std::string& author, const kernels::digest& content,
                      const std::string& from, caf::expected<exchange_reply> reply);
  const peer_info* peer(const std::string& node_id) const;

  // exchange_rounds.cpp
  void refresh_peers(std::function<void()> then);
  void note_peers();
  bool ahead() const;
  void begin_exchange();
  void encode_own(held_unit& unit);
  void advance();
  void advance_unit(held_unit& unit);
  bool all_heard(const held_unit& unit) const;
  void collect(held_unit& unit);
  void choose_set(held_unit& unit);
  bool set_complete(held_unit& unit);
  void take_outer_step(held_unit& unit);
  void compare_hashes();
  void fix_cohorts();
  void settle_reputation();
};

/// Detached in production: encoding, judging and aggregating hold its thread. In memory it holds one f32 copy
/// of the shared units through a round, two and all contributions through an exchange, and the velocity.
gradient_exchanger_actor::behavior_type gradient_exchanger(gradient_exchanger_state::pointer self,
                                                           gradient_exchanger_parts parts,
                                                           gradient_exchanger_options options);

} // namespace neuroshard
