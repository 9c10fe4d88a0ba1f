#pragma once

#include "actors/gradient_exchanger/gradient_exchanger.hpp"
#include "tests/simulation/peer_node.hpp"
#include "tests/support/scripted_worker.hpp"

#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

namespace neuroshard::simulation {

using weight_map = std::map<std::string, std::vector<float>>;

/// Elements of the tensor `layers.N.attn_norm.weight` that count contributions: inner steps of node n add
/// `mark` to element n and touch no other of them.
inline constexpr size_t marks = 16;
inline constexpr float mark = 0.01F;

/// The model of these worlds: two layers with an embedding and a head, some thousand weights.
unit_layout simulated_unit(const std::string& unit);

/// What every node of a world has in common.
struct round_rulebook {
  gradient_exchanger_options options;
  /// Sets that collectors have published, by unit and round.
  std::map<std::pair<std::string, uint64_t>, std::vector<delta_set>> sets;
  std::set<std::string> liars; ///< node ids
  std::string failure;         ///< the first
  void fail(std::string why) {
    if (failure.empty())
      failure = std::move(why);
  }
};

/// A node that trains: a real gradient exchanger and peer manager, a small worker, and the part of a trainer
/// that begins rounds, ends them, and fetches weights when the exchanger says resync. Its checkpoint outlives
/// a crash.
class round_node {
public:
  round_node(world& in, network& on, round_rulebook& rules, unsigned number, held_range held);

  void start();
  void end();
  peer_node& at() noexcept { return *node_; }
  const peer_node& at() const noexcept { return *node_; }
  bool honest() const { return !rules_.liars.contains(node_->id()); }
  /// Others from whom weights may be fetched.
  std::vector<round_node*> others;

  uint64_t updated = 0; ///< outer steps taken in all lives
  uint64_t resyncs = 0;
  uint32_t members = 0;            ///< of the last outer step
  std::optional<int64_t> asked_us; ///< finish_round waits for its answer since then
  gradient_exchanger_actor exchanger() const { return exchanger_; }
  const std::map<std::string, kernels::digest>& hashes() const noexcept { return hashes_; }
  uint64_t version() const noexcept { return disk_.base; }

private:
  struct checkpoint {
    weight_map weights;
    outer_tensors outer;
    uint64_t base = 0;
  };
  void begin();
  void train_until(int64_t us);
  void finish(bool drives);
  void inner_steps();
  void ended(const round_outcome& how);
  void save(const round_outcome& how);
  void check_marks(const round_outcome& how, const outer_tensors& after);
  bool marks_fit(const std::string& unit, const std::vector<float>& dbar) const;
  void resync();
  weight_map in_worker() const;
  void into_worker(const weight_map& weights);
  bool same(uint64_t turn) const { return node_->up && turn == turn_; }
  dice& draw() { return random_; }

  world& world_;
  network& network_;
  round_rulebook& rules_;
  dice random_;
  std::unique_ptr<peer_node> node_;
  checkpoint disk_;
  test::worker_script_ptr worker_;
  gradient_exchanger_actor exchanger_;
  std::map<std::string, kernels::digest> hashes_; ///< by unit, as announced last
  uint64_t turn_ = 0;                             ///< counts what was begun; late answers are of an older one
  bool inner_ = false;
  weight_map w0_;
  outer_tensors before_;
};

} // namespace neuroshard::simulation
