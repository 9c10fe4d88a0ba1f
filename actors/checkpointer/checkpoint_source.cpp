#include "actors/checkpointer/checkpoint_source.hpp"

#include "actors/identity/keys.hpp"

#include <algorithm>
#include <utility>

namespace neuroshard {

using kernels::code;
using kernels::status;

kernels::result<checkpoint_source> checkpoint_source::open(checkpoint_reader reader,
                                                           const served_part& part) {
  checkpoint_source made(std::move(reader));
  const auto& manifest = made.manifest();
  const auto wanted = [&](std::string_view unit) {
    return part.units.empty() || std::find(part.units.begin(), part.units.end(), unit) != part.units.end();
  };
  for (const auto& name : part.units)
    if (name != tokenizer_unit && std::none_of(manifest.units.begin(), manifest.units.end(),
                                               [&](const auto& unit) { return unit.unit == name; }))
      return status(code::invalid_argument, "unit " + name + " is not held here");
  for (const auto& unit : manifest.units) {
    if (!wanted(unit.unit))
      continue;
    for (const auto& tensor : manifest.tensors) {
      const auto slash = tensor.name.find('/');
      if (unit_of(std::string_view(tensor.name).substr(slash + 1)) != unit.unit)
        continue;
      if (slash == std::string::npos || part.optimizer ||
          (part.velocity && tensor.name.starts_with(velocity_prefix)))
        made.add(tensor.name, tensor);
    }
  }
  if (!part.units.empty() && wanted(tokenizer_unit))
    made.add_tokenizer();
  return made;
}

void checkpoint_source::add(const std::string& name, const tensor_record& record) {
  pieces_.push_back({name,
                     record.file,
                     record.offset,
                     {name, record.type, record.shape, total_bytes_, record.length, record.sha256}});
  total_bytes_ += record.length;
}

void checkpoint_source::add_tokenizer() {
  const auto& held = manifest();
  if (held.tokenizer_bytes == 0)
    return;
  pieces_.push_back({tokenizer_unit,
                     tokenizer_file,
                     0,
                     {tokenizer_unit,
                      kernels::dtype::i8,
                      {static_cast<int64_t>(held.tokenizer_bytes)},
                      total_bytes_,
                      held.tokenizer_bytes,
                      held.tokenizer_sha256}});
  total_bytes_ += held.tokenizer_bytes;
}

status checkpoint_source::check_end(const checking& at) const {
  auto hash = at.hash;
  const auto& piece = pieces_[at.index];
  if (hash.finish() != piece.entry.sha256)
    return {code::corrupt, piece.file + ": " + piece.name + " does not match its checksum"};
  return {};
}

kernels::result<bool> checkpoint_source::verify_piece(std::span<std::byte> piece) {
  if (verified_.index < pieces_.size()) {
    const auto& at = pieces_[verified_.index];
    const auto part = piece.first(std::min<uint64_t>(piece.size(), at.entry.length - verified_.done));
    NEUROSHARD_TRY(reader_.read_bytes(at.file, at.file_offset + verified_.done, part));
    verified_.hash.update(part.data(), part.size());
    whole_.update(part.data(), part.size());
    verified_.done += part.size();
    if (verified_.done == at.entry.length) {
      NEUROSHARD_TRY(check_end(verified_));
      verified_ = {verified_.index + 1, 0, {}};
    }
  }
  if (verified_.index < pieces_.size())
    return false;
  if (!whole_hash_)
    whole_hash_ = whole_.finish();
  return true;
}

kernels::result<transfer_manifest> checkpoint_source::describe(const std::string& author_node_id,
                                                               bool own_state) const {
  if (!whole_hash_)
    return status(code::internal, "the checkpoint was not read yet");
  const auto& held = manifest();
  transfer_manifest made;
  made.version = held.state.outer_step;
  made.inner_step = held.state.inner_step;
  made.architecture = model::canonical_json(held.architecture);
  for (const auto& piece : pieces_)
    made.tensors.push_back(piece.entry);
  made.units = units_of_table(made.tensors);
  made.total_bytes = total_bytes_;
  made.sha256 = *whole_hash_;
  made.loss = held.state.loss;
  made.created_unix_ms = held.created_unix_us / 1'000;
  made.author_node_id = author_node_id;
  if (const auto hash = digest_from_hex(held.tokenizer_hash))
    made.tokenizer_hash = *hash;
  auto state = state_to_json(held.state, own_state);
  if (!state.ok())
    return state.status();
  made.state_json = std::move(*state);
  return made;
}

size_t checkpoint_source::index_at(uint64_t offset) const {
  const auto after = std::upper_bound(pieces_.begin(), pieces_.end(), offset,
                                      [](uint64_t at, const auto& piece) { return at < piece.entry.offset; });
  return static_cast<size_t>(after - pieces_.begin()) - 1;
}

status checkpoint_source::read(uint64_t offset, std::span<std::byte> to) {
  if (offset > total_bytes_ || to.size() > total_bytes_ - offset)
    return {code::invalid_argument, "the stream ends before that"};
  while (!to.empty()) {
    const size_t index = index_at(offset);
    const auto& piece = pieces_[index];
    const uint64_t inside = offset - piece.entry.offset;
    const auto part = to.first(std::min<uint64_t>(to.size(), piece.entry.length - inside));
    NEUROSHARD_TRY(reader_.read_bytes(piece.file, piece.file_offset + inside, part));
    if (inside == 0)
      reading_.emplace().index = index;
    if (reading_ && reading_->index == index && reading_->done == inside) {
      reading_->hash.update(part.data(), part.size());
      reading_->done += part.size();
      if (reading_->done == piece.entry.length) {
        NEUROSHARD_TRY(check_end(*reading_));
        reading_.reset();
      }
    }
    offset += part.size();
    to = to.subspan(part.size());
  }
  return {};
}

} // namespace neuroshard
