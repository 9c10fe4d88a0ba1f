#pragma once

#include "actors/ledger/ledger_types.hpp"
#include "gateway/http/exchange.hpp"

#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

namespace neuroshard::http {

/// Wallet responses that have been made but are not yet known to have reached their clients. The connections
/// of the gateway live on several threads: without a look at the sockets, a client that read its response,
/// closed and asked for the same again over a new connection could be taken for one that repeats a lost
/// request. At most one entry per open connection and pipelined response. Thread safe.
class unsettled_responses {
public:
  struct holder {
    std::weak_ptr<connection> link;
    lane_ptr home;
  };
  using entry = std::list<holder>::iterator;

  entry add(const request_mark& mark, connection& link) {
    const std::lock_guard hold(guard_);
    auto& held = by_mark_[key_of(mark)];
    return held.insert(held.end(), {link.weak_from_this(), link.home()});
  }
  void remove(const request_mark& mark, entry which) {
    const std::lock_guard hold(guard_);
    const auto at = by_mark_.find(key_of(mark));
    at->second.erase(which);
    if (at->second.empty())
      by_mark_.erase(at);
  }
  std::vector<holder> find(const request_mark& mark) const {
    const std::lock_guard hold(guard_);
    const auto at = by_mark_.find(key_of(mark));
    return at == by_mark_.end() ? std::vector<holder>() : std::vector(at->second.begin(), at->second.end());
  }

private:
  /// Token and body are of fixed length, so that their bytes in a row are unambiguous.
  static std::string key_of(const request_mark& mark) {
    std::string key(mark.token.begin(), mark.token.end());
    key.append(mark.body.begin(), mark.body.end());
    return key += mark.path;
  }
  mutable std::mutex guard_;
  std::map<std::string, std::list<holder>> by_mark_;
};

} // namespace neuroshard::http
