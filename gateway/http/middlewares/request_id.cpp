#include "gateway/http/middlewares/request_id.hpp"

#include <algorithm>

namespace neuroshard::http {

request_ids::request_ids(random_source& random) {
  const std::string hex = random_hex(random, 8);
  std::copy_n(hex.begin(), prefix_.size(), prefix_.begin());
  random.fill(&count_, sizeof count_);
}

std::string request_ids::next(std::string_view sent) {
  const auto allowed = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '-';
  };
  if (!sent.empty() && sent.size() <= 64 && std::all_of(sent.begin(), sent.end(), allowed))
    return std::string(sent);
  static constexpr char digits[] = "0123456789abcdef";
  std::string id(prefix_.begin(), prefix_.end());
  const uint64_t n = count_++;
  for (int shift = 60; shift >= 0; shift -= 4)
    id.push_back(digits[(n >> shift) & 15]);
  return id;
}

} // namespace neuroshard::http
