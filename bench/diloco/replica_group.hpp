#pragma once

#include "bench/diloco/training_bed.hpp"
#include "tests/support/exchange_network.hpp"
#include "tests/support/gradient_liar.hpp"

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

namespace neuroshard::bench {

/// How replicas meet.
struct outer_plan {
  uint32_t inner_steps = 50; ///< H
  delta_encoding compression = delta_encoding::dense_i8;
  double top_k_ratio = 0.1;
  aggregation_strategy strategy = aggregation_strategy::trimmed_mean;
  outer_parameters outer;
  std::string attack; ///< of the last replica, in every round; empty: none
};

/// Replicas of one model, each with its own data order: layer workers and gradient exchangers on a link that
/// counts what it carries as bytes of the wire. A replica that lies trains honestly and sends something else,
/// in requests, in replies, in answers to fetches and, where it collects, in its set; after each round it
/// takes the weights of the others, so that it stays in the cohort.
class replica_group {
public:
  replica_group(training_bed& bed, outer_plan how, const std::vector<std::string>& tokens);

  /// One round of inner steps and the outer step.
  void round();

  const training_bed::learner& first() const { return members_.front().learner; }
  std::string last_id() const { return members_.back().id(); } ///< of the one that lies, if any does
  uint64_t steps_done() const noexcept { return steps_; }
  /// Bytes that an honest replica has sent: ExchangeGradient requests and replies, and what it published,
  /// once for every other member. Mean of the honest ones.
  double bytes_sent() const;
  /// Least contributions that an honest member's outer step was made of.
  uint32_t least_contributions() const noexcept { return least_; }
  /// Contributions refused by the honest members: of the one that lies, and of any other.
  uint64_t liar_refused() const { return refused(true); }
  uint64_t honest_refused() const { return refused(false); }
  static std::vector<std::string> node_ids(const std::vector<std::string>& tokens);

private:
  struct member {
    std::shared_ptr<const node_identity> who;
    training_bed::learner learner;
    gradient_exchanger_actor exchanger;
    uint64_t bytes = 0;
    std::string id() const { return who->node_id(); }
  };

  void start(member& one, size_t number);
  void count_bytes();
  void attack();
  void name_forged(signed_blob& blob) const;
  size_t honest() const noexcept { return members_.size() - (plan_.attack.empty() ? 0 : 1); }
  uint64_t refused(bool of_liar) const;
  std::string status(const member& of, const std::string& key) const;

  training_bed& bed_;
  outer_plan plan_;
  test::exchange_network_ptr network_ = std::make_shared<test::exchange_network>();
  std::vector<member> members_;
  std::map<std::string, uint64_t> bytes_; ///< by node id
  std::unique_ptr<test::gradient_liar> liar_;
  std::map<std::string, kernels::digest> wanted_; ///< of the liar, by who asks
  uint64_t noise_drawn_ = 0;
  uint64_t rounds_ = 0;
  uint64_t steps_ = 0;
  uint32_t least_ = UINT32_MAX;
};

} // namespace neuroshard::bench
