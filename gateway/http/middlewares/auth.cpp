#include "gateway/http/middlewares/auth.hpp"

#include "actors/identity/token.hpp"

#include <openssl/crypto.h>

namespace neuroshard::http {

namespace {
constexpr size_t tokens_max = 64;
constexpr size_t words_max = 64;
constexpr size_t header_max = 512; ///< 12 words of at most 8 letters need 120
} // namespace

const char* to_string(scope s) noexcept {
  switch (s) {
  case scope::read:
    return "read";
  case scope::inference:
    return "inference";
  case scope::wallet:
    return "wallet";
  case scope::admin:
    return "admin";
  }
  return "read";
}

uint8_t scope_bit(std::string_view name) noexcept {
  for (const scope s : {scope::read, scope::inference, scope::wallet, scope::admin})
    if (name == to_string(s))
      return static_cast<uint8_t>(s);
  return 0;
}

token_authority::token_authority(std::vector<known_token> tokens) : tokens_(std::move(tokens)) {
  if (tokens_.size() > tokens_max)
    tokens_.resize(tokens_max);
}

std::optional<std::string_view> token_authority::bearer(std::string_view header) noexcept {
  header = trimmed(header);
  const size_t blank = header.find(' ');
  if (blank == std::string_view::npos || !equal_ignoring_case(header.substr(0, blank), "Bearer"))
    return std::nullopt;
  const std::string_view token = trimmed(header.substr(blank));
  if (token.empty() || token.size() > header_max)
    return std::nullopt;
  return token;
}

const known_token* token_authority::find(const kernels::digest& d) const noexcept {
  const known_token* found = nullptr;
  // All are compared whatever matches, so that the time says nothing.
  for (const known_token& t : tokens_)
    if (equal_digests(t.digest, d))
      found = &t;
  return found;
}

auth_finding token_authority::look(exchange& x) const {
  const std::string_view header = x.in.header("Authorization");
  credential_memory& memory = x.link.credentials;
  if (memory.token && header.size() == memory.header.size() &&
      CRYPTO_memcmp(header.data(), memory.header.data(), header.size()) == 0 &&
      x.in.header_count("Authorization") == 1) {
    x.who.token = memory.token;
    return auth_finding::known;
  }
  const size_t count = x.in.header_count("Authorization");
  if (count == 0)
    return auth_finding::anonymous;
  const auto token = bearer(header);
  if (count > 1 || !token)
    return auth_finding::unknown;
  const auto form = inspect_token(*token);
  if (!form)
    return auth_finding::unknown;
  if (*form == token_form::mnemonic) {
    const kernels::digest as_sent = kernels::sha256::of(*token);
    const std::lock_guard hold(guard_);
    const auto at = words_.find(as_sent);
    if (at == words_.end())
      return auth_finding::words;
    x.who.token = at->second;
  } else {
    const auto parsed = parse_token(*token);
    if (!parsed)
      return auth_finding::unknown;
    x.who.token = find(token_digest(*parsed));
  }
  if (!x.who.token)
    return auth_finding::unknown;
  memory.header.assign(header);
  memory.token = x.who.token;
  return auth_finding::known;
}

const known_token* token_authority::derive(const std::string& words) {
  const auto parsed = parse_token(words);
  if (!parsed)
    return nullptr;
  const known_token* token = find(token_digest(*parsed));
  if (token) {
    const std::lock_guard hold(guard_);
    if (words_.size() < words_max)
      words_.emplace(kernels::sha256::of(std::string_view(words)), token);
  }
  return token;
}

caf::error unauthorized() {
  return refuse(errc::unauthorized, "The access token is missing or not valid.");
}

caf::error check_access(const exchange& x, auth_mode mode, scope needed, bool plain_ok) {
  if (mode != auth_mode::required)
    return caf::none;
  if (!x.who.token)
    return unauthorized();
  problem what;
  if ((x.who.token->scopes & static_cast<uint8_t>(needed)) == 0) {
    what.message = std::string("The access token lacks the scope ") + to_string(needed) + ".";
    what.reason = "missing_scope";
  } else if ((needed == scope::wallet || needed == scope::admin) && !plain_ok && !x.who.secure) {
    what.message = "This is refused over an unencrypted connection to a public address.";
    what.reason = "insecure_transport";
  } else {
    return caf::none;
  }
  what.details = {{"scope", std::string(to_string(needed))}};
  return refuse(errc::forbidden, std::move(what));
}

} // namespace neuroshard::http
