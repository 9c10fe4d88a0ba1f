#pragma once

#include "kernels/core/sha256.hpp"

#include <caf/expected.hpp>

#include <optional>
#include <string>
#include <string_view>

namespace neuroshard::rpc {

/// The certificate a node shows to others. Nobody checks an authority, a name or a date: a node is known by
/// the SHA-256 of the DER bytes, which its signed record carries (spec/grpc-api.md section 2).
struct node_certificate {
  std::string certificate_pem;
  std::string key_pem; ///< secret
  kernels::digest sha256{};
};

/// Reads `node.crt` and `node.key` from the folder, or makes them (P-256, self-signed; the key with mode
/// 0600). Refusals: storage, for files that cannot be written, do not fit each other or are no certificate
/// and key.
caf::expected<node_certificate> load_or_make_certificate(const std::string& folder);

/// SHA-256 of the DER bytes of the first certificate in the text; nothing when there is none.
std::optional<kernels::digest> certificate_hash(std::string_view pem);

} // namespace neuroshard::rpc
