#pragma once

#include "actors/gradient_exchanger/gradient_exchanger_actor.hpp"
#include "actors/peer_link/peer_link_actor.hpp"

/// The part of the link to other nodes that carries pseudo-gradients. One actor carries everything
/// (gateway/grpc); who exchanges sees this interface alone. `part_data` is sent from where it lies.
CAF_BEGIN_TYPE_ID_BLOCK(neuroshard_exchange_link, caf::first_custom_type_id + 1'350)
CAF_ADD_TYPE_ID(neuroshard_exchange_link, (neuroshard::peer_call<neuroshard::exchange_request>))
CAF_END_TYPE_ID_BLOCK(neuroshard_exchange_link)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(neuroshard::peer_call<neuroshard::exchange_request>)

namespace neuroshard {

using exchange_link_actor =
    caf::typed_actor<caf::replies_to<peer_call<exchange_request>>::with<exchange_reply>>;

/// What the exchange wants of the peer manager.
using exchange_peers_actor =
    caf::typed_actor<caf::replies_to<peers_atom>::with<peer_list_ptr>, caf::reacts_to<publish_sink>,
                     caf::replies_to<publish_own>::with<void>, caf::reacts_to<peer_refused>>;

} // namespace neuroshard
