#pragma once

#include "actors/peer_link/peer_link_actor.hpp"
#include "actors/relay/relay_actor.hpp"

/// The part of the link to other nodes that carries work. One actor carries everything (gateway/grpc); who
/// needs work alone sees this interface alone. Tensors travel as handles: what is sent is written to the wire
/// from where it lies, what is received owns the bytes of the message.
CAF_BEGIN_TYPE_ID_BLOCK(neuroshard_work_link, caf::first_custom_type_id + 1'150)
CAF_ADD_TYPE_ID(neuroshard_work_link, (neuroshard::peer_call<neuroshard::routed_forward>))
CAF_ADD_TYPE_ID(neuroshard_work_link, (neuroshard::peer_call<neuroshard::routed_backward>))
CAF_END_TYPE_ID_BLOCK(neuroshard_work_link)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(neuroshard::peer_call<neuroshard::routed_forward>)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(neuroshard::peer_call<neuroshard::routed_backward>)

namespace neuroshard {

using work_link_actor =
    caf::typed_actor<caf::replies_to<peer_call<routed_forward>>::with<routed_forward_reply>,
                     caf::replies_to<peer_call<routed_backward>>::with<routed_backward_reply>>;

} // namespace neuroshard
