#pragma once

#include "actors/peer_manager/peer_directory.hpp"

#include <caf/expected.hpp>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

/// The directory of peers as a DHT (OpenDHT). The one place that sees OpenDHT, which has threads of its own.
namespace neuroshard {

namespace dht_rules {
inline constexpr size_t record_bytes_max = 60'000; ///< OpenDHT takes 64 KiB
inline constexpr size_t records_burst = 100;       ///< handed on at once
inline constexpr size_t records_per_s = 20;        ///< and after that; more are dropped
inline constexpr size_t ways_max = 64;
} // namespace dht_rules

struct dht_options {
  std::string host = "0.0.0.0"; ///< IP address to listen at
  uint16_t port = 0;            ///< UDP
  std::string network = "main";
  /// Handed every record that is found, rate-limited, at most record_bytes_max long, nothing of it checked.
  /// OpenDHT's thread; quick.
  std::function<void(std::string)> found;
  /// Told the address at which other nodes see this one, when it changes. A thread of the DHT; quick.
  std::function<void(std::string)> seen_as = {};
};

/// SHA-1 of `neuroshard/<network>/peers` in hex, where every node leaves its record.
std::string peers_key(const std::string& network);
/// The same of `neuroshard/<network>/layer/<n>`, for the holders of that layer.
std::string layer_key(const std::string& network, uint32_t layer);

/// Whether a value is some node's own word, signed; nodes keep no other for those who ask them to.
bool is_node_record(std::string_view bytes);

/// Takes part in the table from start() to stop(). What is stored here for others are records with a valid
/// signature, for 60 s from the last renewal. The nodes of all networks share one table, apart from the
/// public one of OpenDHT. Calls never wait for OpenDHT.
class dht_node final : public peer_directory {
public:
  /// Refusal: unavailable, when the port cannot be had.
  static caf::expected<std::shared_ptr<dht_node>> start(dht_options options);
  ~dht_node() override;

  void enter_through(const std::string& host, uint16_t port) override;
  void publish(const std::string& record, std::vector<uint32_t> layers) override;
  void look() override;
  /// No callback runs any more when it returns. A name that is being looked up is not waited for.
  void stop() noexcept;

private:
  struct inner;
  explicit dht_node(std::shared_ptr<inner> parts) : parts_(std::move(parts)) {}
  std::shared_ptr<inner> parts_;
};

} // namespace neuroshard
