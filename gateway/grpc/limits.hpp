#pragma once

/// Numbers of spec/grpc-api.md section 1 that both sides of a connection use.
namespace neuroshard::rpc {

inline constexpr int message_bytes_max = 104'857'600;
inline constexpr int keepalive_ms = 30'000;
inline constexpr int keepalive_timeout_ms = 10'000;
inline constexpr int connect_timeout_ms = 5'000;
inline constexpr int idle_channel_ms = 60'000;
inline constexpr unsigned protocol_version = 1;

} // namespace neuroshard::rpc
