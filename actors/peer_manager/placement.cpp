#include "actors/peer_manager/placement.hpp"

#include <algorithm>
#include <optional>
#include <tuple>
#include <utility>

namespace neuroshard {

namespace {

using namespace placement_rules;

struct span {
  uint32_t begin = 0, end = 0;
  uint32_t size() const noexcept { return end - begin; }
  bool covers(uint32_t layer) const noexcept { return layer >= begin && layer < end; }
  friend bool operator==(const span&, const span&) = default;
};

/// The layout being made. Nodes are sorted by (memory descending, id); a node without layers has an empty
/// span.
class layout {
public:
  explicit layout(const placement_input& in) : in_(in), total_(in.total_layers) {
    for (const auto& node : in.nodes)
      nodes_.push_back(&node);
    std::sort(nodes_.begin(), nodes_.end(), [](auto* a, auto* b) {
      return std::tuple(~a->memory_mb, std::string_view(a->id)) <
             std::tuple(~b->memory_mb, std::string_view(b->id));
    });
    const auto same = [](auto* a, auto* b) { return a->id == b->id; };
    nodes_.erase(std::unique(nodes_.begin(), nodes_.end(), same), nodes_.end());
    spans_.resize(nodes_.size());
  }

  void keep_what_was();
  bool fill_gaps();
  void lay_anew();
  void add_replicas();
  void balance();
  bool complete() const { return first_gap() == total_; }
  placement result() const;

private:
  uint32_t replicas(uint32_t layer) const {
    return static_cast<uint32_t>(
        std::count_if(spans_.begin(), spans_.end(), [&](auto& one) { return one.covers(layer); }));
  }
  std::vector<uint32_t> all_replicas() const;
  uint32_t first_gap() const {
    uint32_t layer = 0;
    while (layer < total_ && replicas(layer) > 0)
      ++layer;
    return layer;
  }
  bool fit(size_t node, span what) const {
    return fits(*nodes_[node], what.begin, what.end, total_, in_.costs);
  }
  bool may_take(size_t node) const { return nodes_[node]->online && nodes_[node]->takes_layers; }
  /// [begin, ...) as long as it fits and `upto` at most.
  span from(size_t node, uint32_t begin, uint32_t upto) const {
    return {begin, std::min(upto, begin + capacity_at(*nodes_[node], begin, total_, in_.costs))};
  }
  std::optional<span> emptiest_window(size_t node, const std::vector<uint32_t>& count) const;
  /// Replicas of the poorest and the richest layer, with a node at that window.
  struct balance_of {
    uint32_t low = 0, high = 0;
    span window;
    bool better_than(const balance_of& other) const noexcept {
      return low != other.low ? low > other.low : high - low < other.high - other.low;
    }
  };
  std::optional<balance_of> best_balance(size_t node, const std::vector<uint32_t>& count) const;
  bool extend_into(uint32_t gap);
  bool relocate_to(uint32_t gap);
  double ms_of(size_t node) const;
  uint32_t room(size_t node, bool first, bool last) const;
  std::vector<size_t> along_the_pipeline(std::vector<size_t> stages) const;

