#include "gateway/grpc/callers.hpp"

#include "gateway/grpc/certificate.hpp"

namespace neuroshard::rpc {

namespace {

/// More than the peer manager lets in at a time.
constexpr size_t bound_max = 4'096;
constexpr size_t hashes_max = 1'024;
constexpr size_t certificate_bytes_max = 8'192;

} // namespace

void caller_table::bind(const kernels::digest& certificate, const std::string& node_id, uint64_t sequence) {
  const std::lock_guard hold{lock_};
  if (const auto at = owners_.find(node_id); at != owners_.end()) {
    auto& known = at->second;
    if (known.certificate == certificate) {
      known.sequence = std::max(known.sequence, sequence);
      return;
    }
    if (sequence <= known.sequence)
      return;
    nodes_.erase(known.certificate);
    known = {certificate, sequence};
  } else {
    if (owners_.size() >= bound_max)
      return;
    owners_[node_id] = {certificate, sequence};
  }
  // Two nodes with one certificate: the later word counts, the other must announce again.
  if (const auto other = nodes_.find(certificate); other != nodes_.end() && other->second != node_id)
    owners_.erase(other->second);
  nodes_[certificate] = node_id;
}

void caller_table::unbind(std::string_view node_id) {
  const std::lock_guard hold{lock_};
  const auto at = owners_.find(node_id);
  if (at == owners_.end())
    return;
  nodes_.erase(at->second.certificate);
  owners_.erase(at);
}

std::string caller_table::node_of(const kernels::digest& certificate) const {
  const std::lock_guard hold{lock_};
  const auto at = nodes_.find(certificate);
  return at == nodes_.end() ? std::string{} : at->second;
}

size_t caller_table::size() const {
  const std::lock_guard hold{lock_};
  return nodes_.size();
}

std::optional<kernels::digest> certificate_hashes::hash_of(std::string_view pem) const {
  {
    const std::lock_guard hold{lock_};
    if (const auto at = known_.find(pem); at != known_.end())
      return at->second;
  }
  const auto hash = certificate_hash(pem);
  if (!hash || pem.size() > certificate_bytes_max)
    return hash;
  const std::lock_guard hold{lock_};
  if (known_.size() >= hashes_max)
    known_.clear();
  known_.emplace(pem, *hash);
  return hash;
}

} // namespace neuroshard::rpc
