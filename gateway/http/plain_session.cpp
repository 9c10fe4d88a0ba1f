#include "gateway/http/session_answering.hpp"
#include "gateway/http/session_life.hpp"
#include "gateway/http/session_reading.hpp"
#include "gateway/http/session_writing.hpp"

namespace neuroshard::http {

std::shared_ptr<session_base> make_plain_session(const std::shared_ptr<io_lane>& home, tcp_socket socket,
                                                 bool refused) {
  return std::make_shared<session<tcp_socket>>(home, refused, std::move(socket));
}

} // namespace neuroshard::http
