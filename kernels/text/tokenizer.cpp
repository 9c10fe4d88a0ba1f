#include "kernels/text/tokenizer.hpp"

#include "kernels/text/pair_table.hpp"
#include "kernels/text/splitter.hpp"
#include "kernels/text/utf8_stream.hpp"

#include <algorithm>
#include <array>
#include <mutex>
#include <queue>
#include <string>
#include <unordered_map>
#include <utility>

namespace neuroshard::text {
namespace {

using kernels::code;
using kernels::result;
using kernels::status;

constexpr uint32_t none = UINT32_MAX;
// Pieces up to this length are merged by repeated scanning: below it that is faster than a heap.
constexpr size_t scan_bytes_max = 48;

// Remembers the ids of pieces. Words repeat: nearly all of a text is found here. Bounded: a slot of the table
// that is full is emptied and fills again. Locks are per slot, so that threads seldom meet.
class piece_cache {
public:
  static constexpr size_t piece_bytes_max = 32;

  // Appends the ids of a known piece; false when it is not known.
  bool find(std::string_view piece, size_t hash, std::vector<token_id>& out) {
    slot& s = slots_[hash % slots_.size()];
    const std::lock_guard lock(s.mutex);
    const auto at = s.ids.find(piece);
    if (at == s.ids.end())
      return false;
    out.insert(out.end(), at->second.begin(), at->second.end());
    return true;
  }

  void remember(std::string_view piece, size_t hash, std::span<const token_id> ids) {
    slot& s = slots_[hash % slots_.size()];
    const std::lock_guard lock(s.mutex);
    if (s.ids.size() >= pieces_per_slot)
      s.ids.clear();
    s.ids.try_emplace(std::string(piece), ids.begin(), ids.end());
  }

  static size_t hash_of(std::string_view piece) noexcept { return std::hash<std::string_view>{}(piece); }

private:
  struct hasher {
    using is_transparent = void;
    size_t operator()(std::string_view piece) const noexcept { return hash_of(piece); }
  };
  struct slot {
    std::mutex mutex;
    std::unordered_map<std::string, std::vector<token_id>, hasher, std::equal_to<>> ids;
  };
  static constexpr size_t pieces_per_slot = 1024;
  std::array<slot, 64> slots_;
};

} // namespace

struct tokenizer::state {
  std::vector<merge> merges;
  pair_table ids; // of (left, right)
  kernels::digest hash{};
  mutable piece_cache cache;

