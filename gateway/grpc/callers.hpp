#pragma once

#include "kernels/core/sha256.hpp"

#include <cstdint>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>

namespace neuroshard::rpc {

/// Which node a client's certificate belongs to: bound by Announce, or Ping with a record, until the node is
/// gone or shows another certificate with a higher sequence. Thread safe.
class caller_table {
public:
  void bind(const kernels::digest& certificate, const std::string& node_id, uint64_t sequence);
  void unbind(std::string_view node_id);
  /// Empty: not bound.
  std::string node_of(const kernels::digest& certificate) const;
  size_t size() const;

private:
  struct owner {
    kernels::digest certificate{};
    uint64_t sequence = 0;
  };
  mutable std::mutex lock_;
  std::map<kernels::digest, std::string> nodes_;
  std::map<std::string, owner, std::less<>> owners_;
};

/// The hashes of the certificates that callers show, by their text: one is parsed once, not with every call.
/// Thread safe.
class certificate_hashes {
public:
  /// Nothing: that is no certificate.
  std::optional<kernels::digest> hash_of(std::string_view pem) const;

private:
  mutable std::mutex lock_;
  mutable std::map<std::string, kernels::digest, std::less<>> known_;
};

} // namespace neuroshard::rpc
