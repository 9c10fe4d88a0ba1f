#include "actors/gradient_exchanger/contribution_store.hpp"

#include <utility>

namespace neuroshard {

namespace {
constexpr uint64_t bytes_for_tensor = 4'096;
constexpr uint64_t bytes_for_unit = 64 * 1024;
} // namespace

uint64_t contribution_store::bytes_max(delta_encoding encoding) const noexcept {
  if (!layout_)
    return 0;
  // Values, indices and scales, with room for the heads of slices and for a compression that gains nothing.
  uint64_t most = bytes_for_unit;
  for (const auto& tensor : layout_->tensors) {
    const uint64_t elements = tensor.elements();
    const bool dense = encoding_of(encoding, elements) == delta_encoding::f32;
    most += elements * (dense ? 6 : 3) + bytes_for_tensor;
  }
  return most;
}

received_contribution* contribution_store::admit(const signed_blob& blob, const delta_manifest& manifest,
                                                 bool wanted) {
  if (auto* known = find(manifest.node_id, manifest.content_hash))
    return known;
  const auto first = first_.find(manifest.node_id);
  if (first != first_.end()) {
    liars_.insert(manifest.node_id);
    if (!wanted)
      return nullptr;
  }
  if (held_.size() >= 2 * authors_max_ || (first == first_.end() && first_.size() >= authors_max_))
    return nullptr;
  if (!wanted)
    first_.emplace(manifest.node_id, manifest.content_hash);
  received_contribution made;
  made.blob = blob;
  made.manifest = manifest;
  made.parts.resize(manifest.part_sha256.size());
  return &held_.emplace(key{manifest.node_id, manifest.content_hash}, std::move(made)).first->second;
}

part_taken contribution_store::put(received_contribution& into, uint32_t part, delta_part bytes) {
  if (part >= into.parts.size() || !bytes)
    return part_taken::wrong_part;
  if (into.unfit || into.parts[part])
    return part_taken::held_already;
  if (!is_part(into.manifest, part, *bytes))
    return part_taken::wrong_part;
  into.bytes += bytes->size();
  into.parts[part] = std::move(bytes);
  ++into.held;
  // The same end for everybody, in whatever order parts come: the sum over all of them is what counts.
  if (into.bytes > bytes_max(into.manifest.encoding)) {
    into.unfit = true;
    into.bytes = 0;
    for (auto& one : into.parts)
      one.reset();
  }
  return part_taken::stored;
}

const received_contribution* contribution_store::find(const std::string& author,
                                                      const kernels::digest& content) const {
  const auto at = held_.find({author, content});
  return at == held_.end() ? nullptr : &at->second;
}
received_contribution* contribution_store::find(const std::string& author, const kernels::digest& content) {
  const auto at = held_.find({author, content});
  return at == held_.end() ? nullptr : &at->second;
}
const received_contribution* contribution_store::find(const kernels::digest& content) const {
  for (const auto& [id, one] : held_)
    if (id.second == content)
      return &one;
  return nullptr;
}
const received_contribution* contribution_store::of_author(const std::string& author) const {
  const auto first = first_.find(author);
  return first == first_.end() ? nullptr : find(author, first->second);
}

std::vector<const received_contribution*> contribution_store::all() const {
  std::vector<const received_contribution*> made;
  made.reserve(held_.size());
  for (const auto& [id, one] : held_)
    made.push_back(&one);
  return made;
}

void contribution_store::clear() {
  held_.clear();
  first_.clear();
  liars_.clear();
}

uint64_t contribution_store::bytes() const noexcept {
  uint64_t sum = 0;
  for (const auto& [id, one] : held_)
    sum += one.bytes;
  return sum;
}

} // namespace neuroshard