  const placement_input& in_;
  uint32_t total_;
  std::vector<const placement_node*> nodes_;
  std::vector<span> spans_;
};

std::vector<uint32_t> layout::all_replicas() const {
  std::vector<uint32_t> count(total_);
  for (const auto& one : spans_)
    for (uint32_t layer = one.begin; layer < one.end; ++layer)
      ++count[layer];
  return count;
}

void layout::keep_what_was() {
  const bool same_depth = in_.previous && layers_of(*in_.previous) == total_;
  for (size_t i = 0; i < nodes_.size(); ++i) {
    const auto& node = *nodes_[i];
    if (!node.takes_layers)
      continue;
    const auto before = same_depth     ? range_in(*in_.previous, node.id)
                        : in_.previous ? held_range{}
                                       : node.held;
    span kept{before.begin, std::min(before.end, total_)};
    if (kept.begin >= kept.end)
      continue;
    while (kept.size() > 0 && !fit(i, kept))
      --kept.end;
    // Without a map there may be more holders than wanted.
    const auto count = all_replicas();
    for (uint32_t layer = kept.begin; !in_.previous && layer < kept.end; ++layer)
      if (count[layer] >= replicas_max)
        kept = {};
    if (kept.size() > 0)
      spans_[i] = kept;
  }
}

/// The gap's node is the first without layers; else the one with most free capacity whose range reaches it;
/// else one whose layers others hold as well.
bool layout::fill_gaps() {
  for (uint32_t gap = first_gap(); gap < total_; gap = first_gap()) {
    bool filled = false;
    for (size_t i = 0; i < nodes_.size() && !filled; ++i) {
      if (!may_take(i) || spans_[i].size() > 0)
        continue;
      const auto taken = from(i, gap, total_);
      filled = taken.size() > 0;
      if (filled)
        spans_[i] = taken;
    }
    if (!filled && !extend_into(gap) && !relocate_to(gap))
      return false;
  }
  return true;
}

bool layout::extend_into(uint32_t gap) {
  std::optional<size_t> best;
  span grown;
  uint32_t best_free = 0;
  for (size_t i = 0; i < nodes_.size(); ++i) {
    const auto& now = spans_[i];
    if (!may_take(i) || now.size() == 0)
      continue;
    const uint32_t free = capacity_at(*nodes_[i], now.begin, total_, in_.costs);
    const span next{std::min(now.begin, gap), std::max(now.end, gap + 1)};
    if (!fit(i, next) || (best && free - std::min(free, now.size()) <= best_free))
      continue;
    best = i;
    best_free = free - std::min(free, now.size());
    grown = next;
  }
  if (!best)
    return false;
  spans_[*best] = grown;
  return true;
}

bool layout::relocate_to(uint32_t gap) {
  const auto count = all_replicas();
  std::optional<size_t> best;
  span target;
  for (size_t i = 0; i < nodes_.size(); ++i) {
    const auto& now = spans_[i];
    if (!may_take(i) || now.size() == 0)
      continue;
    bool spare = true;
    for (uint32_t layer = now.begin; layer < now.end; ++layer)
      spare &= count[layer] > 1;
    const auto next = from(i, gap, total_);
    if (!spare || next.size() == 0 || (best && next.size() <= target.size()))
      continue;
    best = i;
    target = next;
  }
  if (!best)
    return false;
  spans_[*best] = target;
  return true;
}

double layout::ms_of(size_t node) const {
  if (nodes_[node]->ms_per_layer > 0)
    return nodes_[node]->ms_per_layer;
  std::vector<double> known;
  for (const auto* one : nodes_)
    if (one->ms_per_layer > 0)
      known.push_back(one->ms_per_layer);
  if (known.empty())
    return 1;
  std::sort(known.begin(), known.end());
  return known[known.size() / 2];
}

/// Most layers that a node can hold as the whole pipeline, its first stage, its last, or one between.
uint32_t layout::room(size_t node, bool first, bool last) const {
  if (first && last)
    return fit(node, {0, total_}) ? total_ : 0;
  uint32_t most = 0;
  for (uint32_t n = 1; n < total_; ++n) {
    const uint32_t begin = first ? 0 : last ? total_ - n : 1;
    if ((last || begin + n < total_) && fit(node, {begin, begin + n}))
      most = n;
  }
  return most;
}

/// The order of `stages` of the largest nodes along the pipeline: the largest begins; of the others the
/// largest ends it, one that checks (validator) where it has room.
std::vector<size_t> layout::along_the_pipeline(std::vector<size_t> stages) const {
  if (stages.size() < 2)
    return stages;
  auto last = stages.begin() + 1;
  for (auto at = last; at != stages.end(); ++at)
    if (nodes_[*at]->validator && room(*at, false, true) > 0) {
      last = at;
      break;
    }
  std::rotate(last, last + 1, stages.end());
  return stages;
}

/// As few stages as have room for all layers; each gets one, then layer by layer the stage that is done first
/// with one more.
void layout::lay_anew() {
  std::vector<size_t> able;
  for (size_t i = 0; i < nodes_.size(); ++i)
    if (may_take(i) && (room(i, false, false) > 0 || total_ <= 2))
      able.push_back(i);
  // peers.max_layers may leave a large node little to take.
  std::stable_sort(able.begin(), able.end(),
                   [&](size_t a, size_t b) { return room(a, false, false) > room(b, false, false); });
  for (size_t count = 1; count <= able.size() && count <= total_; ++count) {
    const auto stages = along_the_pipeline({able.begin(), able.begin() + static_cast<ptrdiff_t>(count)});
    std::vector<uint32_t> most(count), taken(count, 1);
    uint32_t sum = 0;
    for (size_t s = 0; s < count; ++s)
      sum += most[s] = room(stages[s], s == 0, s + 1 == count);
    if (sum < total_ || std::find(most.begin(), most.end(), 0U) != most.end())
      continue;
    for (auto layer = static_cast<uint32_t>(count); layer < total_; ++layer) {
      std::optional<size_t> next;
      double least = 0;
      for (size_t s = 0; s < count; ++s) {
        const double head = s + 1 == count ? in_.costs.head_layers : 0;
        const double ms = ms_of(stages[s]) * (taken[s] + 1 + head);
        if (taken[s] < most[s] && (!next || ms < least)) {
          next = s;
          least = ms;
        }
      }
      ++taken[*next];
    }
    std::fill(spans_.begin(), spans_.end(), span{});
    uint32_t begin = 0;
    for (size_t s = 0; s < count; ++s) {
      spans_[stages[s]] = {begin, begin + taken[s]};
      begin += taken[s];
    }
    return;
  }
}

/// The largest window of layers with room for one more holder; of equal ones that with the fewest replicas,
/// then the lower start.
std::optional<span> layout::emptiest_window(size_t node, const std::vector<uint32_t>& count) const {
  for (uint32_t size = total_; size > 0; --size) {
    std::optional<span> best;
    uint32_t least = 0;
    for (uint32_t begin = 0; begin + size <= total_; ++begin) {
      const span window{begin, begin + size};
      if (!fit(node, window))
        continue;
      uint32_t sum = 0, highest = 0;
      for (uint32_t layer = begin; layer < begin + size; ++layer) {
        sum += count[layer];
        highest = std::max(highest, count[layer]);
      }
      if (highest >= replicas_max || (best && sum >= least))
        continue;
      best = window;
      least = sum;
    }
    if (best)
      return best;
  }
  return std::nullopt;
}

void layout::add_replicas() {
  for (size_t i = 0; i < nodes_.size(); ++i) {
    if (!may_take(i) || spans_[i].size() > 0)
      continue;
    if (const auto window = emptiest_window(i, all_replicas()))
      spans_[i] = *window;
  }
}

/// Where a node would do most for the balance of layers that others hold `count` times.
std::optional<layout::balance_of> layout::best_balance(size_t node,
                                                       const std::vector<uint32_t>& count) const {
  // Lowest and highest before each layer, and from each on.
  std::vector<std::pair<uint32_t, uint32_t>> before(total_ + 1, {~0U, 0}), after(total_ + 1, {~0U, 0});
  const auto with = [](std::pair<uint32_t, uint32_t> a, uint32_t n) {
    return std::pair(std::min(a.first, n), std::max(a.second, n));
  };
  for (uint32_t layer = 0; layer < total_; ++layer)
    before[layer + 1] = with(before[layer], count[layer]);
  for (uint32_t layer = total_; layer > 0; --layer)
    after[layer - 1] = with(after[layer], count[layer - 1]);
  std::optional<balance_of> best;
  for (uint32_t begin = 0; begin < total_; ++begin) {
    auto range = before[begin];
    for (uint32_t end = begin + 1; end <= total_ && count[end - 1] < replicas_max; ++end) {
      range = with(range, count[end - 1] + 1);
      if (!fit(node, {begin, end}))
        continue;
      const balance_of now{
          std::min(range.first, after[end].first), std::max(range.second, after[end].second), {begin, end}};
      if (!best || now.better_than(*best) ||
          (!best->better_than(now) && now.window.size() > best->window.size()))
        best = now;
    }
  }
  return best;
}

void layout::balance() {
  if (in_.exchanging || nodes_.empty())
    return;
  size_t recent = 0;
  for (const auto& [id, at] : in_.moved_us)
    recent += in_.now_us - at < moves_window_us;
  const size_t allowed = std::max<size_t>(1, nodes_.size() / 10);
  std::vector<bool> moved(nodes_.size());
  for (; recent < allowed; ++recent) {
    const auto count = all_replicas();
    const auto [low, high] = std::minmax_element(count.begin(), count.end());
    if (!(*low < replicas_min && *high >= crowded) && *high - *low < imbalance)
      return;
    std::optional<size_t> best;
    balance_of best_so_far{*low, *high, {}};
    for (size_t i = 0; i < nodes_.size(); ++i) {
      const auto last = in_.moved_us.find(nodes_[i]->id);
      const bool resting = last != in_.moved_us.end() && in_.now_us - last->second < node_rest_us;
      if (!may_take(i) || spans_[i].size() == 0 || moved[i] || resting)
        continue;
      auto without = count;
      bool spare = true;
      for (uint32_t layer = spans_[i].begin; layer < spans_[i].end; ++layer)
        spare &= --without[layer] > 0;
      if (const auto moved_to = spare ? best_balance(i, without) : std::nullopt;
          moved_to && moved_to->better_than(best_so_far)) {
        best = i;
        best_so_far = *moved_to;
      }
    }
    if (!best)
      return;
    spans_[*best] = best_so_far.window;
    moved[*best] = true;
  }
}

placement layout::result() const {
  placement out;
  out.complete = complete() && total_ > 0;
  out.units.resize(total_ + 2);
  bool validator_at_the_end = false;
  for (size_t i = 0; i < nodes_.size(); ++i)
    validator_at_the_end |= nodes_[i]->validator && spans_[i].end == total_ && spans_[i].size() > 0;
  for (uint32_t u = 0; u < total_ + 2; ++u)
    out.units[u].unit = u == 0 ? "embed" : u == total_ + 1 ? "head" : unit_of_layer(u - 1);
  for (size_t i = 0; i < nodes_.size(); ++i) {
    const auto& one = spans_[i];
    if (one.size() == 0)
      continue;
    const auto& id = nodes_[i]->id;
    const bool embed = one.begin == 0;
    const bool head = one.end == total_ && (nodes_[i]->validator || !validator_at_the_end);
    out.ranges.emplace(id, held_range{one.begin, one.end, embed, head});
    if (embed)
      out.units[0].holders.push_back(id);
    for (uint32_t layer = one.begin; layer < one.end; ++layer)
      out.units[layer + 1].holders.push_back(id);
    if (head)
      out.units[total_ + 1].holders.push_back(id);
  }
  for (auto& unit : out.units)
    std::sort(unit.holders.begin(), unit.holders.end());
  return out;
}

} // namespace

unit_costs costs_in_cohort(uint64_t layer_params, uint64_t embed_params, uint64_t head_params, bool bf16) {
  // Tenths of a byte a parameter: 16 or 18 x 1.2, two serving copies of 4 or 2, 12 of the outer loop.
  const uint64_t tenths = bf16 ? 216 + 40 + 120 : 192 + 80 + 120;
  const auto bytes = [&](uint64_t params) { return params * tenths / 10; };
  unit_costs costs{std::max<uint64_t>(1, bytes(layer_params)), bytes(embed_params), bytes(head_params), 0};
  if (layer_params > 0)
    costs.head_layers = static_cast<double>(head_params) / static_cast<double>(layer_params);
  return costs;
}

bool fits(const placement_node& node, uint32_t begin, uint32_t end, uint32_t total_layers,
          const unit_costs& costs) {
  if (begin >= end || end > total_layers || !node.takes_layers)
    return false;
  if (node.max_layers != 0 && end - begin > node.max_layers)
    return false;
  if (begin >= node.held.begin && end <= node.held.end)
    return true; // it runs that already
  const auto usable = static_cast<__int128>(node.memory_mb) * (1 << 20) * usable_percent / 100;
  __int128 needed = static_cast<__int128>(end - begin) * costs.layer_bytes;
  if (begin == 0)
    needed += costs.embed_bytes;
  if (end == total_layers)
    needed += costs.head_bytes;
  return needed <= usable;
}

uint32_t capacity_at(const placement_node& node, uint32_t begin, uint32_t total_layers,
                     const unit_costs& costs) {
  uint32_t most = 0;
  for (uint32_t end = begin + 1; end <= total_layers; ++end)
    if (fits(node, begin, end, total_layers, costs))
      most = end - begin;
  return most;
}

placement place(const placement_input& in) {
  layout made{in};
  if (in.total_layers == 0)
    return made.result();
  made.keep_what_was();
  const bool was_complete = made.complete();
  bool worked_before = in.previous && layers_of(*in.previous) == in.total_layers && complete(*in.previous);
  if (!was_complete && !worked_before && !in.trained) {
    made.lay_anew(); // leaves it as it is where there is no room for all layers
    if (!made.complete())
      made.fill_gaps();
  } else if (!made.fill_gaps()) {
    made.lay_anew();
  }
  if (made.complete())
    made.add_replicas();
  // A gap was closed this time: that is change enough.
  if (was_complete && made.complete())
    made.balance();
  return made.result();
}

} // namespace neuroshard
