#pragma once

#include "kernels/text/fetch.hpp"

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>

namespace neuroshard {

/// Bounds of one transfer. What breaks off goes on where it was with the next one.
struct fetch_limits {
  std::chrono::seconds connect{15};
  std::chrono::seconds whole{900}; ///< of a transfer
  std::chrono::seconds slow{30};   ///< for so long slower than `bytes_per_second_min`: ended
  int64_t bytes_per_second_min = 4096;
  int64_t redirects_max = 5;
};

/// Whose word is taken for a server's certificate; where both are empty, that of the system's authorities.
struct trusted_authorities {
  std::string file;   ///< certificates in PEM
  std::string folder; ///< of certificates named by their hash, as `openssl rehash` makes it
};

/// Those that SSL_CERT_FILE and SSL_CERT_DIR name, as for OpenSSL's own programs; libcurl does not look
/// there.
trusted_authorities authorities_of_environment();

/// Reads http and https by libcurl: certificates are checked, redirects never leave https for http, proxies
/// are those of the environment (http_proxy, https_proxy, no_proxy). `agent` names this program to the
/// server. Any thread; one transfer at a time each.
std::shared_ptr<text::fetcher> make_curl_fetcher(std::string agent, trusted_authorities trust = {},
                                                 fetch_limits limits = {});

} // namespace neuroshard
