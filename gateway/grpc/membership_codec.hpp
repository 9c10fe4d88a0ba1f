#pragma once

#include "actors/common/error.hpp"
#include "actors/peer_manager/membership.hpp"
#include "neuroshard/membership.pb.h"
#include "neuroshard/work.pb.h"

#include <caf/expected.hpp>

/// Generated messages of Membership and Ping, and the structs of the actors. Refusals name the field.
namespace neuroshard::rpc {

/// `payload_max`: what is published may be longer than a record.
caf::expected<signed_blob> read(const SignedBlob& from, const char* field, size_t payload_max = 60 * 1024);
void write(const signed_blob& from, SignedBlob& to);

/// Requests: their lengths are checked here, what is signed by the peer manager.
caf::expected<announce_request> read(const AnnounceRequest& from);
caf::expected<heartbeat_request> read(const HeartbeatRequest& from);
caf::expected<leave_request> read(const LeaveRequest& from);
caf::expected<find_peers_request> read(const FindPeersRequest& from);
caf::expected<ping_request> read(const PingRequest& from);
caf::expected<get_layer_map_request> read(const GetLayerMapRequest& from);
caf::expected<publish_request> read(const PublishRequest& from);
void write(const announce_request& from, AnnounceRequest& to);
void write(const heartbeat_request& from, HeartbeatRequest& to);
void write(const leave_request& from, LeaveRequest& to);
void write(const find_peers_request& from, FindPeersRequest& to);
void write(const ping_request& from, PingRequest& to);
void write(const get_layer_map_request& from, GetLayerMapRequest& to);
void write(const publish_request& from, PublishRequest& to);

/// Replies of peers are no less hostile than requests.
caf::expected<announce_reply> read(const AnnounceResponse& from);
caf::expected<heartbeat_reply> read(const HeartbeatResponse& from);
caf::expected<find_peers_reply> read(const FindPeersResponse& from);
caf::expected<ping_reply> read(const PingResponse& from);
caf::expected<get_layer_map_reply> read(const GetLayerMapResponse& from);
caf::expected<publish_reply> read(const PublishResponse& from);
void write(const announce_reply& from, AnnounceResponse& to);
void write(const heartbeat_reply& from, HeartbeatResponse& to);
void write(const find_peers_reply& from, FindPeersResponse& to);
void write(const ping_reply& from, PingResponse& to);
void write(const get_layer_map_reply& from, GetLayerMapResponse& to);
void write(const publish_reply& from, PublishResponse& to);

} // namespace neuroshard::rpc