  void encode_piece(std::string_view piece, std::vector<token_id>& out) const;
  void merge_by_scan(std::string_view piece, std::vector<token_id>& out) const;
  void merge_by_heap(std::string_view piece, std::vector<token_id>& out) const;
};

void tokenizer::state::encode_piece(std::string_view piece, std::vector<token_id>& out) const {
  if (piece.size() == 1) {
    out.push_back(first_byte_id + static_cast<uint8_t>(piece[0]));
    return;
  }
  if (piece.size() > scan_bytes_max)
    return merge_by_heap(piece, out);
  if (piece.size() > piece_cache::piece_bytes_max)
    return merge_by_scan(piece, out);
  const size_t hash = piece_cache::hash_of(piece);
  if (cache.find(piece, hash, out))
    return;
  const size_t before = out.size();
  merge_by_scan(piece, out);
  cache.remember(piece, hash, std::span(out).subspan(before));
}

void tokenizer::state::merge_by_scan(std::string_view piece, std::vector<token_id>& out) const {
  std::array<token_id, scan_bytes_max> token;
  std::array<uint32_t, scan_bytes_max> merged; // id of (token[i], token[i + 1])
  size_t n = piece.size();
  for (size_t i = 0; i < n; ++i)
    token[i] = first_byte_id + static_cast<uint8_t>(piece[i]);
  for (size_t i = 0; i + 1 < n; ++i)
    merged[i] = ids.find(token[i], token[i + 1]);
  while (n > 1) {
    const auto best = std::min_element(merged.begin(), merged.begin() + static_cast<ptrdiff_t>(n - 1));
    if (*best == pair_table::absent)
      break;
    const auto i = static_cast<size_t>(best - merged.begin());
    token[i] = *best;
    std::copy(token.begin() + static_cast<ptrdiff_t>(i + 2), token.begin() + static_cast<ptrdiff_t>(n),
              token.begin() + static_cast<ptrdiff_t>(i + 1));
    if (i + 2 < n)
      std::copy(merged.begin() + static_cast<ptrdiff_t>(i + 2),
                merged.begin() + static_cast<ptrdiff_t>(n - 1),
                merged.begin() + static_cast<ptrdiff_t>(i + 1));
    --n;
    if (i > 0)
      merged[i - 1] = ids.find(token[i - 1], token[i]);
    if (i + 1 < n)
      merged[i] = ids.find(token[i], token[i + 1]);
  }
  out.insert(out.end(), token.begin(), token.begin() + static_cast<ptrdiff_t>(n));
}

void tokenizer::state::merge_by_heap(std::string_view piece, std::vector<token_id>& out) const {
  // The tokens form a linked list over the positions where they begin. A merge makes only merges of higher
  // ids possible (they refer to it), so taking the least (id, position) is "lowest id, leftmost first".
  struct node {
    token_id token;
    uint32_t before;
    uint32_t after; // none at the end
  };
  const auto n = static_cast<uint32_t>(piece.size());
  std::vector<node> list(n);
  using candidate = std::pair<uint32_t, uint32_t>; // id of the merge, position of its left token
  std::vector<candidate> found;
  for (uint32_t i = 0; i < n; ++i)
    list[i] = {first_byte_id + static_cast<uint8_t>(piece[i]), i == 0 ? none : i - 1,
               i + 1 == n ? none : i + 1};
  for (uint32_t i = 0; i + 1 < n; ++i)
    if (const auto id = ids.find(list[i].token, list[i + 1].token); id != pair_table::absent)
      found.emplace_back(id, i);
  std::priority_queue<candidate, std::vector<candidate>, std::greater<>> heap(std::greater<>{},
                                                                              std::move(found));
  const auto consider = [&](uint32_t left) {
    const auto id = ids.find(list[left].token, list[list[left].after].token);
    if (id != pair_table::absent)
      heap.emplace(id, left);
  };
  while (!heap.empty()) {
    const auto [id, at] = heap.top();
    heap.pop();
    node& left = list[at];
    // Stale when a neighbour was merged away since. Each id stands for one pair, so the tokens tell.
    const merge& wanted = merges[id - first_merge_id];
    if (left.token != wanted.left || left.after == none || list[left.after].token != wanted.right)
      continue;
    node& right = list[left.after];
    right.token = none;
    left.token = id;
    left.after = right.after;
    if (left.after != none)
      list[left.after].before = at;
    if (left.before != none)
      consider(left.before);
    if (left.after != none)
      consider(at);
  }
  for (uint32_t i = 0; i != none; i = list[i].after)
    out.push_back(list[i].token);
}

tokenizer::tokenizer(std::shared_ptr<const state> held) : state_(std::move(held)) {}

tokenizer::tokenizer() : tokenizer(std::move(*from_merges({}))) {}

result<tokenizer> tokenizer::from_merges(std::vector<merge> merges) {
  const auto refused = [](size_t i, const char* why) {
    return status{code::invalid_argument, "merge " + std::to_string(first_merge_id + i) + " " + why};
  };
  if (merges.size() > vocab_size_max - first_merge_id)
    return status{code::invalid_argument, "more than " + std::to_string(vocab_size_max) + " tokens"};
  auto made = std::make_shared<state>();
  made->ids = pair_table(merges.size());
  std::vector<uint16_t> lengths(merges.size());
  const auto length_of = [&](token_id id) -> uint32_t {
    return id < first_merge_id ? 1 : lengths[id - first_merge_id];
  };
  kernels::sha256 hash;
  for (size_t i = 0; i < merges.size(); ++i) {
    const auto id = static_cast<token_id>(first_merge_id + i);
    const auto [left, right] = merges[i];
    if (left < first_byte_id || right < first_byte_id)
      return refused(i, "names a special token");
    if (left >= id || right >= id)
      return refused(i, "refers to a later token");
    const uint32_t length = length_of(left) + length_of(right);
    if (length > token_bytes_max)
      return refused(i, "is longer than a token may be");
    lengths[i] = static_cast<uint16_t>(length);
    if (!made->ids.insert(left, right, id))
      return refused(i, "repeats an earlier pair");
    std::array<uint8_t, 12> triple;
    for (size_t word = 0; word < 3; ++word)
      for (size_t byte = 0; byte < 4; ++byte)
        triple[word * 4 + byte] = static_cast<uint8_t>(std::array{left, right, id}[word] >> (8 * byte));
    hash.update(triple);
  }
  made->hash = hash.finish();
  made->merges = std::move(merges);
  return tokenizer(std::move(made));
}

uint32_t tokenizer::vocab_size() const noexcept {
  return first_merge_id + static_cast<uint32_t>(state_->merges.size());
}

std::span<const merge> tokenizer::merges() const noexcept {
  return state_->merges;
}

const kernels::digest& tokenizer::hash() const noexcept {
  return state_->hash;
}

void tokenizer::encode(std::string_view bytes, std::vector<token_id>& out) const {
  for_each_piece(bytes, [&](std::string_view piece) { state_->encode_piece(piece, out); });
}

std::vector<token_id> tokenizer::encode(std::string_view bytes) const {
  std::vector<token_id> out;
  out.reserve(bytes.size() / 3);
  encode(bytes, out);
  return out;
}

void tokenizer::append_token_bytes(token_id id, std::string& out) const {
  if (id >= vocab_size())
    return;
  // A chain of merges is as deep as the token is long, so the right halves wait on a stack of bounded size.
  std::array<token_id, token_bytes_max> waiting;
  size_t depth = 0;
  while (true) {
    while (id >= first_merge_id) {
      const merge& m = state_->merges[id - first_merge_id];
      waiting[depth++] = m.right;
      id = m.left;
    }
    if (id >= first_byte_id)
      out.push_back(static_cast<char>(id - first_byte_id));
    if (depth == 0)
      return;
    id = waiting[--depth];
  }
}

std::string tokenizer::token_bytes(token_id id) const {
  std::string out;
  append_token_bytes(id, out);
  return out;
}

std::string tokenizer::decode_bytes(std::span<const token_id> ids) const {
  std::string out;
  out.reserve(ids.size() * 4);
  for (const token_id id : ids)
    append_token_bytes(id, out);
  return out;
}

std::string tokenizer::decode_text(std::span<const token_id> ids) const {
  return to_valid_utf8(decode_bytes(ids));
}

} // namespace neuroshard::text
