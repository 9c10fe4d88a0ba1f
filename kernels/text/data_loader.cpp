#include "kernels/text/data_loader.hpp"

#include "kernels/core/philox.hpp"
#include "kernels/core/sha256.hpp"
#include "kernels/text/json_input.hpp"

#include <algorithm>
#include <utility>

namespace neuroshard::text {
namespace {

using kernels::code;
using kernels::result;
using kernels::status;

// SHA-256 as a big-endian integer, modulo n.
uint64_t digest_mod(const kernels::digest& digest, uint64_t n) {
  unsigned __int128 rest = 0;
  for (const uint8_t byte : digest)
    rest = ((rest << 8) | byte) % n;
  return static_cast<uint64_t>(rest);
}

// The key of Philox(K, c) for K = node id and shard id as u64 LE (spec/model.md section 3).
uint64_t philox_key(std::string_view node_id, uint64_t shard_id) {
  std::array<uint8_t, 8> id;
  for (size_t i = 0; i < id.size(); ++i)
    id[i] = static_cast<uint8_t>(shard_id >> (8 * i));
  const kernels::digest digest = kernels::sha256().update(node_id).update(id).finish();
  uint64_t key = 0;
  for (size_t i = 8; i-- > 0;)
    key = (key << 8) | digest[i];
  return key;
}

// One row of a batch from `tokens` tokens, of which copy(n, out) gives the first n.
template <class Copy>
void fill_row(uint64_t tokens, std::span<int32_t> ids, std::span<int32_t> labels, const Copy& copy) {
  const size_t seq = ids.size();
  const auto real = static_cast<size_t>(std::min<uint64_t>(tokens, seq));
  copy(labels.first(real));
  std::fill(labels.begin() + static_cast<ptrdiff_t>(real), labels.end(), ignored_label);
  ids[0] = static_cast<int32_t>(bos_id);
  std::copy_n(labels.begin(), real > 0 ? real - 1 : 0, ids.begin() + 1);
  std::fill(ids.begin() + static_cast<ptrdiff_t>(std::max<size_t>(real, 1)), ids.end(),
            static_cast<int32_t>(pad_id));
}

} // namespace

std::string data_cursor::to_json() const {
  return "{\"rotation\":" + std::to_string(rotation) + ",\"index\":" + std::to_string(index) +
         ",\"tokens_drawn\":" + std::to_string(tokens_drawn) + "}";
}

result<data_cursor> data_cursor::parse(std::string_view json) {
  rapidjson::Document root;
  if (const std::string problem = parse_json_document(json, root); !problem.empty())
    return status{code::corrupt, "data cursor: " + problem};
  data_cursor made;
  if (root.IsObject()) {
    size_t found = 0;
    for (const auto& [key, field] :
         {std::pair{"rotation", &data_cursor::rotation}, std::pair{"index", &data_cursor::index},
          std::pair{"tokens_drawn", &data_cursor::tokens_drawn}}) {
      const auto at = root.FindMember(key);
      if (at == root.MemberEnd() || !at->value.IsUint64())
        break;
      made.*field = at->value.GetUint64();
      ++found;
    }
    if (found == 3)
      return made;
  }
  return status{code::corrupt, "data cursor: needs the whole numbers rotation, index and tokens_drawn"};
}

result<data_loader> data_loader::make(std::shared_ptr<const shard_source> shards, const options& how) {
  if (how.node_id.empty())
    return status{code::invalid_argument, "the data loader needs a node id"};
  const auto ids = shards->training_ids();
  if (ids.empty())
    return status{code::invalid_argument, shards->name() + ": has no training shard"};
  data_loader made;
  for (size_t i = 0; i < ids.size(); ++i) {
    if (shards->training_size(i) < 2)
      return status{code::invalid_argument,
                    shards->name() + ": shard " + std::to_string(ids[i]) + " has under 2 tokens"};
    made.keys_.push_back(philox_key(how.node_id, ids[i]));
  }
  made.base_ = digest_mod(kernels::sha256::of(how.node_id), ids.size());
  const uint64_t fit = how.storage_bytes_max / std::max<uint64_t>(1, shards->shard_bytes_max());
  made.shards_in_rotation_ = std::clamp<uint64_t>(fit, 1, ids.size());
  made.shards_ = std::move(shards);
  return made;
}

size_t data_loader::place(const data_cursor& at) const noexcept {
  const uint64_t n = keys_.size();
  const auto moved = static_cast<unsigned __int128>(at.rotation) * shards_in_rotation_ + base_ + at.index;
  return static_cast<size_t>(moved % n);
}

uint64_t data_loader::shard_id(const data_cursor& at) const noexcept {
  return shards_->training_ids()[place(at)];
}

status data_loader::rows(const data_cursor& at, uint64_t step, uint32_t batch, uint32_t first_row,
                         uint32_t rows, uint32_t seq, std::span<int32_t> ids,
                         std::span<int32_t> labels) const {
  const uint64_t cells = uint64_t{rows} * seq;
  if (seq == 0 || ids.size() != cells || labels.size() != cells || uint64_t{first_row} + rows > batch)
    return {code::invalid_argument, "rows " + std::to_string(first_row) + " to " +
                                        std::to_string(uint64_t{first_row} + rows) + " of a batch of " +
                                        std::to_string(batch) + " x " + std::to_string(seq) +
                                        ": wrong range or array size"};
  const size_t which = place(at);
  const auto held = shards_->lease(which);
  if (!held)
    return held.status();
  const auto tokens = held->tokens;
  for (uint32_t row = 0; row < rows; ++row) {
    uint64_t start = 0;
    if (tokens.size() > seq)
      start = kernels::philox_below(keys_[which], step * batch + first_row + row, 0, tokens.size() - seq + 1);
    fill_row(tokens.size(), ids.subspan(size_t{row} * seq, seq), labels.subspan(size_t{row} * seq, seq),
             [&](std::span<int32_t> out) {
               for (size_t i = 0; i < out.size(); ++i)
                 out[i] = static_cast<int32_t>(tokens[start + i]);
             });
  }
  return {};
}

data_cursor data_loader::next(data_cursor at) const noexcept {
  at.tokens_drawn = 0;
  if (++at.index >= shards_in_rotation_) {
    at.index = 0;
    ++at.rotation;
  }
  return at;
}

// The first cursor from `from` on whose shard is here. As many steps as there are shards come by each of
// them.
data_cursor data_loader::first_here(const data_cursor& from, const data_cursor& otherwise) const {
  data_cursor at = from;
  for (size_t i = 0; i < keys_.size(); ++i, at = next(at))
    if (shards_->presence(place(at)) == shard_presence::here)
      return at;
  return otherwise;
}

data_cursor data_loader::settle(const data_cursor& at) const {
  shards_->expect(place(at));
  if (shards_->presence(place(at)) != shard_presence::failing)
    return at;
  const data_cursor other = first_here(next(at), at);
  shards_->expect(place(other));
  return other;
}

data_cursor data_loader::advance(data_cursor at, uint64_t tokens) const {
  at.tokens_drawn += tokens;
  if (at.tokens_drawn < shards_->training_size(place(at)))
    return at;
  const data_cursor after = next(at);
  // With room for one shard the next can only come when this one goes.
  return shards_->room() > 1 ? first_here(after, after) : after;
}

status data_loader::heldout_window(uint32_t window, std::span<int32_t> ids, std::span<int32_t> labels) const {
  const token_view from = shards_->held_out();
  if (from.size() < 2)
    return {code::invalid_argument, shards_->name() + ": nothing is held out"};
  if (window >= heldout_windows || ids.empty() || ids.size() != labels.size())
    return {code::invalid_argument,
            "held-out window " + std::to_string(window) + ": wrong number or array size"};
  const uint64_t start = window * (from.size() / heldout_windows);
  std::vector<token_id> tokens(std::min<uint64_t>(from.size() - start, ids.size()));
  from.copy(start, tokens);
  fill_row(tokens.size(), ids, labels, [&](std::span<int32_t> out) {
    std::transform(tokens.begin(), tokens.end(), out.begin(),
                   [](token_id id) { return static_cast<int32_t>(id); });
  });
  return {};
}

} // namespace neuroshard::text
