#pragma once

#include "gateway/http/errors.hpp"
#include "gateway/http/response_head.hpp"
#include "gateway/http/session_impl.hpp"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

/// From a request to its response.
namespace neuroshard::http {

template <class Stream>
void session<Stream>::handle() {
  handling_ = true;
  deadline_ = 0;
  body_bytes_ = 0;
  lane_->counts.in_flight.fetch_add(1, std::memory_order_relaxed);
  began_us_ = lane_->shared.logs_access() ? lane_->shared.node.clock->steady_us() : 0;
  exchange_.emplace(*this, request_);
  if (malformed_) {
    exchange_->malformed = &*malformed_;
    exchange_->header_whole = parser_.header_whole();
  }
  running_ = lane_->shared.serve(*exchange_);
  if (running_.start(&session::ended, this))
    finish();
}

template <class Stream>
void session<Stream>::ended(void* context) {
  auto* me = static_cast<session*>(context);
  me->lane_->post([held = me->self()] {
    held->finish();
    if (!held->closed_)
      held->process();
  });
}

template <class Stream>
void session<Stream>::finish() {
  response r;
  try {
    r = running_.take();
  } catch (const std::exception&) { // serve itself ran out of memory
    r = error_response(refuse(errc::internal, "The request failed inside the node."), exchange_->request_id);
  }
  running_.reset();
  wake_timer_.cancel();
  on_gone_ = nullptr;
  on_written_ = nullptr;
  handling_ = false;
  lane_->counts.in_flight.fetch_sub(1, std::memory_order_relaxed);
  if (closed_) {
    note_access(r.status);
    if (r.on_delivery)
      r.on_delivery(false);
    leave();
    return;
  }
  const bool keep = request_.keep_alive && !closing_ && !r.close && !(r.streamed && !chunked_);
  if (!keep)
    closing_ = true;
  const unsigned status = r.status;
  write_response(std::move(r));
  note_access(status);
  exchange_.reset();
  malformed_.reset();
  parser_.next();
  deadline_ = steady_ms() + limits_.idle_ms;
}

template <class Stream>
void session<Stream>::write_response(response r) {
  if (r.streamed) {
    if (chunked_ && !r.close)
      out_ += "0\r\n\r\n"; // a stream that was cut off stays visibly so
  } else {
    append_head(out_, *exchange_, r, lane_->date_line(), request_.keep_alive && !closing_);
    if (request_.method != verb::head && r.status != 204) {
      out_ += r.bytes();
      body_bytes_ = r.bytes().size();
    }
  }
  if (r.on_delivery) {
    // An end of stream that came before the response tells nothing of its delivery, also where it has not
    // been read yet.
    if (peer_gone())
      r.on_delivery(false);
    else
      deliveries_.add(std::move(r.on_delivery));
  }
}

template <class Stream>
void session<Stream>::refuse_bytes(problem what) {
  closing_ = true;
  malformed_ = std::move(what);
  // Half a header says nothing for certain, not even that no body is wanted.
  if (!parser_.header_whole())
    request_.method = verb::other;
  in_.clear();
  handle();
  if (closed_)
    return;
  flush();
  read();
}

template <class Stream>
void session<Stream>::note_access(unsigned status) {
  if (began_us_ == 0)
    return;
  access_record line;
  line.id = exchange_->request_id;
  line.client = exchange_->who.address;
  line.method = request_.method;
  line.path = request_.path;
  line.status = status;
  line.bytes = body_bytes_;
  line.us = lane_->shared.node.clock->steady_us() - began_us_;
  line.gone = gone_;
  lane_->shared.note_access(*exchange_, line);
}

template <class Stream>
void session<Stream>::begin_stream(const char* content_type, std::string_view headers) {
  chunked_ = request_.http_1_1;
  // Otherwise the kernel takes megabytes, a whole generation, for a client that reads nothing.
  ::setsockopt(socket().native_handle(), IPPROTO_TCP, TCP_NOTSENT_LOWAT, &limits_.unsent_bytes,
               sizeof limits_.unsent_bytes);
  append_stream_head(out_, *exchange_, content_type, headers, lane_->date_line(), chunked_);
  if (request_.method != verb::head)
    flush();
}

template <class Stream>
void session<Stream>::send(std::string_view part) {
  if (closed_ || part.empty())
    return;
  body_bytes_ += part.size();
  if (chunked_)
    append_chunk(out_, part);
  else
    out_ += part;
  flush();
}

} // namespace neuroshard::http
