#include "gateway/http/session_answering.hpp"
#include "gateway/http/session_life.hpp"
#include "gateway/http/session_reading.hpp"
#include "gateway/http/session_writing.hpp"

#include <boost/asio/ssl/context.hpp>

namespace neuroshard::http {

std::shared_ptr<session_base> make_tls_session(const std::shared_ptr<io_lane>& home, tcp_socket socket,
                                               boost::asio::ssl::context& tls, bool refused) {
  return std::make_shared<session<tls_stream>>(home, refused, std::move(socket), tls);
}

} // namespace neuroshard::http
