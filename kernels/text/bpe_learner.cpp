#include "kernels/text/bpe_learner.hpp"

#include "kernels/text/pair_table.hpp"
#include "kernels/text/splitter.hpp"

#include <algorithm>
#include <queue>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

namespace neuroshard::text {
namespace {

using kernels::code;
using kernels::result;
using kernels::status;

constexpr uint64_t distinct_bytes_max = uint64_t{64} << 20;
constexpr uint64_t frequency_min = 2;
constexpr uint32_t none = UINT32_MAX;

struct key_hash {
  size_t operator()(uint64_t key) const noexcept { return pair_table::mix(key); }
};

// All distinct pieces, one after another, as tokens. Each place is a link of its piece's list; a token that
// was merged into the one before it is out of the list.
struct place {
  token_id token;
  uint32_t before; // none at the start of the piece
  uint32_t after;  // none at its end
};

// Where a pair may be found (places that changed since are still in the list), and how often it occurs in the
// text.
struct pair_places {
  uint64_t count = 0;
  std::vector<uint32_t> places;
};

struct candidate {
  uint64_t count;
  uint64_t key;
  // The top of the heap is the largest: higher count, then the smaller pair.
  bool operator<(const candidate& other) const noexcept {
    return count != other.count ? count < other.count : key > other.key;
  }
};

// The state of learning once counting is over.
class pair_index {
public:
  void reserve(size_t places) {
    places_.reserve(places);
    weights_.reserve(places);
  }

  void add_piece(std::string_view piece, uint64_t count) {
    const auto start = static_cast<uint32_t>(places_.size());
    for (size_t i = 0; i < piece.size(); ++i) {
      const auto at = static_cast<uint32_t>(start + i);
      places_.push_back({first_byte_id + static_cast<uint8_t>(piece[i]), i == 0 ? none : at - 1,
                         i + 1 == piece.size() ? none : at + 1});
      weights_.push_back(count);
    }
    for (uint32_t at = start; at + 1 < places_.size(); ++at)
      gain(places_[at].token, places_[at + 1].token, at);
  }

  void start() {
    for (const auto& [key, pair] : pairs_)
      push(key, pair.count);
    touched_.clear();
  }

  // The pair to merge next, or nothing when none occurs often enough.
  bool next(merge& out) {
    while (!heap_.empty()) {
      const candidate top = heap_.top();
      heap_.pop();
      const auto found = pairs_.find(top.key);
      if (found == pairs_.end())
        continue;
      if (found->second.count != top.count) { // only ever less than when it was pushed
        push(top.key, found->second.count);
        continue;
      }
      out = {static_cast<token_id>(top.key >> 32), static_cast<token_id>(top.key)};
      return true;
    }
    return false;
  }

  // Takes a pair out for good, without merging it.
  void pass_over(const merge& pair) { pairs_.erase(pair_table::key_of(pair.left, pair.right)); }

  // Replaces the pair by `id` everywhere, leftmost first within a piece: the places of a pair are in
  // ascending order, because all of them came to be while the younger of its two tokens was made, from left
  // to right.
  void apply(const merge& pair, token_id id) {
    auto taken = pairs_.extract(pair_table::key_of(pair.left, pair.right));
    for (const uint32_t at : taken.mapped().places) {
      place& left = places_[at];
      if (left.token != pair.left || left.after == none || places_[left.after].token != pair.right)
        continue;
      place& right = places_[left.after];
      if (left.before != none)
        lose(places_[left.before].token, left.token, at);
      if (right.after != none)
        lose(right.token, places_[right.after].token, at);
      right.token = none;
      left.token = id;
      left.after = right.after;
      if (left.after != none) {
        places_[left.after].before = at;
        gain(id, places_[left.after].token, at);
      }
      if (left.before != none)
        gain(places_[left.before].token, id, left.before);
    }
    for (const uint64_t key : touched_)
      if (const auto found = pairs_.find(key); found != pairs_.end())
        push(key, found->second.count);
    touched_.clear();
  }

private:
  void gain(token_id left, token_id right, uint32_t at) {
    const uint64_t key = pair_table::key_of(left, right);
    pair_places& pair = pairs_[key];
    if (pair.places.empty())
      touched_.push_back(key);
    pair.count += weights_[at];
    pair.places.push_back(at);
  }

