#include "kernels/text/shards.hpp"

#include "kernels/text/files.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

namespace neuroshard::text {
namespace {

using kernels::code;
using kernels::result;
using kernels::status;

// Shards are mapped and read in place.
static_assert(std::endian::native == std::endian::little, "shards are little-endian u32");

struct mapped_shard {
  std::shared_ptr<const mapped_file> file;
  std::span<const token_id> tokens;
};

result<mapped_shard> map_checked(const std::string& path, const shard_entry& entry, uint32_t vocab_size) {
  auto file = map_shard(path, entry, vocab_size);
  if (!file)
    return file.status();
  const auto tokens = tokens_of(**file);
  return mapped_shard{std::move(*file), tokens};
}

} // namespace

result<std::shared_ptr<const mapped_file>> map_shard(const std::string& path, const shard_entry& entry,
                                                     uint32_t vocab_size) {
  auto file = mapped_file::open(path);
  if (!file)
    return file.status();
  const auto bytes = (*file)->bytes();
  const auto corrupt = [&](const std::string& why) { return status{code::corrupt, path + ": " + why}; };
  if (bytes.size() != entry.tokens * sizeof(token_id))
    return corrupt("damaged: has " + std::to_string(bytes.size()) + " bytes, its manifest says " +
                   std::to_string(entry.tokens * sizeof(token_id)));
  if (kernels::to_hex(kernels::sha256::of(bytes)) != entry.sha256)
    return corrupt("damaged: its SHA-256 is not that of its manifest");
  const auto tokens = tokens_of(**file);
  const token_id highest = *std::max_element(tokens.begin(), tokens.end());
  if (highest >= vocab_size)
    return corrupt("holds token " + std::to_string(highest) + ", the vocabulary has " +
                   std::to_string(vocab_size));
  return file;
}

std::span<const token_id> tokens_of(const mapped_file& shard) {
  const auto bytes = shard.bytes();
  return {reinterpret_cast<const token_id*>(bytes.data()), bytes.size() / sizeof(token_id)};
}

uint64_t tail_tokens(uint64_t tokens, double held_out) {
  return static_cast<uint64_t>(std::floor(static_cast<double>(tokens) * held_out));
}

void token_view::append(std::span<const token_id> piece) {
  if (piece.empty())
    return;
  pieces_.push_back(piece);
  size_ += piece.size();
}

void token_view::copy(uint64_t from, std::span<token_id> out) const noexcept {
  for (const auto& piece : pieces_) {
    if (out.empty())
      return;
    if (from >= piece.size()) {
      from -= piece.size();
      continue;
    }
    const size_t n = std::min<size_t>(piece.size() - from, out.size());
    std::copy_n(piece.begin() + static_cast<ptrdiff_t>(from), n, out.begin());
    out = out.subspan(n);
    from = 0;
  }
}

result<shard_set> shard_set::open(const std::string& directory, const options& how) {
  const std::string manifest_path = directory + "/manifest.json";
  auto json = read_file(manifest_path, manifest_bytes_max);
  if (!json)
    return json.status();
  auto manifest = shard_manifest::parse(*json, manifest_path);
  if (!manifest)
    return manifest.status();
  if (!how.tokenizer_hash.empty() && manifest->tokenizer_hash != how.tokenizer_hash)
    return status{code::invalid_argument, manifest_path + ": made with another tokenizer"};

  shard_set made;
  made.directory_ = directory;
  made.manifest_ = std::move(*manifest);
  std::vector<mapped_shard> good;
  for (size_t i = 0; i < made.manifest_.shards.size(); ++i) {
    const shard_entry& entry = made.manifest_.shards[i];
    if (how.watch != nullptr && how.watch->cancelled())
      return status{code::unavailable, "cancelled"};
    if (how.watch != nullptr)
      (*how.watch)("check-shards",
                   static_cast<double>(i) / static_cast<double>(made.manifest_.shards.size()));
    auto shard = map_checked(directory + "/" + shard_file_name(entry.id), entry, how.vocab_size);
    if (!shard) {
      if (!how.leave_out_corrupt)
        return shard.status();
      made.warnings_.push_back(shard.status().message() + "; left out");
      continue;
    }
    made.mappings_.push_back(shard->file);
    made.training_ids_.push_back(entry.id);
    good.push_back(std::move(*shard));
  }
  if (good.empty())
    return status{code::corrupt, directory + ": has no usable shard"};

  if (made.manifest_.heldout) {
    auto heldout = map_checked(directory + "/heldout.bin", *made.manifest_.heldout, how.vocab_size);
    if (!heldout)
      return heldout.status();
    made.mappings_.push_back(heldout->file);
    made.heldout_.append(heldout->tokens);
  } else if (made.manifest_.shards.size() >= mirror_shards_for_holdout && good.size() > 1) {
    made.heldout_.append(good.back().tokens);
    good.pop_back();
    made.training_ids_.pop_back();
  } else {
    for (mapped_shard& shard : good) {
      const uint64_t held = tail_tokens(shard.tokens.size(), how.held_out);
      made.heldout_.append(shard.tokens.last(held));
      shard.tokens = shard.tokens.first(shard.tokens.size() - held);
    }
  }
  for (const mapped_shard& shard : good)
    made.training_.push_back(shard.tokens);
  return made;
}

uint64_t shard_set::training_tokens_total() const noexcept {
  uint64_t total = 0;
  for (const auto& tokens : training_)
    total += tokens.size();
  return total;
}

uint64_t shard_set::shard_bytes_max() const noexcept {
  uint64_t most = 0;
  for (const shard_entry& entry : manifest_.shards)
    most = std::max(most, entry.tokens * sizeof(token_id));
  return most;
}

} // namespace neuroshard::text
