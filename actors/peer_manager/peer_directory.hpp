#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace neuroshard {

/// A table that many nodes keep together and nobody owns (a DHT): where a node leaves its record and finds
/// those of others. The peer manager needs no more of it than this; gateway/dht implements it. What is found
/// comes to the peer manager as found_record, and is a stranger's word until its signature was checked.
/// Every call is thread safe and returns at once.
class peer_directory {
public:
  peer_directory() = default;
  peer_directory(const peer_directory&) = delete;
  peer_directory& operator=(const peer_directory&) = delete;
  virtual ~peer_directory() = default;

  /// A node that takes part in the table listens there (UDP). Tried until it, or another, has answered.
  virtual void enter_through(const std::string& host, uint16_t port) = 0;
  /// Leaves the record, a serialized SignedBlob, where all nodes look and where holders of these layers are
  /// looked for. It stands in for what was left before, and is renewed until another does.
  virtual void publish(const std::string& record, std::vector<uint32_t> layers) = 0;
  /// Reads anew what is there. What comes later is told without being asked for.
  virtual void look() = 0;
};

} // namespace neuroshard
