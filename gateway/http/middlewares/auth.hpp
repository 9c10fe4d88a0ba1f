#pragma once

#include "actors/common/error.hpp"
#include "gateway/http/exchange.hpp"

#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace neuroshard::http {

/// Whether an endpoint looks at the token.
enum class auth_mode : uint8_t { none, optional, required };

/// What an Authorization header turned out to be.
enum class auth_finding : uint8_t {
  anonymous, ///< there is none
  known,     ///< x.who.token is set
  unknown,   ///< malformed, or nobody's
  words,     ///< 12 words with a valid checksum, never seen before: costs a millisecond to derive
};

/// Recognizes tokens. Thread safe.
class token_authority {
public:
  explicit token_authority(std::vector<known_token> tokens);

  /// Looks at the header without expensive work.
  auth_finding look(exchange& x) const;
  /// Derives the token of 12 words (the part after "Bearer") and remembers it when it is known. Blocks for a
  /// millisecond.
  const known_token* derive(const std::string& words);
  /// The token text of a Bearer header, or nothing.
  static std::optional<std::string_view> bearer(std::string_view header) noexcept;

private:
  const known_token* find(const kernels::digest& d) const noexcept;
  std::vector<known_token> tokens_;
  mutable std::mutex guard_;
  std::map<kernels::digest, const known_token*>
      words_; ///< by SHA-256 of the words as sent; known ones only, at most 64
};

/// 401 and 403 of http-api.md section 2, once the token is looked up. Nothing when the request may pass.
/// `plain_ok`: the scopes wallet and admin are not withheld from this request's transport.
caf::error check_access(const exchange& x, auth_mode mode, scope needed, bool plain_ok);
caf::error unauthorized();

} // namespace neuroshard::http