  // The pair that is being merged is out of the table already: what it loses does not matter.
  void lose(token_id left, token_id right, uint32_t at) {
    if (const auto found = pairs_.find(pair_table::key_of(left, right)); found != pairs_.end())
      found->second.count -= weights_[at];
  }

  void push(uint64_t key, uint64_t count) {
    if (count >= frequency_min)
      heap_.push({count, key});
  }

  std::vector<place> places_;
  std::vector<uint64_t> weights_; // of a place: how often its piece occurs
  std::unordered_map<uint64_t, pair_places, key_hash> pairs_;
  std::priority_queue<candidate> heap_;
  std::vector<uint64_t> touched_; // pairs new since the last merge
};

} // namespace

struct bpe_learner::state {
  struct text_hash {
    using is_transparent = void;
    size_t operator()(std::string_view text) const noexcept { return std::hash<std::string_view>{}(text); }
  };
  std::unordered_map<std::string, uint64_t, text_hash, std::equal_to<>> counts;
  uint64_t bytes = 0;
  uint64_t distinct_bytes = 0;
};

bpe_learner::bpe_learner() : state_(std::make_unique<state>()) {}
bpe_learner::~bpe_learner() = default;
bpe_learner::bpe_learner(bpe_learner&&) noexcept = default;
bpe_learner& bpe_learner::operator=(bpe_learner&&) noexcept = default;

uint64_t bpe_learner::bytes() const noexcept {
  return state_->bytes;
}

void bpe_learner::add(std::string_view document) {
  for_each_piece(document, [&](std::string_view piece) {
    if (piece.size() < 2) // has no pair
      return;
    const auto known = state_->counts.find(piece);
    if (known != state_->counts.end()) {
      ++known->second;
    } else if (state_->distinct_bytes + piece.size() <= distinct_bytes_max) {
      state_->distinct_bytes += piece.size();
      state_->counts.emplace(std::string(piece), 1);
    }
  });
  state_->bytes += document.size();
}

result<tokenizer> bpe_learner::learn(uint32_t vocab_size, const progress& watch) {
  if (vocab_size < first_merge_id || vocab_size > vocab_size_max)
    return status{code::invalid_argument, "vocab_size " + std::to_string(vocab_size) + ": allowed are " +
                                              std::to_string(first_merge_id) + " to " +
                                              std::to_string(vocab_size_max)};
  const auto learned_from = std::exchange(state_, std::make_unique<state>());
  pair_index index;
  index.reserve(learned_from->distinct_bytes);
  for (const auto& [piece, count] : learned_from->counts)
    index.add_piece(piece, count);
  index.start();

  const uint32_t wanted = vocab_size - first_merge_id;
  std::vector<merge> merges;
  std::vector<uint16_t> lengths;
  const auto length_of = [&](token_id id) -> uint32_t {
    return id < first_merge_id ? 1 : lengths[id - first_merge_id];
  };
  merge best;
  while (merges.size() < wanted && index.next(best)) {
    if (merges.size() % 64 == 0) {
      if (watch.cancelled())
        return status{code::unavailable, "cancelled"};
      watch("learn-merges", static_cast<double>(merges.size()) / wanted);
    }
    const uint32_t length = length_of(best.left) + length_of(best.right);
    if (length > token_bytes_max) {
      index.pass_over(best);
      continue;
    }
    index.apply(best, static_cast<token_id>(first_merge_id + merges.size()));
    merges.push_back(best);
    lengths.push_back(static_cast<uint16_t>(length));
  }
  watch("learn-merges", 1.0);
  return tokenizer::from_merges(std::move(merges));
}

} // namespace neuroshard::text
